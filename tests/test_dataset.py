"""From files to batches: the paper's filters, no look into the future, every fault in one sentence."""

import csv
import io
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_data import write_csv, write_ids, write_shop

from imecd_lite.dataset import (
    eval_batches,
    five_core,
    left_pad,
    length_chunks,
    load_dataset,
    read_table,
    rejoin,
    some_users,
    train_batches,
)
from imecd_lite.errors import InputError

HEADER = ("user_id", "item_id", "timestamp")


@pytest.fixture
def shop(tmp_path):
    return write_shop(tmp_path / "shop")


def rewrite(path, change):
    rows = list(csv.reader(path.open(newline="", encoding="utf-8")))
    change(rows)
    write_csv(path, rows[0], rows[1:])


# --- what is kept


def test_histories_are_in_time_order_and_the_last_two_items_are_held_out(tmp_path):
    rows = [(u, f"i{k}", 100 - k) for u in "abcde" for k in range(6)]
    write_csv(tmp_path / "interactions.csv", HEADER, rows)
    dataset = load_dataset(tmp_path)
    assert dataset.user_ids == list("abcde")
    assert [dataset.item_ids[i - 1] for i in dataset.sequences[0]] == ["i5", "i4", "i3", "i2", "i1", "i0"]
    assert dataset.item_ids[dataset.split("test").targets[0] - 1] == "i0"
    assert dataset.item_ids[dataset.split("valid").targets[0] - 1] == "i1"
    assert len(dataset.split("test").histories[0]) == 5
    assert len(dataset.split("valid").histories[0]) == 4
    assert dataset.statistics() == {"users": 5, "items": 6, "interactions": 30, "avg_length": 6.0}


def test_ties_in_time_keep_the_order_of_the_file(tmp_path):
    rows = [(u, f"i{k}", 7) for u in "abcde" for k in (3, 1, 4, 0, 2, 5)]
    write_csv(tmp_path / "interactions.csv", HEADER, rows)
    dataset = load_dataset(tmp_path)
    for sequence in dataset.sequences:
        assert [dataset.item_ids[i - 1] for i in sequence] == ["i3", "i1", "i4", "i0", "i2", "i5"]


