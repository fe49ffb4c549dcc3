"""MMMLP (Liang et al., 2023): histories of ids, texts and images, each mixed by multi-layer perceptrons alone."""

# B batch, L sequence, D hidden, I items

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from imecd_lite.baselines.sequential import SequentialRecommender, initialise, register_features
from imecd_lite.config import MODALITIES, IMECDConfig

EXPANSION = 4  # hidden units of a perceptron for each of its inputs (mmmlp.py)


class MMMLP(SequentialRecommender):
    """A mixer for each modality; the three last states together make the vector that is compared with the IDs.

    As the official code has it (``mmmlp.py``): each mixer is applied four times with the same weights, and fusion is
    a LayerNorm and a linear map. A state knows later items, too; prefixes are read at their last position, so none is
    there to be known.

    Handled otherwise: linear maps bring the frozen features to D units, where the code loads features of that size;
    padding is kept out of the mixing. There, the loops over text and image layers begin anew each time, so that one
    acts; here all four do. Left out: the code's mixer over the pixels of an image, which it builds and never calls;
    the frozen image features stand in. Its dropout is not published; ours is that of the config, on what a perceptron
    adds, not within it too.

    Args:
        config: hidden_size, max_length and dropout are used.
        num_items: I.
        text_features: (I, d_txt), row i - 1 for item i.
        image_features: (I, d_img), likewise.

    Raises:
        InputError: text or image is missing or switched off.
    """

    NEEDS_FEATURES = True
    REMARK = "pictures as one frozen vector, without the mixer over patches; positions of zeros before each history."
    DEFAULTS: ClassVar = {"learning_rate": 0.0001}
    DEPTH = 4  # mmmlp.py

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> None:
        super().__init__(config, num_items)
        text, image = text_features if config.use_text else None, image_features if config.use_image else None
        register_features(self, ("text", "image"), text=text, image=image)
        size = config.hidden_size
        self.text_projection = nn.Linear(self.text_features.shape[1], size, bias=False)
        self.image_projection = nn.Linear(self.image_features.shape[1], size, bias=False)
        self.input_norms = nn.ModuleDict({name: nn.LayerNorm(size) for name in MODALITIES})
        self.mixers = nn.ModuleDict({name: Mixer(config.max_length, size, config.dropout) for name in MODALITIES})
        self.fusion = nn.Sequential(nn.LayerNorm(3 * size), nn.Linear(3 * size, size), nn.LayerNorm(size))
        self.apply(initialise)
        for mixer in self.mixers.values():  # convolutions in the code, which its initialisation leaves as they are
            mixer.positions_in.reset_parameters()
            mixer.positions_out.reset_parameters()

    def item_embeddings(self) -> torch.Tensor:
        """(I + 1, 3 D), row 0 zero: ID embedding, text and image side by side."""
        text, image = self.text_projection(self.text_features), self.image_projection(self.image_features)
        return torch.cat([self.item_embedding.weight, text, image], dim=-1)

    def encode(self, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """The last state of left-padded histories (B, L), made of all their items, (B, 1, D); no other is read."""
        real = (item_seq > 0)[..., None]  # (B, L, 1)
        mixed = []
        for name, x in zip(MODALITIES, F.embedding(item_seq, table, padding_idx=0).chunk(3, dim=-1), strict=True):
            x = self.input_norms[name](x)  # (B, L, D)
            for step in range(1, self.DEPTH + 1):
                x = self.mixers[name](x, real, last_only=step == self.DEPTH)
            mixed.append(x)
        return self.fusion(torch.cat(mixed, dim=-1))

    def compare(self, users: torch.Tensor, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Scores (B, I + 1): products with the ID embeddings alone."""
        return users @ table[:, : self.config.hidden_size].T


class Mixer(nn.Module):
    """x + T(LN x), then x + C(LN x): T mixes the positions of each channel, C the channels of each position.

    T's weights belong to positions counted from the right; as padding is zero before T, the weights of the last L
    positions make the same of a history as all of them.

    Args:
        max_length: the longest sequence.
        hidden_size: D.
        dropout: on what each perceptron adds.
    """

    def __init__(self, max_length: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.position_norm, self.dropout = nn.LayerNorm(hidden_size), nn.Dropout(dropout)
        self.positions_in = nn.Linear(max_length, EXPANSION * max_length)
        self.positions_out = nn.Linear(EXPANSION * max_length, max_length)
        self.channels = nn.Sequential(
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, EXPANSION * hidden_size),
            nn.GELU(),
            nn.Linear(EXPANSION * hidden_size, hidden_size),
            nn.Dropout(dropout),
        )

    def forward(self, x: torch.Tensor, real: torch.Tensor, last_only: bool = False) -> torch.Tensor:
        """Mix ``x`` (B, L, D).

        Args:
            real: (B, L, 1) bool, False at the padding.
            last_only: compute the last position alone, (B, 1, D).
        """
        length, wanted = x.shape[1], 1 if last_only else x.shape[1]
        across = (self.position_norm(x) * real).transpose(1, 2)  # (B, D, L)
        inner = F.gelu(F.linear(across, self.positions_in.weight[:, -length:], self.positions_in.bias))
        out, bias = self.positions_out.weight[-wanted:], self.positions_out.bias[-wanted:]
        x = x[:, -wanted:] + self.dropout(F.linear(inner, out, bias)).transpose(1, 2)  # (B, L or 1, D)
        return x + self.channels(x)
