"""The conditional diffusion of section III-E: noise schedule, denoiser, reverse sampling, Eq. 11-18."""

# B batch, L sequence, D hidden, T steps, S steps actually taken

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from imecd_lite.errors import InputError
from imecd_lite.transformer import TransformerBlock

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""x_t (B, D), timesteps (B,), or (1,) where all are at the same -> predicted x_0 (B, D)."""


def make_betas(beta_schedule: str, num_train_timesteps: int) -> torch.Tensor:
    """beta_1 ... beta_T, float64 (T,).

    ``truncated_linear`` (section IV-A4, the ends as in DiffuRec's code) runs from 1000/T * 0.0001 + 0.01 to
    1000/T * 0.02 + 0.01, or, where that end passes 1, to 1000/T * 0.001 + 0.01: with T of 20 or less x_T is
    not noise (abar_T is 0.46 at T = 20, 0.89 at T = 1), though sampling starts from noise, so take T of 21 at least for
    more than a test. ``linear`` is DDPM's 0.0001 to 0.02, scaled by 1000/T.
    """
    scale = 1000 / num_train_timesteps
    if beta_schedule == "truncated_linear":
        start, end = scale * 0.0001 + 0.01, scale * 0.02 + 0.01
        end = end if end <= 1 else scale * 0.001 + 0.01
    elif beta_schedule == "linear":
        start, end = scale * 0.0001, scale * 0.02
    else:
        raise ValueError(f"beta_schedule must be truncated_linear or linear, got {beta_schedule!r}")
    betas = torch.linspace(start, end, num_train_timesteps, dtype=torch.float64)
    if not 0 < betas.min() <= betas.max() < 1:
        raise InputError(
            f"{num_train_timesteps} steps give {beta_schedule} betas from {start:.3g} to {end:.3g}, outside (0, 1); "
            "take more steps."
        )
    return betas


class NoiseSchedule(nn.Module):
    """alpha-bar of a schedule and what follows from it. Steps are the paper's t = 1 ... T; t = 0 is clean data."""

    def __init__(self, beta_schedule: str, num_train_timesteps: int) -> None:
        super().__init__()
        alphas_cumprod = (1 - make_betas(beta_schedule, num_train_timesteps)).cumprod(dim=0)
        alphas_cumprod = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod])  # abar_0 = 1
        self.register_buffer("alphas_cumprod", alphas_cumprod.float(), persistent=False)  # (T + 1,)
        self.abar = alphas_cumprod.tolist()  # the same on the host, where a step of Eq. 18 reads two of them

    @property
    def num_train_timesteps(self) -> int:
        """T."""
        return len(self.alphas_cumprod) - 1

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Eq. 12: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise; samples and noise (B, D), timesteps (B,)."""
        abar = self.alphas_cumprod[timesteps][:, None]  # (B, 1)
        return abar.sqrt() * original_samples + (1 - abar).sqrt() * noise

    def step(
        self, pred_original: torch.Tensor, sample: torch.Tensor, t: int, prev_t: int, noise: torch.Tensor
    ) -> torch.Tensor:
        """Eq. 17, 18: from x_t to x_{prev_t}, all (B, D).

        With prev_t = t - 1 this is the paper's step; a smaller prev_t is the same posterior over a longer stride,
        alpha_t being abar_t / abar_{prev_t}. Into prev_t = 0 no noise is added: sigma is zero there.
        """
        abar, abar_prev = self.abar[t], self.abar[prev_t]
        alpha = abar / abar_prev
        beta = 1 - alpha
        of_original = math.sqrt(abar_prev) * beta / (1 - abar)
        of_sample = math.sqrt(alpha) * (1 - abar_prev) / (1 - abar)
        sigma = math.sqrt((1 - abar_prev) / (1 - abar) * beta)
        return of_original * pred_original + of_sample * sample + sigma * noise

    def inference_timesteps(self, num_inference_steps: int) -> list[int]:
        """The t of each reverse step, evenly spaced from T down, followed by 0: S + 1 numbers."""
        steps = self.num_train_timesteps
        if not 1 <= num_inference_steps <= steps:
            raise ValueError(f"num_inference_steps must be from 1 to {steps}, got {num_inference_steps}")
        return [round(steps * k / num_inference_steps) for k in range(num_inference_steps, -1, -1)]


def timestep_embedding(timesteps: torch.Tensor, hidden_size: int) -> torch.Tensor:
    """Sinusoidal embedding of t (B,) -> (B, D): cosines then sines of t at D/2 frequencies from 1 towards 1/10,000."""
    half = hidden_size // 2
    frequencies = torch.exp(-torch.arange(half, device=timesteps.device) / half * math.log(10_000))
    angles = timesteps[:, None] * frequencies  # (B, D/2)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return nn.functional.pad(embedding, (0, hidden_size % 2))  # (B, D)


class Denoiser(nn.Module):
    """f_theta of Eq. 13: a Transformer that predicts x_0 from x_t, t and the quantised sequence.

    x_t and t enter as ``noise_scale * (x_t + time embedding)``, added to every position; positions are learned and
    counted from the right. The prediction is read at the last position.

    Args:
        hidden_size: D.
        max_length: the longest sequence.
        num_train_timesteps: T.
        num_hidden_layers, num_attention_heads, dropout: of the Transformer.
        noise_scale: how loudly x_t and t speak.
    """

    def __init__(
        self,
        hidden_size: int,
        max_length: int,
        num_train_timesteps: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        dropout: float,
        noise_scale: float,
    ) -> None:
        super().__init__()
        self.noise_scale = noise_scale
        sinusoids = timestep_embedding(torch.arange(num_train_timesteps + 1), hidden_size)
        self.register_buffer("sinusoids", sinusoids, persistent=False)  # (T + 1, D)
        self.positions = nn.Parameter(0.02 * torch.randn(max_length, hidden_size))
        self.time_mlp = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )
        self.input_norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(hidden_size, num_attention_heads, dropout) for _ in range(num_hidden_layers)
        )
        self.output_norm = nn.LayerNorm(hidden_size)

    def forward(
        self, x_t: torch.Tensor, timesteps: torch.Tensor, sequence: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Predict x_0, (B, D).

        Args:
            x_t: (B, D).
            timesteps: (B,), 1 ... T; or (1,), the same for all.
            sequence: (B, L, D), s-tilde of Eq. 9.
            attention_mask: (B, L) bool, True at real items.
        """
        time = self.time_mlp(self.sinusoids[timesteps].to(sequence.dtype))  # (B, D)
        hidden = sequence + self.positions[-sequence.shape[1] :] + self.noise_scale * (x_t + time)[:, None]
        hidden = self.dropout(self.input_norm(hidden))  # (B, L, D)
        for block in self.blocks[:-1]:
            hidden = block(hidden, attention_mask)
        return self.output_norm(self.blocks[-1](hidden, attention_mask, last_only=True)[:, 0])

    def given(self, sequence: torch.Tensor, attention_mask: torch.Tensor) -> Predict:
        """The denoiser with its condition filled in: x_t (B, D), timesteps (B,) -> predicted x_0 (B, D)."""
        return lambda x_t, timesteps: self(x_t, timesteps, sequence, attention_mask)


