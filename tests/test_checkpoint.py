"""Models on disk: what comes back is what was saved, and what is not ours is refused in one sentence."""

# B batch, I items

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from imecd_lite.baselines import Popularity
from imecd_lite.checkpoint import (
    FORMAT,
    MODELS,
    build_model,
    describe,
    load_checkpoint,
    read_description,
    refuse_other,
    save_checkpoint,
    save_weights,
)
from imecd_lite.config import BUNDLED_DATA, IMECDConfig, TrainConfig
from imecd_lite.encoders import Features
from imecd_lite.errors import InputError
from imecd_lite.files import read_json, read_tensors, write_json
from imecd_lite.model import IMECD, Recommender

DATASET = tiny.tiny_dataset()
FEATURES = Features(**tiny.random_features(), fingerprint="made up")


def trained_model(features: Features | None = FEATURES) -> IMECD:
    model = build_model("imecd", tiny.CONFIG, DATASET, features)
    tiny.train_steps(model, steps=2)
    return model.eval()


def save(folder: Path, model: Recommender, features: Features | None, name: str = "imecd", dtype: str = "float32"):
    write_json(folder / "config.json", describe(name, model, TrainConfig(checkpoint_dtype=dtype), DATASET, features))
    save_weights(folder, model.state_dict(), dtype)
    return folder


def scores(model: Recommender) -> torch.Tensor:
    batch = tiny.tiny_batch()
    return model.full_sort_predict(batch.item_seq, batch.user_keys)


def change(folder: Path, **values: object) -> None:
    write_json(folder / "config.json", read_json(folder / "config.json") | values)


@pytest.fixture
def saved(tmp_path) -> Path:
    return save(tmp_path, trained_model(), FEATURES)


def refused(folder: Path, match: str, dataset=DATASET, features: Features | None = FEATURES) -> None:
    with pytest.raises(InputError, match=match) as caught:
        load_checkpoint(folder, dataset, features)
    message = str(caught.value)
    assert "\n" not in message and message.endswith((".", "?"))


@pytest.mark.parametrize("features", [FEATURES, None], ids=["three modalities", "ids only"])
def test_what_is_loaded_scores_bitwise_as_what_was_saved(tmp_path, features):
    model = trained_model(features)
    loaded = load_checkpoint(save(tmp_path, model, features), DATASET, features)
    assert loaded.config == model.config and not loaded.training
    assert torch.equal(scores(loaded), scores(model))
    assert not any(parameter.grad is not None for parameter in loaded.parameters())


def test_half_precision_rounds_the_weights_once_and_computes_in_single(tmp_path):
    model = trained_model()
    loaded = load_checkpoint(save(tmp_path, model, FEATURES, dtype="float16"), DATASET, FEATURES)
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[name], tensor.half().float()), name
    torch.testing.assert_close(scores(loaded), scores(model), atol=0.1, rtol=0.05)
    assert {tensor.dtype for tensor in read_tensors(tmp_path / "model.safetensors")[0].values()} == {torch.float16}


def test_a_checkpoint_is_a_json_and_a_safetensors_file_without_the_features(saved):
    assert {path.name for path in saved.iterdir()} == {"config.json", "model.safetensors"}
    weights, _ = read_tensors(saved / "model.safetensors")
    assert set(weights) == set(trained_model().state_dict()) and not any("features" in name for name in weights)
    info = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    assert info["format"] == FORMAT and info["model"] == "imecd" and info["features"] == "made up"
    assert IMECDConfig(**info["model_config"]) == tiny.CONFIG and TrainConfig(**info["train_config"]) == TrainConfig()
    assert info["dataset"] == DATASET.fingerprint


def test_an_ids_only_dataset_switches_text_and_image_off():
    config = build_model("imecd", tiny.CONFIG, DATASET, None).config
    assert config == dataclasses.replace(tiny.CONFIG, use_text=False, use_image=False)


def test_every_model_is_built_by_its_name_and_another_is_refused_with_the_names():
    for name, kind in MODELS.items():
        assert type(build_model(name, tiny.CONFIG, DATASET, FEATURES)) is kind
    with pytest.raises(InputError, match=r"no model 'sasrek'.*imecd, popularity"):
        build_model("sasrek", tiny.CONFIG, DATASET, None)


def test_another_dataset_is_refused_by_name(saved):
    refused(saved, "other data than made-up", tiny.tiny_dataset(tiny.random_sequences(seed=1)))
    renamed = dataclasses.replace(DATASET, user_ids=DATASET.user_ids[::-1])
    refused(saved, "other data", renamed)


def test_a_dataset_that_was_loaded_for_other_lengths_is_refused(saved):
    longer = dataclasses.replace(DATASET, max_length=DATASET.max_length + 1)
    refused(saved, rf"max_length={DATASET.max_length + 1}; load it with max_length={DATASET.max_length}", longer)


def test_other_features_are_refused(saved):
    refused(saved, "other text and image features", features=None)
    refused(saved, "other text and image features", features=dataclasses.replace(FEATURES, fingerprint="another"))


