"""From a shop's own tables to a dataset folder: every row is kept or accounted for, every fault is one sentence."""

import csv
import os
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_data import write_csv, write_shop
from PIL import Image
from pyarrow import parquet

import imecd_lite.encoders
from imecd_lite.dataset import load_dataset
from imecd_lite.errors import InputError
from imecd_lite.prepare import DROPPED_FILE, MAX_TEXT
from imecd_lite.tabular import MAX_ID, MISSING, OPTIONS, prepare_csv, read_times

COLUMNS = {
    "user_id": "customer",
    "item_id": "sku",
    "timestamp": "bought at",
    "items_item_id": "id",
    "title": "name",
    "brand": "maker",
}


class Shop:
    """What an instructor might bring, and ``prepare_csv`` of it."""

    def __init__(self, folder: Path) -> None:
        made = write_shop(folder / "made")
        self.folder, self.images, self.output = folder, made / "images", folder / "out"
        self.sales = list(csv.reader((made / "interactions.csv").open()))[1:]
        self.goods = [(row[0], row[1], row[2]) for row in csv.reader((made / "items.csv").open())][1:]
        self.header = ("customer", "sku", "bought at")
        self.goods_header = ("id", "name", "maker")

    def write(self) -> tuple[Path, Path]:
        files = self.folder / "orders.csv", self.folder / "products.csv"
        write_csv(files[0], self.header, self.sales)
        write_csv(files[1], self.goods_header, self.goods)
        return files

    def prepare(self, **changes: str) -> list[str]:
        interactions, items = self.write()
        return prepare_csv(interactions, items, self.images, self.output, COLUMNS | changes)

    def refused(self, **changes: str) -> str:
        with pytest.raises(InputError) as caught:
            self.prepare(**changes)
        assert "\n" not in str(caught.value) and not self.output.exists()
        return str(caught.value).replace(f"{self.folder}/", "")

    def dropped(self) -> list[list[str]]:
        rows = list(csv.reader((self.output / DROPPED_FILE).open(newline="")))
        assert rows[0] == ["source", "line", "id", "reason"]
        return [[Path(row[0]).name, *row[1:]] for row in rows[1:]]


@pytest.fixture
def shop(tmp_path) -> Shop:
    return Shop(tmp_path)


def test_a_shops_own_tables_become_a_dataset(shop):
    assert shop.prepare() == [] == shop.dropped()
    dataset, made = load_dataset(shop.output), load_dataset(shop.folder / "made")
    assert dataset.fingerprint == made.fingerprint
    assert [times.tolist() for times in dataset.timestamps] == [times.tolist() for times in made.timestamps]
    assert dataset.item_texts()[0] == "Thing 0, Acme"
    for path, original in zip(dataset.image_paths(), made.image_paths(), strict=True):
        assert path.read_bytes() == original.read_bytes()
    assert {path.name for path in shop.output.iterdir()} == {
        *("interactions.csv", "items.csv", "images", "dropped.csv", "prepare.json"),
    }


