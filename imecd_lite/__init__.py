"""IMECD-lite: ID-guided multimodal experts with contrastive diffusion for sequential recommendation.

The table of contents, in the order the data flows. Names are imported when first used, so that
``python -m imecd_lite doctor`` can speak where PyTorch can't be imported. ``train`` and ``recommend`` are imported
from the modules of those names.
"""

import importlib

__version__ = "0.1.0"

_MODULE_OF = {
    "InputError": "errors",
    "IMECDConfig": "config",
    "TrainConfig": "config",
    "PRESETS": "config",
    "BUNDLED_DATA": "config",
    "generate_shop": "shop",
    "prepare_amazon": "amazon",
    "pretrain_encoders": "pretrain",
    "prepare_csv": "tabular",
    "load_dataset": "dataset",
    "Dataset": "dataset",
    "load_features": "encoders",
    "Features": "encoders",
    "IDGatedExperts": "experts",
    "SequenceCodebook": "codebooks",
    "TransformerBlock": "transformer",
    "NoiseSchedule": "diffusion",
    "Denoiser": "diffusion",
    "TokenDenoiser": "diffusion",
    "sample": "diffusion",
    "Recommender": "model",
    "IMECD": "model",
    "build_model": "checkpoint",
    "load_checkpoint": "checkpoint",
    "History": "train",
    "target_ranks": "evaluate",
    "metrics": "evaluate",
    "bootstrap_interval": "evaluate",
    "diagnose": "diagnostics",
    "make_shelf": "shelf",
    "shopper_explorer": "widgets",
    "history_explorer": "widgets",
    "neighbour_explorer": "widgets",
    "gate_explorer": "widgets",
    "gumbel_explorer": "widgets",
    "code_explorer": "widgets",
    "diffusion_explorer": "widgets",
    "TrainingMonitor": "widgets",
    "ablation_explorer": "widgets",
    "evaluation_explorer": "widgets",
}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"imecd_lite has no {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"imecd_lite.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
