"""From foreign data to a dataset folder: what every ``prepare`` command shares."""

from __future__ import annotations

import csv
import errno
import html
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning
from bs4.exceptions import ParserRejectedMarkup
from safetensors import SafetensorError

from imecd_lite.dataset import ITEM_COLUMNS
from imecd_lite.errors import InputError
from imecd_lite.files import hold, read_json, write_atomically, write_json

SETTINGS_FILE = "prepare.json"
"""How a folder was prepared; an interrupted command goes on in a folder that was begun in the same way."""
DROPPED_FILE = "dropped.csv"
"""What was left out: a row for each row of the sources that is in neither table."""
UNSEEN = dict.fromkeys(map(ord, "\u00ad\u200b\ufeff"))
"""Where a word may be broken, and the mark of a file's beginning: left out."""
JOINERS = "\u200c\u200d"
"""They say how letters hang together, in Persian or in a family of emoji."""
MAX_TEXT = 10_000
"""Characters of a field that are kept; encoders see less, and markup without end would take hours."""


@contextmanager
def staged(output: Path, settings: dict) -> Iterator[Path]:
    """A folder to work in, ``output`` with ".partial" added; when the block ends well it becomes ``output``.

    What an interrupted command left in it is there again, for the block to go on with.

    Args:
        output: must not exist.
        settings: all that decides what the block makes, as JSON.

    Raises:
        InputError: ``output`` exists, its partial folder is foreign or was begun with other settings, another command
            is at work in it, or the disk is full.
    """
    with hold(output):
        refuse_existing(output)
        folder = output.with_name(output.name + ".partial")
        folder.mkdir(parents=True, exist_ok=True)
        noted = folder / SETTINGS_FILE
        if noted.exists():
            then, now = read_json(noted), json.loads(json.dumps(settings))
            for name in sorted(then.keys() | now.keys()):
                if then.get(name) != now.get(name):
                    raise InputError(
                        f"{folder} was begun with {name} {then.get(name)!r}, not {now.get(name)!r}; "
                        "go on with that, or delete the folder to begin anew."
                    )
        else:
            write_json(noted, settings)
        try:
            yield folder
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(
                f"The disk of {folder} is full; free some space and give the same command again."
            ) from None
        os.replace(folder, output)


def refuse_existing(output: Path) -> None:
    """Raise ``InputError`` where ``output`` exists, or what is to become it holds files of somebody else."""
    if os.path.lexists(output):
        raise InputError(f"{output} is already there; name another --output, or delete it first.")
    folder = output.with_name(output.name + ".partial")
    names = set(os.listdir(folder)) if folder.exists() else set()
    if SETTINGS_FILE not in names and names - {SETTINGS_FILE + ".partial"}:  # which a killed command may leave
        raise InputError(f"{folder} is in the way, no command began it; move it away, or name another --output.")


@contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """A new folder to work in, beside ``output``; when the block ends well it becomes ``output``, else it is deleted.

    Args:
        output: must not exist, or be an empty folder, which is removed first. An ``OSError`` names it.

    Raises:
        InputError: ``output`` holds something, or can't be removed: the folder one is in, a mount or a link can't.
    """
    try:
        if output.is_dir() and not any(output.iterdir()):
            try:
                output.rmdir()
            except OSError as error:
                raise InputError(
                    f"{output} can't be replaced ({error.strerror}); name an --output that is not there yet."
                ) from None
        elif output.exists():
            raise InputError(f"{output} is not an empty folder; name another --output, or remove it first.")
        output.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f"{output.name}.partial-", dir=output.parent) as place:
            folder = Path(place, "new")  # with the rights that any new folder has
            folder.mkdir()
            yield folder
            os.replace(folder, output)
    except SafetensorError as error:  # it couldn't write
        raise InputError(f"{output} can't be written ({error}); mend that and give the command again.") from None
    except OSError as error:
        error.filename = str(output)
        raise


class DropLog:
    """An account of what is left out, written as it grows: nothing that was read disappears in silence.

    Args:
        path: the CSV file to write: source, line, id, reason.
    """

    def __init__(self, path: Path) -> None:
        self.rows: Counter[str] = Counter()  # how many were read, by source; who reads them counts
        self.counts: Counter[tuple[str, str]] = Counter()  # how many were left out, by (source, reason)
        self.file = path.open("w", newline="", encoding="utf-8")
        self.writer = csv.writer(self.file, lineterminator="\n")
        self.writer.writerow(("source", "line", "id", "reason"))

    def __enter__(self) -> DropLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def drop(self, source: str, line: int, name: str, reason: str) -> None:
        """Note that ``line`` of ``source``, about ``name``, is left out, and why."""
        self.counts[source, reason] += 1
        self.writer.writerow((source, line, name, reason))

    def total(self, source: str) -> int:
        """How many rows of ``source`` were left out."""
        return sum(count for (where, _), count in self.counts.items() if where == source)

    def account(self, source: str, kept: int) -> str:
        """One line: rows read = rows kept + rows left out."""
        dropped = f"{self.total(source):,} dropped (see {DROPPED_FILE})"
        return f"{source}: {self.rows[source]:,} rows = {kept:,} kept + {dropped}"

    def lines(self) -> list[str]:
        """What a person is told: a line for each reason, the commonest first."""
        return [f"{count:,} of {source}: {reason}" for (source, reason), count in self.counts.most_common()]


def plain_text(markup: str) -> str:
    """Text without tags, scripts, styles, entities, control characters, what nobody sees, and runs of white space.

    Shops export titles with markup in them, and sometimes markup that was escaped twice. Of more than ``MAX_TEXT``
    characters the first count.
    """
    markup = markup[:MAX_TEXT].translate(UNSEEN)
    while re.search(r"[<&]", markup):
        text = without_tags(markup) if "<" in markup else html.unescape(markup)  # a hundred times faster
        text = text.translate(UNSEEN)
        if text == markup:
            break
        markup = text
    return " ".join("".join(c if c.isprintable() or c in JOINERS else " " for c in markup).split())


def without_tags(markup: str) -> str:
    """Markup without its tags, scripts and styles, and with one level of entities resolved."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)  # a title may look like a path
            soup = BeautifulSoup(markup, "html.parser")
    except ParserRejectedMarkup:  # "<![if", say
        return markup.replace("<![", " ")
    for tag in soup(["script", "style"]):
        tag.decompose()
    return soup.get_text(" ")


def write_tables(folder: Path, interactions: pd.DataFrame, items: pd.DataFrame | None) -> None:
    """Write ``interactions.csv`` (user_id, item_id, timestamp) and, unless None, ``items.csv`` of a dataset folder."""
    tables = {"interactions.csv": interactions[["user_id", "item_id", "timestamp"]]}
    if items is not None:
        tables["items.csv"] = items[list(ITEM_COLUMNS)]
    for name, table in tables.items():
        write_atomically(folder / name, lambda path, table=table: table.to_csv(path, index=False, lineterminator="\n"))
