"""The teaching shop: fixed by its hash, whole after the paper's filters, and true to what it plants."""

import csv
import errno
import io
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from imecd_lite import shop
from imecd_lite.config import BUNDLED_DATA
from imecd_lite.dataset import load_dataset
from imecd_lite.errors import InputError
from imecd_lite.files import tree_hash
from imecd_lite.shop_pictures import BACKGROUNDS, DRAWINGS, SIZE, contact_sheet, draw_item, png_bytes

SHOP = BUNDLED_DATA / "shop"
FEATURES = ("features.safetensors",)
SHOP_HASH = "c52668c7396d764fd3edb587dcacca1c7b5b55e9d8b99e401e7cd1eede0bae0c"
"""The shop is designed once. If it must change, every measurement on it has to be made again."""


@pytest.fixture(scope="module")
def truth():
    return {path.stem: pd.read_csv(path, keep_default_na=False) for path in (SHOP / "truth").glob("*.csv")}


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(SHOP)


def test_the_bundled_shop_is_the_one_that_was_measured():
    assert tree_hash(SHOP, skip=FEATURES) == SHOP_HASH


def test_the_generator_makes_the_bundled_shop_byte_for_byte(tmp_path):
    shop.generate_shop(tmp_path / "shop")
    assert tree_hash(tmp_path / "shop") == SHOP_HASH


def test_another_seed_is_another_shop_of_the_same_size(tmp_path, dataset):
    shop.generate_shop(tmp_path / "shop", seed=1)
    other = load_dataset(tmp_path / "shop")
    assert tree_hash(tmp_path / "shop") != SHOP_HASH
    assert (other.num_users, other.num_items) == (dataset.num_users, dataset.num_items) == (3000, 1200)


def test_the_papers_filters_take_nothing(dataset):
    assert set(dataset.dropped.values()) == {0}
    assert 8 <= dataset.statistics()["avg_length"] <= 9
    assert np.bincount(dataset.flat)[1:].min() >= 5


def test_popularity_has_a_long_tail(dataset):
    counts = np.sort(np.bincount(dataset.flat)[1:])[::-1]
    assert 0.35 < counts[: len(counts) // 10].sum() / counts.sum() < 0.45


def test_a_fifth_of_texts_and_another_fifth_of_pictures_mislead(truth, dataset):
    items = truth["items"]
    assert Counter(items["misleading"]) == {"": 720, "text": 240, "image": 240}
    family = {kind: shop.KINDS[kind].family for kind in shop.KINDS}
    for lie, column, honest in (("text", "text_kind", "image_kind"), ("image", "image_kind", "text_kind")):
        lying = items[items["misleading"] == lie]
        assert (lying[column].map(family) != lying["type"]).all()
        assert (lying[honest] == lying["kind"]).all()
    counts = pd.Series(np.bincount(dataset.flat)[1:], index=dataset.item_ids)
    means = counts.groupby(items.set_index("item_id")["misleading"]).mean()
    assert means.max() / means.min() < 1.2, "popularity tells which items mislead"


def test_titles_and_categories_say_what_the_text_pretends(truth):
    items = pd.read_csv(SHOP / "items.csv").merge(truth["items"], on="item_id")
    for row in items.itertuples():
        kind = shop.KINDS[row.text_kind]
        assert kind.noun in row.title
        assert row.category.endswith(kind.category)
        assert row.title.startswith(row.brand)


def test_shoppers_follow_their_journeys_but_for_the_strays(truth):
    clicks = truth["interactions"].merge(truth["users"], on="user_id").merge(truth["items"], on="item_id")
    journeys = {(row.journey, row.stage): row for row in truth["journeys"].itertuples()}
    followed = clicks[clicks["stray"] == 0]
    for row in followed.itertuples():
        stage = journeys[row.journey, row.stage]
        assert row.kind == stage.kind
        assert row.theme in stage.themes.split("|")
    assert clicks["stray"].mean() == pytest.approx(shop.STRAY_PERCENT / 100, abs=0.01)
    assert truth["users"]["journey"].nunique() == len(shop.JOURNEYS) >= 12
    assert (followed["favourite_theme"] == followed["theme"]).mean() > 0.5


def test_nobody_buys_an_item_twice_and_stages_never_go_back(truth):
    clicks = truth["interactions"]
    assert not clicks.duplicated(["user_id", "item_id"]).any()
    assert clicks.groupby("user_id")["stage"].apply(lambda stages: stages.is_monotonic_increasing).all()


def test_truth_is_row_by_row_that_of_the_interactions(truth):
    clicks = pd.read_csv(SHOP / "interactions.csv")
    assert clicks[["user_id", "item_id"]].equals(truth["interactions"][["user_id", "item_id"]])
    assert clicks["timestamp"].is_monotonic_increasing


def test_every_picture_opens_and_is_small(dataset):
    for path in dataset.image_paths():
        with Image.open(path) as image:
            assert image.size == (SIZE, SIZE)
            image.load()
        assert path.stat().st_size < 5000


def test_no_two_kinds_and_no_two_themes_look_the_same():
    pictures = {
        (kind, theme): draw_item(kind, theme, 0, (0, 0), 90, False) for kind in DRAWINGS for theme in BACKGROUNDS
    }
    assert set(DRAWINGS) == set(shop.KINDS)
    assert set(BACKGROUNDS) == set(shop.THEMES)
    assert len({picture.tobytes() for picture in pictures.values()}) == len(pictures)


def test_png_bytes_are_a_picture_of_few_colours():
    picture = draw_item("bear", "sea", 3, (1, -2), 88, True)
    with Image.open(io.BytesIO(png_bytes(picture))) as image:
        found = np.asarray(image.convert("RGB")).astype(int)
    assert len(np.unique(found.reshape(-1, 3), axis=0)) <= 16
    assert np.abs(found - np.asarray(picture)).mean() < 4


def test_contact_sheet_holds_every_picture():
    pictures = [(draw_item(kind, "sea", 0, (0, 0), 90, False), kind) for kind in DRAWINGS]
    sheet = contact_sheet(pictures, columns=6)
    assert sheet.width > 6 * SIZE
    assert sheet.height > 4 * SIZE
    assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 20


def test_an_existing_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("dear to me")
    with pytest.raises(InputError, match="is not an empty folder"):
        shop.generate_shop(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "dear to me"


def test_a_full_disk_names_the_shop_and_leaves_nothing_of_it_and_what_else_is_there(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "shop.partial").mkdir()
    (tmp_path / "shop.partial/thesis.txt").write_text("precious")
    monkeypatch.setattr(shop, "write_items", fail)
    with pytest.raises(OSError, match="No space") as caught:
        shop.generate_shop(tmp_path / "shop")
    assert caught.value.filename == str(tmp_path / "shop")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == [
        "shop.partial",
        "shop.partial/thesis.txt",
    ]


def test_weighted_choice_is_as_likely_as_its_weight():
    rng = np.random.default_rng(0)
    counts = Counter(shop.pick(rng, "abc", (1, 0, 3)) for _ in range(4000))
    assert counts["b"] == 0
    assert counts["c"] / counts["a"] == pytest.approx(3, abs=0.3)


def test_csv_columns_are_those_of_a_dataset_folder():
    with (SHOP / "items.csv").open(encoding="utf-8") as file:
        assert next(csv.reader(file)) == ["item_id", "title", "brand", "category", "description", "image"]
