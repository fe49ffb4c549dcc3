"""Grids of the paper: every cell once, whatever happens, by the settings of the best trial, and told as it is."""

# U users, S seeds

import csv
import dataclasses
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import tiny

from imecd_lite import paper, reproduce, runs
from imecd_lite.checkpoint import MODELS, load_checkpoint
from imecd_lite.encoders import Features
from imecd_lite.errors import InputError
from imecd_lite.evaluate import metrics, target_ranks, top_items
from imecd_lite.files import read_json
from imecd_lite.reports import SystemReport, render_table2
from imecd_lite.reproduce import SYSTEMS, TARGETS, Cell, Reproduction, available, cells_of
from imecd_lite.results import load_outcomes
from imecd_lite.runs import tune

DATASET = tiny.tiny_dataset()
FEATURES = Features(**tiny.random_features(), fingerprint="made up")
SMALL = {
    "hidden_size": 8,
    "max_length": 6,
    "codebook_size": 4,
    "num_experts": 3,
    "num_train_timesteps": 8,
    "num_attention_heads": 2,
    "num_id_layers": 1,
    "epochs": 2,
    "batch_size": 32,
}
FEW = ("popularity", "sasrec", "imecd")
METRICS = ["hit@5", "hit@10", "hit@20", "ndcg@5", "ndcg@10", "ndcg@20"]


def grid(folder, trials: int = 1, **given: object) -> Reproduction:
    dataset = dataclasses.replace(DATASET, max_length=given.get("max_length", DATASET.max_length))
    return Reproduction(dataset, FEATURES, folder, trials, SMALL | given)