def test_rows_of_other_users_do_not_move_a_users_history(tmp_path):
    rows = [(u, f"i{(k * 7 + n) % 10}", k // 2) for n, u in enumerate("abcdefgh") for k in range(8)]
    write_csv(tmp_path / "interactions.csv", HEADER, rows)
    before = load_dataset(tmp_path)
    rng = np.random.default_rng(0)
    turns = rng.permutation(np.repeat(np.arange(8), 8))  # users interleaved anew, each in its own order
    queues = [iter(rows[8 * n : 8 * n + 8]) for n in range(8)]
    write_csv(tmp_path / "interactions.csv", HEADER, [next(queues[n]) for n in turns])
    assert load_dataset(tmp_path).fingerprint == before.fingerprint


def test_five_core_is_repeated_until_stable():
    chain = [("a", "x")] * 5 + [("b", "x"), ("b", "y"), ("b", "y"), ("b", "y"), ("b", "y")] + [("c", "z")] * 4
    table = pd.DataFrame(chain, columns=["user_id", "item_id"])
    # c goes at once; y has four rows and goes; b is then left with one row and goes; a and x stay
    assert set(map(tuple, five_core(table).to_numpy())) == {("a", "x")}


def test_items_without_text_or_picture_are_dropped_and_counted(shop):
    def change(rows):
        rows[1][1:4] = "", "", ""  # I000 has no text
        rows[2][5] = ""  # I001 has no picture
        del rows[3]  # I002 is not described at all
        rows[3][1:4] = " ", "", "\t"  # I003's text is white space

    rewrite(shop / "items.csv", change)
    whole = pd.read_csv(shop / "interactions.csv")
    dataset = load_dataset(shop)
    gone = ["I000", "I001", "I002", "I003"]
    assert not set(gone) & set(dataset.item_ids)
    lost = whole["item_id"].isin(gone).sum()
    assert dataset.dropped["interactions with items without text or picture"] == lost
    assert sum(dataset.dropped.values()) + dataset.lengths.sum() == len(whole)


def test_items_are_described_in_index_order(shop):
    dataset = load_dataset(shop)
    assert list(dataset.items["item_id"]) == dataset.item_ids
    assert dataset.item_texts()[0] == "Thing 0, Acme, Things|Small"
    assert all(path.is_file() for path in dataset.image_paths())


def test_ids_are_strings_and_nothing_is_read_as_missing(tmp_path):
    rows = [(u, i, t) for u in ("007", "NA", "1e3", "null", "nan") for t, i in enumerate(("01", "1", "NA", "", "x"))]
    rows = [(u, i or "None", t) for u, i, t in rows]
    path = write_csv(tmp_path / "interactions.csv", HEADER, rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))  # as Windows writes it
    dataset = load_dataset(tmp_path)
    assert dataset.user_ids == sorted(["007", "NA", "1e3", "null", "nan"])
    assert dataset.item_ids == sorted(["01", "1", "NA", "None", "x"])


def test_a_folder_without_items_is_ids_only(tmp_path):
    assert load_dataset(write_ids(tmp_path)).items is None


def test_what_looks_like_items_is_not_taken_for_none(tmp_path, shop):
    folder = write_ids(tmp_path / "ids")
    (folder / "items.csv").symlink_to("nowhere.csv")
    with pytest.raises(InputError, match=r"items.csv is a link to a file that is not there"):
        load_dataset(folder)
    (shop / "items.csv").rename(shop / "Items.CSV")
    with pytest.raises(InputError, match=r"Items.CSV is not called items.csv"):
        load_dataset(shop)


def test_one_item_and_no_length_are_refused(tmp_path):
    rows = "".join(f"u,i,{time}\n" for time in range(6))
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n" + rows)
    with pytest.raises(InputError, match="the item 'i' alone is left"):
        load_dataset(tmp_path)
    with pytest.raises(InputError, match="max_length is -3"):
        load_dataset(tmp_path, max_length=-3)


def test_users_and_items_have_numbers_and_who_is_not_there_is_named(shop):
    dataset = load_dataset(shop)
    for number, user_id in enumerate(dataset.user_ids):
        assert dataset.user_number(user_id) == number
    for number, item_id in enumerate(dataset.item_ids, start=1):
        assert dataset.item_number(item_id) == number
    with pytest.raises(InputError, match=f"There is no user 'zz' in .*; user ids look like '{dataset.user_ids[0]}'"):
        dataset.user_number("zz")
    with pytest.raises(InputError, match=f"There is no item 'zz' in .*; item ids look like '{dataset.item_ids[0]}'"):
        dataset.item_number("zz")


def test_truth_files_are_never_opened(shop, monkeypatch):
    (shop / "truth").mkdir()
    (shop / "truth/users.csv").write_text("user_id,journey\n")
    opened = []
    real_open = io.open

    def spy(file, *arguments, **keywords):
        opened.append(str(file))
        return real_open(file, *arguments, **keywords)

    monkeypatch.setattr(io, "open", spy)
    monkeypatch.setattr("builtins.open", spy)
    list(train_batches(load_dataset(shop), 8, 0, 1, None))
    assert any("interactions.csv" in name for name in opened), "the spy saw nothing"
    assert not any("/truth/" in name for name in opened)


def test_fingerprints_tell_datasets_apart(tmp_path):
    one, same, other = (load_dataset(write_ids(tmp_path / str(k), seed=k // 2)) for k in (0, 1, 2))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert (one.user_keys == same.user_keys).all()
    assert len(set(one.user_keys.tolist())) == one.num_users
    assert (one.user_keys >= 0).all()


# --- training never sees the future


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), limit=st.sampled_from([None, 1, 2, 5]), max_length=st.integers(1, 12))
def test_training_examples_are_prefixes_before_the_held_out_items(tmp_path_factory, seed, limit, max_length):
    dataset = load_dataset(write_ids(tmp_path_factory.mktemp("ids"), seed=seed), max_length)
    seen = {}
    for batch in train_batches(dataset, 7, seed, 1, limit):
        for row, target, user in zip(batch.item_seq, batch.pos_items, batch.users, strict=True):
            allowed = dataset.sequences[user][:-2].tolist()  # users of write_ids have each item once
            at = allowed.index(int(target))
            assert row[row > 0].tolist() == allowed[:at][-max_length:]
            assert at >= 1
            seen.setdefault(int(user), []).append(at)
    for user, sequence in enumerate(dataset.sequences):
        every = list(range(1, len(sequence) - 2))
        found = sorted(seen.get(user, []))
        assert found == every if limit is None else (len(set(found)) == len(found) == min(limit, len(every)))


def test_batches_are_a_function_of_seed_and_epoch(tmp_path):
    dataset = load_dataset(write_ids(tmp_path))

    def targets(seed, epoch):
        return [batch.pos_items.tolist() for batch in train_batches(dataset, 8, seed, epoch, 2)]

    assert targets(0, 1) == targets(0, 1)
    assert targets(0, 1) != targets(0, 2)
    assert targets(0, 1) != targets(1, 1)


def test_prefixes_are_drawn_afresh_and_evenly(tmp_path):
    dataset = load_dataset(write_ids(tmp_path))
    user = int(dataset.lengths.argmax())
    counts = np.zeros(dataset.lengths[user])
    for epoch in range(600):
        users, positions = dataset.train_examples(2, np.random.default_rng((0, epoch)))
        counts[positions[users == user]] += 1
    drawn = counts[1:-2]
    assert counts.sum() == drawn.sum() == 1200
    assert abs(drawn / drawn.mean() - 1).max() < 0.25


# --- batches


def test_left_pad_keeps_the_latest_items():
    flat = np.array([1, 2, 3, 4, 5, 6])
    padded = left_pad(flat, np.array([0, 3]), np.array([3, 4]), max_length=2)
    assert padded.tolist() == [[2, 3], [0, 4]]


def test_evaluation_covers_every_user_once(tmp_path):
    dataset = load_dataset(write_ids(tmp_path), max_length=6)
    split, users = dataset.split("test"), []
    for batch in eval_batches(dataset, split, 7):
        for row, target, user, key, times, length in zip(*vars(batch).values(), strict=True):
            assert length == (row > 0).sum()
            assert times[row > 0].tolist() == dataset.timestamps[user][:-1][-6:].tolist() and not times[row == 0].any()
            assert row[row > 0].tolist() == split.histories[user][-6:].tolist()
            assert split.histories[user].tolist() == dataset.sequences[user][:-1].tolist()
            assert target == dataset.sequences[user][-1]
            assert key == dataset.user_keys[user]
            users.append(int(user))
    assert sorted(users) == list(range(dataset.num_users))


def test_batch_moves_all_its_tensors(tmp_path):
    batch = next(train_batches(load_dataset(write_ids(tmp_path)), 4, 0, 1, None)).to("meta")
    assert {value.device.type for name, value in vars(batch).items() if name != "lengths"} == {"meta"}
    assert isinstance(batch.lengths, np.ndarray)


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_chunks_are_a_partition_trimmed_to_the_longest(lengths):
    item_seq = torch.zeros(len(lengths), 50, dtype=torch.long)
    for row, length in enumerate(lengths):
        item_seq[row, -length:] = torch.arange(1, length + 1)
    chunks = length_chunks(item_seq)
    told = length_chunks(item_seq, np.array(lengths))
    assert all(torch.equal(a, b) for pair in zip(chunks, told, strict=True) for a, b in zip(*pair, strict=True))
    assert sorted(torch.cat([rows for rows, _ in chunks]).tolist()) == list(range(len(lengths)))
    for rows, chunk in chunks:
        assert chunk.shape[1] == max(lengths[row] for row in rows.tolist())
        for row, sequence in zip(rows.tolist(), chunk, strict=True):
            assert sequence[sequence > 0].tolist() == list(range(1, lengths[row] + 1))
    assert rejoin(chunks, (chunk.max(dim=1).values for _, chunk in chunks)).tolist() == lengths


# --- what is refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"interactions\.csv is not there"),
        ("", r"must have one column 'user_id'; its first line names nothing"),
        ("user,item_id,timestamp\n", r"must have one column 'user_id'; its first line names 'user', 'item_id'"),
        ("user_id,item_id,timestamp\na,b,1\na,b,1,9\n", r"line 3: 4 fields, where the first line names 3"),
        ("user_id,item_id,timestamp\na,b\n", r"line 2: 2 fields"),
        ("user_id,item_id,timestamp\na,b,yesterday\n", r"line 2: timestamp 'yesterday' is not a number"),
        ("user_id,item_id,timestamp\na,b,1\na,b,inf\n", r"line 3: timestamp 'inf' is not a number"),
        ("user_id,item_id,timestamp\na,b,1700000000000\n", r"'1700000000000' is after the year 5000; give seconds"),
        ("user_id,item_id,timestamp\n,b,1\n", r"line 2: user_id '' is empty"),
        ('user_id,item_id,timestamp\na,"b,1\n', r"line 2: unexpected end of data"),
        ("user_id,item_id,timestamp\na,b,1\n\xff,b,1\n", r"line 3: not UTF-8"),
        (
            "user_id,item_id,timestamp\n",
            r"Nothing of .* is left after.*; interactions\.csv has no rows",
        ),
        ("user_id,item_id,timestamp\na,b,1\n", r"which took .* 1 interactions outside the 5-core"),
        ("user_id;item_id;timestamp\na;b;1\n", r"separates its columns by ';'; save it with commas between them"),
        ("user_id\titem_id\ttimestamp\n", r"separates its columns by '\\t'; save it with commas"),
        ("sep=,\nuser_id,item_id,timestamp\n", r"line 1: 'sep=,' is for Excel alone; delete that line"),
        ("user_id,item_id,timestamp,item_id\n", r"must have one column 'item_id'"),
        (f"{'x' * 999},item_id,timestamp\n", r"its first line names 'x{99}\.\.\., 'item_id'"),
        ('user_id,item_id,timestamp\n"a\nb",c,1\n', r"line 3: user_id 'a\\nb' holds a line end or another control"),
        ("user_id,item_id,timestamp\na,b\0,1\n", r"line 2: item_id 'b\\x00' holds a line end or another control"),
        (f"user_id,item_id,timestamp\na,b,{'9' * 400}\n", r"line 2: timestamp '9{99}\.\.\. is not a number"),
        ('user_id,item_id,timestamp\na,b,1\na,"b,1\na,b,1\n', r"line 3: unexpected end of data; .* that begins there"),
        ("u\0s\0,i\0\n", r"line 1: not UTF-8"),
    ],
)
def test_bad_interactions_are_one_sentence(tmp_path, content, message):
    if content is not None:
        (tmp_path / "interactions.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("I000", "t", "", "", "", "images/I000.png"), r"line 14: item_id 'I000' is there twice"),
        (("", "t", "", "", "", ""), r"line 14: item_id '' is empty"),
        (("new", "t", "", "", "", "../secret.png"), r"line 14: image '\.\./secret\.png' leaves the folder"),
        (("new", "t", "", "", "", "/etc/x.png"), r"image '/etc/x\.png' leaves the folder"),
        (("new", "t", "", "", "", r"C:\x.png"), r"leaves the folder"),
        (("new", "t", "", "", "", r"images\..\..\x.png"), r"leaves the folder"),
        (("I\n1", "t", "", "", "", ""), r"item_id 'I\\n1' holds a line end or another control character; take it out"),
    ],
)
def test_bad_items_are_one_sentence(shop, row, message):
    rewrite(shop / "items.csv", lambda rows: rows.append(row))
    with pytest.raises(InputError, match=message):
        load_dataset(shop)


