"""DiQDiff (Mao, Liu, Liu and others, 2025): DiffuRec guided by a code of the whole history, users pushed apart."""

# B batch, L sequence, M max_length, D hidden, I items, Z codes, S steps taken

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F

from imecd_lite.baselines.diffurec import DiffuRec
from imecd_lite.baselines.sequential import add_term
from imecd_lite.codebooks import SequenceCodebook, gumbel
from imecd_lite.config import IMECDConfig
from imecd_lite.dataset import Batch, length_chunks, rejoin
from imecd_lite.diffusion import NoiseSchedule, sample, user_noise
from imecd_lite.model import LossOutput


class LinearCodebook(SequenceCodebook):
    """A sequence codebook whose selector is one linear map."""

    def __init__(
        self,
        codebook_size: int,
        max_length: int,
        hidden_size: int,
        lambda_q: float,
        temperature: float,
        code_decay: float,
    ) -> None:
        super().__init__(codebook_size, max_length, hidden_size, codebook_size, lambda_q, temperature, code_decay)
        del self.selector_out

    def select(self, sequence: torch.Tensor) -> torch.Tensor:
        """Logits over the codes, (B, Z), of ``sequence`` (B, L, D), zero at the padding."""
        return self.project(sequence)


class DiQDiff(DiffuRec):
    """DiffuRec whose history is mixed with a learned code of histories like it, and whose predictions repel each other.

    As the official code has it (``src/codiffu.py``), but for these points. Codes there are means over the batch at
    hand, in testing too, so that a user's scores depend on others, and a code that nobody chose becomes a history of
    the batch; here they are a buffer that ``after_step`` moves, and such a code stays as it is. Its choice of a code is
    random in testing and passes no gradient to the selector; here it is the likeliest in testing, and straight-through
    in training. Its reverse steps take the variance for its logarithm. Its contrastive loss names the vector itself as
    the positive; the same value is written here as the repulsion that it is.

    Args:
        config: as for ``DiffuRec``, noise_scale being the weight of x_t and t, which is not random here; codebook_size
            (the paper's M), lambda_q and temperature for the codes, lambda_c for the repulsion.
        num_items: I.
        text_features, image_features: unused.
    """

    REMARK = "codes are a moving average over training batches, not means over the batch at hand."
    DEFAULTS: ClassVar = {"dropout": 0.1, "codebook_size": 32, "lambda_q": 0.4, "lambda_c": 1.0}  # its README, Toys
    TUNED = ("learning_rate", "dropout", "codebook_size", "lambda_q", "lambda_c")
    LAMBDA_H = 1.0  # weight of the history; its README, Toys
    CODE_DECAY = 0.9  # share of its old value that a code keeps in a step; ours
    REPULSION_TEMPERATURE = 0.07
    SCHEDULE = NoiseSchedule

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> None:
        super().__init__(config, num_items)
        self.codebook = LinearCodebook(
            config.codebook_size,
            config.max_length,
            config.hidden_size,
            config.lambda_q / self.LAMBDA_H,
            config.temperature,
            self.CODE_DECAY,
        )

    def loss(self, batch: Batch, generator: torch.Generator) -> LossOutput:
        """Cross-entropy of the predicted x_0, plus lambda_c times the repulsion of the predictions."""
        table = self.item_embeddings()
        x_t, timesteps = self.corrupt(batch.pos_items, table, generator)
        noise = gumbel((len(batch.pos_items), self.config.codebook_size), generator, table.device)  # (B, Z)
        chunks, predicted, chosen = length_chunks(batch.item_seq, batch.lengths), [], []
        for rows, item_seq in chunks:
            sequence = self.read(item_seq, table)
            mixed, indices, _ = self.codebook(sequence, noise[rows])
            chosen.append((sequence.detach(), indices))
            known = self.LAMBDA_H * mixed  # lambda_h X + lambda_q s_q
            weight = self.config.noise_scale
            predicted.append(self.denoise(known, item_seq > 0, x_t[rows], timesteps[rows], weight))
        users = rejoin(chunks, predicted)
        output = self.cross_entropy(self.compare(users, batch.item_seq, table), batch.pos_items)
        output.chosen["id"] = chosen
        return add_term(
            output, "id/contrastive", repulsion(users, self.REPULSION_TEMPERATURE), weight=self.config.lambda_c
        )

    def after_step(self, output: LossOutput) -> None:
        """Move the codes towards the mean of the sequences that chose them."""
        self.codebook.em_update(output.chosen["id"])

    def generate(
        self, item_seq: torch.Tensor, user_keys: torch.Tensor, seed: int, steps: int, table: torch.Tensor
    ) -> torch.Tensor:
        """The end of the reverse walk of ``steps`` steps for histories (B, L) of users (B,): (B, D)."""
        known, mask = self.LAMBDA_H * self.codebook(self.read(item_seq, table)).sequence, item_seq > 0

        def predict(x_t: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            return self.denoise(known, mask, x_t, timesteps, self.config.noise_scale)

        noise = user_noise(user_keys, seed, (steps + 1, self.config.hidden_size)).to(table.dtype)
        return sample(predict, self.schedule, noise, steps).samples[-1]


def repulsion(vectors: torch.Tensor, temperature: float) -> torch.Tensor:
    """How near each vector (B, D) is to the others: the mean of log(1 + sum over them of e^((cosine - 1) / tau))."""
    unit = F.normalize(vectors, dim=-1)
    own = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    nearness = (((unit @ unit.T).to(unit.dtype) - 1) / temperature).masked_fill(own, 0.0)  # (B, B): e^0 is the 1
    return nearness.logsumexp(dim=1).mean()