def test_each_row_is_kept_or_accounted_for_with_its_line_and_why(shop):
    whole = len(shop.sales)
    of_three = sum(row[1] == "I003" for row in shop.sales)
    shop.sales += [("", "I000", 5), ("x", "", 5), ("x", "I000", " "), ("x", "I999", 5), ("x\ny", "I000", 5)]
    shop.goods += [("I000", "again", ""), ("", "nameless", ""), ("I012", "", ""), ("I013", "no picture", "")]
    (shop.images / "I003.png").write_text("not a picture")
    (shop.images / "I012.png").write_bytes((shop.images / "I000.png").read_bytes())
    (shop.images / "notes.txt").write_text("not a picture")
    lines = shop.prepare()
    assert f"{of_three} of {shop.folder}/orders.csv: its item is left out" in lines
    rows = shop.dropped()
    assert [row for row in rows if row[0] == "products.csv"] == [
        ["products.csv", "5", "I003", "its picture can't be read as one"],
        ["products.csv", "14", "I000", "item_id has a row already"],
        ["products.csv", "15", "", "item_id is empty"],
        ["products.csv", "16", "I012", "it has no text"],
        ["products.csv", "17", "I013", "it has no picture"],
    ]
    assert [row for row in rows if row[0] == "orders.csv"][-5:] == [
        ["orders.csv", str(whole + 2), "I000", "user_id is empty"],
        ["orders.csv", str(whole + 3), "", "item_id is empty"],
        ["orders.csv", str(whole + 4), "I000", "timestamp is empty"],
        ["orders.csv", str(whole + 5), "I999", "no row of products.csv describes its item"],
        ["orders.csv", str(whole + 7), "I000", "user_id holds a control character"],
    ]
    kept = {name: len(list(csv.reader((shop.output / name).open()))) - 1 for name in ("interactions.csv", "items.csv")}
    assert kept["interactions.csv"] + sum(row[0] == "orders.csv" for row in rows) == len(shop.sales)
    assert kept["items.csv"] + sum(row[0] == "products.csv" for row in rows) == len(shop.goods)
    assert load_dataset(shop.output).dropped["interactions with items without text or picture"] == 0


def test_a_row_that_is_there_twice_counts_once(shop):
    whole, (user, item, time) = len(shop.sales), shop.sales[7]
    shop.sales += [(user, f" {item}", time), (user, item, int(time) + 1)]
    shop.prepare()
    assert shop.dropped() == [["orders.csv", str(whole + 2), item, "the same row is there already"]]
    assert len(rows_of(shop.output / "interactions.csv")) == whole + 1


def test_of_two_rows_of_an_item_the_first_that_lacks_nothing_stays(shop):
    _, name, maker = shop.goods[0]
    shop.goods = [("I000", "", ""), *shop.goods, ("I000", "again", "")]
    shop.prepare()
    assert shop.dropped() == [
        ["products.csv", "2", "I000", "it has no text"],
        ["products.csv", str(len(shop.goods) + 1), "I000", "item_id has a row already"],
    ]
    assert load_dataset(shop.output).item_texts()[0] == f"{name}, {maker}"


def test_markup_in_texts_is_taken_out(shop):
    shop.goods[0] = ("I000", "<b>Bear</b> &amp;amp; box<script>x()</script>", "&lt;i&gt;Acme\n&lt;/i&gt;")
    shop.prepare()
    assert load_dataset(shop.output).item_texts()[0] == "Bear & box, Acme"


