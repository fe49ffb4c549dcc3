"""From the Amazon review data of 2018 to a dataset folder: nothing is lost, and nothing half-made is left."""

import csv
import errno
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from pathlib import Path

import made_amazon
import pytest
import web
from made_amazon import asin, picture_path
from test_cli import command, refused
from test_fetch import QUICK
from web import Web

import imecd_lite.amazon
from imecd_lite import fetch, paper
from imecd_lite.amazon import (
    DATASETS,
    FILES,
    MAX_LINE,
    compare,
    file_name,
    lines,
    parse,
    picture_url,
    prepare_amazon,
    read_metadata,
    text,
)
from imecd_lite.dataset import load_dataset
from imecd_lite.errors import InputError
from imecd_lite.files import tree_hash
from imecd_lite.prepare import DROPPED_FILE, DropLog

NAME = "Musical_Instruments"
USERS, ITEMS = 24, 12


@pytest.fixture
def shop():
    """A server with reviews, metadata and pictures of a dozen instruments."""
    with Web() as server:
        server.pages |= {
            "/" + FILES["reviews"].format(NAME): made_amazon.packed(made_amazon.reviews(USERS, ITEMS)),
            "/" + FILES["metadata"].format(NAME): made_amazon.packed(made_amazon.metadata(ITEMS + 5, server.url)),
            **{picture_path(item): made_amazon.picture(item) for item in range(ITEMS)},
        }
        yield server


def prepare(server: Web, output: Path) -> str:
    """Prepare all that the server has."""
    return prepare_amazon(output, NAME, base_url=server.url, manners=QUICK)


def prepare_files(folder: Path, reviews: list, metadata: list, **more) -> str:
    """Prepare these records."""
    paths = [made_amazon.write(folder / name, rows) for name, rows in (("reviews", reviews), ("meta", metadata))]
    return prepare_amazon(folder / "out", None, *paths, manners=QUICK, **more)


def dropped(folder: Path) -> list[tuple[str, ...]]:
    """The rows of dropped.csv."""
    with (folder / DROPPED_FILE).open(newline="", encoding="utf-8") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


# The folder


def test_the_release_becomes_a_dataset_folder(shop, tmp_path):
    report = prepare(shop, tmp_path / "out")
    dataset = load_dataset(tmp_path / "out")
    assert (dataset.num_users, dataset.num_items) == (USERS, ITEMS) and not sum(dataset.dropped.values())
    assert dataset.item_texts()[3] == "Drum No. 3 & Sticks, Acme, Musical Instruments|Drums & Percussion"
    assert dataset.items["description"][3] == "A drum . Loud. Loud. Loud."
    assert [path.read_bytes() for path in dataset.image_paths()] == [made_amazon.picture(i) for i in range(ITEMS)]
    assert report == (tmp_path / "out/report.txt").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("dropped.csv", "images", "interactions.csv", "items.csv", "prepare.json", "report.txt")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_reviews_keep_their_times_and_order(shop, tmp_path):
    prepare(shop, tmp_path / "out")
    rows = list(csv.reader((tmp_path / "out/interactions.csv").open()))[1:]
    made = [[r["reviewerID"], r["asin"], str(r["unixReviewTime"])] for r in made_amazon.reviews(USERS, ITEMS)]
    assert rows == made


def test_the_report_is_table_1_beside_the_papers(shop, tmp_path):
    rows = len(list(made_amazon.reviews(USERS, ITEMS)))
    lines = prepare(shop, tmp_path / "out").splitlines()
    assert lines[1].split() == ["here", "24", "12", str(rows), f"{rows / 24:.2f}"]
    assert lines[2].split() == ["paper", "18,870", "6,619", "152,271", "8.07"]
    assert lines[3].split()[:2] == ["difference", "-99.9%"]
    assert lines[4] == f"reviews: {rows:,} rows = {rows:,} kept + 0 dropped (see dropped.csv)"
    assert lines[5] == "metadata: 17 rows = 12 kept + 5 dropped (see dropped.csv)"
    assert lines[6:] == ["5 of metadata: no review names it"]