def test_missing_pictures_are_named_and_counted(shop):
    (shop / "images/I003.png").unlink()
    (shop / "images/I005.png").unlink()
    with pytest.raises(InputError, match=r"line 5: image 'images/I003\.png' is not there \(1 others neither\)"):
        load_dataset(shop)


@pytest.mark.parametrize("image", ["images", "x" * 300, "a\0b.png", "."])
def test_what_is_no_picture_file_is_not_there(shop, image):
    rewrite(shop / "items.csv", lambda rows: rows[4].__setitem__(5, image))
    with pytest.raises(InputError, match=r"line 5: image .* is not there"):
        load_dataset(shop)


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_not(shop, tmp_path):
    picture = shop / "images/I003.png"
    picture.rename(shop / "red.png")
    picture.symlink_to(shop / "red.png")
    (tmp_path / "link").symlink_to(shop)
    assert load_dataset(shop).num_items == load_dataset(tmp_path / "link").num_items == 12
    (shop / "red.png").rename(tmp_path / "secret.png")
    picture.unlink()
    picture.symlink_to(tmp_path / "secret.png")
    sentence = r"line 5: image 'images/I003\.png' is a link out of the folder; put the picture itself there"
    with pytest.raises(InputError, match=sentence):
        load_dataset(shop)
    picture.unlink()
    (shop / "images").rename(tmp_path / "elsewhere")
    (shop / "images").symlink_to(tmp_path / "elsewhere")
    (shop / "images/I003.png").write_bytes((tmp_path / "secret.png").read_bytes())
    with pytest.raises(InputError, match=r"line 2: image 'images/I000\.png' is a link out of the folder"):
        load_dataset(shop)


