"""Modality-specific vector quantisation (MS-VQ), section III-D, Eq. 7-10."""

# B batch, L sequence (at most max_length), M max_length, D hidden, Z codes, H hidden units of the selector

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from imecd_lite.processes import share_codes, total


class CodebookOutput(NamedTuple):
    """A batch of sequences after quantisation."""

    sequence: torch.Tensor  # (B, L, D), Eq. 9
    indices: torch.Tensor  # (B,), the chosen code of each
    logits: torch.Tensor  # (B, Z), Eq. 7


class SequenceCodebook(nn.Module):
    """Z code vectors, each as long as a whole padded sequence, and an MLP that picks one for every sequence.

    A batch trimmed to its longest sequence uses the last L positions of codes and MLP: left padding is zero,
    so the result is the same. The codes are a buffer, moved by ``em_update`` and not by the optimiser.

    Args:
        codebook_size: Z.
        max_length: M.
        hidden_size: D.
        selector_size: H.
        lambda_q: injection strength of Eq. 9.
        temperature: tau of Eq. 8.
        code_decay: the share of its old value that a code keeps in ``em_update``; the paper's 0 keeps nothing.
        code_lifetime: steps after which a code that nobody chose starts afresh from a sequence of the batch; the
            paper's 0 lets it stay for ever.
    """

    def __init__(
        self,
        codebook_size: int,
        max_length: int,
        hidden_size: int,
        selector_size: int,
        lambda_q: float,
        temperature: float,
        code_decay: float = 0.0,
        code_lifetime: int = 0,
    ) -> None:
        super().__init__()
        self.lambda_q, self.temperature = lambda_q, temperature
        self.code_decay, self.code_lifetime = code_decay, code_lifetime
        self.selector_in = nn.Linear(max_length * hidden_size, selector_size)
        self.selector_out = nn.Linear(selector_size, codebook_size)
        self.register_buffer("codes", 0.02 * torch.randn(codebook_size, max_length, hidden_size))
        if code_lifetime:
            self.register_buffer("idle", torch.zeros(codebook_size))  # steps since each was chosen

    @property
    def codebook_size(self) -> int:
        """Z."""
        return self.codes.shape[0]

    def select(self, sequence: torch.Tensor) -> torch.Tensor:
        """Eq. 7: logits over the codes, (B, Z), of ``sequence`` (B, L, D), zero at the padding."""
        return self.selector_out(F.gelu(self.project(sequence)))

    def project(self, sequence: torch.Tensor) -> torch.Tensor:
        """The selector's first layer on ``sequence`` (B, L, D): (B, H)."""
        length = sequence.shape[1]
        weight = self.selector_in.weight.view(-1, *self.codes.shape[1:])[:, -length:]  # (H, L, D)
        return F.linear(sequence.flatten(1), weight.flatten(1), self.selector_in.bias)

    def forward(self, sequence: torch.Tensor, gumbel_noise: torch.Tensor | None = None) -> CodebookOutput:
        """Quantise ``sequence`` (B, L, D), zero at the padding.

        With ``gumbel_noise`` (B, Z) the choice is Eq. 8's stochastic one and its gradient goes straight through
        to the MLP; without it (inference) the likeliest code is taken.
        """
        logits = self.select(sequence)
        codes = self.codes[:, -sequence.shape[1] :]  # (Z, L, D)
        if gumbel_noise is None:
            indices = logits.argmax(dim=-1)
            quantised = codes[indices]  # (B, L, D)
        else:
            soft = ((logits + gumbel_noise) / self.temperature).softmax(dim=-1)  # Eq. 8
            indices = soft.argmax(dim=-1)
            hard = F.one_hot(indices, self.codebook_size).to(soft.dtype)
            choice = hard + soft - soft.detach()  # (B, Z): forward the hard choice, backward the soft one
            quantised = torch.einsum("bz,zld->bld", choice, codes)
        return CodebookOutput(self.lambda_q * quantised + sequence, indices, logits)  # Eq. 9

    @torch.no_grad()
    def nearest(self, sequence: torch.Tensor) -> torch.Tensor:
        """The code with the least squared distance to each sequence (B, L, D), padding counting as zeros: (B,)."""
        with torch.autocast(sequence.device.type, enabled=False):  # the difference of large numbers
            products = torch.einsum("bld,zld->bz", sequence, self.codes[:, -sequence.shape[1] :])
        return (self.codes.square().sum(dim=(1, 2)) - 2 * products).argmin(dim=-1)

    @torch.no_grad()
    def em_update(self, chunks: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Eq. 10: move each chosen code to the mean of the sequences that chose it; call it after ``backward``.

        Processes that share a batch count together; what starts afresh does so from the first one's sequences.

        Args:
            chunks: the batch as pairs of sequences (B, L, D) and indices (B,), L differing from pair to pair.
                Padding counts as zeros. A code that nobody chose keeps its value, until its lifetime is over.
        """
        sums, counts = torch.zeros_like(self.codes), self.codes.new_zeros(self.codebook_size)
        for sequence, indices in chunks:
            sums[:, -sequence.shape[1] :].index_add_(0, indices, sequence)
            counts += F.one_hot(indices, self.codebook_size).sum(dim=0)
        sums, counts = total(sums), total(counts)
        means = sums / counts.clamp(min=1)[:, None, None]
        moved = self.code_decay * self.codes + (1 - self.code_decay) * means
        self.codes.copy_(torch.where(counts[:, None, None] > 0, moved, self.codes))
        if self.code_lifetime:
            self.idle.copy_(torch.where(counts > 0, 0, self.idle + 1))
            self.revive(chunks)
            share_codes(self.codes)

    def revive(self, chunks: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Put codes whose lifetime is over on sequences of the batch, evenly spaced among all lengths."""
        dead, start = self.idle >= self.code_lifetime, 0  # (Z,)
        size = sum(len(sequence) for sequence, _ in chunks)
        rows = (dead.cumsum(dim=0) - 1) * size // dead.sum().clamp(min=1)  # (Z,), which sequence of the batch
        self.codes.masked_fill_(dead[:, None, None], 0)
        self.idle.masked_fill_(dead, 0)
        for sequence, _ in chunks:
            here = dead & (start <= rows) & (rows < start + len(sequence))  # (Z,)
            fresh = sequence[(rows - start).clamp(0, len(sequence) - 1)]  # (Z, L, D)
            codes = self.codes[:, -sequence.shape[1] :]
            codes.copy_(torch.where(here[:, None, None], fresh, codes))
            start += len(sequence)


def gumbel(shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str = "cpu") -> torch.Tensor:
    """Standard Gumbel noise, n_z of Eq. 8."""
    uniform = torch.rand(shape, generator=generator, device=device).clamp(min=torch.finfo(torch.float32).tiny)
    return -(-uniform.log()).log()
