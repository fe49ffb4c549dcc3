"""Amazon review data, release of 2018 (Ni, Li and McAuley, EMNLP 2019), as a dataset folder (section IV-A1)."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import zlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from imecd_lite import paper
from imecd_lite.dataset import MIN_INTERACTIONS, five_core
from imecd_lite.errors import InputError
from imecd_lite.fetch import POLITE, Manners, download, fetch_pictures
from imecd_lite.files import write_atomically
from imecd_lite.prepare import DROPPED_FILE, MAX_TEXT, DropLog, plain_text, staged, write_tables

DATASETS = {
    "Toys_and_Games": "Toys",
    "Video_Games": "Games",
    "Musical_Instruments": "Instruments",
    "Grocery_and_Gourmet_Food": "Food",
}
"""The paper's four sets: their names in the release and in Table I."""
BASE_URL = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2"
FILES = {"reviews": "categoryFilesSmall/{}_5.json.gz", "metadata": "metaFiles2/meta_{}.json.gz"}
"""Where the release keeps the 5-core reviews and the metadata of a set."""
REPORT_FILE = "report.txt"
OUTSIDE = f"outside the {MIN_INTERACTIONS}-core"
MAX_LINE = 10_000_000
"""Bytes; a longer line is a broken one."""
LONGEST_SIDE = 448
"""Pixels of the pictures asked for: a ViT sees 224 x 224, so up to twice as long as wide they are not enlarged."""


class Item(NamedTuple):
    """What is kept of a metadata record."""

    line: int
    title: str
    brand: str
    category: str
    description: str
    url: str  # of its picture

    @property
    def lacks(self) -> str:
        """Why the paper drops it, or ""."""
        if not (self.title or self.brand or self.category):
            return "no text"
        return "" if self.url else "no picture named"


def prepare_amazon(
    output: Path | str,
    dataset: str | None = None,
    reviews: Path | str | None = None,
    metadata: Path | str | None = None,
    base_url: str = BASE_URL,
    manners: Manners = POLITE,
    progress: bool = False,
) -> str:
    """Make a dataset folder; an interrupted call is gone on with by the same call, to the same bytes.

    Args:
        output: the folder; must not exist.
        dataset: one of ``DATASETS``; what ``reviews`` or ``metadata`` does not give is downloaded.
        reviews, metadata: files of the release, gzip or plain.

    Returns:
        The report: the row of Table I beside the paper's, and what was dropped. It is also in the folder.

    Raises:
        InputError: a file is not there, not whole or not of this format, or the network is down.
    """
    output = Path(output)
    paths = {kind: path and Path(path) for kind, path in {"reviews": reviews, "metadata": metadata}.items()}
    if dataset is None and None in paths.values():
        raise InputError("Name a --dataset to download, or both --reviews and --meta, files that are here.")
    if dataset not in (None, *DATASETS):
        raise InputError(f"There is no dataset {dataset!r} here; the datasets are {', '.join(DATASETS)}.")
    for path in filter(None, paths.values()):
        if not path.is_file():
            raise InputError(f"{path} is not there, or no file; name a file of the 2018 release.")
    given = {kind: path and f"{path.name}, {path.stat().st_size} bytes" for kind, path in paths.items()}
    with staged(output, {"source": "amazon", "dataset": dataset, **given}) as folder:
        raw = folder / "raw"  # what the finished folder does not keep
        if not (folder / REPORT_FILE).exists():
            for kind, path in paths.items():
                if path is None:
                    paths[kind] = raw / f"{kind}.json.gz"
                    download(f"{base_url}/{FILES[kind].format(dataset)}", paths[kind], manners, progress)
            report = make_folder(folder, paths, DATASETS.get(dataset), manners, progress)
            write_atomically(folder / REPORT_FILE, lambda path: path.write_text(report, encoding="utf-8"))
        if raw.exists():
            shutil.rmtree(raw)
    return (output / REPORT_FILE).read_text(encoding="utf-8")


