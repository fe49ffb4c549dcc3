"""Settings: the paper's values, impossible ones refused in a sentence that names them."""

import dataclasses
import json

import pytest

from imecd_lite.config import PRESETS, IMECDConfig, TrainConfig, check_types, field_types, from_dict
from imecd_lite.errors import InputError


def test_defaults_are_the_papers():
    config, train = IMECDConfig(), TrainConfig()
    paper = {  # section IV-A4
        "hidden_size": 128,
        "max_length": 50,
        "temperature": 0.1,
        "num_train_timesteps": 32,
        "beta_schedule": "truncated_linear",
        "num_attention_heads": 4,
        "num_id_layers": 4,
        "num_text_layers": 1,
        "num_image_layers": 1,
    }
    assert {name: getattr(config, name) for name in paper} == paper
    assert config.num_experts in (2, 4, 6, 8, 10) and config.codebook_size in (8, 16, 24, 32, 40)
    assert config.lambda_c in (0.1, 0.3, 0.5, 0.7, 0.9) and config.lambda_q in (0.1, 0.3, 0.5, 0.7, 0.9)
    assert train.learning_rate == 0.001


def test_literal_preset_undoes_every_departure_and_every_preset_is_possible():
    assert PRESETS["literal"]["batch_size"] == 1280 and PRESETS["literal"]["dropout"] == 0.1  # section IV-A4
    defaults = dataclasses.asdict(IMECDConfig()) | dataclasses.asdict(TrainConfig())
    assert all(defaults[name] != value for name, value in PRESETS["literal"].items())
    for preset in PRESETS.values():
        for kind in (IMECDConfig, TrainConfig):
            kind(**{name: value for name, value in preset.items() if name in kind.__dataclass_fields__})
        assert set(preset) <= set(IMECDConfig.__dataclass_fields__) | set(TrainConfig.__dataclass_fields__)


def test_no_setting_belongs_to_both_the_model_and_its_training():
    assert not set(IMECDConfig.__dataclass_fields__) & set(TrainConfig.__dataclass_fields__)


WHOLE = ("hidden_size", "max_length", "num_experts", "codebook_size", "selector_size", "num_train_timesteps")
WHOLE += ("num_attention_heads", "num_id_layers", "num_text_layers", "num_image_layers")

IMPOSSIBLE = [
    *((IMECDConfig, name, value) for name in WHOLE for value in (0, -1, 2.0, "8", True, None)),
    *((IMECDConfig, name, value) for name in ("code_decay", "own_noise") for value in (-0.1, 1.5, "no")),
    *((IMECDConfig, name, value) for name in ("lambda_match", "code_lifetime") for value in (-1, "no")),
    *((IMECDConfig, name, 2**31) for name in ("num_experts", "code_lifetime", "lambda_gate")),
    (IMECDConfig, "lambda_gate", -0.3),
    *((IMECDConfig, "denoiser", value) for value in ("tokens", "", 1)),
    *((IMECDConfig, "temperature", value) for value in (0, -0.1, float("nan"), float("inf"), "0.1", None)),
    *((IMECDConfig, "dropout", value) for value in (-0.1, 1, 1.5, float("nan"))),
    *((IMECDConfig, name, value) for name in ("lambda_q", "lambda_c", "noise_scale") for value in (-0.1, float("inf"))),
    *((IMECDConfig, "beta_schedule", value) for value in ("cosine", "", 1)),
    (IMECDConfig, "num_attention_heads", 3),
    *((IMECDConfig, f"use_{name}", value) for name in ("experts", "text") for value in (1, 0, "no", None)),
    *((TrainConfig, name, value) for name in ("epochs", "batch_size", "patience") for value in (0, -1, 1.5, True)),
    *((TrainConfig, "learning_rate", value) for value in (0, -1.0, float("nan"))),
    *((TrainConfig, "max_prefixes_per_user", value) for value in (0, -1, 2.5)),
    *((TrainConfig, "seed", value) for value in (-1, 2**31, 0.5)),
    *((TrainConfig, "checkpoint_dtype", value) for value in ("bfloat16", "half", 16)),
]


@pytest.mark.parametrize(("kind", "name", "value"), IMPOSSIBLE, ids=lambda x: getattr(x, "__name__", repr(x)))
def test_impossible_values_are_refused_by_name_and_value(kind, name, value):
    with pytest.raises(InputError) as caught:
        kind(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} is {value!r}; it must be ") and message.endswith(".") and "\n" not in message


def test_a_choice_names_what_is_accepted():
    with pytest.raises(InputError, match="one of truncated_linear, linear"):
        IMECDConfig(beta_schedule="cosine")
    with pytest.raises(InputError, match="float32 or float16"):
        TrainConfig(checkpoint_dtype="bfloat16")
    with pytest.raises(InputError, match="divisor of hidden_size, 128"):
        IMECDConfig(num_attention_heads=5)


def test_edges_of_what_is_possible_pass():
    IMECDConfig(hidden_size=1, num_attention_heads=1, max_length=1, num_experts=1, codebook_size=1, dropout=0)
    IMECDConfig(lambda_q=0, lambda_c=0, noise_scale=0, num_train_timesteps=1, selector_size=1)
    TrainConfig(epochs=1, batch_size=1, patience=1, seed=2**31 - 1, max_prefixes_per_user=None)


def test_configs_are_frozen():
    for config, name in ((IMECDConfig(), "hidden_size"), (TrainConfig(), "seed")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, name, 4)


def test_modalities_follow_the_switches_in_the_order_of_eq_19():
    assert IMECDConfig().modalities == ("id", "text", "image")
    assert IMECDConfig(use_text=False).modalities == ("id", "image")
    assert IMECDConfig(use_image=False).modalities == ("id", "text")
    assert IMECDConfig(use_text=False, use_image=False).modalities == ("id",)
    assert IMECDConfig().num_layers == {"id": 4, "text": 1, "image": 1}


def test_a_config_survives_json():
    config = IMECDConfig(hidden_size=16, use_text=False, lambda_q=1)
    assert from_dict(IMECDConfig, json.loads(json.dumps(dataclasses.asdict(config))), "here") == config


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(InputError) as caught:
        from_dict(TrainConfig, {"epochs": 3, "batchsize": 4}, "run/config.json")
    message = str(caught.value)
    assert "run/config.json" in message and "'batchsize'" in message
    assert all(name in message for name in TrainConfig.__dataclass_fields__)


def test_an_impossible_value_in_a_file_is_refused():
    with pytest.raises(InputError, match="hidden_size is '128'"):
        from_dict(IMECDConfig, {"hidden_size": "128"}, "run/config.json")


def test_field_types_and_check_types_know_optional_fields():
    assert field_types(int | None) == (int, type(None)) and field_types(str) == (str,)
    check_types(TrainConfig(max_prefixes_per_user=None))
