"""What if an item had another's ID, an expert were silent, or codes were others or louder? That other shop."""

# I items, M max_length, D hidden, N experts, Z codes

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from imecd_lite.dataset import Dataset
from imecd_lite.model import IMECD


class WhatIf(NamedTuple):
    """The shop as it would be."""

    gates: dict[str, torch.Tensor]  # "text" and "image", (I, N) each, row i - 1 for item i
    tables: dict[str, torch.Tensor]  # by modality, (I + 1, D), as ``IMECD.item_embeddings``


@torch.no_grad()
def what_if(model: IMECD, item: int = 1, id_of: int | None = None, muted: Sequence[int] = ()) -> WhatIf:
    """The gates and tables of ``model`` with one ID replaced and some experts muted; the model itself stays as it is.

    Args:
        item: 1 ... I, the item with the new ID.
        id_of: whose ID embedding it gets; None for its own.
        muted: experts 0 ... N - 1 that no item may listen to; each gate is shared out among the others.

    Raises:
        ValueError: there is no such item.
    """
    for number in (item, id_of):
        if number is not None and not 1 <= number <= model.num_items:
            raise ValueError(f"items are 1 to {model.num_items}, got {number}")
    ids = model.item_embedding.weight[1:].clone()  # (I, D)
    if id_of is not None:
        ids[item - 1] = ids[id_of - 1]
    gates, tables = {}, {"id": ids}
    for name in model.projections:
        tables[name] = model.project(name)
        if name in model.experts:
            experts = model.experts[name]
            gates[name] = gates_without(experts.gate(model.normalise(ids)), muted)
            tables[name] = experts.mix(tables[name], gates[name])
    return WhatIf(gates, {name: F.pad(model.normalise(table), (0, 0, 1, 0)) for name, table in tables.items()})


def gates_without(router_logits: torch.Tensor, muted: Sequence[int]) -> torch.Tensor:
    """Eq. 3, 4 over the experts that are not ``muted``: router_logits (I, N) -> gates (I, N), 0 for the muted."""
    if len(set(muted)) >= router_logits.shape[1]:
        raise ValueError(f"one of the {router_logits.shape[1]} experts has to speak, got muted = {sorted(set(muted))}")
    silent = torch.tensor(sorted(set(muted)), dtype=torch.int64, device=router_logits.device)
    return router_logits.index_fill(1, silent, -torch.inf).softmax(dim=1)


@torch.no_grad()
def scores_before_last(
    model: IMECD, dataset: Dataset, user: int, tables: dict[str, torch.Tensor], num_inference_steps: int | None = None
) -> torch.Tensor:
    """Scores of the whole catalogue before the last purchase of user number ``user``, (I + 1,).

    Args:
        model: in eval mode.
        tables: from ``what_if``.
        num_inference_steps: reverse steps, T when None.
    """
    device = tables["id"].device
    history = torch.as_tensor(dataset.sequences[user][:-1], device=device)
    user_key = torch.as_tensor(dataset.user_keys[user : user + 1], device=device)
    item_seq = history[None, -dataset.max_length :]
    return model.full_sort_predict(item_seq, user_key, num_inference_steps=num_inference_steps, tables=tables)[0]


@torch.no_grad()
def gate_controls(model: IMECD, modality: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """What a worthless gate would do: every item's "text" or "image" under gates that know nothing, and under its own.

    Args:
        seed: of the deal.

    Returns:
        By what was done, (I, D), row i - 1 for item i: Eq. 1, 2 alone; Eq. 5, 6 with all experts alike, with the gates
        dealt out to the items at random, with the gates of Eq. 3, 4 but the mean of all items for each item's text or
        image, and with those gates and its own.
    """
    before, gates, mix = model.project(modality), model.route(modality).routing_weights, model.experts[modality].mix
    deal = torch.randperm(len(gates), generator=torch.Generator().manual_seed(seed)).to(gates.device)
    return {
        "before the experts": before,
        "a flat gate": mix(before, torch.full_like(gates, 1 / gates.shape[1])),
        "gates dealt out at random": mix(before, gates[deal]),
        "the ID's own gates, nothing to read": mix(before.mean(dim=0).expand_as(before), gates),
        "the ID's own gates": mix(before, gates),
    }


def with_codebooks(model: IMECD, lambda_q: float | None = None, codes: dict[str, torch.Tensor] | None = None) -> IMECD:
    """``model`` with another lambda_q of Eq. 9 or other codes; all weights are shared, the model stays as it is.

    Args:
        lambda_q: at least 0; None for the model's own.
        codes: by modality, (Z, M, D); None for the model's own.
    """
    other, codebooks = copy.copy(model), nn.ModuleDict()
    for name, codebook in model.codebooks.items():
        codebooks[name] = copy.copy(codebook)
        if lambda_q is not None:
            codebooks[name].lambda_q = lambda_q
        if codes is not None:
            codebooks[name]._buffers = {**codebook._buffers, "codes": codes[name]}
    other._modules = {**model._modules, "codebooks": codebooks}
    return other


def code_controls(model: IMECD) -> dict[str, IMECD]:
    """What worthless codes would do: the model without codes, with the same one for all, with wrong ones, its own."""
    codes = {name: codebook.codes for name, codebook in model.codebooks.items()}  # (Z, M, D) each
    means = {name: code.mean(dim=0, keepdim=True).expand_as(code) for name, code in codes.items()}
    return {
        "no code": with_codebooks(model, lambda_q=0.0),
        "one code for all, their mean": with_codebooks(model, codes=means),
        "a wrong code, the next": with_codebooks(model, codes={n: code.roll(1, 0) for n, code in codes.items()}),
        "its own code": model,
    }
