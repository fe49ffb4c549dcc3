"""DiffuRec (Li, Sun and Li, 2023): the next item's embedding as the end of a reverse diffusion, given the history."""

# B batch, L sequence, M max_length, D hidden, I items, T steps, S steps taken

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from imecd_lite.baselines.sequential import EMBEDDING_STD, SequentialRecommender
from imecd_lite.config import IMECDConfig
from imecd_lite.dataset import Batch, length_chunks, rejoin
from imecd_lite.diffusion import NoiseSchedule, sample, timestep_embedding, user_noise
from imecd_lite.model import LossOutput
from imecd_lite.transformer import TransformerBlock


class ForwardNoiseSchedule(NoiseSchedule):
    """A reverse step adds the forward step's noise, sqrt(beta_t) epsilon, not the lesser one of the posterior."""

    def step(
        self, pred_original: torch.Tensor, sample: torch.Tensor, t: int, prev_t: int, noise: torch.Tensor
    ) -> torch.Tensor:
        """From x_t to x_{prev_t}, all (B, D): the posterior's mean with more noise; none into prev_t = 0."""
        mean = super().step(pred_original, sample, t, prev_t, torch.zeros_like(noise))
        if prev_t == 0:
            return mean
        return mean + math.sqrt(1 - self.abar[t] / self.abar[prev_t]) * noise


