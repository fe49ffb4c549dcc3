"""SASRec (Kang and McAuley, 2018) with a full softmax, with ids alone or given the frozen features too."""

# B batch, L sequence, D hidden, I items

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from imecd_lite.baselines.sequential import (
    EMBEDDING_STD,
    SequentialRecommender,
    attention_mask,
    initialise,
    register_features,
)
from imecd_lite.config import IMECDConfig
from imecd_lite.model import move_repeats
from imecd_lite.transformer import PostNormBlock


class SASRec(SequentialRecommender):
    """Causal self-attention over a history; the last state is compared with every item (section III of its paper).

    As RecBole has it (``sasrec.py``): two post-norm blocks, GELU, LayerNorm on the input. Positions count from the
    right. ``SASRecFeatures`` adds linear maps of an item's text and image features, in histories and among the
    candidates alike.

    Args:
        config: hidden_size, max_length, num_attention_heads and dropout are used; the layers are two.
        num_items: I.
        text_features, image_features: unused.
    """

    DEFAULTS: ClassVar = {"num_attention_heads": 2, "dropout": 0.5}
    NUM_LAYERS = 2

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> None:
        super().__init__(config, num_items)
        self.positions = nn.Parameter(EMBEDDING_STD * torch.randn(config.max_length, config.hidden_size))
        self.input_norm, self.dropout = nn.LayerNorm(config.hidden_size), nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(config.hidden_size, config.num_attention_heads, config.dropout)
            for _ in range(self.NUM_LAYERS)
        )
        self.apply(initialise)

    def encode(self, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """The state after each item of left-padded histories (B, L): (B, L, D). A state knows no later item."""
        hidden = F.embedding(item_seq, table, padding_idx=0) + self.positions[-item_seq.shape[1] :]
        hidden, mask = self.dropout(self.input_norm(hidden)), attention_mask(item_seq, causal=True)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return hidden


class SASRecRepeat(SASRec):
    """``SASRec`` with the learned bias of items bought before that IMECD has by default: what it alone is worth."""

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> None:
        super().__init__(config, num_items)
        self.repeat_bias = nn.Parameter(torch.zeros(()))

    def compare(self, users: torch.Tensor, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Scores (B, I + 1), the items of the history moved by the bias."""
        scores = super().compare(users, item_seq, table)
        move_repeats(scores[:, 1:], item_seq - 1, self.repeat_bias)
        return scores


class SASRecFeatures(SASRec):
    """``SASRec`` given what IMECD is given: frozen text and image features, added to the item embedding.

    Features are brought to zero mean and unit variance, and their maps start on the scale of the ID embeddings: left as
    they are, they drown the IDs, and on MovieLens ten epochs end below popularity.

    Args:
        text_features: (I, d_txt), row i - 1 for item i; used when ``config.use_text``.
        image_features: (I, d_img), likewise.
    """

    NEEDS_FEATURES = True

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> None:
        super().__init__(config, num_items)
        names = config.modalities[1:]
        register_features(self, names, text=text_features, image=image_features)
        self.projections = nn.ModuleDict()
        for name in names:
            size = getattr(self, f"{name}_features").shape[1]
            self.projections[name] = nn.Linear(size, config.hidden_size)
            nn.init.normal_(self.projections[name].weight, std=EMBEDDING_STD * size**-0.5)  # as large as the IDs
            nn.init.zeros_(self.projections[name].bias)

    def item_embeddings(self) -> torch.Tensor:
        """(I + 1, D), row 0 zero: embedding, text and image added up."""
        mapped = [projection(getattr(self, f"{name}_features")[1:]) for name, projection in self.projections.items()]
        return F.pad(self.item_embedding.weight[1:] + sum(mapped), (0, 0, 1, 0))