def test_the_papers_own_numbers_differ_by_nothing():
    for name in DATASETS.values():
        row = tuple(paper.TABLE1.set_index("dataset").loc[name])
        assert compare(row, name)[3].split() == ["difference", "+0.0%", "+0.0%", "+0.0%", "+0.0%"]
        assert abs(row[2] / row[0] - row[3]) < 0.011  # the paper's own columns agree


def test_files_at_hand_are_taken_gzip_or_plain(shop, tmp_path):
    reviews, meta = tmp_path / "r.json.gz", made_amazon.write(tmp_path / "m", made_amazon.metadata(ITEMS, shop.url))
    reviews.write_bytes(made_amazon.packed(made_amazon.reviews(USERS, ITEMS)))
    status, lines, complaint = command(
        *("prepare", "amazon", "--reviews", reviews, "--meta", meta, "--output", tmp_path / "out")
    )
    assert status == 0 and lines[-1] == f"Wrote {tmp_path / 'out'}.", complaint
    assert load_dataset(tmp_path / "out").num_items == ITEMS
    assert reviews.exists() and meta.exists()


def test_pictures_are_asked_for_in_the_size_that_a_vit_needs(shop, tmp_path):
    prepare(shop, tmp_path / "out")
    assert {path for path, _ in shop.asked if "/images/" in path} == {picture_path(item) for item in range(ITEMS)}
    amazon = "https://images-na.ssl-images-amazon.com/images/I/"
    for thumbnail in ("31T%2BQm.jpg", "31T%2BQm._SS40_.jpg", "31T%2BQm._SX38_SY50_CR,0,0,38,50_.jpg"):
        assert picture_url({"imageURL": [amazon + thumbnail]}) == amazon + "31T%2BQm._SL448_.jpg"
    assert picture_url({"imageURL": ["http://elsewhere/a.jpg"]}) == "http://elsewhere/a.jpg"


# What is dropped, and why


def test_each_row_is_kept_or_dropped_with_a_reason(shop, tmp_path):
    rows = list(made_amazon.reviews(USERS, ITEMS))
    meta = list(made_amazon.metadata(ITEMS + 3, shop.url))
    meta[0] |= {"title": "", "brand": "", "category": []}
    meta[1] |= {"imageURL": [], "imageURLHighRes": ""}
    meta[2]["asin"] = "B999999999"
    shop.always[picture_path(3)] = web.status(404)
    rows.insert(5, "not a review")
    rows.insert(6, {**rows[0], "unixReviewTime": "yesterday"})
    rows += [rows[0], {**rows[0], "reviewerID": "A once", "asin": asin(7)}]
    prepare_files(tmp_path, rows, [*meta, meta[5], {"asin": 5}])
    reasons = dropped(tmp_path / "out")
    assert {reason for source, _, _, reason in reasons if source == "reviews"} == {
        "no JSON object with reviewerID, asin, unixReviewTime",
        "the user's earlier review stays",
        "no text",
        "no picture named",
        "not in the metadata",
        "picture: HTTP 404",
        "outside the 5-core",
    }
    assert {reason for source, _, _, reason in reasons if source == "metadata"} == {
        "no JSON object with asin",
        "no review names it",
        "another record of the item stays",
        "no text",
        "no picture named",
        "picture: HTTP 404",
    }
    lines = [(source, line) for source, line, _, _ in reasons]
    assert len(set(lines)) == len(lines), "a row was dropped twice"
    kept = list(csv.reader((tmp_path / "out/interactions.csv").open()))[1:]
    assert len(kept) + sum(source == "reviews" for source, _ in lines) == len(rows)
    items = list(csv.reader((tmp_path / "out/items.csv").open()))[1:]
    assert len(items) + sum(source == "metadata" for source, _ in lines) == len(meta) + 2
    assert ("reviews", "6", "", "no JSON object with reviewerID, asin, unixReviewTime") in reasons
    dataset = load_dataset(tmp_path / "out")
    assert not sum(dataset.dropped.values()) and dataset.lengths.sum() == len(kept)
    assert {path.name for path in (tmp_path / "out/images").iterdir()} == {p.name for p in dataset.image_paths()}


