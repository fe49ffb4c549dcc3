"""The example of a shop's own export: made by its command, dirty in each of the ways that are told, and learnable."""

import csv
import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from imecd_lite.config import BUNDLED_DATA
from imecd_lite.dataset import load_dataset
from imecd_lite.encoders import open_image
from imecd_lite.errors import InputError
from imecd_lite.files import tree_hash
from imecd_lite.prepare import DROPPED_FILE
from imecd_lite.tabular import prepare_csv

CORNER = BUNDLED_DATA / "toy_corner"
COLUMNS = {
    "user_id": "customer",
    "item_id": "article",
    "timestamp": "bought_at",
    "items_item_id": "sku",
    "title": "name",
    "brand": "maker",
    "category": "department",
    "description": "blurb",
    "image": "photo",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corner") / "prepared"
    prepare_csv(CORNER / "orders.csv", CORNER / "products.csv", CORNER / "photos", folder, COLUMNS)
    return folder


def test_the_command_makes_the_bundled_example_byte_for_byte(tmp_path):
    script = Path(__file__).parents[1] / "tools/make_toy_corner.py"
    spec = importlib.util.spec_from_file_location("make_toy_corner", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make_toy_corner(tmp_path / "corner")
    with pytest.raises(SystemExit, match="is there already; delete it, or name another folder"):
        module.make_toy_corner(tmp_path / "corner")
    assert tree_hash(tmp_path / "corner") == tree_hash(CORNER)


def test_it_is_small():
    assert sum(path.stat().st_size for path in CORNER.rglob("*")) < 1_500_000


def test_each_kind_of_dirt_is_in_it_and_is_found(prepared):
    with (prepared / DROPPED_FILE).open(newline="", encoding="utf-8") as file:
        found = Counter((Path(row["source"]).name, row["reason"]) for row in csv.DictReader(file))
    assert found == {
        ("orders.csv", "user_id is empty"): 40,
        ("orders.csv", "no row of products.csv describes its item"): 25,
        ("orders.csv", "its item is left out"): found["orders.csv", "its item is left out"],
        ("products.csv", "it has no text"): 3,
        ("products.csv", "its picture is not there"): 5,
        ("products.csv", "its picture can't be read as one"): 1,
        ("products.csv", "item_id has a row already"): 1,
    }
    unreadable = []
    for path in (CORNER / "photos").iterdir():
        try:
            open_image(path)
        except InputError:
            unreadable.append(path)
    assert [path.read_text() for path in unreadable] == ["Photo to follow.\n"]


def test_markup_is_in_its_names_and_in_none_that_is_prepared(prepared):
    raw = (CORNER / "products.csv").read_text(encoding="utf-8")
    assert "<b>" in raw and "&amp;" in raw
    titles = load_dataset(prepared).items["title"]
    assert not titles.str.contains("<|>|&amp;").any() and titles.str.contains("&").any()


def test_the_five_core_has_something_to_take_and_leaves_a_shop(prepared):
    dataset = load_dataset(prepared)
    assert dataset.dropped["interactions outside the 5-core"] > 100
    assert 550 < dataset.num_users < 600 and 230 < dataset.num_items < 250