def rows_of(path) -> list[dict]:
    with path.open(encoding="utf-8") as file:
        return [row | {"seconds": "0"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def table2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table2")
    reproduce.reproduce("table2", grid(folder, trials=2), seeds=2, systems=FEW)
    return folder


def test_the_grids_are_those_of_the_paper():
    names = {name for name, cell in ((c.labels["model"], c) for c in cells_of("table2", 1, tuple(SYSTEMS)))}
    columns = [name.lower() for name in paper.TABLE2.columns[2:]]
    assert set(columns) <= names and names - set(columns) == {
        "popularity",
        "sasrec-features",
        "sasrec-repeat",
        "imecd-literal",
    }
    assert len(cells_of("table2", 3, FEW)) == 9
    assert {cell.labels["model"] for cell in cells_of("table3", 3, ())} == set(paper.TABLE3["variant"])
    sizes = {target: len(cells_of(target, 1, ())) for target in TARGETS[2:]}
    assert sizes == {"figure4": 5, "figure5": 5, "figure6": 10, "figure7": 10}


def test_the_papers_tables_are_whole_and_its_improve_column_follows():
    others = paper.TABLE2.drop(columns=["dataset", "metric", "IMECD"]).max(axis=1)
    improve = (100 * (paper.TABLE2["IMECD"] / others - 1)).tolist()
    told = [3.90, 1.66, 5.60, 4.60, 4.52, 1.30, 5.75, 4.29, 2.38, 1.32, 2.09, 1.37, 1.96, 1.43, 1.16, 2.76]
    assert improve == pytest.approx(told, abs=0.011)  # the paper rounds 1.965 down
    full = paper.TABLE3[paper.TABLE3["variant"] == "IMECD"]
    long = paper.TABLE2.set_index(["dataset", "metric"])["IMECD"]
    for row in full.to_dict("records"):
        assert all(row[metric] == long[row["dataset"], metric] for metric in ("H@5", "H@10", "N@5", "N@10"))


def test_a_row_is_what_the_runs_model_scores(table2):
    rows = rows_of(table2 / "table2.csv")
    assert [(row["model"], row["seed"]) for row in rows] == [(name, seed) for name in FEW for seed in "01"]
    assert list(rows[0]) == ["model", "seed", *METRICS, "num_parameters", "seconds"]
    for row in rows:
        folder = table2 / "runs" / f"{row['model']}-seed-{row['seed']}"
        model, split = load_checkpoint(folder, DATASET, FEATURES), DATASET.split("test")
        ranks = target_ranks(model, DATASET, split)
        assert [float(row[name]) for name in METRICS] == [metrics(ranks)[name] for name in METRICS]
        outcome = load_outcomes(table2, row["model"])[int(row["seed"])]
        assert outcome.ranks.tolist() == ranks.tolist()
        assert int(row["num_parameters"]) == sum(p.numel() for p in model.parameters())
        assert (outcome.top is None) == (row["seed"] != "0")
        if row["seed"] == "0":
            assert outcome.top.tolist() == top_items(model, DATASET, split).tolist()


def test_all_cells_have_the_settings_of_the_best_trial_and_seed_0_is_that_trial(table2, monkeypatch):
    for name in ("sasrec", "imecd"):
        trials = sorted(rows_of(table2 / "tuning" / name / "trials.csv"), key=lambda row: -float(row["valid_ndcg@10"]))
        assert len(trials) == 2
        for seed in (0, 1):
            config = read_json(table2 / "runs" / f"{name}-seed-{seed}" / "config.json")
            values = config["model_config"] | config["train_config"]
            assert all(values[setting] == float(trials[0][setting]) for setting in MODELS[name].TUNED)
            assert values["seed"] == seed and values["hidden_size"] == 8
        best = table2 / "tuning" / name / f"trial-{int(trials[0]['trial']):03}"
        assert (best / "history.csv").read_bytes() == (table2 / "runs" / f"{name}-seed-0/history.csv").read_bytes()
    assert len(rows_of(table2 / "tuning" / "popularity" / "trials.csv")) == 1


def test_what_is_done_is_not_run_again_and_other_systems_stay_in_the_table(table2, monkeypatch):
    before = (table2 / "table2.csv").read_bytes()
    for missing in ("train_run", "measure_run"):
        monkeypatch.setattr(reproduce, missing, None)
    told = []
    reproduce.reproduce("table2", grid(table2, 2), 2, ("sasrec",), lambda *news: told.append(news[:2]))
    assert (table2 / "table2.csv").read_bytes() == before and told == [(1, 2), (2, 2)]


def test_other_systems_in_the_table_are_not_tried_anew(table2, tmp_path, monkeypatch):
    """Their settings are those that they were run with, whatever is known of their trials."""
    shutil.copytree(table2 / "cells", tmp_path / "cells")
    tuned = []
    monkeypatch.setattr(
        reproduce, "tune", lambda name, *given, **options: tuned.append(name) or tune(name, *given, **options)
    )
    reproduce.reproduce("table2", grid(tmp_path), 2, ("popularity",))
    assert tuned == ["popularity"]
    rows = [(folder / "table2.md").read_text(encoding="utf-8").splitlines() for folder in (table2, tmp_path)]
    settings = [[line.split("|")[-2] for line in lines if "learning_rate" in line] for lines in rows]
    assert settings[0] == settings[1] and len(settings[0]) == 2


def test_a_table_holds_what_was_run_on_its_data_and_by_its_protocol_alone(table2, tmp_path):
    shutil.copytree(table2 / "cells", tmp_path / "cells")
    (tmp_path / "cells/sasrec-seed-0.safetensors").unlink()
    with pytest.raises(InputError, match=r"imecd-seed-0.safetensors was begun on other data; name the same"):
        other = tiny.tiny_dataset(tiny.random_sequences(seed=1))
        reproduce.reproduce("table2", Reproduction(other, FEATURES, tmp_path, 1, SMALL), 1, ("sasrec",))
    assert not (tmp_path / "tuning").exists(), "found out before anything was run"
    (tmp_path / "cells/sasrec-seed-1.safetensors").unlink()
    reproduce.reproduce("table2", grid(tmp_path, epochs=1), 1, ("sasrec",))
    rows = [row["model"] for row in rows_of(tmp_path / "table2.csv")]
    assert rows == ["popularity", "sasrec"], "popularity learns nothing, whatever the epochs"
    assert "at most 1 epoch" in (tmp_path / "table2.md").read_text(encoding="utf-8")
    reproduce.reproduce("table2", grid(tmp_path, hidden_size=16), 1, ("popularity",))
    assert [row["model"] for row in rows_of(tmp_path / "table2.csv")] == ["popularity"]
    for model, changed in (("gru4rec", {"max_length": 4}), ("caser", {"max_prefixes_per_user": 1})):
        reproduce.reproduce("table2", grid(tmp_path, epochs=1, **changed), 1, (model,))
        assert [row["model"] for row in rows_of(tmp_path / "table2.csv")] == ["popularity", model]


def test_a_grid_that_is_killed_goes_on_and_ends_as_if_it_had_not_been(table2, tmp_path, monkeypatch):
    epochs, train_epoch = [], runs.train.__globals__["train_epoch"]

    def killed(*arguments, **options):
        if len(epochs) in (3, 6, 9):
            epochs.append("killed")
            raise KeyboardInterrupt
        epochs.append(arguments[4])
        return train_epoch(*arguments, **options)

    monkeypatch.setitem(runs.train.__globals__, "train_epoch", killed)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            reproduce.reproduce("table2", grid(tmp_path, 2), 2, FEW)
    reproduce.reproduce("table2", grid(tmp_path, 2), 2, FEW)
    assert rows_of(tmp_path / "table2.csv") == rows_of(table2 / "table2.csv")
    assert len([epoch for epoch in epochs if epoch != "killed"]) == 2 * 2 * 2 + 2 * 2, "an epoch was run twice"


def test_a_table_needs_neither_the_runs_nor_the_trials_folders(table2, tmp_path, monkeypatch):
    for name in ("cells", "tuning"):
        shutil.copytree(
            table2 / name, tmp_path / name, ignore=lambda _, files: [f for f in files if f.startswith("trial-")]
        )
    monkeypatch.setattr(reproduce, "train_run", None)
    monkeypatch.setattr(runs, "train_run", None)
    reproduce.reproduce("table2", grid(tmp_path, 2), 2, FEW)
    for name in ("table2.csv", "table2.md"):
        assert (tmp_path / name).read_bytes() == (table2 / name).read_bytes()
    with pytest.raises(InputError, match="batch_size 32, not 16"):
        reproduce.reproduce("table2", grid(tmp_path, 2, batch_size=16), 2, ("popularity",))
    shutil.rmtree(tmp_path / "cells")
    with pytest.raises(InputError, match=r"trials.csv has trial 1 of other data or settings; name another"):
        reproduce.reproduce("table2", grid(tmp_path, 2, batch_size=16), 2, ("popularity",))


def test_users_that_are_called_nothing_keep_their_ranks(tmp_path):
    named = dataclasses.replace(DATASET, user_ids=["NA", "null", *DATASET.user_ids[2:]])
    reproduce.reproduce("table2", Reproduction(named, FEATURES, tmp_path, 1, SMALL), 1, ("popularity",))
    model = load_checkpoint(tmp_path / "runs/popularity-seed-0", named, FEATURES)
    (outcome,) = load_outcomes(tmp_path, "popularity")
    assert outcome.ranks.tolist() == target_ranks(model, named, named.split("test")).tolist()


def test_on_ids_alone_what_changes_nothing_is_left_out(tmp_path):
    ids = Reproduction(DATASET, None, tmp_path, 1, SMALL | {"epochs": 1})
    reproduce.reproduce("table3", ids, 1)
    assert [row["model"] for row in rows_of(tmp_path / "table3.csv")] == ["IMECD", "w/o MS-VQ", "w/o CDG_CL"]
    with pytest.raises(InputError, match="What figure4 varies has no effect on an ids-only dataset"):
        reproduce.reproduce("figure4", ids, 1)
    with pytest.raises(InputError, match="trials is 0"):
        reproduce.reproduce("table2", grid(tmp_path, 0), 1, ("popularity",))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"unisrec needs texts and pictures, and this .* ids alone; leave it out"):
        reproduce.reproduce("table2", ids, 1, ("sasrec", "unisrec"))
    with pytest.raises(
        InputError, match="popularity: num_attention_heads is 3; it must be a divisor of hidden_size, 8"
    ):
        reproduce.reproduce("table2", grid(tmp_path / "new", num_attention_heads=3), 1, ("popularity", "imecd"))
    assert set(tmp_path.rglob("*")) == before


def test_other_settings_are_refused_by_name(table2):
    with pytest.raises(InputError, match="batch_size 32, not 16"):
        reproduce.reproduce("table2", grid(table2, 2, batch_size=16), 2, ("sasrec",))


def test_more_epochs_go_on_from_where_a_run_ended(tmp_path):
    for epochs in (1, 2):
        reproduce.reproduce("table2", grid(tmp_path, epochs=epochs, patience=9), 1, ("sasrec",))
        with (tmp_path / "runs/sasrec-seed-0/history.csv").open() as file:
            assert len(list(csv.DictReader(file))) == epochs


def test_table2_marks_the_best_and_tells_improvement_and_intervals(table2):
    text = (table2 / "table2.md").read_text(encoding="utf-8")
    rows = pd.read_csv(table2 / "table2.csv").groupby("model")["ndcg@10"].mean()
    line = next(line for line in text.splitlines() if line.startswith("| N@10"))
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    best, second = sorted(rows, reverse=True)[:2]
    marks = {best: "**{:.4f}**", second: "<u>{:.4f}</u>"}
    assert cells[: len(FEW)] == [marks.get(rows[name], "{:.4f}").format(rows[name]) for name in FEW]
    rival = max(("popularity", "sasrec"), key=rows.get)
    assert cells[-1] == f"{rows['imecd'] / rows[rival] - 1:+.2%} (over {SYSTEMS[rival].title})"
    assert "| SASRec | " in text and "24 users, 13 items" in text and "2 validation trials" in text
    assert "| Toys | H@5 | 0.0633 |" in text and "+3.90% |" in text, "the paper's own"


def test_a_table_of_several_calls_says_what_each_system_was_given(tmp_path):
    reproduce.reproduce("table2", grid(tmp_path, epochs=1, trials=2), 1, ("gru4rec",))
    text = reproduce.reproduce("table2", grid(tmp_path, epochs=1, trials=1), 2, ("sasrec",)).read_text(encoding="utf-8")
    assert "; 1 to 2 seeds; " in text and "; 1 to 2 validation trials for each system" in text
    for title, given in (("GRU4Rec", "1 | 2"), ("SASRec", "2 | 1")):
        assert re.search(rf"^\| {title} \| .+ \|  \| {re.escape(given)} \| ", text, re.MULTILINE)


def test_where_no_other_system_hits_there_is_no_improvement_to_tell():
    rows = [
        SystemReport(name, SYSTEMS[name].title, np.array([ranks]), 0, 0, 0.0, "", "")
        for name, ranks in (("popularity", [30, 40]), ("imecd", [1, 2]))
    ]
    text = render_table2(rows, "shop", "protocol")
    assert "| N@10 | <u>0.0000</u> | **0.8155** |  |" in text and "| Popularity | 0.0000 |  | 1 | 0 | 0 |" in text


def test_table3_takes_one_part_away_at_a_time(tmp_path):
    path = reproduce.reproduce("table3", grid(tmp_path, epochs=1), seeds=1)
    configs = {cell.labels["model"]: None for cell in cells_of("table3", 1, ())}
    for cell in cells_of("table3", 1, ()):
        configs[cell.labels["model"]] = read_json(tmp_path / "runs" / cell.name / "config.json")["model_config"]
    full = configs.pop("IMECD")
    for name, config in configs.items():
        assert {k: v for k, v in config.items() if full[k] != v} == runs.VARIANTS[name]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| w/o")] == list(configs)
    kept = reproduce.kept_variants(tmp_path)
    assert list(kept) == ["IMECD", *configs]
    assert all(kept[name][0].config["model_config"] == config for name, config in configs.items())
    (tmp_path / "cells/imecd-use_text-False-seed-0.safetensors").unlink()
    with pytest.raises(InputError, match="no run of 'imecd-use_text-False'; reproduce a table"):
        reproduce.kept_variants(tmp_path)


def test_a_figure_sweeps_a_setting_and_shares_the_run_that_two_grids_have(tmp_path):
    base = grid(tmp_path, epochs=1, num_experts=4)
    reproduce.reproduce("table2", base, seeds=1, systems=("imecd",))
    page = reproduce.reproduce("figure4", base, seeds=1)
    rows = rows_of(tmp_path / "figure4.csv")
    assert [(row["setting"], row["value"]) for row in rows] == [("num_experts", str(n)) for n in (2, 4, 6, 8, 10)]
    assert not (tmp_path / "runs" / "imecd-num_experts-4-seed-0").exists()
    shared = rows_of(tmp_path / "table2.csv")[0]
    assert all(rows[1][name] == shared[name] for name in METRICS)
    html, text = page.read_text(encoding="utf-8"), (tmp_path / "figure4.md").read_text(encoding="utf-8")
    assert 'src="http' not in html and "experts N" in html
    assert "The paper finds: Toys: best at N = 10" in text
    assert f"| num_experts | 4 | N@5 | {float(shared['ndcg@5']):.4f} |" in text
    points = reproduce.kept_sweep(tmp_path, "figure4").set_index(["value", "metric"])["mean"]
    assert [points[int(row["value"]), "ndcg@5"] for row in rows] == pytest.approx(
        [float(row["ndcg@5"]) for row in rows]
    )
    reproduce.reproduce("table2", base, seeds=2, systems=("imecd",))
    assert reproduce.kept_sweep(tmp_path, "figure4").set_index(["value", "metric"])["mean"].equals(points)
    (tmp_path / "cells/imecd-num_experts-8-seed-0.safetensors").unlink()
    with pytest.raises(InputError, match="holds no run with num_experts 8; run `reproduce figure4`"):
        reproduce.kept_sweep(tmp_path, "figure4")


def test_unknown_names_and_no_seeds_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="There is no 'table4' to reproduce; there are table2, table3, figure4"):
        reproduce.reproduce("table4", grid(tmp_path))
    with pytest.raises(InputError, match="There is no 'sasrek' to reproduce; there are popularity, gru4rec"):
        reproduce.reproduce("table2", grid(tmp_path), systems=("sasrek",))
    with pytest.raises(InputError, match="seeds is 0"):
        reproduce.reproduce("table2", grid(tmp_path), seeds=0)
    assert not list(tmp_path.iterdir())