class DiffuRec(SequentialRecommender):
    """A Transformer predicts x_0, the next item's embedding, from the history and a noisy x_t, which is hardly heard.

    As the official code has it (``src/diffurec.py``, ``src/model.py``), of which these points are left out: the mask on
    queries, which lets the padding into the last state (here it is on keys); the loss-aware sampler of steps, which
    that code never updates (here they are uniform); the learning rate's fall after 100 epochs, which early stopping
    does not reach; Xavier's initial values in the feed-forward layers (here PyTorch's), GELU by its approximation and
    dropout within them. With lambda about 0.001 the T reverse steps recommend much what one does: compare them with
    ``num_inference_steps=1``. Scores are random, but a user's depend on (seed, user) alone.

    Args:
        config: hidden_size, max_length, num_attention_heads, dropout, num_train_timesteps, beta_schedule and
            noise_scale, which is the mean and the deviation of lambda, are used.
        num_items: I.
        text_features, image_features: unused.
    """

    REMARK = "uniform steps, the padding masked; no positions, as in its code."
    DEFAULTS: ClassVar = {"dropout": 0.1}  # src/main.py, and so are the constants
    NUM_LAYERS = 4
    ITEM_DROPOUT = 0.3
    POSITIONS = False  # the official code makes a table of positions and never adds it; True adds it
    SCHEDULE = ForwardNoiseSchedule
    PLACES_AT_ONCE = 2048  # items of histories that are walked back together; a place takes T x D numbers of noise

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
    ) -> None:
        super().__init__(config, num_items)  # embeddings N(0, 1), as the noise schedule assumes
        size, heads = config.hidden_size, config.num_attention_heads
        self.positions = nn.Parameter(EMBEDDING_STD * torch.randn(config.max_length, size)) if self.POSITIONS else None
        self.item_dropout = nn.Dropout(self.ITEM_DROPOUT if config.dropout else 0.0)  # dropout 0 is none at all
        self.input_norm, self.output_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.time_mlp = nn.Sequential(nn.Linear(size, 4 * size), nn.SiLU(), nn.Linear(4 * size, size))
        self.blocks = nn.ModuleList(TransformerBlock(size, heads, config.dropout) for _ in range(self.NUM_LAYERS))
        self.dropout = nn.Dropout(config.dropout)
        self.schedule = self.SCHEDULE(config.beta_schedule, config.num_train_timesteps)

    def read(self, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """X, what the denoiser knows of left-padded histories (B, L): (B, L, D), zero at the padding."""
        sequence = self.item_dropout(F.embedding(item_seq, table, padding_idx=0))
        if self.positions is not None:
            sequence = sequence + self.positions[-item_seq.shape[1] :]
        return self.input_norm(sequence) * (item_seq > 0)[..., None]

    def denoise(
        self,
        sequence: torch.Tensor,
        attention_mask: torch.Tensor,
        x_t: torch.Tensor,
        timesteps: torch.Tensor,
        weights: torch.Tensor | float,
    ) -> torch.Tensor:
        """Predict x_0, (B, D).

        Args:
            sequence: (B, L, D) what is known.
            attention_mask: (B, L) bool, True at real items.
            x_t: (B, D).
            timesteps: (B,), 1 ... T.
            weights: lambda, (B, L, D) or one number: how loudly x_t and t speak at each position.
        """
        scaled = (timesteps - 1) * (1000 / self.schedule.num_train_timesteps)
        told = x_t + self.time_mlp(timestep_embedding(scaled, x_t.shape[-1]).to(x_t.dtype))  # u, (B, D)
        hidden = sequence + weights * told[:, None]  # (B, L, D)
        for number, block in enumerate(self.blocks, start=1):
            hidden = self.dropout(block(hidden, attention_mask, last_only=number == len(self.blocks)))
        return self.output_norm(self.dropout(hidden[:, -1]))

    def corrupt(
        self, pos_items: torch.Tensor, table: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The true items (B,) noised to a random step each: x_t (B, D) and timesteps (B,), uniform on 1 ... T."""
        x_0, device = F.embedding(pos_items, table), table.device
        steps = self.schedule.num_train_timesteps
        timesteps = torch.randint(1, steps + 1, pos_items.shape, generator=generator, device=device)
        noise = torch.randn(x_0.shape, generator=generator, device=device)
        return self.schedule.add_noise(x_0, noise, timesteps), timesteps

    def loss(self, batch: Batch, generator: torch.Generator) -> LossOutput:
        """Cross-entropy of the predicted x_0 over the whole catalogue."""
        table, size = self.item_embeddings(), (len(batch.pos_items), self.config.max_length, self.config.hidden_size)
        x_t, timesteps = self.corrupt(batch.pos_items, table, generator)
        noise = torch.randn(size, generator=generator, device=table.device)  # (B, M, D)
        chunks, predicted = length_chunks(batch.item_seq, batch.lengths), []
        for rows, item_seq in chunks:
            weights = self.weights(noise[rows, -item_seq.shape[1] :]).to(table.dtype)
            sequence = self.read(item_seq, table)
            predicted.append(self.denoise(sequence, item_seq > 0, x_t[rows], timesteps[rows], weights))
        users = rejoin(chunks, predicted)
        return self.cross_entropy(self.compare(users, batch.item_seq, table), batch.pos_items)

    def weights(self, noise: torch.Tensor) -> torch.Tensor:
        """lambda ~ N(delta, delta^2), made of standard normal noise of any shape."""
        return self.config.noise_scale * (1 + noise)

    def generate(
        self, item_seq: torch.Tensor, user_keys: torch.Tensor, seed: int, steps: int, table: torch.Tensor
    ) -> torch.Tensor:
        """The end of the reverse walk of ``steps`` steps for histories (B, L) of users (B,): (B, D).

        A user's noise is that of the walk, then that of lambda from the latest position back, for each step anew.
        """
        length = item_seq.shape[1]
        noise = user_noise(user_keys, seed, (1 + length, steps + 1, self.config.hidden_size)).to(table.dtype)
        weights = iter(self.weights(noise[1:].flip(0).permute(2, 1, 0, 3)))  # a step: (B, L, D)
        sequence, mask = self.read(item_seq, table), item_seq > 0

        def predict(x_t: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            return self.denoise(sequence, mask, x_t, timesteps, next(weights))

        return sample(predict, self.schedule, noise[0].transpose(0, 1), steps).samples[-1]

    @torch.no_grad()
    def full_sort_predict(
        self,
        item_seq: torch.Tensor,
        user_keys: torch.Tensor,
        seed: int = 0,
        num_inference_steps: int | None = None,
        tables: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scores of the whole catalogue, (B, I + 1), column 0 minus infinity; T reverse steps unless given."""
        table = self.item_embeddings() if tables is None else tables
        steps = self.schedule.num_train_timesteps if num_inference_steps is None else num_inference_steps
        scores = table.new_empty(len(item_seq), self.num_items + 1)
        for chunk, histories in length_chunks(item_seq):
            at_once = max(self.PLACES_AT_ONCE // histories.shape[1], 1)
            for rows, history in zip(chunk.split(at_once), histories.split(at_once), strict=True):
                users = self.generate(history, user_keys[rows], seed, steps, table)
                scores[rows] = self.compare(users, history, table).to(scores.dtype)
        scores[:, 0] = -torch.inf
        return scores
