"""A training run and its folder, and a search for settings made of such runs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from imecd_lite.checkpoint import MODELS, build_model, describe, load_checkpoint, read_description, refuse_other
from imecd_lite.config import IMECDConfig, TrainConfig
from imecd_lite.dataset import Dataset
from imecd_lite.encoders import Features
from imecd_lite.errors import InputError
from imecd_lite.evaluate import RANKS, measure, save_ranks, target_ranks
from imecd_lite.files import hold, write_json, write_rows
from imecd_lite.model import Recommender
from imecd_lite.processes import is_main, wait
from imecd_lite.train import STATE_FILE, History, train

SPACE = {
    "learning_rate": (0.0003, 0.003),  # a pair of numbers: log-uniform between them
    "dropout": [0.1, 0.2, 0.3, 0.5],  # a list: each as likely
    "lambda_q": [0.3, 0.5, 0.7, 0.9],
    "lambda_c": [0.0, 0.05, 0.1, 0.2],
    "lambda_gate": [0.3, 1.0],
    "own_noise": [0.7, 0.8, 0.9],
    "codebook_size": [8, 16, 24, 32],
}
"""What ``tune`` tries, by the name of the setting; which of them, a model says in ``TUNED``."""


def new_model(
    name: str, config: IMECDConfig, dataset: Dataset, features: Features | None, seed: int = 0
) -> Recommender:
    """The untrained model ``name``, its first weights drawn from ``seed``; the global generator stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(name, config, dataset, features)


