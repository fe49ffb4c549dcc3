"""The search for settings: the defaults first, the same trials for the same seed, nothing run twice, no test items."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest
import tiny
import torch

from imecd_lite import runs
from imecd_lite.checkpoint import MODELS
from imecd_lite.config import IMECDConfig, TrainConfig
from imecd_lite.encoders import Features
from imecd_lite.errors import InputError
from imecd_lite.evaluate import metrics
from imecd_lite.model import IMECD
from imecd_lite.runs import SPACE, VARIANTS, draw_settings, new_model, short_run, tune

MODEL = dataclasses.replace(tiny.CONFIG, use_text=False, use_image=False)
TRAIN = TrainConfig(epochs=2, batch_size=32)


def search(folder, trials: int, train_config: TrainConfig = TRAIN, **options: object) -> list[dict]:
    return tune("imecd", MODEL, train_config, tiny.tiny_dataset(), None, trials, folder, **options)


def test_trial_1_has_the_settings_given_and_the_others_draw_theirs_from_the_space():
    assert draw_settings(IMECD.TUNED, 1, seed=5) == {}
    drawn = [draw_settings(IMECD.TUNED, trial, seed=5) for trial in range(2, 60)]
    for name in IMECD.TUNED:
        choices, values = SPACE[name], {settings[name] for settings in drawn}
        if isinstance(choices, tuple):
            assert choices[0] <= min(values) < max(values) <= choices[1] and len(values) > 50
        else:
            assert values == set(choices), name
    assert set(draw_settings(("learning_rate", "dropout"), 2, seed=5)) == {"learning_rate", "dropout"}


def test_a_trial_is_a_function_of_seed_and_number():
    assert (
        draw_settings(IMECD.TUNED, 3, seed=1)
        == draw_settings(IMECD.TUNED, 3, seed=1)
        != draw_settings(IMECD.TUNED, 3, seed=2)
    )


def test_every_setting_of_the_space_is_one_of_the_configs():
    known = {field.name for kind in (IMECDConfig, TrainConfig) for field in dataclasses.fields(kind)}
    assert set(SPACE) == {name for kind in MODELS.values() for name in kind.TUNED} <= known


def test_rows_come_best_first_and_the_file_has_them_all(tmp_path):
    rows = search(tmp_path, 3)
    scores = [row["valid_ndcg@10"] for row in rows]
    assert scores == sorted(scores, reverse=True) and {row["trial"] for row in rows} == {1, 2, 3}
    first = next(row for row in rows if row["trial"] == 1)
    assert (first["learning_rate"], first["lambda_q"], first["dropout"]) == (0.001, MODEL.lambda_q, MODEL.dropout)
    with (tmp_path / "trials.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in written] == [1, 2, 3]
    assert {int(row["trial"]): float(row["valid_ndcg@10"]) for row in written} == {
        row["trial"]: row["valid_ndcg@10"] for row in rows
    }


def test_a_search_goes_on_where_it_stopped_and_ends_as_if_it_had_not(tmp_path, monkeypatch):
    whole = search(tmp_path / "whole", 3)
    epochs, train_epoch = [], runs.train.__globals__["train_epoch"]

    def interrupted(*arguments, **options):
        if len(epochs) == 3:  # in the second epoch of the second trial
            raise KeyboardInterrupt
        epochs.append(arguments[4])
        return train_epoch(*arguments, **options)

    monkeypatch.setitem(runs.train.__globals__, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "parts", 3)
    epochs.clear()
    epochs.extend([0, 0])  # room for one epoch: more than that and the third trial is interrupted
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "parts", 3)
    assert epochs[2:] == [2], "the first trial ran again, or the second began anew"
    monkeypatch.setitem(runs.train.__globals__, "train_epoch", train_epoch)
    parts = search(tmp_path / "parts", 3)
    assert [row | {"seconds": 0} for row in parts] == [row | {"seconds": 0} for row in whole]


def test_the_test_items_are_never_looked_at(tmp_path, monkeypatch):
    dataset = tiny.tiny_dataset()
    splits, split = [], type(dataset).split
    monkeypatch.setattr(type(dataset), "split", lambda self, name: splits.append(name) or split(self, name))
    search(tmp_path, 2)
    assert set(splits) == {"valid"}


def test_trials_of_other_settings_are_refused_by_name(tmp_path):
    search(tmp_path, 1)
    with pytest.raises(InputError, match="batch_size 32, not 16"):
        search(tmp_path, 2, dataclasses.replace(TRAIN, batch_size=16))


def test_a_trial_whose_folder_is_gone_counts_by_its_row_if_it_has_the_settings(tmp_path, monkeypatch):
    rows = search(tmp_path, 2)
    for folder in tmp_path.glob("trial-*"):
        shutil.rmtree(folder)
    asked, train_run = [], runs.train_run
    monkeypatch.setattr(
        runs, "train_run", lambda *given, **options: asked.append(given[5]) or train_run(*given, **options)
    )
    assert search(tmp_path, 2) == rows and not asked
    searched = search(tmp_path, 2, dataclasses.replace(TRAIN, learning_rate=0.01))
    assert [folder.name for folder in asked] == ["trial-001"], "trial 2 draws its own rate, the first has the one given"
    assert {row["trial"]: row["learning_rate"] for row in searched}[1] == 0.01
    with (tmp_path / "trials.csv").open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["1", "2"]


def test_a_row_of_other_data_is_refused_and_so_is_a_damaged_file(tmp_path):
    search(tmp_path, 1)
    shutil.rmtree(tmp_path / "trial-001")
    other = tiny.tiny_dataset(tiny.random_sequences(seed=1))
    for dataset, model in ((other, MODEL), (tiny.tiny_dataset(), dataclasses.replace(MODEL, hidden_size=8))):
        with pytest.raises(InputError, match=r"trials.csv has trial 1 of other data or settings"):
            tune("imecd", model, TRAIN, dataset, None, 1, tmp_path)
    for content in (b"", b"place\n1\n", b"trial,run\n\xff,1\n", b"trial,run,valid_ndcg@10\none,x,0.1\n"):
        (tmp_path / "trials.csv").write_bytes(content)
        with pytest.raises(InputError, match=r"trials.csv is no list of trials"):
            search(tmp_path, 1)


def test_another_model_s_list_of_trials_is_refused_before_any_training(tmp_path):
    search(tmp_path, 1)
    content = (tmp_path / "trials.csv").read_bytes()
    shutil.rmtree(tmp_path / "trial-001")
    with pytest.raises(InputError, match=r"trials.csv is of another model; name another --output"):
        tune("gru4rec", MODEL, TRAIN, tiny.tiny_dataset(), None, 1, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]
    assert (tmp_path / "trials.csv").read_bytes() == content


def test_no_trials_are_refused(tmp_path):
    with pytest.raises(InputError, match="trials is 0"):
        search(tmp_path, 0)
    assert not list(tmp_path.iterdir())


FEATURES = Features(**tiny.random_features(), fingerprint="")


def test_a_new_model_is_a_function_of_its_seed_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    models = [new_model("imecd", tiny.CONFIG, tiny.tiny_dataset(), FEATURES, seed) for seed in (3, 3, 4)]
    weights = [model.item_embedding.weight for model in models]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_trains_without_one_thing(name):
    assert dataclasses.replace(IMECDConfig(), **VARIANTS[name]) != IMECDConfig()
    rows = []
    config = dataclasses.replace(tiny.CONFIG, **tiny.DEFAULTS)
    run = short_run(VARIANTS[name], config, TRAIN, tiny.tiny_dataset(), FEATURES, rows.append)
    assert run.scores == [row["valid_ndcg@10"] for row in rows] and len(rows) == TRAIN.epochs
    assert metrics(run.ranks)["ndcg@10"] == pytest.approx(max(run.scores)), "the best epoch's ranks"


def test_a_short_run_repeats():
    runs_ = [short_run({}, tiny.CONFIG, TRAIN, tiny.tiny_dataset(), FEATURES) for _ in range(2)]
    assert runs_[0].scores == runs_[1].scores and np.array_equal(runs_[0].ranks, runs_[1].ranks)