def test_the_earliest_review_of_an_item_stays(shop, tmp_path):
    rows = list(made_amazon.reviews(USERS, ITEMS))
    later, earlier = rows[0]["unixReviewTime"] + 5, rows[0]["unixReviewTime"] - 5
    prepare_files(
        tmp_path,
        [*rows, {**rows[0], "unixReviewTime": later}, {**rows[0], "unixReviewTime": earlier}, rows[1]],
        list(made_amazon.metadata(ITEMS, shop.url)),
    )
    assert [line for _, line, _, _ in dropped(tmp_path / "out")] == ["1", str(len(rows) + 1), str(len(rows) + 3)]


def test_only_pictures_of_what_survives_the_filters_are_asked_for(shop, tmp_path):
    meta = list(made_amazon.metadata(ITEMS + 5, shop.url))
    meta[0] |= {"title": "", "brand": "", "category": []}
    prepare_files(tmp_path, list(made_amazon.reviews(USERS, ITEMS)), meta)
    assert {path for path, _ in shop.asked} == {picture_path(item) for item in range(1, ITEMS)}


def test_of_several_records_of_an_item_the_first_that_is_whole_stays(tmp_path):
    poor = {"asin": "B1", "title": "poor"}
    whole = {"asin": "B1", "title": "whole", "imageURL": "http://host/a.jpg"}
    for records, line in (([poor, whole, {**whole, "title": "later"}], 2), ([poor, {**poor, "title": "later"}], 1)):
        path = made_amazon.write(tmp_path / "meta", records)
        with DropLog(tmp_path / DROPPED_FILE) as log:
            items = read_metadata(path, {"B1"}, log)
        assert items["B1"].line == line and log.total("metadata") == len(records) - 1


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (["Toys &amp; Games", "</span></span></span>", "Dolls"], "Toys & Games|Dolls"),
        ("Toys", "Toys"),
        ([], ""),
        (None, ""),
        (["", None, 3, "a"], "a"),
        ("\ud800 half", "half"),
        ("x" * 20_000, "x" * 10_000),
    ],
)
def test_text_is_plain_whether_a_string_or_a_list(value, plain):
    assert text(value, "|") == plain


def test_a_title_that_is_the_script_of_a_page_is_none(tmp_path):
    path = made_amazon.write(tmp_path / "m", [{"asin": "B1", "title": "var t = (new Date()).getTime();", "brand": "A"}])
    with DropLog(tmp_path / DROPPED_FILE) as log:
        item = read_metadata(path, {"B1"}, log)["B1"]
    assert (item.title, item.brand) == ("", "A")


def test_addresses_that_are_none_are_passed_over():
    assert picture_url({"imageURLHighRes": ["", None, "file:///etc/passwd", "https://a/b.png"]}) == "https://a/b.png"
    assert picture_url({"imageURLHighRes": [], "imageURL": "http://a/b.png"}) == "http://a/b.png"
    assert picture_url({"imageURLHighRes": "", "imageURL": ["http://a/\ud800", "http://" + "a" * 3000]}) == ""
    assert picture_url({}) == ""


def test_file_names_are_safe_and_differ():
    ids = ["B000000001", "../../etc/passwd", "CON", "b000000001", "B00000000", "", "ä" * 64]
    names = [file_name(name) for name in ids]
    assert names[0] == ids[0] and len({name.lower() for name in names}) == len(ids)
    assert all(name.isascii() and name.isalnum() and len(name) in (10, 32) for name in names)


