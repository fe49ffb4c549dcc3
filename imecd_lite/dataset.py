"""A dataset folder -> items, user histories, leave-one-out split, batches (sections III-A and IV-A of the paper)."""

# B batch, L sequence, I items (0 is padding), U users

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TextIO

import numpy as np
import pandas as pd
import torch

from imecd_lite.errors import InputError, quote

ITEM_COLUMNS = ("item_id", "title", "brand", "category", "description", "image")
TOO_LATE = 1e11
"""Seconds from here on are after the year 5000: a clock that shows more counts in milliseconds or finer."""
MIN_INTERACTIONS = 5
"""The 5-core of section IV-A1."""
CHUNK_LENGTHS = (4, 8, 16, 32)
"""``length_chunks`` cuts a batch at these history lengths."""
ROWS_AT_ONCE = 100_000
"""``read_table`` packs this many rows at a time: lists of strings take ten times the memory of a table."""
MAX_LINE = 10_000_000
"""Characters; a longer line is no table's, and is not read to its end."""
CONTROL = r"[\x00-\x1f\x7f]"
"""Characters that no id may hold: tables and screens break at them."""


@dataclass(frozen=True)
class Split:
    """One evaluation example a user, in user order."""

    users: np.ndarray  # (U,) int64
    histories: list[np.ndarray]  # all items before the target; batches take the latest max_length
    targets: np.ndarray  # (U,) int64, 1 ... I