def test_a_missing_file_is_refused_by_name(saved):
    (saved / "model.safetensors").unlink()
    refused(saved, r"model\.safetensors is not there")
    (saved / "config.json").unlink()
    refused(saved, r"config\.json is not there")
    refused(saved / "nowhere", r"nowhere.config\.json is not there")


def test_truncated_and_foreign_weights_are_refused(saved):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:100], b"", b"PK\x03\x04"):
        path.write_bytes(content)
        refused(saved, r"model\.safetensors is not a whole safetensors file")


def test_weights_that_were_changed_are_refused(saved):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 16]) + whole[-1:])
    refused(saved, r"model\.safetensors was changed since it was written")


@pytest.mark.parametrize("name", ["shop", "shop-literal"])
def test_the_bundled_checkpoints_carry_a_hash(name):
    with safe_open(BUNDLED_DATA / "checkpoints" / name / "model.safetensors", framework="pt") as file:
        assert file.metadata()["sha256"]


def test_weights_of_another_model_are_refused(saved):
    narrower = dataclasses.replace(tiny.CONFIG, hidden_size=8)
    for name, config, features in (
        ("imecd", narrower, FEATURES),
        ("imecd", tiny.CONFIG, None),
        ("popularity", tiny.CONFIG, None),
    ):
        save_weights(saved, build_model(name, config, DATASET, features).state_dict())
        refused(saved, r"model\.safetensors does not fit config\.json")


def test_a_newer_format_is_refused_by_both_numbers(saved):
    change(saved, format=FORMAT + 1)
    refused(saved, rf"format {FORMAT + 1}; this version reads format {FORMAT}; update")


def test_a_config_of_something_else_is_refused(saved):
    for other in ({}, {"architectures": ["RobertaModel"], "model_type": "roberta"}, {"format": FORMAT}):
        write_json(saved / "config.json", other)
        refused(saved, r"config\.json does not describe a trained model, it has no '\w+'")
    (saved / "config.json").write_text("{", encoding="utf-8")
    refused(saved, r"config\.json, line 1, is not JSON")


def test_unknown_and_impossible_settings_in_a_config_are_refused(saved):
    config = dataclasses.asdict(tiny.CONFIG)
    change(saved, model_config=config | {"hiden_size": 8})
    refused(saved, r"config\.json has an unknown setting 'hiden_size'; the settings are hidden_size, ")
    change(saved, model_config=config | {"dropout": 2.0})
    refused(saved, r"config\.json: dropout is 2.0; it must be")
    change(saved, model_config=config, model="newest")
    refused(saved, r"config\.json: .*no model 'newest'")


JSON = (
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
    | st.text(max_size=3)
)
JSON |= st.lists(JSON, max_size=2) | st.dictionaries(st.text(max_size=3), JSON, max_size=2)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_description_gives_a_model_or_one_sentence(tmp_path_factory, data):
    folder = save(tmp_path_factory.mktemp("any"), Popularity(tiny.CONFIG, tiny.NUM_ITEMS), None, "popularity")
    info = read_json(folder / "config.json")
    place = info["model_config"] if data.draw(st.booleans()) else info
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    write_json(folder / "config.json", info)
    try:
        assert isinstance(load_checkpoint(folder, DATASET, None), Popularity)
    except InputError as error:
        assert "\n" not in str(error)


def test_a_run_is_gone_on_with_as_it_was_begun(saved):
    info = read_description(saved)
    refuse_other(saved, info, info)
    refuse_other(saved, info, info | {"train_config": info["train_config"] | {"epochs": 99, "patience": 99}})
    for changes in (
        {"model": "popularity"},
        {"model_config": info["model_config"] | {"lambda_c": 0.7}},
        {"train_config": info["train_config"] | {"seed": 7}},
    ):
        with pytest.raises(InputError, match=r"was begun with .* not .*; resume with that"):
            refuse_other(saved, info, info | changes)
    for changes, what in (({"dataset": "other"}, "data"), ({"features": None}, "text and image features")):
        with pytest.raises(InputError, match=f"was begun on other {what}; name the same, or another folder"):
            refuse_other(saved, info, info | changes)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_popularity_comes_back_with_every_count(tmp_path, dtype):
    model = Popularity(tiny.CONFIG, tiny.NUM_ITEMS)
    counts = np.array([0, 3000, 3001, 70_000, 70_001, *range(2, 11)])  # beyond what half precision holds
    model.counts.copy_(torch.from_numpy(counts))
    loaded = load_checkpoint(save(tmp_path, model, None, "popularity", dtype), DATASET, None)
    assert np.array_equal(loaded.counts, counts)


def test_a_model_kept_by_hand_is_a_checkpoint_like_any_other(tmp_path):
    model, folder = trained_model(), tmp_path / "new" / "one"
    for _ in range(2):
        save_checkpoint(folder, "imecd", model, TrainConfig(), DATASET, FEATURES)
        assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert torch.equal(scores(load_checkpoint(folder, DATASET, FEATURES)), scores(model))