class TokenDenoiser(Denoiser):
    """f_theta of Eq. 13 in which x_t matters: a token of its own behind the sequence, which never looks back at it.

    The token starts as the latest item plus x_t and t, and attends in every layer to the sequence and to itself. The
    sequence is transformed once; a reverse step costs one token.

    Args:
        hidden_size, max_length, num_train_timesteps: as for ``Denoiser``.
        num_hidden_layers, num_attention_heads, dropout: as for ``Denoiser``.
    """

    def __init__(
        self,
        hidden_size: int,
        max_length: int,
        num_train_timesteps: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        dropout: float,
    ) -> None:
        sizes = hidden_size, max_length, num_train_timesteps, num_hidden_layers, num_attention_heads
        super().__init__(*sizes, dropout, noise_scale=1.0)
        self.x_in = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, x_t: torch.Tensor, timesteps: torch.Tensor, sequence: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Predict x_0, (B, D); see ``Denoiser.forward``."""
        return self.given(sequence, attention_mask)(x_t, timesteps)

    def given(self, sequence: torch.Tensor, attention_mask: torch.Tensor) -> Predict:
        """Transform the sequence once; see ``Denoiser.given``."""
        hidden = self.dropout(self.input_norm(sequence + self.positions[-sequence.shape[1] :]))  # (B, L, D)
        last, keys_values = hidden[:, -1:], []
        for number, block in enumerate(self.blocks, start=1):
            keys_values.append(block.keys_values(hidden))
            if number < len(self.blocks):
                hidden = block.attend(hidden, *keys_values[-1], attention_mask)
        times = self.time_mlp(self.sinusoids.to(last.dtype))  # (T + 1, D)

        def predict(x_t: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            told = self.x_in(x_t.to(last.dtype)) + nn.functional.embedding(timesteps, times)  # (B, D)
            token = last + told[:, None]  # (B, 1, D)
            for block, (key, value) in zip(self.blocks, keys_values, strict=True):
                token = block.attend(token, key, value, attention_mask, sees_itself=True)
            return self.output_norm(token[:, 0])

        return predict


class Trajectory(NamedTuple):
    """One reverse diffusion, step by step."""

    timesteps: list[int]  # (S + 1,), T ... 0
    samples: torch.Tensor  # (S + 1, B, D), x_T ... x_0
    predictions: torch.Tensor  # (S, B, D), the x_0 predicted at each step


def sample(
    predict: Predict,
    schedule: NoiseSchedule,
    noise: torch.Tensor,
    num_inference_steps: int | None = None,
) -> Trajectory:
    """Reverse diffusion, Eq. 16-18, from pure noise to x_0.

    Args:
        predict: x_t (B, D), timesteps (B,) -> predicted x_0 (B, D); the denoiser with its condition filled in.
        schedule: of the forward process.
        noise: (S + 1, B, D) standard normal, first x_T, then the epsilon of each step; the last is not used.
        num_inference_steps: S, from 1 to T; T when None.
    """
    steps = schedule.num_train_timesteps if num_inference_steps is None else num_inference_steps
    timesteps = schedule.inference_timesteps(steps)
    if noise.ndim != 3 or len(noise) < len(timesteps):
        raise ValueError(f"noise must be ({len(timesteps)}, B, D), got {tuple(noise.shape)}")
    x_t, samples, predictions = noise[0], [noise[0]], []
    for k, (t, prev_t) in enumerate(itertools.pairwise(timesteps), start=1):
        pred_original = predict(x_t, torch.full((1,), t, device=x_t.device))
        x_t = schedule.step(pred_original, x_t, t, prev_t, noise[k])
        predictions.append(pred_original)
        samples.append(x_t)
    return Trajectory(timesteps, torch.stack(samples), torch.stack(predictions))


def user_noise(user_keys: torch.Tensor, seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal noise (shape[0], B, *shape[1:]) that depends on (seed, user) alone, never on the batch.

    Args:
        user_keys: (B,) int64, one stable number a user.
        seed: draws with different seeds are independent.
        shape: of one user's noise; a longer first axis continues the noise without changing its start.
    """
    rows = [
        np.random.Generator(np.random.Philox(key=(key, seed))).standard_normal(shape, dtype=np.float32)
        for key in user_keys.tolist()
    ]
    return torch.from_numpy(np.stack(rows, axis=1)).to(user_keys.device)
