"""BERT4Rec (Sun et al., 2019): learns to fill in hidden items of a history, and is asked for one behind its end."""

# B batch, L sequence, D hidden, I items, N hidden items of a batch

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
)
from imecd_lite.config import IMECDConfig
from imecd_lite.dataset import Batch, length_chunks
from imecd_lite.model import LossOutput
from imecd_lite.transformer import PostNormBlock


class BERT4Rec(SequentialRecommender):
    """Self-attention in both directions over a history in which a mask token stands for some of the items.

    As RecBole has it (``bert4rec.py``): two post-norm blocks, GELU, LayerNorm on the input, a head of a linear map,
    GELU and LayerNorm, tied item embeddings and a bias for each item. Positions count from the right. Training
    examples are prefixes *with* their next item, so that the latest training item is hidden as often as any other;
    RecBole hides items of the prefix alone.

    Args:
        config: hidden_size, max_length, num_attention_heads and dropout are used; the layers are two.
        num_items: I; the token I + 1 is the mask.
        text_features, image_features: unused.
    """

    REMARK = "the latest training item is hidden as often as any other."
    DEFAULTS: ClassVar = {"num_attention_heads": 2, "dropout": 0.2}
    NUM_LAYERS = 2
    MASK_RATIO = 0.2  # share of the items that is hidden; RecBole's properties/model/BERT4Rec.yaml
    LAST_ONLY = 0.5  # share of the batches in which the last item alone is hidden, as in a recommendation; ibid.

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> None:
        super().__init__(config, num_items)
        size = config.hidden_size
        self.mask_embedding = nn.Parameter(EMBEDDING_STD * torch.randn(size))
        self.positions = nn.Parameter(EMBEDDING_STD * torch.randn(config.max_length, size))
        self.input_norm, self.dropout = nn.LayerNorm(size), nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(size, config.num_attention_heads, config.dropout) for _ in range(self.NUM_LAYERS)
        )
        self.head = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.LayerNorm(size))
        self.output_bias = nn.Parameter(torch.zeros(num_items))
        self.apply(initialise)

    @property
    def mask_token(self) -> int:
        """What stands in a history for an item that is hidden."""
        return self.num_items + 1

    def encode(self, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """The state at each place of left-padded histories (B, L), mask tokens among them: (B, L, D).

        A state knows the whole history, before and after.
        """
        hidden_items = item_seq == self.mask_token
        hidden = F.embedding(item_seq.masked_fill(hidden_items, 0), table, padding_idx=0)
        hidden = torch.where(hidden_items[:, :, None], self.mask_embedding, hidden)
        hidden = hidden + self.positions[-item_seq.shape[1] :]
        hidden, mask = self.dropout(self.input_norm(hidden)), attention_mask(item_seq, causal=False)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return hidden

    def represent(self, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """What the head makes of a mask token behind each history (B, L), its latest max_length - 1 items: (B, D)."""
        start = max(0, item_seq.shape[1] + 1 - self.config.max_length)
        return self.head(super().represent(F.pad(item_seq[:, start:], (0, 1), value=self.mask_token), table))

    def compare(self, users: torch.Tensor, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Scores (N, I + 1) of what the head made of mask tokens (N, D); the histories are not looked at."""
        return F.linear(users, table, F.pad(self.output_bias, (1, 0)))

    def loss(self, batch: Batch, generator: torch.Generator) -> LossOutput:
        """Cross-entropy of the hidden items of histories and their next items, a mean over all hidden items."""
        table = self.item_embeddings()
        whole = torch.cat([batch.item_seq, batch.pos_items[:, None]], dim=1)[:, -self.config.max_length :]
        masked = torch.where(self.choose(whole, generator), self.mask_token, whole)  # (B, L)
        states, targets = [], []
        for rows, chunk in length_chunks(masked):
            hidden_items = chunk == self.mask_token
            states.append(self.encode(chunk, table)[hidden_items])
            targets.append(whole[rows, -chunk.shape[1] :][hidden_items])
        scores = self.compare(self.head(torch.cat(states)), masked, table)  # (N, I + 1)
        return self.cross_entropy(scores, torch.cat(targets))

    def choose(self, item_seq: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Which items of left-padded histories (B, L) to hide: (B, L) bool, at least one in each row.

        With probability ``LAST_ONLY`` the last one in all rows, else each with probability ``MASK_RATIO``; where that
        leaves a row without, one of its items, each as likely.
        """
        (batch, length), device = item_seq.shape, item_seq.device
        last_only = torch.rand((), generator=generator, device=device) < self.LAST_ONLY
        size = max(self.config.max_length, length)  # drawn for all positions, so that padding changes nothing
        draws = torch.rand(batch, size, generator=generator, device=device)[:, -length:]
        draws = draws.masked_fill(item_seq == 0, torch.inf)
        cloze = (draws < self.MASK_RATIO) | (draws == draws.min(dim=1, keepdim=True).values)
        last = torch.arange(item_seq.shape[1], device=device) == item_seq.shape[1] - 1  # (L,)
        return torch.where(last_only, last, cloze)