def test_tables_of_other_systems_are_read_or_refused_in_a_sentence(shop):
    interactions, items = shop.write()
    whole = interactions.read_bytes()
    interactions.write_bytes(b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"))  # as Windows writes it
    assert prepare_csv(interactions, items, shop.images, shop.output, COLUMNS) == []
    assert load_dataset(shop.output).fingerprint == load_dataset(shop.folder / "made").fingerprint
    line = whole.split(b"U003")[0].count(b"\n") + 1
    for content, message in (
        (whole.replace(b"U003", b"U\xfc03"), r"orders\.csv, line \d+: not UTF-8 text; save the file as UTF-8"),
        (whole.replace(b",", b";"), r"orders\.csv separates its columns by ';'; save it with commas"),
        (b"", r"orders\.csv is empty; export it anew, with the names of its columns in the first line"),
        (whole.decode().encode("utf-16"), r"orders\.csv, line 1: not UTF-8 text; save the file as UTF-8"),
        (whole.decode().encode("utf-16-le"), r"orders\.csv, line 1: not UTF-8 text; save the file as UTF-8"),
        (whole[:-9] + b'"', r"orders\.csv, line \d+: "),
        (
            whole.replace(b"\nU003,", b'\n"U003,', 1),
            rf"orders\.csv, line {line}: .*begins there, perhaps a double quote is not closed",
        ),
    ):
        interactions.write_bytes(content)
        with pytest.raises(InputError, match=message):
            prepare_csv(interactions, items, shop.images, shop.folder / "other", COLUMNS)


def test_spaces_around_a_field_are_no_part_of_it_and_zeros_are(shop):
    shop.sales = [(f" {row[0]}", f"00{row[1]}" + " " * (number % 2), row[2]) for number, row in enumerate(shop.sales)]
    shop.goods = [(f"00{row[0]}\u00a0", *row[1:]) for row in shop.goods]
    for path in sorted(shop.images.iterdir()):
        path.rename(path.with_name(f"00{path.name}"))
    assert shop.prepare() == []
    dataset, made = load_dataset(shop.output), load_dataset_ids(shop.folder / "made")
    assert dataset.user_ids == made.user_ids and dataset.item_ids == [f"00{item_id}" for item_id in made.item_ids]


def load_dataset_ids(folder: Path):
    """The dataset without its items."""
    (folder / "items.csv").unlink()
    return load_dataset(folder)


@pytest.mark.parametrize("nothing", MISSING)
def test_what_stands_for_an_empty_field_is_nobodys_id_and_no_text(shop, nothing):
    count = len(shop.sales)
    shop.sales += [(nothing, "I000", 5), ("x", nothing, 5), ("x", "I000", nothing)]
    shop.goods[0] = ("I000", "Bear", nothing)
    shop.goods += [(nothing, "thing", "Acme"), ("I012", nothing, nothing)]
    for name in (nothing, "I012"):
        if "/" not in name:
            (shop.images / f"{name}.png").write_bytes((shop.images / "I000.png").read_bytes())
    shop.prepare()
    assert [row[1:] for row in shop.dropped()] == [
        [str(count + 2), "I000", "user_id is empty"],
        [str(count + 3), "", "item_id is empty"],
        [str(count + 4), "I000", "timestamp is empty"],
        ["14", "", "item_id is empty"],
        ["15", "I012", "it has no text"],
    ]
    assert load_dataset(shop.output).item_texts()[0] == "Bear"


def test_an_id_or_a_text_without_end_leaves_a_folder_that_can_be_read(shop):
    shop.sales.append(("x" * (MAX_ID + 1), "I000", 5))
    sales = pd.DataFrame(shop.sales, columns=list(shop.header), dtype=str)
    goods = pd.DataFrame(shop.goods, columns=list(shop.goods_header))
    goods["description"] = "long " * 100_000
    files = shop.folder / "orders.parquet", shop.folder / "products.parquet"
    sales.to_parquet(files[0])
    goods.to_parquet(files[1])
    prepare_csv(*files, shop.images, shop.output, COLUMNS)
    assert [row[1:] for row in shop.dropped()] == [[str(len(sales)), "I000", "user_id has more than 1000 characters"]]
    assert load_dataset(shop.output).items["description"].str.len().max() <= MAX_TEXT


def test_a_text_in_a_csv_may_be_longer_than_pythons_reader_takes_by_itself(shop):
    shop.goods[0] = ("I000", "Bear", "long " * 100_000)
    shop.prepare()
    assert shop.dropped() == [] and load_dataset(shop.output).items["brand"][0].startswith("long long")


def test_a_picture_whose_name_a_mac_has_taken_apart_is_found(shop):
    shop.sales = [(user, item.replace("I001", "caf\u00e9"), time) for user, item, time in shop.sales]
    shop.goods[1] = ("caf\u00e9", *shop.goods[1][1:])
    (shop.images / "I001.png").rename(shop.images / "cafe\u0301.png")
    shop.prepare()
    assert shop.dropped() == [] and "caf\u00e9" in load_dataset(shop.output).item_ids


def test_what_was_prepared_is_never_overwritten(shop):
    shop.prepare()
    (shop.images / "I000.png").write_text("not looked at")
    with pytest.raises(InputError, match="is already there"):
        shop.prepare()
    assert load_dataset(shop.output).num_items == 12


def test_without_items_a_dataset_of_ids_alone(shop):
    interactions, _ = shop.write()
    prepare_csv(str(interactions), None, None, str(shop.output), COLUMNS)
    assert load_dataset(shop.output).items is None
    assert load_dataset(shop.output).fingerprint == load_dataset(shop.folder / "made").fingerprint


def test_parquet_is_read_as_csv_is(shop):
    shop.prepare()
    sales = pd.DataFrame(shop.sales, columns=list(shop.header))
    moments = pd.to_datetime(sales["bought at"].astype(int), unit="s", utc=True)
    sales = sales.assign(**{"bought at": moments, "basket": [["a list"]] * len(sales), "photo": b"\xff"})
    sales["basket_id"] = pd.Series([bytes(16)] * len(sales), dtype=pd.ArrowDtype(pyarrow.uuid()))
    sales["thumbnail"] = pd.Series([b"\xff"] * len(sales), dtype=pd.ArrowDtype(pyarrow.large_binary()))
    goods = pd.DataFrame(shop.goods, columns=list(shop.goods_header)).astype({"maker": "category"})
    goods.loc[0, "maker"] = None
    files = shop.folder / "orders.parquet", shop.folder / "products.parquet"
    sales.to_parquet(files[0])
    goods.to_parquet(files[1])
    assert prepare_csv(*files, shop.images, shop.folder / "other", COLUMNS) == []
    mine, other = ((folder / "interactions.csv").read_bytes() for folder in (shop.output, shop.folder / "other"))
    assert mine == other and load_dataset(shop.folder / "other").item_texts()[:2] == ["Thing 0", "Thing 1, Acme"]
    whole = files[0].read_bytes()
    offsets = pyarrow.py_buffer(np.array([0, 1], dtype=np.int32))
    latin = pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, offsets, pyarrow.py_buffer(b"\xfc")])
    parquet.write_table(pyarrow.table({"customer": latin, "sku": ["I000"], "bought at": [7]}), files[0])
    for content in (b"", b"PAR1", whole[:-9], whole[: len(whole) // 2], files[0].read_bytes()):
        files[0].write_bytes(content)
        with pytest.raises(InputError, match=r"orders\.parquet is not a whole Parquet file"):
            prepare_csv(*files, shop.images, shop.folder / "third", COLUMNS)


def test_a_parquet_file_that_would_fill_the_memory_is_refused_before_it_does(shop, monkeypatch):
    monkeypatch.setattr("imecd_lite.tabular.MAX_TABLE", 200_000_000)
    same, values = (
        pyarrow.array([0] * 2_000_000, pyarrow.int32()),
        {"customer": "U", "sku": "I" * 1000, "bought at": "7"},
    )
    columns = {name: pyarrow.DictionaryArray.from_arrays(same, [value]) for name, value in values.items()}
    parquet.write_table(pyarrow.table(columns), shop.folder / "orders.parquet", row_group_size=len(same))
    assert (shop.folder / "orders.parquet").stat().st_size < 1_000_000
    with pytest.raises(InputError, match=r"orders\.parquet unpacks to more than 0\.2 GB of text; give it in parts"):
        prepare_csv(shop.folder / "orders.parquet", None, None, shop.output, COLUMNS)
    assert pyarrow.default_memory_pool().max_memory() < 500_000_000


def test_a_parquet_file_without_rows_is_read(shop):
    sales = pd.DataFrame(columns=list(shop.header))
    sales.to_parquet(shop.folder / "orders.parquet")
    with pytest.raises(InputError, match=r"orders\.parquet has no rows, only the names of its columns; export it anew"):
        prepare_csv(shop.folder / "orders.parquet", None, None, shop.output, COLUMNS)


# --- times


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (["0", "1.5", " 7 "], [0, 1.5, 7]),
        (["1700000000", "1700000001"], [1_700_000_000, 1_700_000_001]),
        (["1700000000000", "1700000000500"], [1_700_000_000, 1_700_000_000.5]),
        (["1700000000000000000"], [1_700_000_000]),
        (["1970-01-02", "1970-01-01T00:00:01", "1970-01-01 00:01"], [86_400, 1, 60]),
        (["1970-01-01T02:00:00+02:00", "1970-01-01T00:00:00.25Z"], [0, 0.25]),
        (["20240531", "99999999"], [20_240_531, 99_999_999]),
        (["-12.0", "13.0"], [-12, 13]),
        (["20240531.5"], [20_240_531.5]),
        (["0001-01-01", "1970-01-01"], [-62_135_596_800, 0]),
        ([], []),
    ],
)
def test_times_are_seconds_numbers_or_dates(given, seconds):
    table = pd.DataFrame({"timestamp": given}, index=range(2, len(given) + 2), dtype=str)
    assert read_times(Path("orders.csv"), table).tolist() == seconds


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["1", "2024-05-31"], r"line 3: timestamp '2024-05-31' is not a number, as others in its column are"),
        (["I003", "I004"], r"line 2: timestamp 'I003' is neither a number nor a date such as .*--timestamp-column"),
        (["31/05/2024"], "is neither a number nor a date"),
        (["05-31-2024"], "is neither a number nor a date"),
        (["2024-02-30"], "is neither a number nor a date"),
        (["2024-05"], "is neither a number nor a date"),
        (["2024-05-31", "2024-06-01 noon"], "line 3: timestamp '2024-06-01 noon' is neither"),
        (["20240531", "20240601"], "line 2: timestamp '20240531' may be a date or a number; write dates as 2024-05-31"),
        (["20240531183000"], "may be a date or a number"),
        (["202405311830", "202406010000"], "line 2: timestamp '202405311830' may be a date or a number"),
        (["20240531.0", "2.0240601e7"], "line 2: timestamp '20240531.0' may be a date or a number"),
        (["1.61035E+12", "1.6e12"], r"line 2: timestamp '1\.61035E\+12' is a rounded number; show the whole of it"),
        (["1700000000", "1700000000000"], "line 3: timestamp '1700000000000' is no time in seconds since 1970"),
        (["2024-05-31T10:00Z", "2024-05-31T10:00"], "line 3: .* has no time zone, and others have"),
        (["2024-05-31", "9999-12-31"], "line 3: timestamp '9999-12-31' is after the year 5000; leave out what has no"),
        (["nan"], "is neither a number nor a date"),
        (["9" * 400], r"9\.\.\. is neither a number nor a date"),
    ],
)
def test_a_time_that_is_none_or_could_be_two_is_refused(given, message):
    table = pd.DataFrame({"timestamp": given}, index=range(2, len(given) + 2), dtype=str)
    with pytest.raises(InputError, match=message):
        read_times(Path("orders.csv"), table)


