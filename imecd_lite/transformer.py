"""The Transformer blocks of the denoisers and of the comparators."""

# B batch, L sequence, D hidden, A attention heads

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(LN x), then x + feed-forward(LN x).

    Args:
        hidden_size: D.
        num_attention_heads: A, a divisor of D.
        dropout: on attention weights and on what each half adds.
    """

    def __init__(self, hidden_size: int, num_attention_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_attention_heads = num_attention_heads
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key_value = nn.Linear(hidden_size, 2 * hidden_size)
        self.attention_out = nn.Linear(hidden_size, hidden_size)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, 4 * hidden_size),
            nn.GELU(),
            nn.Linear(4 * hidden_size, hidden_size),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: torch.Tensor, attention_mask: torch.Tensor, last_only: bool = False) -> torch.Tensor:
        """Transform ``hidden`` (B, L, D).

        Args:
            attention_mask: (B, L) bool, True at real items, or (B, L, L) where positions see different ones. It masks
                *keys*: nobody sees the padding.
            last_only: compute the last position alone, (B, 1, D); for the top block, of which nothing else is read.
        """
        key, value = self.keys_values(hidden)
        if last_only:
            hidden = hidden[:, -1:]
            attention_mask = attention_mask[:, -1] if attention_mask.ndim == 3 else attention_mask
        return self.attend(hidden, key, value, attention_mask)

    def keys_values(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What ``hidden`` (B, L, D) offers to those who attend to it: keys and values, (B, L, A, D/A) each."""
        return self.offer(self.attention_norm(hidden))

    def offer(self, offering: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values as ``keys_values``, of what the norm, where there is one, has been through, (B, L, D)."""
        key, value = self.key_value(offering).chunk(2, dim=-1)
        return self.split_heads(key), self.split_heads(value)

    def attend(
        self,
        hidden: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor,
        sees_itself: bool = False,
    ) -> torch.Tensor:
        """Transform ``hidden`` (B, Q, D), which attends to keys and values (B, L, A, D/A), as the mask says.

        Args:
            sees_itself: ``hidden`` is one position, (B, 1, D), that attends to itself as well.
        """
        attended = self.look_up(self.attention_norm(hidden), key, value, attention_mask, sees_itself)
        hidden = hidden + self.dropout(attended)
        return hidden + self.dropout(self.feed_forward(hidden))

    def look_up(
        self,
        asking: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor,
        sees_itself: bool = False,
    ) -> torch.Tensor:
        """The attention alone: what ``asking`` (B, Q, D) finds among keys and values (B, L, A, D/A), (B, Q, D)."""
        query, dropout = self.split_heads(self.query(asking)), self.dropout.p if self.training else 0.0
        if sees_itself:
            attended = attend_alone(query, key, value, *self.offer(asking), attention_mask, dropout)
        else:
            heads = (x.transpose(1, 2) for x in (query, key, value))  # (B, A, Q or L, D/A)
            mask = attention_mask.reshape(len(key), 1, -1, key.shape[1])  # (B, 1, 1 or Q, L)
            attended = F.scaled_dot_product_attention(*heads, mask, dropout).transpose(1, 2)
        return self.attention_out(attended.flatten(2))

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, D) -> (B, L, A, D/A)."""
        return x.unflatten(-1, (self.num_attention_heads, -1))


def attend_alone(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    own_key: torch.Tensor,
    own_value: torch.Tensor,
    attention_mask: torch.Tensor,
    dropout: float,
) -> torch.Tensor:
    """Attention of one position to others and to itself, with no copy of the others' keys and values.

    Args:
        query, own_key, own_value: (B, 1, A, D/A) of the position.
        key, value: (B, L, A, D/A) of the others.
        attention_mask: (B, L) bool, True where there is one.
        dropout: of the attention weights.

    Returns:
        (B, 1, A, D/A).
    """
    query = query / query.shape[-1] ** 0.5
    others = (query * key).sum(dim=-1).masked_fill(~attention_mask[..., None], -torch.inf)  # (B, L, A)
    scores = torch.cat([others, (query * own_key).sum(dim=-1)], dim=1).transpose(1, 2)  # (B, A, L + 1)
    weights = F.dropout(scores.softmax(dim=-1), dropout).transpose(1, 2)[..., None]
    return (weights[:, :-1] * value).sum(dim=1, keepdim=True) + weights[:, -1:] * own_value


class PostNormBlock(TransformerBlock):
    """Post-norm block: LN(x + attention(x)), then LN(x + feed-forward(x)); see ``TransformerBlock``."""

    def __init__(self, hidden_size: int, num_attention_heads: int, dropout: float) -> None:
        super().__init__(hidden_size, num_attention_heads, dropout)
        self.feed_forward_norm = self.feed_forward.pop(0)

    def keys_values(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``TransformerBlock.keys_values``, of ``hidden`` as it is."""
        return self.offer(hidden)

    def attend(
        self,
        hidden: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor,
        sees_itself: bool = False,
    ) -> torch.Tensor:
        """As ``TransformerBlock.attend``."""
        hidden = self.attention_norm(
            hidden + self.dropout(self.look_up(hidden, key, value, attention_mask, sees_itself))
        )
        return self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))
