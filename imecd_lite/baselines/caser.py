"""Caser (Tang and Wang, 2018) with a full softmax and without user vector: convolutions over the latest items."""

# B batch, L sequence, W window, D hidden, I items, H horizontal filters a height, V vertical filters

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from imecd_lite.baselines.sequential import SequentialRecommender
from imecd_lite.config import IMECDConfig


class Caser(SequentialRecommender):
    """The latest W items are an image (W, D); filters look for patterns in its rows and weigh its columns.

    Sizes are the authors' (``caser_pytorch``, ``train_caser.py``), and so is the table of outputs, apart from that of
    the inputs. Left out is the user vector that they put beside the convolutions: a shopper who was not there in
    training has none, and the other systems know nothing but a history either. They learn by sampled negatives.

    Args:
        config: hidden_size and dropout are used; the window is five.
        num_items: I.
        text_features, image_features: unused.
    """

    REMARK = "without user vector; cross-entropy in place of sampled negatives."
    DEFAULTS: ClassVar = {"dropout": 0.5}
    WEIGHT_DECAY = 1e-6
    WINDOW = 5  # W; this and the two below: the authors' train_caser.py
    NUM_HORIZONTAL = 16  # H
    NUM_VERTICAL = 4  # V

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> None:
        super().__init__(config, num_items)
        size = config.hidden_size
        self.vertical = nn.Linear(self.WINDOW, self.NUM_VERTICAL)
        self.horizontal = nn.ModuleList(
            nn.Conv1d(size, self.NUM_HORIZONTAL, height) for height in range(1, self.WINDOW + 1)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.dense = nn.Linear(self.NUM_VERTICAL * size + self.WINDOW * self.NUM_HORIZONTAL, size)
        self.output = nn.Linear(size, num_items)  # row i - 1 for item i
        for table in (self.item_embedding.weight, self.output.weight):
            nn.init.normal_(table, std=1 / size)
        nn.init.zeros_(self.item_embedding.weight[0])
        nn.init.zeros_(self.output.bias)

    def represent(self, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """What the filters find in the latest W items of histories (B, L): (B, D), none below zero.

        Of height k = 1 ... W there are H filters over k rows, each asked for its best place; V more weigh the rows.
        """
        latest = F.pad(item_seq, (self.WINDOW - item_seq.shape[1], 0))  # (B, W): a negative pad cuts
        image = F.embedding(latest, table, padding_idx=0).transpose(1, 2)  # (B, D, W)
        vertical = self.vertical(image).transpose(1, 2).flatten(1)  # (B, V D)
        horizontal = [filters(image).relu().amax(dim=2) for filters in self.horizontal]  # W times (B, H)
        return self.dense(self.dropout(torch.cat([vertical, *horizontal], dim=1))).relu()

    def compare(self, users: torch.Tensor, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Scores (B, I + 1) of vectors (B, D) by the output table; column 0 is zero, padding is no candidate."""
        return F.pad(self.output(users), (1, 0))