def test_two_columns_of_one_name_are_refused_where_they_matter(shop):
    table = (shop / "items.csv").read_text().replace("description", "brand", 1)
    (shop / "items.csv").write_text(table)
    with pytest.raises(InputError, match=r"items\.csv must have one column 'brand'"):
        load_dataset(shop)
    (shop / "items.csv").write_text(table.replace("brand,category,brand", "brand,note,note", 1))
    assert load_dataset(shop).item_texts()[0] == "Thing 0, Acme"


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([(f"u{k}", "i", 1) for k in range(9)], "where 0 of 9 users and 1 of 1 items have 5 or more; add more data"),
        ([("u", f"i{k}", 1) for k in range(9)], "where 1 of 1 users and 0 of 9 items have 5 or more; add more data"),
        ([("u", "i", 1)] * 4, "where 0 of 1 users and 0 of 1 items have 5 or more; add more data"),
        (
            [("u", f"i{k}", 1) for k in range(5)] + [(f"u{k}", "i", 1) for k in range(5)],
            "took 0 interactions with items without text or picture and 10 interactions outside the 5-core, "
            "where 1 of 6 users and 1 of 6 items have 5 or more; add more data",
        ),
    ],
)
def test_an_empty_core_says_whether_users_or_items_are_too_few(tmp_path, rows, sentence):
    write_csv(tmp_path / "interactions.csv", HEADER, rows)
    with pytest.raises(InputError, match=sentence):
        load_dataset(tmp_path)


