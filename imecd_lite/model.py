"""IMECD: the modules assembled, its scores (Eq. 19) and its losses (Eq. 14, 15, 20-22)."""

# B batch, L sequence, D hidden, I items, Z codes, T steps, S steps taken, C chunks of a batch

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from imecd_lite.codebooks import CodebookOutput, SequenceCodebook, gumbel
from imecd_lite.config import IMECDConfig
from imecd_lite.dataset import Batch, Dataset, length_chunks, rejoin
from imecd_lite.diffusion import Denoiser, NoiseSchedule, Predict, TokenDenoiser, Trajectory, sample, user_noise
from imecd_lite.experts import ExpertsOutput, IDGatedExperts, ItemGroups
from imecd_lite.processes import gather, own_rows

MAX_LOGITS = 2**25
"""That are held at a time, 128 MB of them."""
PART_LOGITS = 2**22
"""Of a part, where logits are made in parts: so few that the next part takes the memory of the last."""
REPEAT_SCALE = 10.0  # Adam moves a weight by the learning rate a step: the bias of a repeat has further to go


@dataclass
class LossOutput:
    """A training step's loss and what the step leaves behind for ``after_step``."""

    total: torch.Tensor  # Eq. 22
    terms: dict[str, torch.Tensor]  # detached, named "modality/term"
    chosen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=dict)
    """By modality: the batch's sequences (B, L, D) and code indices (B,), chunk by chunk."""
    parts: dict[str, torch.Tensor] = field(default_factory=dict)
    """``terms`` with their graph, to ask what each of them teaches: see ``diagnostics.term_gradients``."""