def make_folder(folder: Path, paths: dict[str, Path], name: str | None, manners: Manners, progress: bool) -> str:
    """Write tables, pictures and the account of what was dropped; returns the report."""
    with DropLog(folder / DROPPED_FILE) as log:
        table = read_reviews(paths["reviews"], log)
        reviewed = table["item_id"].unique()
        items = read_metadata(paths["metadata"], set(reviewed), log)
        reasons = {asin: items[asin].lacks if asin in items else "not in the metadata" for asin in reviewed}
        table = filtered(table, reasons, log)
        urls = {file_name(asin): items[asin].url for asin in table["item_id"].unique()}
        pictures, failed = fetch_pictures(urls, folder / "images", folder / "raw" / "failed", manners, progress)
        reasons |= {asin: f"picture: {failed[file_name(asin)]}" for asin in items if file_name(asin) in failed}
        table = filtered(table, reasons, log)
        if table.empty:
            raise InputError(
                f"Nothing of {paths['reviews']} is left after the paper's filters ({'; '.join(log.lines()[:3])}); "
                f"{log.file.name} says why, line by line."
            )
        shown = {asin: pictures[file_name(asin)] for asin in sorted(table["item_id"].unique())}
        for asin, item in items.items():
            if asin not in shown:
                log.drop("metadata", item.line, asin, reasons[asin] or OUTSIDE)
    for path in set((folder / "images").iterdir()) - set(shown.values()):
        path.unlink()
    texts = ({**items[asin]._asdict(), "item_id": asin, "image": f"images/{shown[asin].name}"} for asin in shown)
    write_tables(folder, table, pd.DataFrame(texts))
    users = table["user_id"].nunique()
    here = compare((users, len(shown), len(table), len(table) / users), name)
    return "\n".join([*here, log.account("reviews", len(table)), log.account("metadata", len(shown)), *log.lines(), ""])


def filtered(table: pd.DataFrame, reasons: dict[str, str], log: DropLog) -> pd.DataFrame:
    """The reviews that the paper's filters leave, given why items are dropped, "" for those that are not."""
    table = leave_out(log, table, np.array([reasons[asin] for asin in table["item_id"]], dtype=object))
    return leave_out(log, table, np.where(table.index.isin(five_core(table).index), "", OUTSIDE))


def read_reviews(path: Path, log: DropLog) -> pd.DataFrame:
    """The reviews in order: user_id and item_id, categorical, timestamp and line.

    Where a user reviewed an item more than once the earliest review stays.
    """
    users, items = {}, {}
    columns = {"user_id": array("i"), "item_id": array("i"), "timestamp": array("d"), "line": array("q")}
    for line, review in records(path, "reviews", {"reviewerID": is_id, "asin": is_id, "unixReviewTime": is_time}, log):
        columns["user_id"].append(users.setdefault(review["reviewerID"], len(users)))
        columns["item_id"].append(items.setdefault(review["asin"], len(items)))
        columns["timestamp"].append(review["unixReviewTime"])
        columns["line"].append(line)
    table = pd.DataFrame({name: np.asarray(column) for name, column in columns.items()})
    for name, ids in {"user_id": users, "item_id": items}.items():
        table[name] = pd.Categorical.from_codes(table[name], list(ids))
    if (table["timestamp"] % 1 == 0).all():
        table["timestamp"] = table["timestamp"].astype(np.int64)
    again = table.sort_values("timestamp", kind="stable").duplicated(["user_id", "item_id"]).reindex(table.index)
    return leave_out(log, table, np.where(again, "the user's earlier review stays", ""))


def leave_out(log: DropLog, table: pd.DataFrame, why: np.ndarray) -> pd.DataFrame:
    """The reviews without those that have a reason (n,) in ``why``, which are written to the log."""
    dropped = table[why != ""]
    for line, item, reason in zip(dropped["line"], dropped["item_id"], why[why != ""], strict=True):
        log.drop("reviews", line, item, reason)
    return table[why == ""]


def read_metadata(path: Path, wanted: set[str], log: DropLog) -> dict[str, Item]:
    """The items that are ``wanted``, by id. Of several records the first that lacks nothing stays, else the first."""
    items: dict[str, Item] = {}
    for line, record in records(path, "metadata", {"asin": is_id}, log):
        asin = record["asin"]
        if asin not in wanted:
            log.drop("metadata", line, asin, "no review names it")
            continue
        item = Item(
            line,
            # a few titles are the script of a page; the publishers of the data leave them out, too
            "" if "getTime" in str(record.get("title")) else text(record.get("title")),
            text(record.get("brand")),
            text(record.get("category"), "|"),
            text(record.get("description")),
            picture_url(record),
        )
        if asin in items:
            better, worse = (item, items[asin]) if items[asin].lacks and not item.lacks else (items[asin], item)
            log.drop("metadata", worse.line, asin, "another record of the item stays")
            item = better
        items[asin] = item
    return items