def train_run(
    name: str,
    model_config: IMECDConfig,
    train_config: TrainConfig,
    dataset: Dataset,
    features: Features | None,
    output: Path | str,
    device: str = "cpu",
    resume: bool = False,
    on_model: Callable[[Recommender], None] | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> History:
    """Train the model ``name`` from its seed and leave config.json, the best weights and history.csv in ``output``.

    Args:
        resume: go on with a run that is there; without it a folder that holds one is refused.
        on_model: called with the fresh model.
        on_epoch: called with each row of the history.

    Raises:
        InputError: ``output`` holds a run, or with ``resume`` one that was begun otherwise or can't be resumed, or
            another command is at work in it.
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; name a folder for the run.")
    with hold(output) if is_main() else contextlib.nullcontext():
        begun = (output / "model.safetensors").exists() or (output / STATE_FILE).exists()
        if is_main() and begun and not resume:
            raise InputError(f"{output} already holds a run; add --resume to go on with it, or name another --output.")
        if (output / "metrics.json").exists() and not (output / STATE_FILE).exists():
            raise InputError(f"{output} holds a finished run without {STATE_FILE}; name another --output.")
        model = new_model(name, model_config, dataset, features, train_config.seed).to(device)
        if on_model:
            on_model(model)
        info = describe(name, model, train_config, dataset, features)
        if is_main():
            if begun:
                refuse_other(output, read_description(output), info)
                refuse_longer(output, train_config.epochs)
            write_json(output / "config.json", info)
            for measured in ("metrics.json", *RANKS.values()):  # of weights that are about to change
                (output / measured).unlink(missing_ok=True)
        history = train(model, dataset, train_config, output, resume, progress=is_main(), on_epoch=on_epoch)
        wait()  # for the first process's files
    return history


def refuse_longer(output: Path, epochs: int) -> None:
    """Raise ``InputError`` where the run in ``output`` has had more epochs than it may have."""
    history = output / "history.csv"
    ran = len(history.read_bytes().splitlines()) - 1 if history.exists() else 0
    if ran > epochs:
        raise InputError(f"The run in {output} has had {ran} epochs, more than {epochs}; name another --output.")


def measure_run(
    output: Path | str, history: History, dataset: Dataset, features: Features | None, device: str = "cpu"
) -> dict:
    """Measure the best epoch of a run that ``train_run`` ended: ranks_{split}.csv, each user's, and metrics.json.

    Reverse diffusion starts from the noise of seed 0, whatever the run's: its seeds are those of training.

    Returns:
        What metrics.json says: "valid" and "test" (see ``evaluate.measure``), "best_epoch", "seconds" of training and
        "num_parameters".
    """
    output = Path(output)
    model, results = load_checkpoint(output, dataset, features).to(device), {}
    for split, name in RANKS.items():
        examples = dataset.split(split)
        ranks = target_ranks(model, dataset, examples, progress=is_main())
        if is_main():
            save_ranks(output / name, dataset, examples, ranks)
        results[split] = measure(ranks)
    results |= {
        "best_epoch": history.best_epoch,
        "seconds": round(sum(row["seconds"] for row in history.rows), 1),
        "num_parameters": sum(p.numel() for p in model.parameters()),
    }
    if is_main():
        write_json(output / "metrics.json", results)
    return results


def replace_known(config: object, settings: dict[str, float]) -> object:
    """The config with those of ``settings`` that it has."""
    return dataclasses.replace(config, **{key: value for key, value in settings.items() if hasattr(config, key)})


def draw_settings(tuned: Sequence[str], trial: int, seed: int) -> dict[str, float]:
    """What a trial changes of the settings ``tuned``, by (seed, trial): nothing in trial 1, which has those given."""
    if trial == 1:
        return {}
    rng, settings = np.random.default_rng((seed, trial)), {}
    for setting in tuned:
        choices = SPACE[setting]
        if isinstance(choices, tuple):
            low, high = map(math.log, choices)
            settings[setting] = float(f"{math.exp(rng.uniform(low, high)):.4g}")
        else:
            settings[setting] = choices[rng.integers(len(choices))]
    return settings


OUTCOME = ("trial", "valid_ndcg@10", "best_epoch", "seconds", "run")
"""What a row of ``trials.csv`` has besides the settings."""


def tune(
    name: str,
    model_config: IMECDConfig,
    train_config: TrainConfig,
    dataset: Dataset,
    features: Features | None,
    trials: int,
    output: Path | str,
    device: str = "cpu",
    on_trial: Callable[[dict[str, float]], None] | None = None,
    tuned: Sequence[str] | None = None,
) -> list[dict[str, float]]:
    """Random search on the validation items; the test items are never looked at.

    Trial 1 has the settings given, the others change those of ``SPACE``. Each is a run in a folder of its own,
    ``output/trial-001`` and so on: what is finished is not run again, what was interrupted goes on where it stopped.
    ``output/trials.csv`` has a row for each; where a trial's folder is gone, its row counts, if it has the settings.

    Returns:
        The rows, best first: trial, valid_ndcg@10, best_epoch, seconds, run (a hash of all that decides the result) and
        the settings.

    Raises:
        InputError: ``trials`` is not positive, or a trial that is there has other settings or data.
    """
    if trials < 1:
        raise InputError(f"trials is {trials}; it must be a whole number of at least 1.")
    output = Path(output)
    rows, kept, tuned = [], read_trials(output / "trials.csv"), MODELS[name].TUNED if tuned is None else tuned
    if kept and set(kept[0]) != {*OUTCOME, *tuned}:
        raise InputError(f"{output / 'trials.csv'} is of another model; name another --output.")
    for trial in range(1, trials + 1):
        folder, settings = output / f"trial-{trial:03}", draw_settings(tuned, trial, train_config.seed)
        configs = [replace_known(config, settings) for config in (model_config, train_config)]
        values = vars(configs[0]) | vars(configs[1])
        settings = {setting: values[setting] for setting in tuned}
        info = describe(name, new_model(name, configs[0], dataset, features), configs[1], dataset, features)
        run = hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()[:16]
        known = [row for row in kept if row["trial"] == trial and settings.items() <= row.items()]
        if known and not folder.exists():
            if known[0]["run"] != run:
                raise InputError(
                    f"{output / 'trials.csv'} has trial {trial} of other data or settings; name another --output."
                )
            rows.append(known[0])
        else:
            history = train_run(name, *configs, dataset, features, folder, device, resume=True)
            row = {
                "trial": trial,
                "valid_ndcg@10": history.rows[history.best_epoch - 1]["valid_ndcg@10"],
                "best_epoch": history.best_epoch,
                "seconds": round(sum(row["seconds"] for row in history.rows), 1),
                "run": run,
            }
            rows.append(row | settings)
            write_rows(output / "trials.csv", rows + kept[trial:])
        if on_trial:
            on_trial(rows[-1])
    return sorted(rows, key=lambda row: -row["valid_ndcg@10"])


def read_trials(path: Path) -> list[dict[str, float]]:
    """The rows of a ``trials.csv``, none where there is no file; ``InputError`` when it is not what ``tune`` writes."""
    if not path.exists():
        return []
    try:
        table = pd.read_csv(path, dtype={"run": str})
        return table.astype({"trial": int, "valid_ndcg@10": float, "run": str}).to_dict("records")
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} is no list of trials ({error}); delete it, and they are run anew.") from None


VARIANTS = {
    "w/o ID-MoE": {"use_experts": False},
    "w/o MS-VQ": {"use_codebooks": False},
    "w/o CDG_CL": {"use_contrastive": False},
    "w/o Text": {"use_text": False},
    "w/o Image": {"use_image": False},
    "without the bias of repeats": {"repeat_bias": False},
    "text and picture at full weight": {"feature_weight": 1.0},
    "without unit variance": {"unit_variance": False},
    "x_t added, not a token": {"denoiser": "add"},
    "x_t from the true item alone": {"own_noise": 0.0},
}
"""IMECD with one thing taken away: the five of Table III, then some of what the default adds to the letter."""


class ShortRun(NamedTuple):
    """What is left of a run that was made to be compared."""

    scores: list[float]  # validation N@10 after each epoch
    ranks: np.ndarray  # (U,) of the validation items, with the weights of the best epoch


def short_run(
    changes: dict[str, object],
    model_config: IMECDConfig,
    train_config: TrainConfig,
    dataset: Dataset,
    features: Features | None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> ShortRun:
    """Train an IMECD with ``changes`` to its settings, such as one of ``VARIANTS``, and write nothing.

    Args:
        on_epoch: called with each row of the history.
    """
    config = dataclasses.replace(model_config, **changes)
    model = new_model("imecd", config, dataset, features, train_config.seed)
    history = train(model, dataset, train_config, on_epoch=on_epoch)
    ranks = target_ranks(model, dataset, dataset.split("valid"), seed=train_config.seed)
    return ShortRun([row["valid_ndcg@10"] for row in history.rows], ranks)
