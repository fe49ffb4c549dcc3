"""IMECD: the modules assembled, its scores (Eq. 19) and its losses (Eq. 14, 15, 20-22)."""

# B batch, L sequence, D hidden, I items, Z codes, T steps, S steps taken, C chunks of a batch

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from imecd_lite.codebooks import SequenceCodebook, gumbel
from imecd_lite.config import IMECDConfig
from imecd_lite.dataset import Batch, Dataset, length_chunks
from imecd_lite.diffusion import Denoiser, NoiseSchedule, Trajectory, sample, user_noise
from imecd_lite.experts import ExpertsOutput, IDGatedExperts


@dataclass
class LossOutput:
    """A training step's loss and what the step leaves behind for ``after_step``."""

    total: torch.Tensor  # Eq. 22
    terms: dict[str, torch.Tensor]  # detached, named "modality/term"
    chosen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=dict)
    """By modality: the batch's sequences (B, L, D) and code indices (B,), chunk by chunk."""


class Recommender(nn.Module):
    """What the trainer and the evaluator ask of every model. Items are 1 ... I; 0 is padding."""

    config: IMECDConfig | None = None  # the settings, where a model has some

    def fit_statistics(self, dataset: Dataset) -> None:
        """Called once before training: what the model reads off the training data without gradients."""

    def loss(self, batch: Batch, generator: torch.Generator) -> LossOutput:
        """The loss of one batch; all its randomness but dropout comes from ``generator``."""
        raise NotImplementedError

    def after_step(self, output: LossOutput) -> None:
        """Called after the optimiser's step, for state that gradients do not move."""

    def full_sort_predict(self, item_seq: torch.Tensor, user_keys: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """Scores of the whole catalogue, (B, I + 1), column 0 minus infinity."""
        raise NotImplementedError


class IMECD(Recommender):
    """ID-guided multimodal experts with contrastive diffusion.

    Args:
        config: the settings.
        num_items: I.
        text_features: (I, d_txt) frozen features, row i - 1 for item i; needed when ``config.use_text``.
        image_features: (I, d_img), likewise.
    """

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
        self.projections, self.experts = nn.ModuleDict(), nn.ModuleDict()
        for name, features in (("text", text_features), ("image", image_features)):
            if name not in config.modalities:
                continue
            if features is None or len(features) != num_items:
                found = "none" if features is None else f"{len(features)} rows"
                raise ValueError(
                    f"{name}_features must have a row for each of {num_items} items, got {found}; "
                    f"to do without, set use_{name} to False"
                )
            self.register_buffer(f"{name}_features", features.float(), persistent=False)
            self.projections[name] = nn.Linear(features.shape[1], config.hidden_size)
            if config.use_experts:
                self.experts[name] = IDGatedExperts(config.hidden_size, config.num_experts)
        self.codebooks, self.denoisers = nn.ModuleDict(), nn.ModuleDict()
        for name in config.modalities:
            if config.use_codebooks:
                self.codebooks[name] = SequenceCodebook(
                    config.codebook_size,
                    config.max_length,
                    config.hidden_size,
                    config.selector_size,
                    config.lambda_q,
                    config.temperature,
                )
            self.denoisers[name] = Denoiser(
                config.hidden_size,
                config.max_length,
                config.num_layers[name],
                config.num_attention_heads,
                config.dropout,
                config.noise_scale,
            )
        self.schedule = NoiseSchedule(config.beta_schedule, config.num_train_timesteps)
        self.embedding_dropout = nn.Dropout(config.dropout)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in use."""
        return self.config.modalities

    def project(self, modality: str) -> torch.Tensor:
        """Eq. 1, 2: the text or image features in the space of the ID embeddings, (I, D)."""
        return self.projections[modality](getattr(self, f"{modality}_features"))

    def route(self, modality: str) -> ExpertsOutput:
        """Eq. 3-6 for "text" or "image": what the experts make of every item, row i - 1 for item i."""
        return self.experts[modality](self.project(modality), self.item_embedding.weight[1:])

    def item_embeddings(self) -> dict[str, torch.Tensor]:
        """Every item's representation in each modality, (I + 1, D) with row 0 zero: e_i of Eq. 19."""
        tables = {"id": self.item_embedding.weight}
        for name in self.projections:
            embeddings = self.route(name).embeddings if self.config.use_experts else self.project(name)
            tables[name] = F.pad(embeddings, (0, 0, 1, 0))  # (I + 1, D)
        return tables

    def quantise(
        self, modality: str, sequence: torch.Tensor, gumbel_noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Eq. 7-9: the quantised sequence (B, L, D) and its code indices (B,), None without codebooks."""
        if sequence.shape[1] > self.config.max_length:
            raise ValueError(f"item_seq must hold at most {self.config.max_length} items, got {sequence.shape[1]}")
        if not self.config.use_codebooks:
            return sequence, None
        output = self.codebooks[modality](sequence, gumbel_noise)
        return output.sequence, output.indices

    def loss(self, batch: Batch, generator: torch.Generator) -> LossOutput:
        """Eq. 22 for a batch of prefixes and their next items.

        The forward pass runs over chunks of similar length; losses and codebooks see the joined batch, so the
        chunks change nothing but the time it takes.
        """
        tables, size, device = self.item_embeddings(), len(batch.pos_items), batch.pos_items.device
        chunks = length_chunks(batch.item_seq)
        order = torch.cat([rows for rows, _ in chunks]).argsort()  # puts the joined chunks back in batch order
        distinct = distinct_pairs(batch.item_seq, batch.users)  # (B, B)
        total, terms, chosen = torch.zeros((), device=device), {}, {}
        for name in self.modalities:
            table = tables[name]
            x_0 = F.embedding(batch.pos_items, table)  # (B, D)
            timesteps = torch.randint(
                1, self.schedule.num_train_timesteps + 1, (size,), generator=generator, device=device
            )
            noise = torch.randn(x_0.shape, generator=generator, device=device)
            gumbel_noise = gumbel((size, self.config.codebook_size), generator, device)  # (B, Z)
            x_t = self.schedule.add_noise(x_0, noise, timesteps)
            predictions, chosen[name] = [], []
            for rows, item_seq in chunks:
                sequence = self.embedding_dropout(F.embedding(item_seq, table, padding_idx=0))  # (b, l, D)
                quantised, indices = self.quantise(name, sequence, gumbel_noise[rows])
                if indices is not None:
                    chosen[name].append((sequence.detach(), indices))
                predictions.append(self.denoisers[name](x_t[rows], timesteps[rows], quantised, item_seq > 0))
            pred_original = torch.cat(predictions)[order]  # (B, D), x-hat_0
            losses = {
                "cross_entropy": F.cross_entropy(pred_original @ table[1:].T, batch.pos_items - 1),  # Eq. 20, 21
                "reconstruction": F.mse_loss(pred_original, x_0),  # Eq. 14
            }
            total = total + losses["cross_entropy"] + losses["reconstruction"]
            if self.config.use_contrastive:
                losses["contrastive"] = contrastive_loss(pred_original, distinct)
                total = total + self.config.lambda_c * losses["contrastive"]
            terms.update({f"{name}/{term}": value.detach() for term, value in losses.items()})
        return LossOutput(total, terms, chosen)

    def after_step(self, output: LossOutput) -> None:
        """Eq. 10: move the codes to the sequences that chose them."""
        for name, codebook in self.codebooks.items():
            codebook.em_update(output.chosen[name])

    @torch.no_grad()
    def generate(
        self,
        item_seq: torch.Tensor,
        user_keys: torch.Tensor,
        seed: int = 0,
        num_inference_steps: int | None = None,
        tables: dict[str, torch.Tensor] | None = None,
    ) -> dict[str, Trajectory]:
        """Reverse diffusion in each modality, Eq. 16-18; ``.samples[-1]`` is the paper's p_u (B, D).

        Args:
            item_seq: (B, L) left-padded histories.
            user_keys: (B,) what each user's noise is drawn from, together with ``seed``.
            num_inference_steps: reverse steps, T when None.
            tables: ``item_embeddings()``, when at hand.
        """
        tables = tables or self.item_embeddings()
        steps = self.schedule.num_train_timesteps if num_inference_steps is None else num_inference_steps
        noise = user_noise(user_keys, seed, (steps + 1, len(self.modalities), self.config.hidden_size))
        trajectories = {}
        for m, name in enumerate(self.modalities):
            quantised, _ = self.quantise(name, F.embedding(item_seq, tables[name]))

            def predict(x_t, timesteps, denoiser=self.denoisers[name], quantised=quantised):
                return denoiser(x_t, timesteps, quantised, item_seq > 0)

            trajectories[name] = sample(predict, self.schedule, noise[:, :, m], steps)
        return trajectories

    @torch.no_grad()
    def full_sort_predict(
        self,
        item_seq: torch.Tensor,
        user_keys: torch.Tensor,
        seed: int = 0,
        num_inference_steps: int | None = None,
    ) -> torch.Tensor:
        """Eq. 19: scores of the whole catalogue, (B, I + 1), column 0 minus infinity."""
        if item_seq.ndim != 2:
            raise ValueError(f"item_seq must be (B, L), got {tuple(item_seq.shape)}")
        tables = self.item_embeddings()
        scores = tables["id"].new_empty(len(item_seq), self.num_items + 1)
        for rows, chunk in length_chunks(item_seq):
            trajectories = self.generate(chunk, user_keys[rows], seed, num_inference_steps, tables)
            scores[rows] = sum(trajectories[name].samples[-1] @ tables[name].T for name in self.modalities)
        scores[:, 0] = -torch.inf
        return scores


def distinct_pairs(item_seq: torch.Tensor, users: torch.Tensor) -> torch.Tensor:
    """(B, B) bool: True where two rows hold different sequences of different users, the pairs of Eq. 15."""
    sequence_ids = torch.unique(item_seq, dim=0, return_inverse=True)[1]  # (B,)
    return (sequence_ids[:, None] != sequence_ids) & (users[:, None] != users)


def contrastive_loss(predictions: torch.Tensor, distinct: torch.Tensor) -> torch.Tensor:
    """Eq. 15: mean over predictions of log sum exp of their cosine to the others; rows without a partner are left out.

    Args:
        predictions: (B, D).
        distinct: (B, B) bool, the pairs that count.
    """
    unit = F.normalize(predictions, dim=-1)
    similarity = (unit @ unit.T).masked_fill(~distinct, -torch.inf)  # (B, B)
    paired = distinct.any(dim=1)
    return similarity[paired].logsumexp(dim=1).mean() if paired.any() else predictions.sum() * 0.0