@dataclass(frozen=True)
class Batch:
    """Left-padded histories and their next items."""

    item_seq: torch.Tensor  # (B, L) int64
    pos_items: torch.Tensor  # (B,) int64, 1 ... I
    users: torch.Tensor  # (B,) int64
    user_keys: torch.Tensor  # (B,) int64, from which a user's noise is drawn
    timestamps: torch.Tensor  # (B, L) float64, when each item was bought; 0 at the padding
    lengths: np.ndarray | None = None  # (B,) of the histories, where the host knows them

    def __getitem__(self, rows: slice) -> Batch:
        """Some rows of the batch."""
        return replace(self, **{name: value[rows] for name, value in vars(self).items() if value is not None})

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device; the host, which does not wait for it, keeps ``lengths``."""
        tensors = {name: value for name, value in vars(self).items() if name != "lengths"}
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in tensors.items()})


@dataclass(frozen=True)
class Dataset:
    """What is left of a dataset folder after the paper's filters. Make one with ``load_dataset``."""

    path: Path
    user_ids: list[str]
    item_ids: list[str]  # item i is item_ids[i - 1]
    sequences: list[np.ndarray]  # a user's items, 1 ... I, in time order
    timestamps: list[np.ndarray]  # their times, float64
    items: pd.DataFrame | None  # row i - 1 describes item i; None for an ids-only dataset
    max_length: int = 50
    dropped: dict[str, int] = field(default_factory=dict)  # how many rows each filter took

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_ids)

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.user_ids)

    @cached_property
    def user_keys(self) -> np.ndarray:
        """(U,) int64: a stable hash of each user id, not negative."""
        digests = (hashlib.blake2b(user_id.encode(), digest_size=8).digest() for user_id in self.user_ids)
        return np.array([int.from_bytes(digest, "big") >> 1 for digest in digests], dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of ids and histories, but not of times beyond their order: a checkpoint remembers it."""
        digest = hashlib.sha256("\n".join([*self.user_ids, "", *self.item_ids]).encode())
        digest.update(self.lengths.tobytes() + self.flat.tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def lengths(self) -> np.ndarray:
        """(U,) int64: the length of each history."""
        return np.array([len(sequence) for sequence in self.sequences], dtype=np.int64)

    @cached_property
    def flat(self) -> np.ndarray:
        """All histories end to end, int64."""
        return np.concatenate(self.sequences)

    @cached_property
    def flat_timestamps(self) -> np.ndarray:
        """The times of ``flat``, float64."""
        return np.concatenate(self.timestamps)

    @cached_property
    def starts(self) -> np.ndarray:
        """(U,) int64: where each history starts in ``flat``."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def train_counts(self) -> np.ndarray:
        """(I + 1,) int64: how often each item was bought, the two held-out items of each user left out."""
        bought = np.concatenate([sequence[:-2] for sequence in self.sequences])
        return np.bincount(bought, minlength=self.num_items + 1)

    def statistics(self) -> dict[str, float]:
        """The row of Table I: users, items, interactions, avg_length."""
        total = int(self.lengths.sum())
        return {
            "users": self.num_users,
            "items": self.num_items,
            "interactions": total,
            "avg_length": total / self.num_users,
        }

    def user_number(self, user_id: str) -> int:
        """The position of a user in ``user_ids``; ``InputError`` when there is no such user."""
        return self.number_of(self.user_ids, user_id, "user")

    def item_number(self, item_id: str) -> int:
        """An item's number, 1 ... I; ``InputError`` when there is no such item."""
        return self.number_of(self.item_ids, item_id, "item") + 1

    def number_of(self, ids: list[str], name: str, kind: str) -> int:
        """The position of a name in a list; ``InputError`` when it is not there."""
        if name not in ids:
            raise InputError(f"There is no {kind} {quote(name)} in {self.path}; {kind} ids look like {ids[0]!r}.")
        return ids.index(name)

    def split(self, name: str) -> Split:
        """Leave-one-out: "test" holds out each user's last item, "valid" the last but one."""
        if name not in ("valid", "test"):
            raise ValueError(f"split must be valid or test, got {name!r}")
        end = -1 if name == "test" else -2
        return Split(
            np.arange(self.num_users),
            [sequence[:end] for sequence in self.sequences],
            np.array([sequence[end] for sequence in self.sequences]),
        )

    def train_examples(
        self, max_prefixes_per_user: int | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Users (n,) and target positions (n,) of training prefixes: every one, or a few a user drawn at random.

        A prefix has at least one item, and its target comes before the two held-out items.
        """
        counts = np.maximum(self.lengths - 3, 0)  # targets at positions 1 ... length - 3
        users, positions = np.repeat(np.arange(self.num_users), counts), positions_within(counts) + 1
        if max_prefixes_per_user is not None:
            shuffled = np.lexsort((rng.random(len(users)), users))  # within each user
            kept = positions_within(counts) < max_prefixes_per_user
            users, positions = users[shuffled][kept], positions[shuffled][kept]
        return users, positions

    def item_texts(self) -> list[str]:
        """Title, brand and category of every item, as the paper (section IV-A1)."""
        fields = self.items[["title", "brand", "category"]].itertuples(index=False)
        return [", ".join(part for part in (text.strip() for text in row) if part) for row in fields]

    def image_paths(self) -> list[Path]:
        """The picture of every item."""
        return [self.path / image for image in self.items["image"]]


def some_users(dataset: Dataset, users: np.ndarray) -> Dataset:
    """The same catalogue with the histories of ``users`` (n,) alone, by number."""
    return replace(
        dataset,
        user_ids=[dataset.user_ids[user] for user in users],
        sequences=[dataset.sequences[user] for user in users],
        timestamps=[dataset.timestamps[user] for user in users],
    )


def positions_within(counts: np.ndarray) -> np.ndarray:
    """(2, 3) -> 0 1 0 1 2."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def left_pad(flat: np.ndarray, starts: np.ndarray, ends: np.ndarray, max_length: int) -> torch.Tensor:
    """The slices ``flat[start:end]``, the latest ``max_length`` of each, left-padded with 0 to the longest: (B, L)."""
    lengths = np.minimum(ends - starts, max_length)
    offsets = np.arange(-lengths.max(), 0)  # (L,)
    index = ends[:, None] + offsets  # (B, L)
    return torch.from_numpy(np.where(offsets >= -lengths[:, None], flat[np.maximum(index, 0)], 0))


def train_batches(
    dataset: Dataset, batch_size: int, seed: int, epoch: int, max_prefixes_per_user: int | None
) -> Iterator[Batch]:
    """An epoch's batches, shuffled across users and lengths: a function of (seed, epoch) alone."""
    rng = np.random.default_rng((seed, epoch))
    users, positions = dataset.train_examples(max_prefixes_per_user, rng)
    order = rng.permutation(len(users))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield make_batch(dataset, users[rows], positions[rows])


def eval_batches(dataset: Dataset, split: Split, batch_size: int) -> Iterator[Batch]:
    """The examples of a split in batches of similar length; ``batch.users`` says whose they are."""
    lengths = np.array([len(history) for history in split.histories])
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = make_batch(dataset, split.users[rows], lengths[rows])
        yield replace(batch, pos_items=torch.from_numpy(split.targets[rows]))


def make_batch(dataset: Dataset, users: np.ndarray, positions: np.ndarray) -> Batch:
    """The batch whose targets are the items at ``positions`` (B,) in the histories of ``users`` (B,)."""
    starts = dataset.starts[users]
    ends = starts + positions
    return Batch(
        left_pad(dataset.flat, starts, ends, dataset.max_length),
        torch.from_numpy(dataset.flat[ends]),
        torch.from_numpy(users),
        torch.from_numpy(dataset.user_keys[users]),
        left_pad(dataset.flat_timestamps, starts, ends, dataset.max_length),
        np.minimum(positions, dataset.max_length),
    )


def length_chunks(item_seq: torch.Tensor, lengths: np.ndarray | None = None) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Cut a batch (B, L) by history length into pairs of rows (b,) and their sequences, trimmed to the longest (b, l).

    Every row is in exactly one chunk. Short histories then don't pay for the padding of long ones.

    Args:
        lengths: (B,) of the histories; without them the host waits for the device to count.
    """
    if lengths is None:
        lengths = (item_seq > 0).sum(dim=1).numpy(force=True)
    bins, chunks = np.searchsorted(CHUNK_LENGTHS, lengths), []
    for number in np.unique(bins):
        rows = np.flatnonzero(bins == number)
        longest = max(int(lengths[rows].max()), 1)
        rows = torch.from_numpy(rows).to(item_seq.device, non_blocking=True)
        chunks.append((rows, item_seq[rows, -longest:]))
    return chunks


def rejoin(chunks: list[tuple[torch.Tensor, torch.Tensor]], parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """What was made of each of ``length_chunks``, (b, ...), as one tensor in the order of the batch, (B, ...)."""
    return torch.cat(list(parts))[torch.cat([rows for rows, _ in chunks]).argsort()]


def load_dataset(path: Path | str, max_length: int = 50) -> Dataset:
    """Read a dataset folder and apply the paper's filters (section IV-A1).

    Items without text or picture are dropped, then users and items with fewer than five interactions until none is
    left (the paper says "at least 5" and "more than 5"). Ties in time keep the order of the file. A folder without
    ``items.csv`` is an ids-only dataset.

    Raises:
        InputError: something is missing or malformed; the message names the file, the line and what to do.
    """
    path = Path(path)
    if path.is_file():
        raise InputError(f"{path} is a file; name the folder that it is in.")
    if type(max_length) is not int or max_length < 1:
        raise InputError(f"max_length is {max_length}; it must be a whole number of at least 1.")
    table = read_interactions(path / "interactions.csv")
    items = read_items(path) if (path / "items.csv").exists() else None
    if items is None:
        refuse_near_items(path)
    dropped = {"interactions with items without text or picture": 0}
    if items is not None:
        refuse_unknown_items(path, table, items)
        texts = items[["title", "brand", "category"]].apply(lambda column: column.str.strip())
        complete = items[(texts != "").any(axis=1) & (items["image"] != "")]
        known = table["item_id"].isin(complete["item_id"])
        dropped["interactions with items without text or picture"] = int((~known).sum())
        table = table[known]
    core = five_core(table)
    dropped[f"interactions outside the {MIN_INTERACTIONS}-core"] = len(table) - len(core)
    if core.empty:
        raise nothing_left(path, table, dropped)
    table = core.sort_values("timestamp", kind="stable")
    user_ids, item_ids = sorted(table["user_id"].unique()), sorted(table["item_id"].unique())
    if len(item_ids) < 2:
        raise InputError(f"Of {path} the item {quote(item_ids[0])} alone is left; to rank takes two, add more data.")
    users = pd.Index(user_ids).get_indexer(table["user_id"])
    order = np.argsort(users, kind="stable")
    cuts = np.cumsum(np.bincount(users))[:-1]
    indices = pd.Index(item_ids).get_indexer(table["item_id"]).astype(np.int64) + 1
    if items is not None:
        items = items[items["item_id"].isin(item_ids)].sort_values("item_id")
        check_images(path, items)
        items = items.reset_index(drop=True)
    return Dataset(
        path=path,
        user_ids=user_ids,
        item_ids=item_ids,
        sequences=np.split(indices[order], cuts),
        timestamps=np.split(table["timestamp"].to_numpy(np.float64)[order], cuts),
        items=items,
        max_length=max_length,
        dropped=dropped,
    )


def five_core(table: pd.DataFrame) -> pd.DataFrame:
    """Drop users and items with fewer than five rows, again and again until there are none."""
    users, items = pd.factorize(table["user_id"])[0], pd.factorize(table["item_id"])[0]
    kept = np.ones(len(table), dtype=bool)
    while True:
        enough = (np.bincount(users[kept], minlength=len(users))[users] >= MIN_INTERACTIONS) & (
            np.bincount(items[kept], minlength=len(items))[items] >= MIN_INTERACTIONS
        )
        if (kept & enough).sum() == kept.sum():
            return table[kept]
        kept &= enough


def refuse_unknown_items(path: Path, table: pd.DataFrame, items: pd.DataFrame) -> None:
    """Raise ``InputError`` where ``items.csv`` describes none of the items of the interactions ``table``."""
    if len(table) and len(items) and not table["item_id"].isin(items["item_id"]).any():
        one, other = quote(table["item_id"].iloc[0]), quote(items["item_id"].iloc[0])
        raise InputError(
            f"No item of {path / 'interactions.csv'}, such as {one}, is in items.csv, whose items are such as {other}; "
            "write the ids alike."
        )


def nothing_left(path: Path, table: pd.DataFrame, dropped: dict[str, int]) -> InputError:
    """The error for data of which the filters leave nothing: which of them took how many, and whom the core lacks.

    Args:
        table: what the five-core, the last filter, was given.
        dropped: how many rows each filter took.
    """
    reasons = " and ".join(f"{count:,} {reason}" for reason, count in dropped.items())
    remedy = "give items a title and a picture" if any(dropped.values()) else "interactions.csv has no rows"
    if len(table):
        reasons += f", where {core_counts(table)}"
        remedy = "add more data"
    return InputError(f"Nothing of {path} is left after the paper's filters, which took {reasons}; {remedy}.")


def core_counts(table: pd.DataFrame) -> str:
    """How many users and items have interactions enough for the five-core, for a sentence."""
    counts = [table[column].value_counts() for column in ("user_id", "item_id")]
    users, items = (f"{(count >= MIN_INTERACTIONS).sum():,} of {len(count):,}" for count in counts)
    return f"{users} users and {items} items have {MIN_INTERACTIONS} or more"


def read_interactions(path: Path) -> pd.DataFrame:
    """``interactions.csv`` as strings, its timestamps as numbers; the index is the line in the file."""
    table = read_table(path, ("user_id", "item_id", "timestamp"))
    times = pd.to_numeric(table["timestamp"], errors="coerce")
    refuse_lines(path, table, "timestamp", ~np.isfinite(times), "is not a number", "give seconds since 1970")
    refuse_lines(path, table, "timestamp", times.abs() >= TOO_LATE, "is after the year 5000", "give seconds since 1970")
    for column in ("user_id", "item_id"):
        refuse_ids(path, table, column)
    return table[["user_id", "item_id"]].assign(timestamp=times.astype(float))


def read_items(path: Path) -> pd.DataFrame:
    """``items.csv``: strings, empty where missing; pictures must lie in the folder."""
    source = path / "items.csv"
    table = read_table(source, ("item_id", "title", "image"), ITEM_COLUMNS)
    columns = {column: table.get(column, "") for column in ITEM_COLUMNS}
    items = pd.DataFrame(columns, index=table.index, dtype=str)
    refuse_ids(source, items, "item_id")
    refuse_lines(source, items, "item_id", items["item_id"].duplicated(), "is there twice", "keep one row")
    outside = items["image"].map(lambda image: bool(image) and leaves_folder(image)).astype(bool)
    refuse_lines(source, items, "image", outside, "leaves the folder", f"give a path below {path}")
    return items


def refuse_near_items(path: Path) -> None:
    """Raise ``InputError`` where a folder without ``items.csv`` looks as if it were to have one."""
    for name in os.listdir(path):
        if name.lower() == "items.csv":
            fault = "is a link to a file that is not there" if name == "items.csv" else "is not called items.csv"
            raise InputError(f"{path / name} {fault}; mend that, or delete it to train on ids alone.")


def leaves_folder(image: str) -> bool:
    """Whether a relative path points elsewhere than below its folder, on any system."""
    return any(
        kind(image).is_absolute() or kind(image).drive or ".." in kind(image).parts
        for kind in (PurePosixPath, PureWindowsPath)
    )


def links_out(folder: Path, name: str) -> bool:
    """Whether ``folder/name``, all links followed, lies elsewhere than below ``folder``."""
    return not Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder))


def check_images(path: Path, items: pd.DataFrame) -> None:
    """Every picture that ``items.csv`` names has to be there, in the folder itself."""
    source = path / "items.csv"
    missing = ~items["image"].map(lambda image: os.path.isfile(path / image)).astype(bool)
    others = f" ({missing.sum() - 1} others neither)" if missing.sum() > 1 else ""
    problem = f"is not there{others}"
    refuse_lines(source, items, "image", missing, problem, "add the picture or leave the field empty")
    outside = items["image"].map(lambda image: links_out(path, image)).astype(bool)
    refuse_lines(source, items, "image", outside, "is a link out of the folder", "put the picture itself there")


def refuse_ids(path: Path, table: pd.DataFrame, column: str) -> None:
    """Raise ``InputError`` for the first id that is empty or holds a control character."""
    refuse_lines(path, table, column, table[column] == "", "is empty", "fill it in")
    control = table[column].str.contains(CONTROL)
    refuse_lines(path, table, column, control, "holds a line end or another control character", "take it out")


def refuse_lines(path: Path, table: pd.DataFrame, column: str, bad: pd.Series, problem: str, remedy: str) -> None:
    """Raise ``InputError`` for the first row of ``table`` that is ``bad``, naming its line and its value."""
    if bad.any():
        line = bad.idxmax()
        raise InputError(f"{path}, line {line}: {column} {quote(table.loc[line, column])} {problem}; {remedy}.")


def read_table(path: Path, required: tuple[str, ...] = (), unique: tuple[str, ...] = ()) -> pd.DataFrame:
    """A CSV file with a header as strings; the index is the line on which a row ends.

    Args:
        required: columns that the file must have, once.
        unique: columns that it may have, once.

    Raises:
        InputError: the file is missing, empty, not UTF-8 or not a table, or its columns are not those asked for.
    """
    tables, rows, lines, first = [], [], [], 1  # the line on which a row begins
    csv.field_size_limit(MAX_LINE)
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(table_lines(path, file), strict=True)
            header = next(filter(None, reader), [])
            check_header(path, header, required, unique)
            first = reader.line_num + 1
            for row in reader:
                if len(rows) == ROWS_AT_ONCE:
                    tables.append(pd.DataFrame(rows, columns=header, index=lines, dtype=str))
                    rows, lines = [], []
                if len(row) == len(header):
                    rows.append(row)
                    lines.append(reader.line_num)
                elif row:
                    raise InputError(
                        f"{path}, line {reader.line_num}: {len(row)} fields, where the first line names "
                        f"{len(header)}; mend that row, fields that hold commas need double quotes."
                    )
                first = reader.line_num + 1
    except FileNotFoundError:
        raise InputError(f"{path} is not there; a dataset folder needs it (see data/README.md).") from None
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); give a file that can.") from None
    except csv.Error as error:
        remedy = "mend the row that begins there, perhaps a double quote is not closed"
        raise InputError(f"{path}, line {first}: {error}; {remedy}.") from None
    tables.append(pd.DataFrame(rows, columns=header, index=pd.Index(lines, dtype="int64"), dtype=str))
    return pd.concat(tables)


def table_lines(path: Path, file: TextIO) -> Iterator[str]:
    """The lines of ``file``, opened with "surrogateescape"; ``InputError`` for one that is not UTF-8 or without end."""
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), ""), start=1):
        if len(line) == MAX_LINE:
            raise InputError(f"{path}, line {number} is longer than {MAX_LINE:,} characters; export it anew as CSV.")
        try:
            line.encode()
        except UnicodeEncodeError:
            raise InputError(f"{path}, line {number}: not UTF-8 text; save the file as UTF-8, a CSV.") from None
        yield line


def check_header(path: Path, header: list[str], required: tuple[str, ...], unique: tuple[str, ...]) -> None:
    """Raise ``InputError`` unless ``header`` has each required column once and no unique one twice."""
    if any("\0" in name for name in header):
        raise InputError(f"{path}, line 1: not UTF-8 text; save the file as UTF-8, a CSV.")
    separators = [separator for separator in (";", "\t") if len(header) == 1 and separator in header[0]]
    if separators:
        raise InputError(f"{path} separates its columns by {separators[0]!r}; save it with commas between them.")
    if header[:1] == ["sep="]:
        raise InputError(f"{path}, line 1: 'sep=,' is for Excel alone; delete that line.")
    wrong = [name for name in required if header.count(name) != 1] + [n for n in unique if header.count(n) > 1]
    if wrong:
        raise InputError(
            f"{path} must have one column {wrong[0]!r}; its first line names {listed(header)}; mend that line."
        )


def listed(header: list[str]) -> str:
    """The columns of a file for a sentence."""
    names = [*map(quote, header[:20]), *(["..."] if len(header) > 20 else [])]
    return ", ".join(names) or "nothing"