# --- pictures


def test_pictures_are_found_by_a_column_or_by_the_id(shop):
    shop.goods_header = (*shop.goods_header, "photo")
    shop.goods = [(*row, "") for row in shop.goods]
    shop.goods[0] = (*shop.goods[0][:3], "more/red")  # no suffix: what is in it counts
    (shop.images / "more").mkdir()
    Image.new("RGB", (9, 9), "red").save(shop.images / "more/red", "PNG")
    (shop.images / "I001.png").rename(shop.images / "I001.PNG")
    assert shop.prepare(image="photo") == []
    paths = load_dataset(shop.output).image_paths()
    assert [path.name for path in paths[:3]] == ["000001", "000002.png", "000003.png"]
    assert Image.open(paths[0]).size == (9, 9)


def test_paths_in_the_image_column_start_at_the_file_of_items_without_images(shop):
    shop.goods_header = (*shop.goods_header, "image")
    shop.goods = [(*row, f"made/images/{row[0]}.png") for row in shop.goods]
    shop.images = None
    assert shop.prepare() == []


def test_no_picture_comes_from_outside_and_no_id_leads_out(shop):
    secret = shop.folder / "secret.png"
    Image.new("RGB", (9, 9)).save(secret)
    (shop.images / "I002.png").unlink()
    (shop.images / "I002.png").symlink_to(secret)
    shop.goods_header = (*shop.goods_header, "image")
    shop.goods = [(*row, "") for row in shop.goods]
    shop.goods[0] = (*shop.goods[0][:3], "../../secret.png")
    shop.goods[1] = (*shop.goods[1][:3], str(secret))
    shop.goods.append(("../../secret", "by its id", "", ""))
    shop.goods.append(("I100", "a folder", "", "."))
    shop.goods.append(("I101", "too long a name", "", "x" * 300))
    shop.goods.append(("I102", "no name at all", "", "a\0b"))
    shop.prepare()
    assert {row[2]: row[3] for row in shop.dropped() if row[0] == "products.csv"} == {
        **dict.fromkeys(["I000", "I001", "I002"], "its picture's path is not one below the folder of pictures"),
        "../../secret": "it has no picture",
        **dict.fromkeys(["I100", "I101", "I102"], "its picture is not there"),
    }
    assert len(list((shop.output / "images").iterdir())) == 9


