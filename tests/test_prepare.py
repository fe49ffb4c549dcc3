"""What the prepare commands share: a folder that is whole or not there, plain texts, an account of what is dropped."""

import csv
import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from imecd_lite.errors import InputError
from imecd_lite.prepare import DROPPED_FILE, MAX_TEXT, SETTINGS_FILE, DropLog, plain_text, staged, whole_folder


def test_the_folder_appears_when_the_work_is_done(tmp_path):
    with staged(tmp_path / "shop", {"seed": 0}) as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "shop").exists()
    assert (tmp_path / "shop/a").read_text() == "a" and not folder.exists()


def test_interrupted_work_is_kept_and_gone_on_with(tmp_path):
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "shop", {"seed": 0}) as folder:
        (folder / "a").write_text("a")
        raise KeyboardInterrupt
    assert not (tmp_path / "shop").exists()
    with staged(tmp_path / "shop", {"seed": 0}) as again:
        assert (again / "a").read_text() == "a"


def test_work_begun_otherwise_is_not_mixed_with(tmp_path):
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "shop", {"seed": 0}):
        raise KeyboardInterrupt
    with (
        pytest.raises(InputError, match=r"shop.partial was begun with seed 0, not 1; go on with that"),
        staged(tmp_path / "shop", {"seed": 1}),
    ):
        pytest.fail("the block ran")


def test_one_command_at_a_time_works_in_a_folder(tmp_path):
    with (
        staged(tmp_path / "shop", {}),
        pytest.raises(InputError, match="Another command is at work"),
        staged(tmp_path / "shop", {}),
    ):
        pytest.fail("the block ran")


def test_what_is_there_is_never_overwritten(tmp_path):
    (tmp_path / "shop").mkdir()
    with pytest.raises(InputError, match="is already there"), staged(tmp_path / "shop", {}):
        pytest.fail("the block ran")
    assert not (tmp_path / "shop.partial").exists()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match="is already there"), staged(tmp_path / "link", {}):
        pytest.fail("the block ran")


def test_a_partial_folder_of_somebody_else_is_refused_and_kept(tmp_path):
    (tmp_path / "shop.partial").mkdir()
    (tmp_path / "shop.partial/thesis.txt").write_text("precious")
    with pytest.raises(InputError, match=r"shop\.partial is in the way"), staged(tmp_path / "shop", {}):
        pytest.fail("the block ran")
    assert [path.name for path in (tmp_path / "shop.partial").iterdir()] == ["thesis.txt"]


def test_what_a_kill_leaves_before_the_settings_are_noted_is_in_nobodys_way(tmp_path):
    (tmp_path / "shop.partial").mkdir()
    (tmp_path / f"shop.partial/{SETTINGS_FILE}.partial").write_text("{")
    with staged(tmp_path / "shop", {"seed": 0}):
        pass
    assert [path.name for path in (tmp_path / "shop").iterdir()] == [SETTINGS_FILE]


@pytest.mark.parametrize("there", [True, False], ids=["empty", "not there"])
def test_a_whole_folder_appears_when_the_work_is_done(tmp_path, there):
    output = tmp_path / "new/shop"
    if there:
        output.mkdir(parents=True)
    with whole_folder(output) as folder:
        (folder / "a").write_text("a")
        assert not (output / "a").exists()
    assert (output / "a").read_text() == "a" and list(output.parent.iterdir()) == [output]
    (tmp_path / "plain").mkdir()
    assert output.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_empty_folder_that_cannot_be_replaced_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^\. can't be replaced \(.*\); name an --output"), whole_folder(Path(".")):
        raise AssertionError("the work has begun")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "full"), SafetensorError("disk full")])
def test_a_whole_folder_is_not_there_in_part_and_is_named(tmp_path, error):
    with pytest.raises((KeyboardInterrupt, OSError, InputError)) as caught, whole_folder(tmp_path / "shop") as folder:
        (folder / "a").write_text("a")
        raise error
    assert not list(tmp_path.iterdir())
    assert error is KeyboardInterrupt or str(tmp_path / "shop") in str(caught.value)


def test_what_is_dropped_is_written_and_counted(tmp_path):
    with DropLog(tmp_path / DROPPED_FILE) as log:
        log.drop("reviews.json", 7, "B001", "no such item")
        log.drop("reviews.json", 9, "B002", "no such item")
        log.drop("items.csv", 2, "B001", "no picture")
    rows = list(csv.reader((tmp_path / DROPPED_FILE).open()))
    assert rows == [
        ["source", "line", "id", "reason"],
        ["reviews.json", "7", "B001", "no such item"],
        ["reviews.json", "9", "B002", "no such item"],
        ["items.csv", "2", "B001", "no picture"],
    ]
    assert log.total("reviews.json") == 2 and log.total("items.csv") == 1
    assert log.lines() == ["2 of reviews.json: no such item", "1 of items.csv: no picture"]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("Salt &amp; Pepper", "Salt & Pepper"),
        ("Salt &amp;amp; Pepper", "Salt & Pepper"),
        ("<b>Bold</b> bear", "Bold bear"),
        ("&lt;script&gt;alert(1)&lt;/script&gt;bear", "bear"),
        ("a<br>b", "a b"),
        ("5 < 6 and 7 > 6", "5 < 6 and 7 > 6"),
        ("M&Ms", "M&Ms"),
        ("images/bear.jpg", "images/bear.jpg"),
        ("two\r\n lines\x00", "two lines"),
        ("Wasch\u00adma&shy;schine\u200b", "Waschmaschine"),
        ("\u0645\u06cc\u200c\u062e, 👨\u200d👧", "\u0645\u06cc\u200c\u062e, 👨\u200d👧"),
        ("<style>p {color: red}</style>", ""),
        ("Bear <![foo[x]]>brown", "Bear foo[x]]>brown"),
        ("x" * 20_000, "x" * MAX_TEXT),
        ("", ""),
    ],
)
def test_markup_becomes_text(markup, text):
    assert plain_text(markup) == text


@given(st.text() | st.text(alphabet="<>&;/ab#x0\"'![]-?"))
def test_plain_text_of_plain_text_is_itself(markup):
    assert plain_text(plain_text(markup)) == plain_text(markup)
