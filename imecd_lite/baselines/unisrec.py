"""UniSRec (Hou et al., 2022): items known by their ID and by their text, adapted by whitening experts."""

# B batch, L sequence, D hidden, F text features, I items, K experts

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from imecd_lite.baselines.sasrec import SASRec
from imecd_lite.baselines.sequential import EMBEDDING_STD, add_term, drop_items, info_nce, register_features
from imecd_lite.config import IMECDConfig
from imecd_lite.dataset import Batch
from imecd_lite.model import LossOutput


class WhiteningExperts(nn.Module):
    """Maps frozen text features to the hidden size: the official ``MoEAdaptorLayer`` in ``unisrec.py``.

    a(f) = sum over k of G_k(f) W_k (drop(f) - b_k), where G = softmax(f W_g + eps (softplus(f W_n) + 0.01)) and eps is
    normal in training, zero else. Gates start flat: W_g and W_n are zero. The experts share one dropout mask.

    Args:
        feature_size: F.
        hidden_size: D.
    """

    NUM_EXPERTS = 8  # props/UniSRec.yaml, n_exps
    DROPOUT = 0.2  # props/UniSRec.yaml, adaptor_dropout_prob
    LEAST_NOISE = 0.01  # unisrec.py, noise_epsilon

    def __init__(self, feature_size: int, hidden_size: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(EMBEDDING_STD * torch.randn(self.NUM_EXPERTS, hidden_size, feature_size))
        self.shifts = nn.Parameter(torch.zeros(self.NUM_EXPERTS, feature_size))
        self.gate = nn.Parameter(torch.zeros(feature_size, self.NUM_EXPERTS))
        self.gate_noise = nn.Parameter(torch.zeros(feature_size, self.NUM_EXPERTS))

    def forward(self, features: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Adapt features (I, F) to (I, D); with ``generator``, as in training, gates are noisy and features dropped."""
        logits = features @ self.gate  # (I, K)
        if generator is not None:
            noise = torch.randn(logits.shape, generator=generator, device=features.device)
            logits = logits + noise * (F.softplus(features @ self.gate_noise) + self.LEAST_NOISE)
            kept = torch.rand(features.shape, generator=generator, device=features.device) >= self.DROPOUT
            features = features * kept / (1 - self.DROPOUT)
        mapped = (features @ self.weights.flatten(0, 1).T).unflatten(1, self.weights.shape[:2])  # (I, K, D)
        offsets = (self.weights @ self.shifts[:, :, None])[:, :, 0]  # (K, D), W_k b_k
        gates = logits.softmax(dim=-1)
        return (gates[:, None] @ mapped)[:, 0] - gates @ offsets


class UniSRec(SASRec):
    """``SASRec`` on the sum of adapted text and ID embedding, compared by cosine (its "transductive" setting).

    The paper's gain comes from pre-training on other domains, for which there is no data here: this model is trained
    from scratch and comparable with "without pre-training" rows only. Of the pre-training objectives, cross-entropy
    over the whole catalogue stands for the contrast of sequence and item; the contrast of a history with itself, some
    of its items dropped, is kept with the weight ``lambda_c``. The official fine-tuning has none: ``lambda_c`` 0. There
    is no second table of texts with words dropped, which the paper uses for a tenth of the batches: items are dropped
    always. Feed-forward layers are 4 D wide, as in all transformers here; the official props have 256 for a D of 300.
    Pictures are not used.

    Args:
        config: as for ``SASRec``, and temperature and lambda_c; ``use_text`` must be on.
        num_items: I.
        text_features: (I, F), row i - 1 for item i.
        image_features: unused.

    Raises:
        InputError: there are no text features.
    """

    NEEDS_FEATURES = True
    REMARK = (
        "from scratch, without pre-training on other domains and without dropped words; feed-forward layers 4 d wide, "
        "not 256."
    )
    DEFAULTS: ClassVar = {"num_attention_heads": 2, "dropout": 0.5, "temperature": 0.07, "lambda_c": 1e-3}
    TUNED = ("learning_rate", "dropout", "lambda_c")

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> None:
        super().__init__(config, num_items)
        register_features(self, ("text",), text=text_features if config.use_text else None)
        self.adaptor = WhiteningExperts(self.text_features.shape[1], config.hidden_size)

    def item_embeddings(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """v_i = a(f_i) + E_i, (I + 1, D), row 0 zero; with ``generator`` as in training."""
        return F.pad(self.adaptor(self.text_features[1:], generator) + self.item_embedding.weight[1:], (0, 0, 1, 0))

    def compare(self, users: torch.Tensor, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Cosines of users (B, D) and items over the temperature, (B, I + 1)."""
        return F.normalize(users, dim=-1) @ F.normalize(table, dim=-1).T / self.config.temperature

    def loss(self, batch: Batch, generator: torch.Generator) -> LossOutput:
        """Cross-entropy plus ``lambda_c`` times the contrast of each history with itself, items dropped."""
        table = self.item_embeddings(generator if self.training else None)
        views = [batch.item_seq]
        if self.config.lambda_c:
            views.append(drop_items(batch.item_seq, generator, self.config.max_length))
        users, *others = self.represent(torch.cat(views), table).split(len(batch.pos_items))
        output = self.cross_entropy(self.compare(users, batch.item_seq, table), batch.pos_items)
        for other in others:
            contrast = info_nce(users, other, batch.pos_items, self.config.temperature)
            output = add_term(output, "id/contrastive", contrast, self.config.lambda_c)
        return output