def test_an_id_that_is_a_path_stays_in_the_folder(shop, tmp_path):
    rows, meta = list(made_amazon.reviews(USERS, ITEMS)), list(made_amazon.metadata(ITEMS, shop.url))
    for record in [*rows, *meta]:
        if record["asin"] == asin(0):
            record["asin"] = "../../escaped"
    prepare_files(tmp_path, rows, meta)
    assert "../../escaped" in load_dataset(tmp_path / "out").item_ids
    assert {path.name for path in tmp_path.iterdir()} == {"out", "reviews", "meta"}


# Files as they are


@pytest.mark.parametrize("layout", ["[%s]\n", "[\n%s\n]\n", "\ufeff%s"])
def test_an_array_is_read_like_lines(shop, tmp_path, layout):
    rows = [json.dumps(row) for row in made_amazon.reviews(USERS, ITEMS)]
    (tmp_path / "r").write_text(layout % (",\n" if "[" in layout else "\r\n\r\n").join(rows), encoding="utf-8")
    meta = made_amazon.write(tmp_path / "m", made_amazon.metadata(ITEMS, shop.url))
    report = prepare_amazon(str(tmp_path / "out"), None, str(tmp_path / "r"), meta, manners=QUICK)
    assert f"reviews: {len(rows)} rows = {len(rows)} kept + 0 dropped" in report


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        b"1" * 10_000,
        b'{"reviewerID": "A", "asin": "", "unixReviewTime": 1}',
        b'{"reviewerID": "A", "asin": "\\ud800", "unixReviewTime": 1}',
        b'{"reviewerID": 7, "asin": "B", "unixReviewTime": 1}',
        b'{"reviewerID": "A", "asin": "B", "unixReviewTime": NaN}',
        b'{"reviewerID": "A", "asin": "B", "unixReviewTime": true}',
        b'{"reviewerID": "A", "asin": "B"}',
        b'{"reviewerID": "A", "asin": "B", "unixReviewTime": 1, "x": "' + b"x" * MAX_LINE + b'"}',
    ],
    ids=lambda line: line[:55].decode("latin1"),
)
def test_a_broken_line_is_dropped_and_counted(shop, tmp_path, line):
    rows = [json.dumps(row).encode() for row in made_amazon.reviews(USERS, ITEMS)]
    (tmp_path / "r").write_bytes(b"\n".join([rows[0], line, *rows[1:]]))
    meta = made_amazon.write(tmp_path / "m", made_amazon.metadata(ITEMS, shop.url))
    prepare_amazon(tmp_path / "out", None, tmp_path / "r", meta, manners=QUICK)
    assert [row[:3] for row in dropped(tmp_path / "out")] == [("reviews", "2", "")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"user,item\na,b\n", "2 of its first 2 rows"),
        (b"{'reviewerID': 'A', 'asin': 'B', 'unixReviewTime': 1}\n" * 500, "of its first"),
        (b'{"asin": "B", "user_id": "A", "timestamp": 1}\n' * 5, "5 of its first 5 rows"),
        (bytes(1000), "1 of its first 1 rows"),
        (b'{"a": 1}\n' * 10**5, r"20[12] of its first 20[12] rows"),
    ],
    ids=["csv", "python", "other release", "zeros", "long"],
)
def test_a_file_of_another_format_is_one_sentence(shop, tmp_path, content, reason):
    (tmp_path / "r").write_bytes(content)
    meta = made_amazon.write(tmp_path / "m", made_amazon.metadata(ITEMS, shop.url))
    with pytest.raises(InputError, match=rf"r is not reviews of the 2018 release: .*{reason}.*; delete it and get it"):
        prepare_amazon(tmp_path / "out", None, tmp_path / "r", meta, manners=QUICK)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"\n\n", gzip.compress(b"", mtime=0)])