class Recommender(nn.Module):
    """What the trainer and the evaluator ask of every model. Items are 1 ... I; 0 is padding."""

    DEFAULTS: ClassVar[dict[str, object]] = {}
    """The published settings where they differ from those of the configs, by field; ``hidden_size`` is one for all."""
    TUNED: ClassVar[tuple[str, ...]] = ("learning_rate", "dropout")
    """The settings that ``tune`` varies, of those in ``runs.SPACE``."""
    WEIGHT_DECAY: ClassVar[float] = 0.0
    """The penalty on squared weights that Adam is given."""

    NEEDS_FEATURES: ClassVar[bool] = False
    """Whether it can't do without text or pictures, so not on an ids-only dataset."""
    REMARK: ClassVar[str] = ""
    """What a table has to say of it: what was left out of the published system, or is not as published."""

    config: IMECDConfig | None = None  # the settings, where a model has some

    @classmethod
    def build(
        cls,
        config: IMECDConfig,
        dataset: Dataset,
        text_features: torch.Tensor | None,
        image_features: torch.Tensor | None,
    ) -> Recommender:
        """A fresh model for a dataset; overridden where a model has to know more of it than the number of items."""
        return cls(config, dataset.num_items, text_features, image_features)

    def fit_statistics(self, dataset: Dataset) -> None:
        """Called once before training: what the model reads off the training data without gradients."""

    def on_epoch_start(self, generator: torch.Generator) -> None:
        """Called before each epoch, for state that is computed anew; its randomness comes from ``generator``."""

    def loss(self, batch: Batch, generator: torch.Generator) -> LossOutput:
        """The loss of one batch; all its randomness but dropout comes from ``generator``."""
        raise NotImplementedError

    def after_step(self, output: LossOutput) -> None:
        """Called after the optimiser's step, for state that gradients do not move."""

    def item_embeddings(self) -> object:
        """What the model makes of all items: computed once, it serves any number of ``predict``; None if nothing."""
        return None

    def full_sort_predict(self, item_seq: torch.Tensor, user_keys: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """Scores of the whole catalogue, (B, I + 1), column 0 minus infinity."""
        raise NotImplementedError

    def predict(self, batch: Batch, seed: int = 0, tables: object = None, **options: object) -> torch.Tensor:
        """``full_sort_predict`` for a batch, (B, I + 1); overridden by models that read its time stamps.

        ``tables`` are ``item_embeddings()``, when at hand; ``options`` are the model's own, as ``num_inference_steps``.
        """
        at_hand = {} if tables is None else {"tables": tables}
        return self.full_sort_predict(batch.item_seq, batch.user_keys, seed, **at_hand, **options)


class IMECD(Recommender):
    """ID-guided multimodal experts with contrastive diffusion.

    Args:
        config: the settings.
        num_items: I.
        text_features: (I, d_txt) frozen features, row i - 1 for item i; needed when ``config.use_text``.
        image_features: (I, d_img), likewise.
    """

    TUNED = ("learning_rate", "dropout", "lambda_q", "lambda_c", "lambda_gate", "own_noise")
    chunks = staticmethod(length_chunks)  # how a batch is cut for the forward pass

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
            features = standardise(features.float()) if config.unit_variance else features.float()
            self.register_buffer(f"{name}_features", features, persistent=False)
            self.projections[name] = nn.Linear(features.shape[1], config.hidden_size)
            if config.use_experts:
                self.experts[name] = IDGatedExperts(config.hidden_size, config.num_experts)
        self.groups = (
            ItemGroups(config.hidden_size, config.num_experts) if config.lambda_gate and self.experts else None
        )
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
                    config.code_decay,
                    config.code_lifetime,
                )
            sizes = config.hidden_size, config.max_length, config.num_train_timesteps
            transformer = config.num_layers[name], config.num_attention_heads, config.dropout
            if config.denoiser == "token":
                self.denoisers[name] = TokenDenoiser(*sizes, *transformer)
            else:
                self.denoisers[name] = Denoiser(*sizes, *transformer, config.noise_scale)
        self.schedule = NoiseSchedule(config.beta_schedule, config.num_train_timesteps)
        self.embedding_dropout = nn.Dropout(config.dropout)
        self.repeat_bias = nn.Parameter(torch.zeros(len(config.modalities))) if config.repeat_bias else None
        self.score_scale = config.hidden_size**-0.5 if config.unit_variance else 1.0  # of every inner product of Eq. 19
        self.score_weights = [1.0 if name == "id" else config.feature_weight for name in config.modalities]

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in use."""
        return self.config.modalities

    def project(self, modality: str) -> torch.Tensor:
        """Eq. 1, 2: the text or image features in the space of the ID embeddings, (I, D)."""
        return self.projections[modality](getattr(self, f"{modality}_features"))

    def route(self, modality: str) -> ExpertsOutput:
        """Eq. 3-6 for "text" or "image": what the experts make of every item, row i - 1 for item i."""
        return self.experts[modality](self.project(modality), self.normalise(self.item_embedding.weight[1:]))

    def normalise(self, embeddings: torch.Tensor) -> torch.Tensor:
        """With ``unit_variance``, embeddings (I, D) moved and scaled, all alike, to zero mean and unit variance."""
        if not self.config.unit_variance:
            return embeddings
        centred = embeddings - embeddings.mean(dim=0)
        variance = centred.square().mean().clamp(min=1e-12)  # the root of 0 has no gradient
        return centred / (variance.sqrt() + 1e-6)

    def item_embeddings(self) -> dict[str, torch.Tensor]:
        """Every item's representation in each modality, (I + 1, D) with row 0 zero: e_i of Eq. 19."""
        tables = {"id": self.item_embedding.weight[1:]}
        for name in self.projections:
            tables[name] = self.route(name).embeddings if self.config.use_experts else self.project(name)
        dtype = self.item_embedding.weight.dtype  # also where products are made in another
        return {name: F.pad(self.normalise(table.to(dtype)), (0, 0, 1, 0)) for name, table in tables.items()}

    def quantise(
        self, modality: str, sequence: torch.Tensor, gumbel_noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, CodebookOutput | None]:
        """Eq. 7-9: the quantised sequence (B, L, D) and all that the codebook says of it, None without codebooks."""
        if sequence.shape[1] > self.config.max_length:
            raise ValueError(f"item_seq must hold at most {self.config.max_length} items, got {sequence.shape[1]}")
        if not self.config.use_codebooks:
            return sequence, None
        output = self.codebooks[modality](sequence, gumbel_noise)
        return output.sequence, output

    def loss(self, batch: Batch, generator: torch.Generator) -> LossOutput:
        """Eq. 22 for a batch of prefixes and their next items.

        The forward pass runs over chunks of similar length; losses and codebooks see the joined batch, so the
        chunks change nothing but the time it takes. Where processes share the batch, each draws for all of it, passes
        its rows, and gives the loss of those; the mean of the processes' gradients is the whole batch's.
        """
        config, tables, size, device = self.config, self.item_embeddings(), len(batch.pos_items), batch.pos_items.device
        distinct, rows = distinct_pairs(batch.item_seq, batch.users), own_rows(size)  # (B, B)
        batch = batch[rows]
        chunks = self.chunks(batch.item_seq, batch.lengths)
        total, parts, chosen = torch.zeros((), device=device), {}, {}
        for m, name in enumerate(self.modalities):
            table = tables[name]
            x_0 = F.embedding(batch.pos_items, table)  # (B, D)
            timesteps = torch.randint(
                1, self.schedule.num_train_timesteps + 1, (size,), generator=generator, device=device
            )[rows]
            noise = torch.randn(size, config.hidden_size, generator=generator, device=device)[rows]
            gumbel_noise = gumbel((size, config.codebook_size), generator, device)[rows]  # (B, Z)
            predict, quantised = self.condition(name, chunks, table, gumbel_noise)
            start, passes = x_0, []
            if config.own_noise:
                x_T = torch.randn(size, config.hidden_size, generator=generator, device=device)[rows]
                passes.append(predict(x_T, torch.full_like(timesteps, self.schedule.num_train_timesteps)))
                own = torch.rand(size, 1, generator=generator, device=device)[rows] < config.own_noise
                start = torch.where(own, passes[0].detach(), x_0)
            x_t = self.schedule.add_noise(start, noise, timesteps)
            pred_original = predict(x_t, timesteps)  # (B, D), x-hat_0
            passes.append(pred_original)
            losses = {
                "cross_entropy": sum(self.cross_entropy(m, x, table, batch) for x in passes) / len(passes),
                "reconstruction": F.mse_loss(pred_original, x_0.detach() if config.detach_target else x_0),  # Eq. 14
            }
            total = total + losses["cross_entropy"] + losses["reconstruction"]
            if config.use_contrastive:
                losses["contrastive"] = contrastive_loss(gather(pred_original), distinct)
                total = total + config.lambda_c * losses["contrastive"]
            chosen[name] = [(sequence, output.indices) for sequence, output in quantised]
            if quantised and config.lambda_match:
                nearest = torch.cat([self.codebooks[name].nearest(sequence) for sequence, _ in quantised])
                losses["match"] = F.cross_entropy(torch.cat([output.logits for _, output in quantised]), nearest)
                total = total + config.lambda_match * losses["match"]
            if name in self.experts and self.groups is not None:
                losses["gate"] = self.gate_loss(name, tables["id"][1:].detach())
                total = total + config.lambda_gate * losses["gate"]
            parts.update({f"{name}/{term}": value for term, value in losses.items()})
        return LossOutput(total, {name: value.detach() for name, value in parts.items()}, chosen, parts)

    def cross_entropy(self, m: int, predicted: torch.Tensor, table: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Eq. 20, 21: predictions (B, D) of modality number ``m`` against the whole catalogue (I + 1, D).

        Where that takes more than ``MAX_LOGITS`` logits they are made for a part of the catalogue at a time, and made
        again for their gradient.
        """
        predicted, history = self.score_scale * predicted, batch.item_seq - 1

        def logits_of(items: torch.Tensor, first: int) -> torch.Tensor:
            logits = (predicted @ items.T).to(predicted.dtype)  # (B, i), the items from number ``first`` + 1
            if self.repeat_bias is not None:
                columns = history - first
                move_repeats(logits, columns.masked_fill(columns >= len(items), -1), self.repeat_bias[m])
            return logits

        if len(predicted) * self.num_items <= MAX_LOGITS:
            return F.cross_entropy(logits_of(table[1:], 0), batch.pos_items - 1)
        size, parts = max(PART_LOGITS // len(predicted), 1), []
        for k, items in enumerate(table[1:].split(size)):
            part = checkpoint(
                lambda *given: logits_of(*given).logsumexp(dim=1),
                *(items, size * k),
                use_reentrant=False,
                preserve_rng_state=False,
            )
            parts.append(part)  # (B,)
        of_target = (predicted * F.embedding(batch.pos_items, table)).sum(dim=1)
        if self.repeat_bias is not None:
            again = (batch.item_seq == batch.pos_items[:, None]).any(dim=1)
            of_target = of_target + REPEAT_SCALE * self.repeat_bias[m] * again
        return (torch.stack(parts).logsumexp(dim=0) - of_target).mean()

    def gate_loss(self, modality: str, ids: torch.Tensor) -> torch.Tensor:
        """How far the gate is from naming the group of each item by its ID (I, D); 0 until there are groups."""
        if not self.groups.formed:
            return ids.new_zeros(())
        return F.cross_entropy(self.experts[modality].gate(ids), self.groups.nearest(ids))

    def condition(
        self, modality: str, chunks: list[tuple[torch.Tensor, torch.Tensor]], table: torch.Tensor, noise: torch.Tensor
    ) -> tuple[Predict, list[tuple[torch.Tensor, CodebookOutput]]]:
        """The denoiser given a batch's histories in chunks, and what the codebook made of each chunk.

        Args:
            chunks: from ``length_chunks``.
            table: (I + 1, D) the items' representations.
            noise: (B, Z) Gumbel noise.

        Returns:
            A function of x_t (B, D) and timesteps (B,) that predicts x_0 (B, D), all in batch order; by chunk the
            sequences (B, L, D), detached, with their ``CodebookOutput``; empty without codebooks.
        """
        given, quantised = [], []
        items = torch.cat([item_seq.flatten() for _, item_seq in chunks])  # (n,), looked up at once
        flat = self.embedding_dropout(F.embedding(items, table, padding_idx=0))  # (n, D)
        parts = flat.split([item_seq.numel() for _, item_seq in chunks])
        for (rows, item_seq), part in zip(chunks, parts, strict=True):
            sequence = part.view(*item_seq.shape, -1)  # (b, l, D)
            mixed, output = self.quantise(modality, sequence, noise[rows])
            if output is not None:
                quantised.append((sequence.detach(), output))
            given.append((rows, self.given(modality, mixed, item_seq > 0)))

        def predict(x_t: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            return rejoin(chunks, (denoise(x_t[rows], timesteps[rows]) for rows, denoise in given))

        return predict, quantised

    def given(self, modality: str, sequence: torch.Tensor, attention_mask: torch.Tensor) -> Predict:
        """The denoiser of a modality, its condition filled in; see ``Denoiser.given``."""
        return self.denoisers[modality].given(sequence, attention_mask)

    def after_step(self, output: LossOutput) -> None:
        """Eq. 10: move the codes to the sequences that chose them, and the groups of items after their items."""
        for name, codebook in self.codebooks.items():
            codebook.em_update(output.chosen[name])
        if self.groups is not None:
            self.groups.update(self.normalise(self.item_embedding.weight[1:]).detach())

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
        noise = noise.to(tables["id"].dtype)
        trajectories = {}
        for m, name in enumerate(self.modalities):
            quantised, _ = self.quantise(name, F.embedding(item_seq, tables[name]))
            predict = self.given(name, quantised, item_seq > 0)
            trajectories[name] = sample(predict, self.schedule, noise[:, :, m], steps)
        return trajectories

    @torch.no_grad()
    def full_sort_predict(
        self,
        item_seq: torch.Tensor,
        user_keys: torch.Tensor,
        seed: int = 0,
        num_inference_steps: int | None = None,
        tables: dict[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Eq. 19, modalities weighted and repeats biased: scores of the whole catalogue, (B, I + 1), column 0 -inf.

        ``tables`` are ``item_embeddings()``, when at hand, or others to play with.
        """
        if item_seq.ndim != 2:
            raise ValueError(f"item_seq must be (B, L), got {tuple(item_seq.shape)}")
        tables = tables or self.item_embeddings()
        scores = tables["id"].new_empty(len(item_seq), self.num_items + 1)
        for rows, chunk in self.chunks(item_seq):
            trajectories = self.generate(chunk, user_keys[rows], seed, num_inference_steps, tables)
            generated = {name: trajectory.samples[-1] for name, trajectory in trajectories.items()}
            scores[rows] = self.score(generated, chunk, tables).to(scores.dtype)
        return scores

    @torch.no_grad()
    def score(
        self, generated: dict[str, torch.Tensor], item_seq: torch.Tensor, tables: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Eq. 19 for any p_u in each modality, (B, D), and its history (B, L): (B, I + 1), column 0 -inf."""
        products = [generated[name] @ tables[name].T for name in self.modalities]  # (B, I + 1) each
        scores = self.score_scale * sum(w * s for w, s in zip(self.score_weights, products, strict=True))
        if self.repeat_bias is not None:
            bias = sum(w * b for w, b in zip(self.score_weights, self.repeat_bias, strict=True))
            move_repeats(scores[:, 1:], item_seq - 1, bias)
        scores[:, 0] = -torch.inf
        return scores


def move_repeats(scores: torch.Tensor, history: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Add ``REPEAT_SCALE`` times the bias to the scores of what a shopper has, in place.

    Args:
        scores: (B, n).
        history: (B, L) columns of the scores, negative at the padding; one that is there twice counts once.
    """
    earlier = (history[:, :, None] == history[:, None]).tril(diagonal=-1).any(dim=-1)  # (B, L), counted already
    moves = REPEAT_SCALE * bias * ((history >= 0) & ~earlier)
    return scores.scatter_add_(1, history.clamp(min=0), moves.to(scores.dtype))


def standardise(features: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit variance over the items of each feature (I, d); what never varies becomes zero."""
    deviation = features.std(dim=0, correction=min(1, len(features) - 1))  # (d,)
    varies = deviation > 1e-6  # the mean of what does not is rounded, too
    return torch.where(varies, (features - features.mean(dim=0)) / deviation, 0.0)


def distinct_pairs(item_seq: torch.Tensor, users: torch.Tensor) -> torch.Tensor:
    """(B, B) bool: True where two rows hold different sequences of different users, the pairs of Eq. 15."""
    items = item_seq.double()
    differing = torch.cdist(items, items, p=0)  # (B, B), at how many positions two sequences differ
    return (differing > 0) & (users[:, None] != users)


def contrastive_loss(predictions: torch.Tensor, distinct: torch.Tensor) -> torch.Tensor:
    """Eq. 15: mean over predictions of log sum exp of their cosine to the others; rows without a partner are left out.

    Args:
        predictions: (B, D).
        distinct: (B, B) bool, the pairs that count.
    """
    unit = F.normalize(predictions, dim=-1)
    paired = distinct.any(dim=1)  # (B,)
    similarity = (unit @ unit.T).to(unit.dtype).masked_fill(~distinct & paired[:, None], -torch.inf)  # (B, B)
    return (similarity.logsumexp(dim=1) * paired).sum() / paired.sum().clamp(min=1)
