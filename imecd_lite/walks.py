"""One shopper's reverse diffusion, step by step: where x_t is, what is predicted of it, where the true item ranks."""

# S reverse steps, D hidden, I items

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from imecd_lite.dataset import Dataset
from imecd_lite.model import IMECD


class Walk(NamedTuple):
    """From pure noise to what a shopper is predicted to buy last."""

    user: int
    target: int  # what she did buy, 1 ... I
    timesteps: list[int]  # (S + 1,), T ... 0
    samples: dict[str, torch.Tensor]  # by modality (S + 1, D), x_T ... x_0
    predictions: dict[str, torch.Tensor]  # by modality (S, D), x-hat_0 from all of these but the last
    ranks: np.ndarray  # (S + 1,) of the target by Eq. 19, were x_t the end
    predicted_ranks: np.ndarray  # (S,) were x-hat_0 the end


@torch.inference_mode()
def walk(
    model: IMECD,
    dataset: Dataset,
    user: int,
    num_inference_steps: int | None = None,
    seed: int = 0,
    tables: dict[str, torch.Tensor] | None = None,
) -> Walk:
    """Eq. 16-18 for user number ``user`` before her last purchase, and Eq. 19 at every step.

    Args:
        model: in eval mode.
        num_inference_steps: S; T when None.
        seed: of her noise.
        tables: ``model.item_embeddings()``, when at hand.
    """
    tables = tables or model.item_embeddings()
    device, sequence = tables["id"].device, dataset.sequences[user]
    item_seq = torch.as_tensor(sequence[:-1], device=device)[None, -dataset.max_length :]
    user_key = torch.as_tensor(dataset.user_keys[user : user + 1], device=device)
    trajectories = model.generate(item_seq, user_key, seed, num_inference_steps, tables)
    samples = {name: trajectory.samples[:, 0] for name, trajectory in trajectories.items()}  # (S + 1, D) each
    predictions = {name: trajectory.predictions[:, 0] for name, trajectory in trajectories.items()}  # (S, D) each
    target, ranks = int(sequence[-1]), []
    for generated in (samples, predictions):
        scores = model.score(generated, item_seq.expand(len(generated["id"]), -1), tables)  # (S + 1 or S, I + 1)
        ranks.append((scores >= scores[:, target : target + 1]).sum(dim=1).cpu().numpy())
    return Walk(user, target, trajectories["id"].timesteps, samples, predictions, *ranks)
