"""The instructor's guide: its minutes are the notebooks' own, its days add up."""

import re
from pathlib import Path

import nbformat
import pytest
import torch

from imecd_lite import BUNDLED_DATA, load_checkpoint, load_dataset, load_features
from imecd_lite.counterfactual import what_if
from imecd_lite.diagnostics import read_truth
from imecd_lite.evaluate import hit
from imecd_lite.reproduce import kept_systems
from imecd_lite.results import stack_ranks
from imecd_lite.spaces import nearest
from imecd_lite.walks import walk
from imecd_lite.widgets import view_injection

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
GUIDE = (NOTEBOOKS / "INSTRUCTOR.md").read_text(encoding="utf-8")
MINUTES = re.findall(r"^\| \[.+\]\((\w+\.ipynb)\) \| (\d+) \| (\d*) ?\|", GUIDE, re.MULTILINE)
DAYS = re.findall(r"^## .+ \((\d+) hours (\d+) minutes\)\n\n((?:\|.+\n)+)", GUIDE, re.MULTILINE)


def test_every_notebook_is_in_the_guide():
    assert [name for name, _, _ in MINUTES] == sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name, teaching, exercises", MINUTES, ids=[name for name, _, _ in MINUTES])
def test_its_minutes_are_those_of_the_notebook(name, teaching, exercises):
    opening = nbformat.read(NOTEBOOKS / name, as_version=4).cells[0].source
    assert re.search(rf"^\| Teaching \| {teaching} minutes \|$", opening, re.MULTILINE)
    if exercises:
        assert re.search(rf"^\| Exercises \| {exercises} minutes", opening, re.MULTILINE)


@pytest.mark.parametrize("hours, minutes, table", DAYS, ids=["half a day", "a full day"])
def test_each_part_of_a_day_starts_when_the_one_before_ends(hours, minutes, table):
    clock = 0
    for hour, minute, length in re.findall(r"^\| (\d):(\d\d) \| (\d+) \|", table, re.MULTILINE):
        assert clock == 60 * int(hour) + int(minute)
        clock += int(length)
    assert clock == 60 * int(hours) + int(minutes)


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#\s]+)\)", GUIDE):
        assert (NOTEBOOKS / target).exists(), target


@pytest.fixture(scope="module")
def shop():
    """The teaching shop and the bundled model, of which the answers speak."""
    dataset = load_dataset(BUNDLED_DATA / "shop")
    return dataset, load_checkpoint(BUNDLED_DATA / "checkpoints/shop", dataset, load_features(dataset))


def test_what_it_says_of_gates_can_be_seen(shop):
    dataset, model = shop
    kinds = read_truth(dataset)["items"]["kind"].to_numpy()

    def seen(item, **change):
        changed = what_if(model, item, **change)
        tables = {name: table[1:] for name, table in changed.tables.items()}
        near = kinds[nearest(tables["text"], torch.tensor([item]), 6)[0].numpy() - 1]
        return set(near), {
            name: torch.cosine_similarity(tables[name][item - 1], what_if(model, item).tables[name][item], dim=0).item()
            for name in ("text", "image")
        }

    assert seen(869)[0] == {"dinosaur"}
    assert not {"dinosaur", "train"} & seen(869, id_of=651)[0]
    assert "dinosaur" not in seen(869, muted=[5])[0] and "train" in seen(869, muted=[5])[0]
    assert what_if(model).gates["text"][868].argmax() == 5
    assert min(seen(869, muted=[2])[1].values()) > 0.97 and max(seen(869, muted=[5])[1].values()) < 0.75
    assert all(min(seen(467, muted=[expert])[1].values()) > 0.85 for expert in range(8))


def test_what_it_says_of_codes_can_be_seen(shop):
    dataset, model = shop
    ranks = {
        (user, strength): view_injection(model, dataset, dataset.user_ids.index(user), strength).ranks[0]
        for user in ("U0250", "U0434")
        for strength in (0.0, 0.7, 3.0)
    }
    assert ranks["U0250", 0.0] < ranks["U0250", 0.7] < ranks["U0250", 3.0]
    assert ranks["U0434", 0.0] > ranks["U0434", 0.7] > ranks["U0434", 3.0]


def test_what_it_says_of_walks_can_be_seen(shop):
    dataset, model = shop
    ranks = {user: walk(model, dataset, dataset.user_ids.index(user)) for user in ("U0042", "U0345", "U0518")}
    assert ranks["U0042"].ranks[15:].max() <= 10 < ranks["U0042"].ranks[:14].min()
    assert ranks["U0345"].predicted_ranks.min() > 1000
    assert 10 < ranks["U0518"].predicted_ranks.min() <= ranks["U0518"].predicted_ranks.max() < 30


def test_what_it_says_of_the_order_of_systems_can_be_seen():
    ranks = {name: stack_ranks(seeds) for name, seeds in kept_systems(BUNDLED_DATA / "results/shop").items()}
    places = {}
    for k in (1, 50):
        order = sorted(ranks, key=lambda name: -hit(ranks[name], k).mean())
        places[k] = {name.split(" (")[0]: place for place, name in enumerate(order, start=1)}
    letter, repeats = "IMECD to the letter", "SASRec with the bias of repeats"
    assert places[1]["IMECD"] == places[50]["IMECD"] == 1 and places[1][letter] > len(ranks) / 2
    assert places[50][letter] == 2 and places[50][repeats] > 2, "the explorer has the oracle as well, so one place less"