@pytest.mark.parametrize("kind", ["r", "m"])
def test_an_empty_file_is_called_empty(shop, tmp_path, content, kind):
    files = {"r": made_amazon.reviews(USERS, ITEMS), "m": made_amazon.metadata(ITEMS, shop.url)}
    paths = [made_amazon.write(tmp_path / name, rows) for name, rows in files.items()]
    (tmp_path / kind).write_bytes(content)
    with pytest.raises(InputError, match=rf"{kind} is empty; delete it and get it anew"):
        prepare_amazon(tmp_path / "out", None, *paths, manners=QUICK)
    assert not (tmp_path / "out").exists()


def test_a_gzip_of_several_members_is_read_to_its_end(shop, tmp_path):
    rows = list(made_amazon.reviews(USERS, ITEMS))
    (tmp_path / "r").write_bytes(made_amazon.packed(rows[:70]) + made_amazon.packed(rows[70:]))
    meta = made_amazon.write(tmp_path / "m", made_amazon.metadata(ITEMS, shop.url))
    report = prepare_amazon(tmp_path / "out", None, tmp_path / "r", meta, manners=QUICK)
    assert f"reviews: {len(rows)} rows = {len(rows)} kept + 0 dropped" in report


def test_a_line_that_is_cut_between_two_records_is_broken_and_not_half_read(tmp_path, monkeypatch):
    monkeypatch.setattr(imecd_lite.amazon, "MAX_LINE", 12)
    (tmp_path / "r").write_text('{"asin": 1},{"asin": 2}\n{"asin": 3}\n')
    assert [parse(line) for line in lines(tmp_path / "r")] == [[None], [{"asin": 3}]]


