"""What is kept of the runs of a grid: a small file each, of which its tables and figures are made."""

# U users, S seeds, K recommended

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from imecd_lite.errors import InputError
from imecd_lite.files import read_tensors, write_tensors

FOLDER = "cells"
"""Where the files lie in the folder of a grid."""


class Outcome(NamedTuple):
    """A finished run: what it did for each user of the test split, in the order of the dataset's users."""

    ranks: np.ndarray  # (U,) of the true item, from 1
    top: np.ndarray | None  # (U, K) the items recommended, best first; kept of seed 0 alone
    results: dict  # what metrics.json says
    config: dict  # what config.json says


def save_outcome(path: Path, outcome: Outcome) -> None:
    """Write an outcome, atomically."""
    tables = {"ranks": outcome.ranks} | ({} if outcome.top is None else {"top": outcome.top})
    integer = {name: torch.int16 if table.max() < 2**15 else torch.int32 for name, table in tables.items()}
    tensors = {name: torch.tensor(table, dtype=integer[name]) for name, table in tables.items()}
    write_tensors(path, tensors, {"results": json.dumps(outcome.results), "config": json.dumps(outcome.config)})


def load_outcome(path: Path) -> Outcome:
    """Read an outcome; ``InputError`` when the file is missing, truncated or another."""
    tensors, metadata = read_tensors(path, "delete it and reproduce its table or figure again")
    if "ranks" not in tensors or not {"results", "config"} <= set(metadata):
        raise InputError(f"{path} is not what is kept of a run; delete it and reproduce its table or figure again.")
    tables = {name: tensor.numpy().astype(np.int64) for name, tensor in tensors.items()}
    return Outcome(tables["ranks"], tables.get("top"), *(json.loads(metadata[k]) for k in ("results", "config")))


def load_outcomes(folder: Path, name: str) -> list[Outcome]:
    """All seeds of a run, such as "imecd" or "imecd-use_text-False", from 0.

    Raises:
        InputError: the grid in ``folder`` has none.
    """
    seeds = {path.stem.split("-")[-1]: path for path in (folder / FOLDER).glob(f"{name}-seed-*.safetensors")}
    paths = [seeds[seed] for seed in sorted(filter(str.isdecimal, seeds), key=int)]  # no copies, such as "0 (1)"
    if not paths:
        raise InputError(f"{folder} holds no run of {name!r}; reproduce a table or figure that has it.")
    return [load_outcome(path) for path in paths]


def stack_ranks(outcomes: Sequence[Outcome]) -> np.ndarray:
    """The ranks of all seeds, (S, U)."""
    return np.stack([outcome.ranks for outcome in outcomes])
