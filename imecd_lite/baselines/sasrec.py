"""SASRec (Kang and McAuley, 2018) with a full softmax, with ids alone or given the frozen features too."""

# B batch, L sequence, D hidden, I items

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from imecd_lite.config import IMECDConfig
from imecd_lite.dataset import Batch, length_chunks
from imecd_lite.model import REPEAT_SCALE, LossOutput, Recommender, seen_items, standardise
from imecd_lite.transformer import TransformerBlock


class SASRec(Recommender):
    """Causal self-attention over a history; the last state is compared with every item (section III of its paper).

    Examples are prefixes, read at their last position. An item is its embedding; ``SASRecFeatures`` adds linear maps
    of its text and image features, in histories and among the candidates alike.

    Args:
        config: hidden_size, max_length, num_attention_heads and dropout are used; the layers are two.
        num_items: I.
        text_features, image_features: unused.
    """

    NUM_LAYERS = 2
    REPEAT_BIAS = False

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config, self.num_items = config, num_items
        self.item_embedding = nn.Embedding(num_items + 1, config.hidden_size, padding_idx=0)
        nn.init.normal_(self.item_embedding.weight[1:], std=0.02)
        self.repeat_bias = nn.Parameter(torch.zeros(())) if self.REPEAT_BIAS else None
        self.positions = nn.Parameter(0.02 * torch.randn(config.max_length, config.hidden_size))
        self.input_norm, self.output_norm = nn.LayerNorm(config.hidden_size), nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.hidden_size, config.num_attention_heads, config.dropout)
            for _ in range(self.NUM_LAYERS)
        )

    def item_embeddings(self) -> torch.Tensor:
        """(I + 1, D), row 0 zero."""
        return self.item_embedding.weight

    def encode(self, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """The state after each item of left-padded histories (B, L): (B, L, D). A state knows no later item."""
        length = item_seq.shape[1]
        hidden = self.dropout(self.input_norm(F.embedding(item_seq, table, padding_idx=0) + self.positions[-length:]))
        causal = torch.ones(length, length, dtype=torch.bool, device=item_seq.device).tril()
        own = torch.eye(length, dtype=torch.bool, device=item_seq.device)  # a padded row sees itself, else NaN
        mask = (item_seq > 0)[:, None, :] & causal | own  # (B, L, L)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return self.output_norm(hidden)

    def compare(self, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Histories (B, L), read at their last item, against the table (I + 1, D): scores (B, I + 1)."""
        scores = self.encode(item_seq, table)[:, -1] @ table.T
        if self.repeat_bias is not None:
            scores = scores + REPEAT_SCALE * self.repeat_bias * seen_items(item_seq, self.num_items)
        return scores

    def loss(self, batch: Batch, generator: torch.Generator) -> LossOutput:
        """Cross-entropy over the whole catalogue, the histories taken in chunks of similar length."""
        table, total = self.item_embeddings(), 0.0
        for rows, item_seq in length_chunks(batch.item_seq):
            logits = self.compare(item_seq, table)[:, 1:]  # (b, I)
            total = total + F.cross_entropy(logits, batch.pos_items[rows] - 1, reduction="sum")
        loss = total / len(batch.pos_items)
        return LossOutput(loss, {"id/cross_entropy": loss.detach()})

    @torch.no_grad()
    def full_sort_predict(self, item_seq: torch.Tensor, user_keys: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """Scores of the whole catalogue, (B, I + 1), column 0 minus infinity; nothing about them is random."""
        table = self.item_embeddings()
        scores = table.new_empty(len(item_seq), self.num_items + 1)
        for rows, chunk in length_chunks(item_seq):
            scores[rows] = self.compare(chunk, table)
        scores[:, 0] = -torch.inf
        return scores


class SASRecRepeat(SASRec):
    """``SASRec`` with the learned bias of items bought before that IMECD has by default: what it alone is worth."""

    REPEAT_BIAS = True


class SASRecFeatures(SASRec):
    """``SASRec`` given what IMECD is given: frozen text and image features, added to the item embedding.

    Features are brought to zero mean and unit variance, and their maps start on the scale of the ID embeddings: left as
    they are, they drown the IDs, and on MovieLens ten epochs end below popularity.

    Args:
        text_features: (I, d_txt), row i - 1 for item i; used when ``config.use_text``.
        image_features: (I, d_img), likewise.
    """

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> None:
        super().__init__(config, num_items)
        self.projections = nn.ModuleDict()
        for name, features in (("text", text_features), ("image", image_features)):
            if name in config.modalities:
                size = features.shape[1]
                self.register_buffer(f"{name}_features", standardise(features.float()), persistent=False)
                self.projections[name] = nn.Linear(size, config.hidden_size)
                nn.init.normal_(self.projections[name].weight, std=0.02 * size**-0.5)  # as large as the ID embeddings
                nn.init.zeros_(self.projections[name].bias)

    def item_embeddings(self) -> torch.Tensor:
        """(I + 1, D), row 0 zero: embedding, text and image added up."""
        mapped = [projection(getattr(self, f"{name}_features")) for name, projection in self.projections.items()]
        return F.pad(self.item_embedding.weight[1:] + sum(mapped), (0, 0, 1, 0))
