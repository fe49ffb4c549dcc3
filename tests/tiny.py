"""Small models and batches for the tests: everything about them is made up and comes from a seed."""

# B batch, L sequence, D hidden, I items, Z codes

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from imecd_lite.codebooks import gumbel
from imecd_lite.config import PRESETS, IMECDConfig
from imecd_lite.dataset import Batch, Dataset
from imecd_lite.experts import GROUPING_STEPS
from imecd_lite.model import IMECD, Recommender

NUM_ITEMS, NUM_USERS = 13, 24
TEXT_SIZE, IMAGE_SIZE = 5, 3

HISTORIES = ((1, 2, 3, 4, 5, 6), (7,), (8, 9, 10), (11, 12, 13, 1), (2, 2), (8, 9, 10), (5, 4, 13, 12, 11))
TARGETS = (7, 8, 13, 1, 3, 4, 9)
USERS = (0, 1, 2, 3, 0, 4, 1)
TIMES = tuple(
    tuple(90_000 * (row + 1) * (step + 1) ** 2 for step in range(len(history))) for row, history in enumerate(HISTORIES)
)
ALL = tuple(range(len(HISTORIES)))
"""Seven examples: users 0 and 1 come twice, users 2 and 4 have one and the same history."""

LITERAL = {name: value for name, value in PRESETS["literal"].items() if name not in ("batch_size", "dropout")}
DEFAULTS = {name: getattr(IMECDConfig(), name) for name in LITERAL}
CONFIG = IMECDConfig(
    **LITERAL,
    hidden_size=16,
    max_length=6,
    num_experts=3,
    codebook_size=4,
    selector_size=8,
    num_train_timesteps=8,
    noise_scale=1.0,  # loud enough for x_t and t to be heard
    num_attention_heads=2,
    num_id_layers=2,
    dropout=0.0,
)


def tiny_config(**changes: object) -> IMECDConfig:
    return dataclasses.replace(CONFIG, **changes)


def random_features() -> dict[str, torch.Tensor]:
    """{"text": (I, d_txt), "image": (I, d_img)}."""
    generator = torch.Generator().manual_seed(5)
    sizes = {"text": TEXT_SIZE, "image": IMAGE_SIZE}
    return {name: torch.randn(NUM_ITEMS, size, generator=generator) for name, size in sizes.items()}


def tiny_model(seed: int = 0, **changes: object) -> IMECD:
    """A float64 model with parameters and codes large enough for each to matter, in training mode."""
    config = tiny_config(**changes)
    features = {f"{name}_features": table for name, table in random_features().items() if name in config.modalities}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = IMECD(config, NUM_ITEMS, **features).double()
        for tensor in (*model.parameters(), *(codebook.codes for codebook in model.codebooks.values())):
            torch.nn.init.normal_(tensor, std=0.4)
        if model.groups is not None:
            torch.nn.init.normal_(model.groups.centres)
            model.groups.age += GROUPING_STEPS + 1
            model.groups.recall()
    model.item_embedding.weight.data[0] = 0
    return model


def left_padded(histories: Sequence[Sequence[int]], length: int | None = None) -> torch.Tensor:
    """(B, L) item_seq, L the longest history unless given."""
    length = length or max(map(len, histories))
    return torch.tensor([[0] * (length - len(history)) + list(history) for history in histories])


def tiny_batch(rows: Sequence[int] = ALL, length: int | None = None) -> Batch:
    users = torch.tensor([USERS[row] for row in rows])
    return Batch(
        item_seq=left_padded([HISTORIES[row] for row in rows], length),
        pos_items=torch.tensor([TARGETS[row] for row in rows]),
        users=users,
        user_keys=user_keys_of(users),
        timestamps=left_padded([TIMES[row] for row in rows], length).double(),
    )


def user_keys_of(users: torch.Tensor) -> torch.Tensor:
    return users * 1_000_003 + 17


def draws_of(model: IMECD, size: int, seed: int) -> dict[str, list]:
    """What ``IMECD.loss`` draws for each modality, in its order: timesteps (B,), noise (B, D), Gumbel noise (B, Z)."""
    generator, config, draws = torch.Generator().manual_seed(seed), model.config, {}
    for name in model.modalities:
        timesteps = torch.randint(1, config.num_train_timesteps + 1, (size,), generator=generator)
        noise = torch.randn(size, config.hidden_size, generator=generator)
        gumbel_noise = gumbel((size, config.codebook_size), generator)
        draws[name] = [timesteps.tolist(), noise.double().numpy(), gumbel_noise.double().numpy()]
        if config.own_noise:
            x_T = torch.randn(size, config.hidden_size, generator=generator)
            own = torch.rand(size, 1, generator=generator) < config.own_noise
            draws[name] += [x_T.double().numpy(), own[:, 0].tolist()]
    return draws


def loss_of(model: IMECD, batch: Batch | None = None, seed: int = 3):
    return model.loss(tiny_batch() if batch is None else batch, torch.Generator().manual_seed(seed))


def train_steps(model: IMECD, steps: int = 3, learning_rate: float = 0.01) -> None:
    """A few Adam steps, each with its EM update."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for step in range(steps):
        output = loss_of(model, seed=step)
        optimizer.zero_grad()
        output.total.backward()
        optimizer.step()
        model.after_step(output)


class Listed(Recommender):
    """Scores item i by i, and writes down what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("anything", torch.zeros(1))
        self.asked = []

    def full_sort_predict(self, item_seq, user_keys, seed=0):
        self.asked.append((item_seq, user_keys, seed))
        scores = torch.arange(NUM_ITEMS + 1.0).repeat(len(item_seq), 1)
        scores[:, 0] = -torch.inf
        return scores


def random_sequences(seed: int = 0) -> list[np.ndarray]:
    """(U,) histories of 6 to 12 items; each item follows its predecessor more often than chance."""
    rng = np.random.default_rng(seed)
    sequences = []
    for _ in range(NUM_USERS):
        items = [int(rng.integers(NUM_ITEMS))]
        while len(items) < rng.integers(6, 13):
            items.append((items[-1] + 1) % NUM_ITEMS if rng.random() < 0.7 else int(rng.integers(NUM_ITEMS)))
        sequences.append(np.array(items) + 1)
    return sequences


def tiny_dataset(sequences: list[np.ndarray] | None = None, max_length: int = CONFIG.max_length) -> Dataset:
    """An ids-only dataset in memory."""
    sequences = random_sequences() if sequences is None else sequences
    return Dataset(
        path=Path("made-up"),
        user_ids=[f"user {u}" for u in range(len(sequences))],
        item_ids=[f"item {i}" for i in range(1, NUM_ITEMS + 1)],
        sequences=sequences,
        timestamps=[np.arange(len(sequence), dtype=np.float64) for sequence in sequences],
        items=None,
        max_length=max_length,
    )