def test_without_features_those_that_need_them_are_left_out():
    assert set(available(FEATURES)) == set(SYSTEMS)
    left = set(SYSTEMS) - set(available(None))
    assert left == {name for name, system in SYSTEMS.items() if MODELS[system.model].NEEDS_FEATURES}
    assert "sasrec-features" in left and not left & {"popularity", "sasrec", "imecd", "diffurec"}


def test_every_system_has_a_model_and_every_model_but_variants_is_a_system():
    assert {system.model for system in SYSTEMS.values()} == set(MODELS)
    assert list(SYSTEMS)[-1] == "imecd", "the paper's order"
    literal = Reproduction(DATASET, FEATURES, None).published("imecd-literal")
    assert literal[0].denoiser == "add" and literal[1].batch_size == 256, "batches are the same for all"
    assert dataclasses.replace(literal[1], epochs=1) == dataclasses.replace(
        Reproduction(DATASET, FEATURES, None).published("imecd")[1], epochs=1
    )


def test_a_cell_is_named_after_what_is_run_not_after_its_table():
    assert Cell("imecd", {"model": "IMECD"}, {}, 2).name == Cell("imecd", {"value": 3}, {}, 2).name == "imecd-seed-2"
    assert Cell("imecd", {}, {"use_text": False}, 0).name == "imecd-use_text-False-seed-0"
    assert np.unique([cell.name for cell in cells_of("figure6", 2, ())]).size == 20
