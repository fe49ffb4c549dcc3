"""The results that come with the project: made of this shop, with these settings, and what a run of today gives."""

import csv
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from imecd_lite.config import BUNDLED_DATA
from imecd_lite.dataset import load_dataset
from imecd_lite.encoders import load_features
from imecd_lite.evaluate import metrics, paired_bootstrap
from imecd_lite.reproduce import METRICS, SYSTEMS, Reproduction, cells_of, kept_sweep, kept_systems, kept_variants
from imecd_lite.results import load_outcome, stack_ranks

FOLDER = BUNDLED_DATA / "results/shop"
FIGURES = ("figure4", "figure5", "figure6")
CELLS = {cell.name: cell for target in ("table2", "table3", *FIGURES) for cell in cells_of(target, 9, tuple(SYSTEMS))}
KEPT = sorted(BUNDLED_DATA.glob("results/*/cells/*.safetensors"))
LONGEST = 900
"""Seconds that a run may have taken to be run again in a test."""


@pytest.fixture(scope="module")
def shop():
    dataset = load_dataset(BUNDLED_DATA / "shop")
    return dataset, load_features(dataset)


def grid(shop, folder: Path) -> Reproduction:
    """A grid that knows the trials, and so the settings, of the one that is bundled."""
    shutil.copytree(FOLDER / "tuning", folder / "tuning")
    return Reproduction(*shop, folder)


def test_every_run_is_of_this_shop_and_has_todays_settings(shop, tmp_path):
    reproduction = grid(shop, tmp_path)
    for path in KEPT:
        outcome, cell = load_outcome(path), CELLS[path.stem]
        assert len(outcome.ranks) == shop[0].num_users and outcome.config["dataset"] == shop[0].fingerprint
        assert 1 <= outcome.ranks.min() <= outcome.ranks.max() <= shop[0].num_items
        assert (outcome.top is None) == (cell.seed > 0)
        settled = {name: value for config in reproduction.settle(cell.system) for name, value in vars(config).items()}
        settings = outcome.config["model_config"] | outcome.config["train_config"]
        assert settings == settled | cell.changes | {"seed": cell.seed}, path.name


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.open(encoding="utf-8")))


def test_the_table_is_that_of_the_runs():
    names = [path.stem for path in (FOLDER / "cells").iterdir()]
    rows, systems = rows_of(FOLDER / "table2.csv"), {name for name in names if not CELLS[name].changes}
    assert {f"{row['model']}-seed-{row['seed']}" for row in rows} == systems
    for row in rows:
        ranks = load_outcome(FOLDER / "cells" / f"{row['model']}-seed-{row['seed']}.safetensors").ranks
        assert [float(row[name]) for name in METRICS] == pytest.approx([metrics(ranks)[name] for name in METRICS])


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_is_that_of_the_runs(figure):
    rows = rows_of(FOLDER / f"{figure}.csv")
    points = kept_sweep(FOLDER, figure).set_index(["setting", "value", "metric"])["mean"]
    assert len(points) == 2 * len(rows) > 0
    for row in rows:
        told = [float(row[metric]) for metric in ("hit@5", "ndcg@5")]
        place = row["setting"], float(row["value"])
        assert told == pytest.approx([points[*place, metric] for metric in ("hit@5", "ndcg@5")])


def test_the_table_of_variants_is_that_of_the_runs():
    rows, kept = rows_of(FOLDER / "table3.csv"), kept_variants(FOLDER)
    assert len(rows) == 3 * len(kept) == 18
    for row in rows:
        ranks = kept[row["model"]][int(row["seed"])].ranks
        assert [float(row[name]) for name in METRICS] == pytest.approx([metrics(ranks)[name] for name in METRICS])


def test_every_system_beats_popularity():
    ranks = {name: stack_ranks(outcomes) for name, outcomes in kept_systems(FOLDER).items()}
    popularity = ranks.pop("Popularity")
    for name, of in ranks.items():
        assert paired_bootstrap(of, popularity, "ndcg@10")[0] > 0.1, name


@pytest.mark.slow
def test_a_run_of_today_gives_what_is_kept_of_it(shop, tmp_path):
    """One cell, drawn anew each time. Arithmetic differs between machines, and training makes much of it."""
    quick = [path for path in KEPT if 1 < load_outcome(path).results["seconds"] < LONGEST]
    path = random.SystemRandom().choice(quick)
    cell, kept, reproduction = CELLS[path.stem], load_outcome(path), grid(shop, tmp_path)
    reproduction.run(cell)
    again = load_outcome(reproduction.file(cell))
    assert again.config == kept.config, path.name
    for name in METRICS:
        assert metrics(again.ranks)[name] == pytest.approx(metrics(kept.ranks)[name], rel=0.08), (path.name, name)
    same = np.corrcoef(np.log(again.ranks), np.log(kept.ranks))[0, 1]
    assert same > 0.8, f"{path.name}: other shoppers are served well, correlation {same:.2f}"