def test_items_that_describe_nobody_s_purchases_are_told_apart_from_those_that_lack_something(shop):
    (shop / "items.csv").write_text("item_id,title,image\nP-1,Bear,images/I000.png\n")
    with pytest.raises(InputError, match=r"No item of .*interactions\.csv, such as 'I\d+', is in .* such as 'P-1'"):
        load_dataset(shop)


@pytest.mark.parametrize("column", [1, 5])
def test_items_that_are_all_without_text_or_picture_are_named_as_the_reason(shop, column):
    def change(rows):
        for row in rows[1:]:
            row[column : column + (3 if column == 1 else 1)] = [""] * (3 if column == 1 else 1)

    rewrite(shop / "items.csv", change)
    count = len((shop / "interactions.csv").read_text().splitlines()) - 1
    sentence = f"took {count} interactions with items without text or picture and 0 .*; give items a title and a pic"
    with pytest.raises(InputError, match=sentence):
        load_dataset(shop)


def test_a_table_read_in_parts_is_the_table(tmp_path, monkeypatch):
    whole = load_dataset(write_ids(tmp_path))
    table = read_table(tmp_path / "interactions.csv", HEADER)
    for rows in (1, 7, len(table), len(table) - 1):
        monkeypatch.setattr("imecd_lite.dataset.ROWS_AT_ONCE", rows)
        pd.testing.assert_frame_equal(read_table(tmp_path / "interactions.csv", HEADER), table)
    assert load_dataset(tmp_path).fingerprint == whole.fingerprint
    assert table.index.tolist() == list(range(2, len(table) + 2))


PEAK = """
import resource, sys
from imecd_lite.dataset import load_dataset
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
print(load_dataset(sys.argv[1]).lengths.sum(), peak() - before)
"""


