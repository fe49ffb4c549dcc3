"""Groups of users by what they have bought and by what comes next."""

# U users

from __future__ import annotations

import numpy as np
import pandas as pd

from imecd_lite.dataset import Dataset, Split

EVERYBODY = "all shoppers"
COLD = 5
"""An item with so few purchases in training, or fewer, is cold."""


def user_slices(dataset: Dataset, split: Split, items: pd.DataFrame | None = None) -> dict[str, np.ndarray]:
    """Groups of the users of a split by name, each (U,) bool; one that nobody is in is left out.

    By the length of the history and by the training purchases of the true item, in thirds; cold items; and, where
    ``items`` tells what was planted (``read_truth(dataset)["items"]``), whether the true item's text or picture
    misleads, and whether it is of a kind that the user has bought before.
    """
    lengths = np.array([len(history) for history in split.histories])  # (U,)
    counts = dataset.train_counts[split.targets]  # (U,)
    slices = {EVERYBODY: np.ones(len(lengths), dtype=bool)}
    slices |= thirds(lengths, "history of {} items") | thirds(counts, "next item bought {} times")
    slices[f"next item cold: at most {COLD} times"] = counts <= COLD
    if items is not None:
        misleading, kinds = (items[column].to_numpy()[split.targets - 1] for column in ("misleading", "kind"))
        slices["next item honest"] = ~np.isin(misleading, ("text", "image"))
        slices["next item’s text misleads"] = misleading == "text"
        slices["next item’s picture misleads"] = misleading == "image"
        of_item = items["kind"].to_numpy()
        known = [kind in of_item[history - 1] for history, kind in zip(split.histories, kinds, strict=True)]
        slices["next item of a kind she has"] = np.array(known)
        slices["next item of a new kind"] = ~np.array(known)
    return {name: rows for name, rows in slices.items() if rows.any()}


def thirds(values: np.ndarray, label: str) -> dict[str, np.ndarray]:
    """Whole numbers (U,) cut in three parts as even as ties allow, by ``label`` filled in with their bounds."""
    low, high = np.quantile(values, (1 / 3, 2 / 3), method="lower")
    parts = (values <= low, (values > low) & (values <= high), values > high)
    return {label.format(tell_bounds(values[rows])): rows for rows in parts if rows.any()}


def tell_bounds(values: np.ndarray) -> str:
    """The least and the greatest, such as "4 to 6"."""
    low, high = values.min(), values.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
