"""Popularity: the same list for everybody, the least a recommender has to beat."""

# B batch, L sequence, I items

from __future__ import annotations

import torch

from imecd_lite.config import IMECDConfig
from imecd_lite.dataset import Dataset
from imecd_lite.model import Recommender


class Popularity(Recommender):
    """Scores an item by how often it occurs in the training part of all histories.

    Args:
        config: unused, as are the features; every model is built with the same arguments.
        num_items: I.
    """

    TUNED = ()

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(num_items + 1, dtype=torch.int64))

    def fit_statistics(self, dataset: Dataset) -> None:
        """Count the items of every history but its last two, which are for validation and test."""
        self.counts.copy_(torch.from_numpy(dataset.train_counts))

    def full_sort_predict(self, item_seq: torch.Tensor, user_keys: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """The counts, once for every user: (B, I + 1), column 0 minus infinity."""
        scores = self.counts.float().repeat(len(item_seq), 1)
        scores[:, 0] = -torch.inf
        return scores
