"""What the comparators share: a vector for a history, compared with every item, and the losses on top."""

# B batch, L sequence, D hidden, I items

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from imecd_lite.config import IMECDConfig
from imecd_lite.dataset import Batch, length_chunks, rejoin
from imecd_lite.errors import InputError
from imecd_lite.model import LossOutput, Recommender, standardise

EMBEDDING_STD = 0.02


class SequentialRecommender(Recommender):
    """Makes one vector of a history and compares it with all items; learns by cross-entropy over the catalogue.

    Examples are prefixes, read at their last position. A subclass defines ``encode`` and, where an item is more than
    its embedding, ``item_embeddings``.

    Args:
        config: hidden_size is used here, more by subclasses.
        num_items: I.
    """

    def __init__(self, config: IMECDConfig, num_items: int) -> None:
        super().__init__()
        self.config, self.num_items = config, num_items
        self.item_embedding = nn.Embedding(num_items + 1, config.hidden_size, padding_idx=0)

    def item_embeddings(self) -> torch.Tensor:
        """What histories are made of and compared with, (I + 1, D), row 0 zero."""
        return self.item_embedding.weight

    def encode(self, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """The state at each item of left-padded histories (B, L), whose items are rows of the table: (B, L, D)."""
        raise NotImplementedError

    def represent(self, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """The last state of each history (B, L), (B, D), computed in chunks of similar length."""
        chunks = length_chunks(item_seq)
        return rejoin(chunks, (self.encode(chunk, table)[:, -1] for _, chunk in chunks))

    def compare(self, users: torch.Tensor, item_seq: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Scores (B, I + 1) of vectors (B, D) made of histories (B, L)."""
        return users @ table.T

    def loss(self, batch: Batch, generator: torch.Generator) -> LossOutput:
        """Cross-entropy over the whole catalogue."""
        table = self.item_embeddings()
        users = self.represent(batch.item_seq, table)
        return self.cross_entropy(self.compare(users, batch.item_seq, table), batch.pos_items)

    def cross_entropy(self, scores: torch.Tensor, pos_items: torch.Tensor) -> LossOutput:
        """The loss of scores (B, I + 1) for the true items (B,); the padding is no candidate."""
        return add_term(
            LossOutput(scores.new_zeros(()), {}), "id/cross_entropy", F.cross_entropy(scores[:, 1:], pos_items - 1)
        )

    @torch.no_grad()
    def full_sort_predict(
        self, item_seq: torch.Tensor, user_keys: torch.Tensor, seed: int = 0, tables: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores of the whole catalogue, (B, I + 1), column 0 minus infinity; nothing about them is random."""
        table = self.item_embeddings() if tables is None else tables
        scores = self.compare(self.represent(item_seq, table), item_seq, table)
        scores[:, 0] = -torch.inf
        return scores


def add_term(output: LossOutput, name: str, value: torch.Tensor, weight: float = 1.0) -> LossOutput:
    """The loss with ``weight`` times another term, "modality/term"."""
    return LossOutput(
        output.total + weight * value,
        output.terms | {name: value.detach()},
        output.chosen,
        output.parts | {name: value},
    )


def initialise(module: nn.Module) -> None:
    """For ``nn.Module.apply``: normal weights of standard deviation 0.02, biases zero, the padding's row zero."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=EMBEDDING_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])


def register_features(model: nn.Module, names: tuple[str, ...], **features: torch.Tensor | None) -> None:
    """Give ``model`` frozen tables ``text_features``, ``image_features`` (I + 1, d): standardised, row 0 zero.

    Args:
        names: the modalities that the model can't do without.
        features: (I, d) by modality, or None where a dataset or the settings have none.

    Raises:
        InputError: one of ``names`` is missing.
    """
    for name in names:
        if features[name] is None:
            raise InputError(
                f"{type(model).__name__} needs {name} features; give a dataset with items.csv and leave use_{name} on."
            )
        table = F.pad(standardise(features[name].float()), (0, 0, 1, 0))  # (I + 1, d)
        model.register_buffer(f"{name}_features", table, persistent=False)


def attention_mask(item_seq: torch.Tensor, causal: bool) -> torch.Tensor:
    """Who sees whom in left-padded histories (B, L): (B, L, L) bool, True where a row may look at a column.

    Real items alone are seen, with ``causal`` none that comes later; everybody sees itself, or padded rows were NaN.
    """
    length = item_seq.shape[1]
    mask = (item_seq > 0)[:, None, :].expand(-1, length, -1)
    if causal:
        mask = mask & torch.ones(length, length, dtype=torch.bool, device=item_seq.device).tril()
    return mask | torch.eye(length, dtype=torch.bool, device=item_seq.device)


def info_nce(first: torch.Tensor, second: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """Contrast of two views (B, D) by cosine: each row's partner against the rows with other targets (B,).

    The mean of -log(e^s_ii / (e^s_ii + sum over j with another target of e^s_ij)), s = cosine / temperature. Rows with
    the same target are no negatives.
    """
    similarity = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T / temperature  # (B, B)
    same = (targets[:, None] == targets) & ~torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    return F.cross_entropy(similarity.masked_fill(same, -torch.inf), torch.arange(len(targets), device=targets.device))


def drop_items(item_seq: torch.Tensor, generator: torch.Generator, max_length: int, keep: float = 0.8) -> torch.Tensor:
    """Histories (B, L) without some of their items, left-padded anew, (B, L): each stays with probability ``keep``.

    The first item always stays, so that no history is empty. What is drawn, for ``max_length`` positions, depends on
    how far an item is from the end, not on the padding.
    """
    batch, length = item_seq.shape
    draws = torch.rand(batch, max_length, generator=generator, device=item_seq.device)[:, -length:]
    real = item_seq > 0
    first = real & (real.cumsum(dim=1) == 1)
    kept = real & (draws < keep) | first
    order = kept.int().argsort(dim=1, stable=True)  # what is dropped moves to the left, the rest keeps its order
    return (item_seq * kept).gather(1, order)
