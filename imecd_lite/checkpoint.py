"""Models on disk: ``config.json`` and ``model.safetensors`` in a folder, bound to the data they were trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from imecd_lite.baselines import (
    HM4SR,
    MMMLP,
    BERT4Rec,
    Caser,
    DiffuRec,
    DiQDiff,
    GRU4Rec,
    MISSRec,
    Popularity,
    SASRec,
    SASRecFeatures,
    SASRecRepeat,
    UniSRec,
)
from imecd_lite.config import IMECDConfig, TrainConfig, from_dict
from imecd_lite.dataset import Dataset
from imecd_lite.encoders import Features
from imecd_lite.errors import InputError, quote
from imecd_lite.files import read_json, read_tensors, write_json, write_tensors
from imecd_lite.model import IMECD, Recommender

FORMAT = 1
"""Raised when ``config.json`` changes in a way that older code can't read."""

MODELS = {
    "imecd": IMECD,
    "popularity": Popularity,
    "gru4rec": GRU4Rec,
    "sasrec": SASRec,
    "sasrec-features": SASRecFeatures,
    "sasrec-repeat": SASRecRepeat,
    "bert4rec": BERT4Rec,
    "caser": Caser,
    "diffurec": DiffuRec,
    "diqdiff": DiQDiff,
    "unisrec": UniSRec,
    "missrec": MISSRec,
    "mmmlp": MMMLP,
    "hm4sr": HM4SR,
}
"""Every model by the name the command line knows it by."""


def model_class(name: str) -> type[Recommender]:
    """The class of the model ``name``; ``InputError`` where there is none of that name."""
    if name not in MODELS:
        raise InputError(f"There is no model {name!r}; the models are {', '.join(MODELS)}.")
    return MODELS[name]


def build_model(name: str, config: IMECDConfig, dataset: Dataset, features: Features | None) -> Recommender:
    """A fresh model for ``dataset``; on an ids-only dataset the text and image modalities are switched off.

    ``config`` is taken as it is: the published settings of a comparator are ``MODELS[name].DEFAULTS``.
    """
    kind = model_class(name)
    if features is None:
        config = dataclasses.replace(config, use_text=False, use_image=False)
        return kind.build(config, dataset, None, None)
    return kind.build(config, dataset, features.text, features.image)


def describe(
    name: str, model: Recommender, train_config: TrainConfig, dataset: Dataset, features: Features | None
) -> dict:
    """What ``config.json`` says of a model: its settings and the data it belongs to."""
    return {
        "format": FORMAT,
        "model": name,
        "model_config": dataclasses.asdict(model.config or IMECDConfig()),
        "train_config": dataclasses.asdict(train_config),
        "dataset": dataset.fingerprint,
        "features": features.fingerprint if features else None,
    }


def refuse_other(where: Path, then: dict, info: dict) -> None:
    """Raise ``InputError`` where the run in ``where``, described by ``then``, was begun otherwise than ``info`` says.

    How long it may last, ``epochs`` and ``patience``, is free to change.
    """
    then, now = (run | run["model_config"] | run["train_config"] for run in (then, info))
    for name, what in {"dataset": "data", "features": "text and image features"}.items():
        if then.get(name) != now[name]:
            raise InputError(f"The run in {where} was begun on other {what}; name the same, or another folder.")
    for name in sorted(set(now) - {"model_config", "train_config", "epochs", "patience"}):
        if then.get(name) != now[name]:
            raise InputError(
                f"The run in {where} was begun with {name} {then.get(name)!r}, not {now[name]!r}; resume with that."
            )


def read_description(folder: Path) -> dict:
    """``config.json`` of a checkpoint; ``InputError`` when it is missing, foreign or written by a newer version."""
    if folder.is_file():
        raise InputError(f"{folder} is a file; name the folder that it is in.")
    source = folder / "config.json"
    info = read_json(source)
    if info.get("format", FORMAT) != FORMAT:
        raise InputError(f"{source} has format {info['format']!r}; this version reads format {FORMAT}; update it.")
    keys = ("format", "model", "model_config", "train_config", "dataset", "features")
    missing = [key for key in keys if key not in info]
    if missing:
        raise InputError(f"{source} does not describe a trained model, it has no {missing[0]!r}; name another folder.")
    kinds = {"model": str, "model_config": dict, "train_config": dict, "dataset": str}
    wrong = [key for key, kind in kinds.items() if not isinstance(info[key], kind)]
    if wrong:
        found = f"its {wrong[0]!r} is {quote(info[wrong[0]])}"
        raise InputError(f"{source} does not describe a trained model, {found}; name another folder.")
    try:
        model_class(info["model"])
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    return info


def save_weights(folder: Path, weights: dict[str, torch.Tensor], dtype: str = "float32") -> None:
    """Write ``model.safetensors``, floating-point tensors as ``dtype``."""
    cast = {k: v.to(getattr(torch, dtype)) if v.is_floating_point() else v for k, v in weights.items()}
    write_tensors(folder / "model.safetensors", cast)


def load_checkpoint(folder: Path | str, dataset: Dataset, features: Features | None) -> Recommender:
    """The trained model in ``folder``, in eval mode, for the dataset and features it was trained with.

    Raises:
        InputError: a file is missing, truncated or foreign, written by a newer version, or made for other data.
    """
    folder = Path(folder)
    info = read_description(folder)
    if info["dataset"] != dataset.fingerprint:
        raise InputError(f"{folder} was trained on other data than {dataset.path}; name the dataset it was trained on.")
    if info["features"] != (features.fingerprint if features else None):
        raise InputError(
            f"{folder} was trained on other text and image features than those of {dataset.path}; "
            "encode with the encoders it was trained with, or train again."
        )
    config = from_dict(IMECDConfig, info["model_config"], str(folder / "config.json"))
    model = build_model(info["model"], config, dataset, features)
    if config.max_length != dataset.max_length and list(model.parameters()):  # what learns nothing reads no histories
        raise InputError(
            f"{folder} reads histories of {config.max_length} items, the dataset was loaded with "
            f"max_length={dataset.max_length}; load it with max_length={config.max_length}."
        )
    weights, _ = read_tensors(folder / "model.safetensors")
    expected = model.state_dict()
    mismatch = sorted(set(weights) ^ set(expected)) or [k for k in expected if expected[k].shape != weights[k].shape]
    if mismatch:
        raise InputError(
            f"{folder / 'model.safetensors'} does not fit config.json: {mismatch[0]} differs; train again."
        )
    model.load_state_dict({k: v.to(expected[k].dtype) for k, v in weights.items()})
    return model.eval()


def save_checkpoint(
    folder: Path | str,
    name: str,
    model: Recommender,
    train_config: TrainConfig,
    dataset: Dataset,
    features: Features | None,
) -> None:
    """Write a model that was trained here, so that ``load_checkpoint`` and the command line can read it.

    Args:
        folder: made if need be; a checkpoint that is there is overwritten.
        name: of the model, a key of ``MODELS``.
        features: those it was made with.
    """
    folder = Path(folder)
    write_json(folder / "config.json", describe(name, model, train_config, dataset, features))
    save_weights(folder, model.state_dict(), train_config.checkpoint_dtype)