@pytest.mark.slow
def test_a_million_rows_take_less_than_400_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 100_000, 1_000_000), rng.integers(0, 20_000, 1_000_000)
    lines = (f"user{u:07},item{i:06},{t}\n" for t, (u, i) in enumerate(zip(users, items, strict=True)))
    with (tmp_path / "interactions.csv").open("w") as file:
        file.write("user_id,item_id,timestamp\n")
        file.writelines(lines)
    program = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True)
    kept, megabytes = map(int, program.stdout.split())
    assert kept > 980_000 and megabytes < 400  # a list of strings for each row took 480


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path):
    (tmp_path / "interactions.csv").write_text(",".join(HEADER) + "\n")
    os.truncate(tmp_path / "interactions.csv", 300_000_000)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"line 2 is longer than 10,000,000 characters; export it anew as CSV"):
        load_dataset(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000_000


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="valid or test, got 'train'"):
        load_dataset(write_ids(tmp_path)).split("train")


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), FIELD | st.just("5")), max_size=40))
def test_any_table_gives_a_dataset_or_one_sentence(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    write_csv(folder / "interactions.csv", HEADER, rows)
    try:
        dataset = load_dataset(folder)
    except InputError as error:
        assert str(folder) in str(error)
    else:
        assert dataset.lengths.sum() + sum(dataset.dropped.values()) == len(rows)
        assert dataset.lengths.min() >= 5


NAMES = st.sampled_from(["a", "b", "", "\0", "c\r", "d\n", '"', "é", "x,y", "../z"]) | FIELD
NUMBERS = st.sampled_from(["1", "-1", "1e3", " 7 ", "1e999", "nan", "9" * 400, "0x1", "1_0", "True", ""]) | FIELD
IMAGES = st.sampled_from(["a.png", "", ".", "no.png", "../a.png", "/a.png", "C:a", "a\0", "x" * 300]) | FIELD


@settings(max_examples=100, deadline=None)
@given(
    sale=st.lists(NAMES | NUMBERS, max_size=4),
    good=st.lists(NAMES | IMAGES, max_size=7),
    header=st.lists(st.sampled_from(["brand", "note", "image"]) | NAMES, max_size=2),
    whole=st.sampled_from(["no", "sales", "goods", "both"]),
    foreign=st.tuples(st.integers(0, 200), st.binary(max_size=3)),
)
def test_any_folder_gives_a_dataset_or_one_sentence(tmp_path_factory, sale, good, header, whole, foreign):
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.png").write_bytes(b"")
    sales = [("a", "a", "1")] * 5 + [tuple(sale)] * bool(whole in ("goods", "no") and sale)
    goods = [("a", "t", "a.png", *header)] + [tuple(good)] * bool(whole in ("sales", "no") and good)
    write_csv(folder / "interactions.csv", HEADER, sales)
    write_csv(folder / "items.csv", ("item_id", "title", "image", *header), goods)
    if whole == "no":
        place, content = foreign
        table = (folder / "interactions.csv").read_bytes()
        (folder / "interactions.csv").write_bytes(table[:place] + content + table[place:])
    try:
        dataset = load_dataset(folder)
    except InputError as error:
        assert str(folder) in str(error) and "\n" not in str(error) and len(str(error)) < 1000
        return
    table = read_table(folder / "interactions.csv")
    assert dataset.lengths.sum() + sum(dataset.dropped.values()) == len(table)
    assert whole == "no" or len(table) == len(sales)


# --- real data


@pytest.fixture
def real_data():
    if not os.environ.get("IMECD_DATA"):
        pytest.skip("IMECD_DATA is not set")
    return Path(os.environ["IMECD_DATA"])


def test_movies_with_posters_and_text(real_data):
    dataset = load_dataset(real_data / "ml-100k")
    assert (dataset.num_users, dataset.num_items) == (943, 1345)
    last_ties = sum(times[-1] == times[-2] for times in dataset.timestamps)
    assert last_ties > 400  # so the order of ties decides many test items
    assert min(map(len, dataset.sequences)) >= 5


def test_amazon_toys_ids(real_data):
    dataset = load_dataset(real_data / "amazon-toys")
    assert dataset.items is None
    assert (dataset.num_users, dataset.num_items, int(dataset.lengths.sum())) == (19412, 11924, 167597)


def test_some_users_keep_their_histories_keys_and_catalogue():
    whole = tiny.tiny_dataset()
    keys = whole.user_keys  # what was computed of the whole is not of the part
    part = some_users(whole, np.array([5, 2]))
    assert part.user_ids == ["user 5", "user 2"] and part.num_items == whole.num_items
    assert [s.tolist() for s in part.sequences] == [whole.sequences[5].tolist(), whole.sequences[2].tolist()]
    assert part.user_keys.tolist() == keys[[5, 2]].tolist()
    assert part.flat.tolist() == [*whole.sequences[5], *whole.sequences[2]]
    assert part.fingerprint != whole.fingerprint