def records(
    path: Path, source: str, checks: dict[str, Callable[[object], bool]], log: DropLog
) -> Iterator[tuple[int, dict]]:
    """The records of a file and their lines; those whose fields fail their checks are written to the log.

    Raises:
        InputError: most rows fail, or there are none.
    """
    bad, fields = 0, ", ".join(checks)
    for number, line in enumerate(lines(path), start=1):
        for record in parse(line):
            log.rows[source] += 1
            if isinstance(record, dict) and all(check(record.get(name)) for name, check in checks.items()):
                yield number, record
            else:
                log.drop(source, number, "", f"no JSON object with {fields}")
                bad += 1
        if bad > 100 + log.rows[source] / 2:
            break
    else:
        if not log.rows[source]:
            raise InputError(f"{path} is empty; delete it and get it anew.")
        if bad < log.rows[source]:
            return
    raise InputError(
        f"{path} is not {source} of the 2018 release: {bad} of its first {log.rows[source]} rows are no JSON objects "
        f"with {fields}, one a line; delete it and get it anew."
    )


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a plain file or a gzip; in the place of one longer than ``MAX_LINE`` a brace, which is no JSON."""
    try:
        with path.open("rb") as plain, gzip.open(plain) if plain.peek(2)[:2] == b"\x1f\x8b" else plain as file:
            while given := (part := file.readline(MAX_LINE)):
                while len(part) == MAX_LINE and not part.endswith(b"\n"):
                    given, part = b"{", file.readline(MAX_LINE)
                yield given
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is not a whole gzip file ({error}); delete it and get it anew.") from None


def parse(line: bytes) -> list[object]:
    """The values on a line, in which an array may begin, go on or end; None for what is not JSON."""
    try:
        return json.loads("[" + line.decode("utf-8-sig").strip().strip(",").removeprefix("[").removesuffix("]") + "]")
    except (ValueError, RecursionError):
        return [None]


def is_id(value: object) -> bool:
    """Whether this can name a user or an item."""
    return isinstance(value, str) and 0 < len(value) <= 64 and value.isprintable() and value == value.strip()


def is_time(value: object) -> bool:
    """Whether this can be a number of seconds since 1970."""
    return type(value) in (int, float) and abs(value) < 1e11


def text(value: object, separator: str = " ") -> str:
    """Plain text of a string or a list of strings; "" where there is none."""
    parts = value[:100] if isinstance(value, list) else [value]
    texts = (plain_text(part) for part in parts if isinstance(part, str))
    return separator.join(filter(None, texts))[:MAX_TEXT]


def picture_url(record: dict) -> str:
    """The address of an item's first picture, where Amazon's scheme allows in the size that is needed; "" for none."""
    for field in ("imageURLHighRes", "imageURL"):
        urls = record.get(field)
        for url in urls if isinstance(urls, list) else [urls]:
            if isinstance(url, str) and len(url) < 2000 and url.isprintable() and re.match("https?://", url):
                return re.sub(r"(/images/I/[^/.]+)(\._[^/]*_)?(\.\w+)$", rf"\1._SL{LONGEST_SIDE}_\3", url)
    return ""


def file_name(asin: str) -> str:
    """A file name that is safe on any system, without its ending: a proper ASIN itself, anything else as a hash."""
    return asin if re.fullmatch("[A-Z0-9]{10}", asin) else hashlib.sha256(asin.encode()).hexdigest()[:32]


def compare(here: tuple[float, ...], name: str | None) -> list[str]:
    """The row of Table I and, for one of the paper's sets, the paper's and the difference."""
    shown = {"here": (*map("{:,}".format, here[:3]), f"{here[3]:.2f}")}
    if name is not None:
        printed = paper.TABLE1.set_index("dataset").loc[name].tolist()
        shown["paper"] = (*(f"{value:,.0f}" for value in printed[:3]), f"{printed[3]:.2f}")
        shown["difference"] = tuple(f"{ours / theirs - 1:+z.1%}" for ours, theirs in zip(here, printed, strict=True))
    columns = ("users", "items", "interactions", "average length")
    return pd.DataFrame.from_dict(shown, orient="index", columns=columns).to_string().split("\n")