def test_a_picture_that_would_fill_the_memory_is_left_out(shop, monkeypatch):
    monkeypatch.setattr(imecd_lite.encoders, "MAX_PIXELS", 300)
    Image.new("RGB", (16, 19)).save(shop.images / "I004.png")  # the others have 256
    shop.prepare()
    assert [row[2:] for row in shop.dropped() if row[0] == "products.csv"] == [
        ["I004", "its picture can't be read as one"]
    ]


def test_a_picture_of_too_deep_pixels_is_left_out_and_says_so(shop):
    Image.new("F", (16, 16), 0.5).save(shop.images / "I004.tif")
    (shop.images / "I004.png").unlink()
    shop.prepare()
    assert [row[2:] for row in shop.dropped() if row[0] == "products.csv"] == [
        ["I004", "its picture can't be read (its pixels have 32 bits, not 8 or 16)"]
    ]


def test_the_memory_for_a_picture_does_not_grow_with_its_file(shop):
    os.truncate(shop.images / "I000.png", 100_000_000)  # zeros after its end, which no viewer minds
    interactions, items = shop.write()
    tracemalloc.start()
    prepare_csv(interactions, items, shop.images, shop.output, COLUMNS)
    imecd_lite.encoders.hash_inputs(load_dataset(shop.output))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


