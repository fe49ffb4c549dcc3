"""GRU4Rec (Hidasi et al., 2016; on prefixes, Tan et al., 2016) with a full softmax."""

# B batch, L sequence, D hidden, I items

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from imecd_lite.baselines.sequential import SequentialRecommender, initialise
from imecd_lite.config import IMECDConfig


class GRU4Rec(SequentialRecommender):
    """A gated recurrent unit reads a history; a linear map of its last state is compared with every item.

    As RecBole has it (``gru4rec.py``): one layer without biases, so that padding, which is zero, leaves the first
    state at zero. The state is as wide as the item embeddings. What Hidasi et al. add for sessions is left out:
    batches of parallel sessions, sampled negatives and ranking losses. Every layer starts from Xavier's values, where
    RecBole gives them to the first alone.

    Args:
        config: hidden_size and dropout are used; the layers are one.
        num_items: I.
        text_features, image_features: unused.
    """

    REMARK = "no user sessions in parallel and no ranking loss; cross-entropy over the catalogue."
    DEFAULTS: ClassVar = {"dropout": 0.3}
    NUM_LAYERS = 1  # RecBole's properties/model/GRU4Rec.yaml

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> None:
        super().__init__(config, num_items)
        size = config.hidden_size
        self.dropout = nn.Dropout(config.dropout)
        self.gru = nn.GRU(size, size, self.NUM_LAYERS, bias=False, batch_first=True)
        self.dense = nn.Linear(size, size)
        self.apply(initialise)
        nn.init.xavier_normal_(self.item_embedding.weight)
        nn.init.zeros_(self.item_embedding.weight[0])
        for weight in self.gru.parameters():
            nn.init.xavier_uniform_(weight)

    def encode(self, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """The state after each item of left-padded histories (B, L): (B, L, D). A state knows no later item."""
        return self.gru(self.dropout(F.embedding(item_seq, table, padding_idx=0)))[0]

    def represent(self, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """The last state of each history (B, L), mapped to where the items are: (B, D)."""
        return self.dense(super().represent(item_seq, table))