def test_a_bomb_of_one_line_fills_no_memory(tmp_path):
    with gzip.open(tmp_path / "r", "wb", compresslevel=1) as file:
        for _ in range(30):
            file.write(bytes(10_000_000))
    tracemalloc.start()
    assert list(lines(tmp_path / "r")) == [b"{"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000_000


@pytest.mark.parametrize("harm", [lambda b: b[:-20], lambda b: b[: len(b) // 2], lambda b: b[:50] + b"xxxx" + b[54:]])
def test_a_gzip_that_is_not_whole_is_one_sentence(shop, tmp_path, harm):
    (tmp_path / "r").write_bytes(harm(made_amazon.packed(made_amazon.reviews(USERS, ITEMS))))
    meta = made_amazon.write(tmp_path / "m", made_amazon.metadata(ITEMS, shop.url))
    with pytest.raises(InputError, match=r"r is not a whole gzip file \(.+\); delete it and get it anew"):
        prepare_amazon(tmp_path / "out", None, tmp_path / "r", meta, manners=QUICK)


def test_nothing_left_is_one_sentence(tmp_path):
    rows = list(made_amazon.reviews(3, ITEMS))
    with pytest.raises(InputError, match=r"Nothing of .*reviews is left after the paper's filters \(.*outside the 5-c"):
        prepare_files(tmp_path, rows, list(made_amazon.metadata(ITEMS, "http://host")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "Name a --dataset to download, or both --reviews and --meta"),
        (["--reviews", "x"], "Name a --dataset to download"),
        (["--dataset", "Toys"], "There is no dataset 'Toys' here; the datasets are Toys_and_Games, Video_Games"),
        (["--reviews", "nowhere", "--meta", "x"], "nowhere is not there, or no file"),
        (["--reviews", ".", "--meta", "x"], ". is not there, or no file"),
        (["--datasets", "x"], "--datasets is not an option of prepare amazon; the options are -h, --output, --dataset"),
    ],
)
def test_the_command_refuses_in_one_sentence(tmp_path, arguments, complaint):
    assert complaint in refused("prepare", "amazon", "--output", tmp_path / "out", *arguments)
    assert not list(tmp_path.iterdir())


def test_the_kinds_of_data_are_named():
    assert "required: kind" in refused("prepare")
    assert "amazon" in refused("prepare", "netflix")


# Faults on the way


@pytest.mark.parametrize("kind", FILES)
def test_a_download_that_arrives_short_is_one_sentence_and_the_next_command_mends_it(shop, tmp_path, kind):
    path = "/" + FILES[kind].format(NAME)
    shop.always[path] = web.short
    with pytest.raises(InputError, match=rf"{kind}.json.gz is not a whole gzip file") as caught:
        prepare(shop, tmp_path / "out")
    Path(str(caught.value).split(" is not")[0]).unlink()  # as the sentence says
    shop.always.clear()
    prepare(shop, tmp_path / "out")
    assert load_dataset(tmp_path / "out").num_items == ITEMS


def whole(server: Web, tmp_path: Path) -> str:
    """The hash of what an undisturbed command makes."""
    prepare(server, tmp_path / "undisturbed")
    return tree_hash(tmp_path / "undisturbed")


@pytest.mark.parametrize("fault", [web.status(500), web.cut_off, web.hang, web.stall, web.trickle, web.status(429)])
def test_faults_that_pass_leave_no_trace(shop, tmp_path, fault):
    expected = whole(shop, tmp_path)
    for path in list(shop.pages)[:5]:  # both files, three pictures
        shop.faults[path] = [fault]
    prepare(shop, tmp_path / "out")
    assert tree_hash(tmp_path / "out") == expected


def test_items_whose_picture_fails_are_dropped(shop, tmp_path):
    shop.always |= {
        picture_path(0): web.status(404),
        picture_path(1): web.around,
        picture_path(2): lambda handler: handler.reply(200, {"Content-Length": 4}, b"<htm"),
    }
    report = prepare(shop, tmp_path / "out")
    kept = load_dataset(tmp_path / "out").item_ids
    assert not {asin(0), asin(1), asin(2)} & set(kept)
    assert "1 of metadata: picture: HTTP 404" in report and "Exceeded maximum allowed redirects." in report


class Stop(Exception):
    """An interrupt."""


STEPS = [
    (fetch, "write_atomically", 1),  # the version of the first download
    (imecd_lite.amazon, "download", 2),
    (fetch, "write_atomically", 8),  # a picture
    (imecd_lite.amazon, "write_tables", 1),
    (imecd_lite.amazon, "write_atomically", 1),  # the report
    (imecd_lite.amazon.shutil, "rmtree", 1),
    (imecd_lite.prepare.os, "replace", 20),
]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(("module", "name", "call"), STEPS, ids=lambda x: str(getattr(x, "__name__", x)))
def test_an_interrupted_command_goes_on_to_the_same_bytes(shop, tmp_path, monkeypatch, module, name, call, before):
    shop.always[picture_path(2)] = web.status(404)
    expected, calls, real = whole(shop, tmp_path), 0, getattr(module, name)

    def struck(*arguments):
        nonlocal calls
        calls += 1
        if calls == call and before:
            raise Stop
        result = real(*arguments)
        if calls == call:
            raise Stop
        return result

    with monkeypatch.context() as patch:
        patch.setattr(module, name, struck)
        with pytest.raises(Stop):
            prepare(shop, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shop.asked.clear()
    there = {path.stem for path in (tmp_path / "out.partial").glob("images/*.jpg")}
    prepare(shop, tmp_path / "out")
    assert tree_hash(tmp_path / "out") == expected
    assert not {picture_path(item) for item in range(ITEMS) if asin(item) in there} & {path for path, _ in shop.asked}


def test_interrupted_again_and_again_it_ends_in_the_same_bytes(shop, tmp_path, monkeypatch):
    expected, written, rounds = whole(shop, tmp_path), fetch.write_atomically, 0

    def write(path, content):
        written(path, content)
        if path.suffix != ".version":  # of a download that has not begun
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "write_atomically", write)
        while not (tmp_path / "out").exists():
            rounds += 1
            try:
                prepare(shop, tmp_path / "out")
            except Stop:
                assert (tmp_path / "out.partial").exists()
    assert rounds > ITEMS / QUICK.connections and tree_hash(tmp_path / "out") == expected


def test_a_full_disk_is_one_sentence_and_the_next_command_goes_on(shop, tmp_path, monkeypatch):
    expected = whole(shop, tmp_path)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, name in ((fetch, "write_atomically"), (imecd_lite.amazon, "write_tables")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(InputError, match=r"The disk of .*out\.partial is full; free some space and give"):
                prepare(shop, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    prepare(shop, tmp_path / "out")
    assert tree_hash(tmp_path / "out") == expected


def test_other_files_are_not_mixed_into_what_was_begun(shop, tmp_path):
    shop.always[picture_path(0)] = web.status(503)
    rows, meta = list(made_amazon.reviews(USERS, ITEMS)), list(made_amazon.metadata(1, "http://127.0.0.1:9"))
    with pytest.raises(InputError, match="Nothing of"):
        prepare_files(tmp_path, rows, meta)
    with pytest.raises(InputError, match=r"out\.partial was begun with reviews 'reviews, \d+ bytes', not"):
        prepare_files(tmp_path, rows[1:], meta)


# The genuine format


@pytest.mark.skipif("IMECD_DATA" not in os.environ, reason="IMECD_DATA names no folder with the samples")
def test_the_samples_of_the_genuine_format_parse(tmp_path):
    samples = Path(os.environ["IMECD_DATA"]) / "amazon-format-samples"
    with DropLog(tmp_path / DROPPED_FILE) as log:
        table = imecd_lite.amazon.read_reviews(samples / "AMAZON_FASHION_5.json", log)
        numbers = log.rows["reviews"], len(table), table["user_id"].nunique(), table["item_id"].nunique()
        assert numbers == (3176, 3042, 406, 31)
        assert log.total("reviews") == 3176 - 3042
        read = []
        for name in ("meta_Gift_Cards.as_found.json", "meta_Gift_Cards.head10.jsonl"):
            wanted = {json.loads(line)["asin"] for line in (samples / "meta_Gift_Cards.head10.jsonl").open()}
            read.append(read_metadata(samples / name, wanted, log))
        assert read[0] == read[1] and len(read[0]) == 10 and log.total("metadata") == 0
        assert sum(not item.lacks for item in read[0].values()) == 5
        assert read[0]["B002DN7XS4"].category == "Gift Cards|Gift Cards"
        game = next(samples.glob("meta_Video_Games*"))
        items = read_metadata(game, {"0042000742"}, log)
        assert items["0042000742"].url.endswith("/images/I/31nTxlNh1OL._SL448_.jpg")
        assert log.total("metadata") == 1  # it is quoted twice


# Size


def test_the_memory_for_metadata_does_not_grow_with_the_file(tmp_path):
    def peak(count: int) -> int:
        with gzip.open(tmp_path / "meta", "wt", compresslevel=1) as file:
            record = json.dumps({**next(made_amazon.metadata(1, "http://host")), "description": ["long " * 200]})
            for number in range(count):
                file.write(record.replace(asin(0), asin(number)) + "\n")
        wanted = {asin(number) for number in range(100)}
        with DropLog(tmp_path / DROPPED_FILE) as log:
            tracemalloc.start()
            items = read_metadata(tmp_path / "meta", wanted, log)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert items.keys() == wanted
        return peak

    assert peak(5_000) < 1.2 * peak(1_000)


@pytest.mark.slow
def test_killed_at_twenty_moments_it_ends_in_the_same_bytes(shop, tmp_path):
    expected = whole(shop, tmp_path)

    def slow(handler):
        time.sleep(0.1)
        web.whole(handler)

    shop.always |= dict.fromkeys(shop.pages, slow)
    code = (
        "import sys; from pathlib import Path; from imecd_lite.amazon import prepare_amazon; print('go', flush=True);"
        f"prepare_amazon(Path(sys.argv[1]), {NAME!r}, base_url={shop.url!r})"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "out")]
    chance, killed, ended = random.Random(0), 0, 0
    while killed < 20:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        process.stdout.readline()
        try:
            status = process.wait(chance.uniform(0, 0.8))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            status = process.wait()
        process.stdout.close()
        killed += status == -signal.SIGKILL
        if (tmp_path / "out").exists():  # also when the kill came after all was done
            assert tree_hash(tmp_path / "out") == expected
            ended += 1
            os.rename(tmp_path / "out", tmp_path / f"done{ended}")
        else:
            assert status == -signal.SIGKILL
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    assert tree_hash(tmp_path / "out") == expected
    assert sorted(path.name for path in tmp_path.iterdir() if "done" not in path.name) == ["out", "undisturbed"]


@pytest.mark.slow
def test_a_catalogue_of_toys_size_goes_from_raw_files_to_batches(tmp_path):
    """The numbers of Table I's Toys and 633,883 records of metadata.

    On two cores busy with other work: prepared in 250 s and 626 MB, loaded and dealt into every training batch in
    25 s and 963 MB. Nine pictures of ten are there from an earlier command.
    """
    users, items, interactions = (int(n) for n in paper.TABLE1.set_index("dataset").loc["Toys"][:3])
    with gzip.open(tmp_path / "reviews", "wt", compresslevel=1) as file:
        review = json.dumps(next(made_amazon.reviews(1, 1)) | {"reviewText": "Great product. " * 25, "asin": "ITEM"})
        left, right = review.replace("A000000000000", "USER").split("USER")
        middle, right = right.split("ITEM")
        for user in range(users):
            for step in range(8 + (user < interactions - 8 * users)):
                file.write(f"{left}A{user:012}{middle}{asin((11 * user + 97 * step) % items)}{right}\n")
    with Web({picture_path(item): made_amazon.picture(item) for item in range(0, items, 10)}) as server:
        with gzip.open(tmp_path / "meta", "wt", compresslevel=1) as file:
            record = json.dumps(
                next(made_amazon.metadata(1, "HOST")) | {"description": ["<p>A <b>toy</b>.</p> " + "Fun. " * 100]}
            )
            for item in range(633_883):
                named = record.replace("HOST/images/I/0", f"{server.url}/images/I/{item}")
                file.write(named.replace(asin(0), asin(item)) + "\n")
        code = """
            import json, resource, sys, time
            from pathlib import Path
            from imecd_lite.amazon import prepare_amazon
            from imecd_lite.dataset import load_dataset, train_batches
            times = [time.monotonic()]
            folder = Path(sys.argv[1])
            report = prepare_amazon(folder / "out", "Toys_and_Games", folder / "reviews", folder / "meta")
            times.append(time.monotonic())
            megabytes = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000]
            dataset = load_dataset(folder / "out")
            targets = sum(len(batch.pos_items) for batch in train_batches(dataset, 1280, 0, 0, None))
            times.append(time.monotonic())
            megabytes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)
            seconds = [round(b - a) for a, b in zip(times, times[1:])]
            print(json.dumps({"seconds": seconds, "megabytes": megabytes, "targets": targets, "report": report}))
        """
        run = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
        pictures = tmp_path / "out.partial" / "images"
        with subprocess.Popen(run) as earlier:
            while not (pictures.parent / "prepare.json").exists():
                time.sleep(0.1)
                assert earlier.poll() is None
            earlier.kill()
        pictures.mkdir(exist_ok=True)
        for item in set(range(items)) - set(range(0, items, 10)):  # the earlier command fetched them
            (pictures / f"{asin(item)}.jpg").write_bytes(made_amazon.picture(item))
        measured = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    assert measured["report"].splitlines()[3].split() == ["difference", *["+0.0%"] * 4]
    assert measured["targets"] == interactions - 3 * users
    assert len(server.asked) == len(range(0, items, 10))
    assert measured["megabytes"][0] < 2000 and measured["megabytes"][1] < 3000
    assert sum(measured["seconds"]) < 1800