def test_what_an_interrupted_command_left_is_in_nobodys_way(shop, monkeypatch):
    write, calls = imecd_lite.tabular.write_atomically, []

    def interrupted(path, write_):
        calls.append(path)
        if len(calls) == 5:
            raise KeyboardInterrupt
        write(path, write_)

    with monkeypatch.context() as patch:
        patch.setattr(imecd_lite.tabular, "write_atomically", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shop.prepare()
    assert not shop.output.exists() and (shop.folder / "out.partial/images").exists()
    shop.goods = shop.goods[3:]
    shop.prepare()
    names = {f"{number:06}.png" for number in range(1, 10)}
    assert {path.name for path in (shop.output / "images").iterdir()} == names


# --- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_id": "user"}, "orders.csv must have one column for user_id, and it has no 'user' but 'customer', "),
        ({"item_id": "x", "items_item_id": "id"}, "orders.csv must have one column for item_id"),
        ({"items_item_id": "sku"}, "products.csv must have one column for item_id, and it has no 'sku' but 'id', 'na"),
        ({"brand": "nobody"}, "products.csv must have one column for brand, and it has no 'nobody' but"),
        ({"timestamp": "sku"}, "column 'sku' is named twice; name one each for user_id and item_id and timestamp"),
        ({"user_id": "sku", "item_id": "customer"}, "The user ids of orders.csv are items of products.csv; swap --"),
        ({"items_item_id": "maker"}, "No item of orders.csv, such as 'I"),
    ],
    ids=str,
)
def test_columns_that_are_not_there_or_swapped_get_a_sentence(shop, changes, message):
    assert shop.refused(**changes).startswith(message) or message in shop.refused(**changes)


