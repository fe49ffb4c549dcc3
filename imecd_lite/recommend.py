"""What a shopper is shown."""

# I items, L sequence

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import pandas as pd
import torch

from imecd_lite.dataset import Batch, Dataset
from imecd_lite.errors import InputError, quote
from imecd_lite.evaluate import device_of, refuse_nan
from imecd_lite.model import Recommender


@torch.inference_mode()
def score_history(
    model: Recommender, dataset: Dataset, user: int, num_bought: int | None = None, seed: int = 0
) -> torch.Tensor:
    """Scores of the whole catalogue after the first ``num_bought`` items of a history, (I + 1,).

    Args:
        model: in eval mode.
        user: position in ``dataset.user_ids``.
        num_bought: 1 to the length of the history, which is meant by None.
        seed: of the reverse diffusion.

    Raises:
        InputError: there is no such user, or her history is shorter.
    """
    if not 0 <= user < dataset.num_users:
        raise InputError(f"There is no user number {user}; give one from 0 to {dataset.num_users - 1}.")
    length = len(dataset.sequences[user])
    if num_bought is not None and not 1 <= num_bought <= length:
        raise InputError(f"num_bought is {num_bought}; it must be from 1 to {length}, the length of her history.")
    history, times = (
        torch.as_tensor(table[user][:num_bought])[None, -dataset.max_length :]
        for table in (dataset.sequences, dataset.timestamps)
    )
    users = torch.tensor([user])
    batch = Batch(history, torch.zeros_like(users), users, torch.as_tensor(dataset.user_keys[[user]]), times)
    scores = model.predict(batch.to(device_of(model)), seed)[0]
    refuse_nan(scores)
    return scores


@torch.inference_mode()
def score_items(model: Recommender, dataset: Dataset, items: Sequence[int], seed: int = 0) -> torch.Tensor:
    """Scores of the whole catalogue after a history that nobody need have, (I + 1,).

    For HM4SR, which reads times, it is of one purchase a day, the last when the data's last one was.

    Args:
        model: in eval mode.
        items: 1 ... I, at least one, the latest last.
        seed: of the reverse diffusion.
    """
    if not len(items):
        raise InputError("The history is empty; give at least one item.")
    numbers = np.asarray(items)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or numbers.min() < 1 or numbers.max() > dataset.num_items:
        raise InputError(f"The history is {quote(items)}; give whole numbers from 1 to {dataset.num_items}.")
    history = torch.as_tensor(numbers.astype(np.int64))[None, -dataset.max_length :]  # (1, L)
    nobody, days = torch.zeros(1, dtype=torch.int64), torch.arange(1 - history.shape[1], 1)[None].double()
    times = max(float(times[-1]) for times in dataset.timestamps) + 86_400.0 * days  # (1, L)
    scores = model.predict(Batch(history, nobody, nobody, nobody, times).to(device_of(model)), seed)[0]
    refuse_nan(scores)
    return scores


@torch.inference_mode()
def recommend(
    model: Recommender, dataset: Dataset, user_id: str, top_k: int = 10, seed: int = 0, mask_seen: bool = False
) -> pd.DataFrame:
    """The ``top_k`` best items for a user's whole history.

    Args:
        model: in eval mode.
        user_id: as in ``interactions.csv``.
        top_k: 1 to the number of items.
        seed: of the reverse diffusion.
        mask_seen: leave out what the user already has.

    Returns:
        rank, item_id, title, item (the index) and score, best first; no title for an ids-only dataset. Where
        ``mask_seen`` leaves fewer than ``top_k`` items, those.
    """
    user = dataset.user_number(user_id)
    if not isinstance(top_k, Integral) or isinstance(top_k, bool) or not 1 <= top_k <= dataset.num_items:
        raise InputError(f"top_k is {top_k!r}; it must be from 1 to {dataset.num_items}, the number of items.")
    scores = score_history(model, dataset, user, seed=seed)  # (I + 1,)
    if len(scores) != dataset.num_items + 1:
        raise InputError(
            f"The model ranks {len(scores) - 1} items, {dataset.path} has {dataset.num_items}; give its data."
        )
    if mask_seen:
        scores[torch.as_tensor(dataset.sequences[user])] = -torch.inf
    if not torch.isfinite(scores).any():
        raise InputError(f"The user {user_id!r} has all items already; recommend without mask_seen.")
    best = scores.topk(top_k)
    table = pd.DataFrame({"rank": range(1, top_k + 1), "item": best.indices.cpu(), "score": best.values.cpu()})
    table.insert(1, "item_id", [dataset.item_ids[item - 1] for item in table["item"]])
    if dataset.items is not None:
        table.insert(2, "title", dataset.items["title"].to_numpy()[table["item"] - 1])
    return table[torch.isfinite(best.values).tolist()]
