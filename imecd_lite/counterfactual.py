"""What if an item had another's ID, or an expert were silent? Gates, item tables and scores of that other shop."""

# I items, D hidden, N experts

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

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
    """
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
        dealt out to the items at random, and with the gates of Eq. 3, 4.
    """
    before, gates, mix = model.project(modality), model.route(modality).routing_weights, model.experts[modality].mix
    deal = torch.randperm(len(gates), generator=torch.Generator().manual_seed(seed)).to(gates.device)
    return {
        "before the experts": before,
        "a flat gate": mix(before, torch.full_like(gates, 1 / gates.shape[1])),
        "gates dealt out at random": mix(before, gates[deal]),
        "the ID's own gates": mix(before, gates),
    }