def test_a_column_that_is_none_of_ours_is_named(shop):
    assert shop.refused(nonsense="x").startswith("columns names 'nonsense', none of ours; ours are user_id, item_id, ")


def test_the_sentence_names_the_option(shop):
    for ours in ("user_id", "item_id", "timestamp", "title"):
        assert shop.refused(**{ours: "x"}).endswith(f"name it with {OPTIONS[ours]}.")
    assert shop.refused(items_item_id="x").endswith("name it with --items-item-column.")


@pytest.mark.parametrize("named", [COLUMNS, dict(list(COLUMNS.items())[:2]), {"item_id": "sku", "title": "name"}, {}])
def test_swapped_files_get_a_sentence_however_many_columns_are_named(shop, named):
    """With none named, the tables have our own names for them."""
    if not named:
        shop.header, shop.goods_header = ("user_id", "item_id", "timestamp"), ("item_id", "title", "brand")
    interactions, items = shop.write()
    message = r"The files seem swapped: .*orders\.csv has '.*, which .*products\.csv should have; swap --interactions"
    with pytest.raises(InputError, match=message):
        prepare_csv(items, interactions, shop.images, shop.output, named)


def test_a_table_of_orders_that_describes_its_items_is_not_taken_for_one_of_items(shop):
    shop.header = ("customer", "sku", "bought at", "name", "maker", "category", "description", "image")
    shop.sales = [(*row, "Bear", "Acme", "Toys", "Soft.", "") for row in shop.sales]
    assert shop.prepare() == []


def test_files_that_are_not_there_get_a_sentence(shop):
    interactions, items = shop.write()
    for files in ((shop.folder / "no.csv", items), (interactions, shop.folder / "no.csv")):
        with pytest.raises(InputError, match=r"no\.csv is not there; give the path of a CSV or Parquet file"):
            prepare_csv(*files, shop.images, shop.output, COLUMNS)
    with pytest.raises(InputError, match="is a folder; give the path of a CSV or Parquet file"):
        prepare_csv(shop.folder, items, shop.images, shop.output, COLUMNS)
    for images in (shop.folder / "no", items):
        with pytest.raises(InputError, match="is not there, or no folder; name the folder of the pictures"):
            prepare_csv(interactions, items, images, shop.output, COLUMNS)
    with pytest.raises(InputError, match="pictures of the items in --items FILE; give that, too"):
        prepare_csv(interactions, None, shop.images, shop.output, COLUMNS)


def test_nothing_left_says_what_took_it(shop):
    shop.images = shop.folder  # no pictures here
    assert "products.csv is left: 12 left out (it has no picture); give titles and pictures" in shop.refused()
    shop.images = shop.folder / "made/images"
    whole, shop.sales = shop.sales, shop.sales[:9]
    message = shop.refused()
    assert "would be left: no row is left out; of the other 9, " in message and message.endswith("; add more data.")
    assert "of 2 users" in message and "0 of 9 items have 5 or more" in message
    shop.sales = [(f"U{number % 5}", "I000", number) for number in range(25)]
    assert shop.refused().startswith("One item alone of orders.csv would be left: no row is left out; of the other 25")
    shop.sales = [("", *row[1:]) for row in whole]
    assert f"{len(whole)} left out (user_id is empty); there are no others; add more data" in shop.refused()
    shop.sales = []
    assert shop.refused() == "orders.csv has no rows, only the names of its columns; export it anew."
    shop.sales, shop.goods = whole, []
    assert shop.refused() == "products.csv has no rows, only the names of its columns; export it anew."


# --- any table

ANY = st.text(st.characters(codec="utf-8"), max_size=5)
ID = st.sampled_from(["a", "b", "", " ", "c\r", "d\ne", "\0", "../d", '"', "é", "x,y"]) | ANY
TEXT = st.sampled_from(["", "t", "<b>", "&amp;", "<script>x</script>", "\r\n", "\0"]) | ANY
TIME = st.sampled_from(["7", "8.5", "1e3", "", " "])
PICTURE = st.sampled_from(["a.png", "", "b.txt", "../x", "/", "a\0", "x" * 300])


