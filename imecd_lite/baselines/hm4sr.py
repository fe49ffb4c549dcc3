"""HM4SR (Zhang et al., 2025): experts that look across modalities, then experts that go by time."""

# B batch, L sequence, D hidden, I items, C nodes of category paths, N experts

from __future__ import annotations

import hashlib
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from imecd_lite.baselines.sequential import (
    EMBEDDING_STD,
    SequentialRecommender,
    add_term,
    attention_mask,
    info_nce,
    initialise,
    register_features,
)
from imecd_lite.config import MODALITIES, IMECDConfig
from imecd_lite.dataset import Batch, Dataset, length_chunks, rejoin
from imecd_lite.errors import InputError
from imecd_lite.model import LossOutput
from imecd_lite.transformer import PostNormBlock

DAY = 86_400.0  # seconds


class HM4SR(SequentialRecommender):
    """Ids, texts and images, enriched by each other and weighed by time, each read by a Transformer of its own.

    The terms and constants of the official code (``HM4SR.py``, ``config/Games.yaml``). It reads when items were
    bought: histories without their time stamps are refused, never dated by their order.

    Handled otherwise: gaps between events are subtracted before they lose their seconds to float32, and those longer
    than any in training count as the longest; dates are days since the first training event; rows with the same
    target are no negatives; the experts of time are trained; the loss for categories reads each item's own
    categories. These are the nodes of the paths in ``items.csv``. An item without one is left out of that loss;
    where no item has one, or there is no ``items.csv``, there is no such loss.

    Args:
        config: hidden_size, max_length, num_attention_heads, dropout and lambda_c, the weight of the contrastive
            terms, are used; the layers are two.
        num_items: I.
        text_features: (I, d_txt), row i - 1 for item i.
        image_features: (I, d_img), likewise.
        longest_gap: between two training events of a history, in seconds.
        first_event: the time of the first training event.
        categories: (I, C) bool, which nodes an item's path has; None where there are none.

    Raises:
        InputError: text or image is missing or switched off.
    """

    NEEDS_FEATURES = True
    REMARK = "times in days since the first training event; category nodes told apart by name."
    DEFAULTS: ClassVar = {"num_attention_heads": 2, "dropout": 0.5, "lambda_c": 1.0}
    TUNED = ("learning_rate", "dropout", "lambda_c")
    NUM_LAYERS = 2  # these and the next six: config/Games.yaml
    NUM_EXPERTS = 4  # across modalities, and as many of time
    MODALITY_WEIGHTS = (0.0, 1.0, 1.0)  # what the experts first add to id, text and image
    INTERVAL_SCALE = 100  # intervals told apart for each doubling of a gap
    MASKED_TENTHS = 3  # share of a history's items, in tenths, that are masked in the second view
    ITEM_TEMPERATURE, VIEW_TEMPERATURE = 0.2, 1.0  # of the contrast with the next item and that with the second view
    NORM_EPS = 1e-12  # the experts of time leave embeddings of the order 0.001, which 1e-5 would drown

    def __init__(
        self,
        config: IMECDConfig,
        num_items: int,
        text_features: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        *,
        longest_gap: float,
        first_event: float,
        categories: torch.Tensor | None = None,
    ) -> None:
        super().__init__(config, num_items)
        text, image = text_features if config.use_text else None, image_features if config.use_image else None
        register_features(self, ("text", "image"), text=text, image=image)
        self.longest_gap, self.first_event = longest_gap, first_event
        self.register_buffer("times_hash", torch.zeros((), dtype=torch.int64))  # of the data that it learns from
        self.register_load_state_dict_pre_hook(refuse_other_times)
        size, experts = config.hidden_size, self.NUM_EXPERTS
        self.text_projection = nn.Linear(self.text_features.shape[1], size)
        self.image_projection = nn.Linear(self.image_features.shape[1], size)
        self.positions = nn.Parameter(EMBEDDING_STD * torch.randn(config.max_length, size))
        self.modality_experts = nn.Linear(3 * size, experts * 3 * size)
        self.modality_gates = nn.ModuleDict({name: nn.Linear(size, experts) for name in MODALITIES})
        self.modality_weights = nn.Parameter(torch.tensor(self.MODALITY_WEIGHTS))
        self.interval_embedding = nn.Embedding(
            int(self.interval(torch.tensor(longest_gap, dtype=torch.float64))) + 1, size
        )
        self.clock = nn.Linear(1, size)
        self.register_buffer("frequencies", 10_000.0 ** (-torch.arange(size) / size), persistent=False)
        self.time_gate = nn.Linear(2 * size, experts)
        self.time_experts = nn.Parameter(0.1 * torch.randn(experts, 3 * size))
        self.input_norms = nn.ModuleDict({name: nn.LayerNorm(size, self.NORM_EPS) for name in MODALITIES})
        self.dropout = nn.Dropout(config.dropout)
        block = (size, config.num_attention_heads, config.dropout)
        self.blocks = nn.ModuleDict(
            {name: nn.ModuleList(PostNormBlock(*block) for _ in range(self.NUM_LAYERS)) for name in MODALITIES}
        )
        self.stand_ins = nn.ModuleDict({name: nn.Linear(2 * size, size) for name in MODALITIES[1:]})
        self.category_head = None
        if categories is not None:
            self.register_buffer("categories", F.pad(categories, (0, 0, 1, 0)), persistent=False)  # (I + 1, C)
            self.category_head = nn.Linear(3 * size, categories.shape[1])
        self.apply(initialise)

    @classmethod
    def build(
        cls,
        config: IMECDConfig,
        dataset: Dataset,
        text_features: torch.Tensor | None,
        image_features: torch.Tensor | None,
    ) -> HM4SR:
        """A fresh model that knows the categories, the longest gap and the first event of a dataset's training part."""
        events = [times[:-2] for times in dataset.timestamps]
        gap = max((float(np.diff(times).max()) for times in events if len(times) > 1), default=0.0)
        first = min((float(times[0]) for times in events if len(times)), default=0.0)
        categories, features = category_labels(dataset), (text_features, image_features)
        model = cls(config, dataset.num_items, *features, longest_gap=gap, first_event=first, categories=categories)
        digest = hashlib.sha256(np.concatenate(dataset.timestamps).astype(np.float64).tobytes()).digest()
        model.times_hash.fill_(int.from_bytes(digest[:8], "big", signed=True))
        return model

    def item_embeddings(self) -> torch.Tensor:
        """(I + 1, 3 D), row 0 zero: ID embedding, text and image side by side."""
        text, image = self.text_projection(self.text_features[1:]), self.image_projection(self.image_features[1:])
        return F.pad(torch.cat([self.item_embedding.weight[1:], text, image], dim=-1), (0, 0, 1, 0))

    def interval(self, gaps: torch.Tensor) -> torch.Tensor:
        """The number of the interval that a gap of so many seconds falls into, of any shape."""
        gaps = gaps.double().clamp(0, self.longest_gap)
        return (self.INTERVAL_SCALE * (gaps + 1).log2()).floor().long()

    def time_embedding(self, item_seq: torch.Tensor, timestamps: torch.Tensor) -> torch.Tensor:
        """How long after the item before, and when, each item of (B, L) was bought: (B, L, 2 D)."""
        times, real = timestamps.double(), item_seq > 0  # float32 can't tell apart seconds since 1970
        gaps = F.pad(times.diff(dim=1) * real[:, :-1], (1, 0))  # (B, L), the first item has none
        days = ((times - self.first_event) / DAY)[..., None]  # (B, L, 1)
        # the clock by hand, as mixed precision would round the days of a layer to eight
        angles = days.to(self.frequencies.dtype) * self.clock.weight[:, 0] + self.clock.bias
        dates = torch.cos(self.frequencies * angles)  # (B, L, D)
        return torch.cat([self.interval_embedding(self.interval(gaps)), dates], dim=-1)

    def mix(
        self, item_seq: torch.Tensor, table: torch.Tensor, timestamps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What both kinds of experts make of the items of (B, L), (B, L, 3 D), and the time embedding (B, L, 2 D)."""
        positions = self.positions[-item_seq.shape[1] :].repeat(1, 3)
        embeddings = F.embedding(item_seq, table, padding_idx=0) + positions  # (B, L, 3 D)
        offers = self.modality_experts(embeddings).unflatten(-1, (self.NUM_EXPERTS, 3, -1))  # (B, L, N, 3, D)
        parts = embeddings.unflatten(-1, (3, -1))  # (B, L, 3, D)
        gates = [self.modality_gates[name](parts[:, :, m]).softmax(dim=-1) for m, name in enumerate(MODALITIES)]
        added = torch.einsum("blmn,blnmd->blmd", torch.stack(gates, dim=2), offers)  # (B, L, 3, D)
        parts = parts + self.modality_weights[:, None] * added
        time = self.time_embedding(item_seq, timestamps)
        weights = self.time_gate(time).softmax(dim=-1) @ self.time_experts  # (B, L, 3 D)
        return parts.flatten(2) * weights, time

    def read(
        self, modality: str, embeddings: torch.Tensor, mask: torch.Tensor, last_only: bool = False
    ) -> torch.Tensor:
        """A modality's Transformer: the states (B, L, D), or the last (B, 1, D), of (B, L, D); ``mask`` (B, L, L)."""
        hidden, (*lower, top) = self.dropout(self.input_norms[modality](embeddings)), self.blocks[modality]
        for block in lower:
            hidden = block(hidden, mask)
        return top(hidden, mask, last_only)

    def encode(self, item_seq: torch.Tensor, table: torch.Tensor, timestamps: torch.Tensor) -> torch.Tensor:
        """The states after each item of left-padded histories (B, L), (B, L, 3 D). A state knows no later item."""
        embeddings, mask = self.mix(item_seq, table, timestamps)[0], attention_mask(item_seq, causal=True)
        parts = zip(MODALITIES, embeddings.chunk(3, dim=-1), strict=True)
        return torch.cat([self.read(name, part, mask) for name, part in parts], dim=-1)

    def masked(
        self, embeddings: torch.Tensor, time: torch.Tensor, item_seq: torch.Tensor, draws: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Text and image of (B, L), where some items are known by their time alone: (B, L, D) each.

        Args:
            embeddings: (B, L, 3 D) from ``mix``.
            time: (B, L, 2 D), likewise.
            item_seq: (B, L).
            draws: (B, L) random numbers from 0 to 1; the items with the largest are masked.
        """
        real = item_seq > 0
        ranks = draws.masked_fill(~real, -1.0).argsort(dim=1, descending=True).argsort(dim=1)
        masked = (ranks < self.MASKED_TENTHS * real.sum(dim=1, keepdim=True) // 10)[..., None]  # (B, L, 1)
        parts = zip(self.stand_ins.items(), embeddings.chunk(3, dim=-1)[1:], strict=True)
        return {name: torch.where(masked, stand_in(time), part) for (name, stand_in), part in parts}

    def represent(
        self,
        item_seq: torch.Tensor,
        table: torch.Tensor,
        timestamps: torch.Tensor,
        draws: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The last states of id, text and image, (B, 3 D), computed in chunks of similar length.

        With ``draws`` (B, max_length) those of ``masked`` text and image follow: (B, 5 D).
        """
        chunks, states = length_chunks(item_seq), []
        for rows, chunk in chunks:
            recent, mask = slice(-chunk.shape[1], None), attention_mask(chunk, causal=True)
            embeddings, time = self.mix(chunk, table, timestamps[rows, recent])
            parts = list(zip(MODALITIES, embeddings.chunk(3, dim=-1), strict=True))
            if draws is not None:
                parts += self.masked(embeddings, time, chunk, draws[rows, recent]).items()
            last = [self.read(name, part, mask, last_only=True)[:, 0] for name, part in parts]
            states.append(torch.cat(last, dim=-1))
        return rejoin(chunks, states)

    def loss(self, batch: Batch, generator: torch.Generator) -> LossOutput:
        """Cross-entropy, contrasts of ID states with next items and of states with masked ones, and categories."""
        size, targets, table = (len(batch.item_seq), self.config.max_length), batch.pos_items, self.item_embeddings()
        draws = torch.rand(size, generator=generator, device=targets.device)
        states = self.represent(batch.item_seq, table, batch.timestamps, draws)  # (B, 5 D)
        scores = self.compare(states[:, : table.shape[1]], batch.item_seq, table)
        ids, text, image, *views = states.chunk(5, dim=-1)
        weight, items = self.config.lambda_c, self.item_embedding(targets)
        output = self.cross_entropy(scores, targets)
        output = add_term(output, "id/contrastive", info_nce(ids, items, targets, self.ITEM_TEMPERATURE), weight)
        for name, state, view in zip(self.stand_ins, (text, image), views, strict=True):
            value = info_nce(state, view, targets, self.VIEW_TEMPERATURE)
            output = add_term(output, f"{name}/contrastive", value, weight / 2)
        if self.category_head is None:
            return output
        return add_term(output, "id/categories", self.category_loss(batch.item_seq, table))

    def category_loss(self, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Mean over the items of histories (B, L), those without a category apart, of their binary cross-entropy."""
        items, counts = item_seq.unique(return_counts=True)
        labels = self.categories[items]  # (n, C); the padding has none
        logits = self.category_head(table[items])
        each = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(dim=1)
        counts = counts * labels.any(dim=1)
        return (counts * each).sum() / counts.sum().clamp(min=1)

    @torch.no_grad()
    def full_sort_predict(
        self,
        item_seq: torch.Tensor,
        user_keys: torch.Tensor,
        seed: int = 0,
        timestamps: torch.Tensor | None = None,
        tables: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scores of the whole catalogue, (B, I + 1), column 0 minus infinity; nothing about them is random.

        Args:
            timestamps: (B, L) in seconds, float64 or int64, when each item was bought.

        Raises:
            ValueError: ``timestamps`` are missing or of another shape.
        """
        if timestamps is None or timestamps.shape != item_seq.shape:
            found = "none" if timestamps is None else str(tuple(timestamps.shape))
            raise ValueError(f"timestamps must be {tuple(item_seq.shape)}, like item_seq, got {found}; use predict")
        table = self.item_embeddings() if tables is None else tables
        scores = self.compare(self.represent(item_seq, table, timestamps), item_seq, table)
        scores[:, 0] = -torch.inf
        return scores

    def predict(self, batch: Batch, seed: int = 0, tables: torch.Tensor | None = None) -> torch.Tensor:
        """``full_sort_predict`` for a batch with its time stamps, (B, I + 1)."""
        return self.full_sort_predict(batch.item_seq, batch.user_keys, seed, batch.timestamps, tables)


def category_labels(dataset: Dataset) -> torch.Tensor | None:
    """Which nodes the category path of each item has, (I, C) bool, nodes in alphabetical order; None without any."""
    if dataset.items is None or "category" not in dataset.items:
        return None
    paths = [{node.strip() for node in path.split("|")} - {""} for path in dataset.items["category"]]
    columns = {node: column for column, node in enumerate(sorted(set().union(*paths)))}
    if not columns:
        return None
    labels = torch.zeros(len(paths), len(columns), dtype=torch.bool)
    for row, path in enumerate(paths):
        labels[row, [columns[node] for node in path]] = True
    return labels


def refuse_other_times(model: HM4SR, state: dict[str, torch.Tensor], prefix: str, *_: object) -> None:
    """Raise ``InputError`` where weights are loaded that were learnt from other time stamps.

    Of these a dataset's fingerprint knows the order alone.
    """
    noted = state.get(f"{prefix}times_hash")
    if noted is not None and noted.item() != model.times_hash.item():
        raise InputError("This HM4SR was trained on data with other time stamps; name the data it was trained on.")