def written(path: Path, header: tuple[str, ...], rows: list[tuple], raw: bool = False) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        if raw:
            file.writelines(",".join(row) + "\n" for row in (header, *rows))
        else:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    return path


FIVE_EACH = [("a", item, str(time)) for time in range(7, 12) for item in "ab"]
"""Purchases that five-core leaves whole."""


def rows_of(path: Path) -> list[list[str]]:
    return list(csv.reader(path.open(newline="", encoding="utf-8")))[1:]


def check_account(folder: Path, sales: list[tuple], goods: list[tuple]) -> None:
    """Every row of both tables is in the dataset, or in the account of what was dropped, or counted by the loader."""
    dropped, dataset = Counter(row[0] for row in rows_of(folder / "out" / DROPPED_FILE)), load_dataset(folder / "out")
    taken = sum(dataset.dropped.values()) + dropped[str(folder / "s.csv")]
    assert dataset.lengths.sum() + taken == len(sales)
    assert len(rows_of(folder / "out/items.csv")) + dropped[str(folder / "g.csv")] == len(goods)


def folder_with_a_picture(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("any")
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    (folder / "b.txt").write_text("no picture")
    return folder


@settings(max_examples=50, deadline=None)
@given(
    sales=st.lists(st.tuples(ID, ID, TIME), max_size=9),
    goods=st.lists(st.tuples(ID, TEXT, TEXT, PICTURE), max_size=6),
    copies=st.integers(1, 6),
)
def test_whatever_is_in_a_row_it_is_kept_or_accounted_for(tmp_path_factory, sales, goods, copies):
    folder = folder_with_a_picture(tmp_path_factory)
    again = [(user, item, str(copy)) for copy in range(1, copies) for user, item, _ in sales]
    sales = sales * 2 + again + FIVE_EACH
    goods = [("a", "t", "b", "a.png"), ("b", "t", "b", "a.png"), *goods]
    interactions = written(folder / "s.csv", ("user_id", "item_id", "timestamp"), sales)
    items = written(folder / "g.csv", ("item_id", "title", "brand", "image"), goods)
    prepare_csv(interactions, items, folder, folder / "out", {})
    check_account(folder, sales, goods)


@settings(max_examples=80, deadline=None)
@given(
    row=st.lists(ID | TEXT | TIME | st.sampled_from(["9" * 400, "x" * 140_000, "2024-05-31"]), max_size=5),
    where=st.sampled_from(["sales", "goods"]),
    header=st.lists(st.sampled_from(["title", "note", "", "image"]) | ANY, max_size=2),
    raw=st.booleans(),
    cut=st.integers(0, 3),
    foreign=st.binary(max_size=3),
)
def test_any_table_gives_a_dataset_or_one_sentence(tmp_path_factory, row, where, header, raw, cut, foreign):
    folder = folder_with_a_picture(tmp_path_factory)
    sales = FIVE_EACH + [tuple(row)] * (where == "sales" and bool(row))
    goods = [(name, "t", "b", "a.png", *header) for name in "ab"] + [tuple(row)] * (where == "goods" and bool(row))
    interactions = written(folder / "s.csv", ("user_id", "item_id", "timestamp"), sales, raw)
    items = written(folder / "g.csv", ("item_id", "title", "brand", "image", *header), goods, raw)
    spoilt = interactions if where == "sales" else items
    content = spoilt.read_bytes()
    spoilt.write_bytes(content[: len(content) - cut] + foreign)
    try:
        prepare_csv(interactions, items, folder, folder / "out", {})
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000 and not (folder / "out").exists()
    else:
        assert (folder / "out" / DROPPED_FILE).exists() and len(load_dataset(folder / "out").user_ids) == 1
