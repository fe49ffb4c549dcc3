"""A shop's own tables, CSV or Parquet, and its pictures -> a dataset folder: ``prepare csv``."""

from __future__ import annotations

import os
import re
import shutil
from functools import partial
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from imecd_lite.dataset import (
    CONTROL,
    TOO_LATE,
    core_counts,
    five_core,
    leaves_folder,
    links_out,
    listed,
    read_table,
    refuse_lines,
)
from imecd_lite.encoders import TOO_DEEP, open_image
from imecd_lite.errors import InputError, quote
from imecd_lite.files import write_atomically
from imecd_lite.prepare import DROPPED_FILE, DropLog, plain_text, refuse_existing, staged, write_tables

OPTIONS = {
    "user_id": "--user-column",
    "item_id": "--item-column",
    "timestamp": "--timestamp-column",
    "items_item_id": "--items-item-column",
    "title": "--title-column",
    "brand": "--brand-column",
    "category": "--category-column",
    "description": "--description-column",
    "image": "--image-column",
}
"""The option that says how the shop's files call each of our columns."""
TEXT_COLUMNS = ("title", "brand", "category", "description")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
ISO_DATE = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?"
TIME_ZONE = r"(?:Z|[+-]\d\d:?\d\d)$"
COMPACT_DATE = r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{4}(?:\d\d)?)?"
ROUNDED = r"\d(?:[.]\d{1,5})?[Ee][+]?\d\d"
"""How spreadsheets write long numbers, such as the milliseconds of today."""
MISSING = ["nan", "NaN", "NaT", "<NA>", "N/A", "#N/A", "NULL", "null", "None", r"\N"]
"""How exports write that a field is empty."""
MAX_ID = 1000
"""Characters; longer ids are texts that slipped into the column."""
OTHER_TYPES = re.compile("binary|extension")
"""Parquet's types that are no text, number or time."""
PARQUET_ROWS = 4096
"""That are read at a time."""
MAX_TABLE = 4_000_000_000
"""Bytes of text in a Parquet file, which may unpack to any size."""


def prepare_csv(
    interactions: Path | str,
    items: Path | str | None,
    images: Path | str | None,
    output: Path | str,
    columns: dict[str, str],
    progress: bool = False,
) -> list[str]:
    """Make the dataset folder ``output`` of a shop's tables and pictures.

    Args:
        interactions: who bought what and when, CSV or Parquet.
        items: what the items are, likewise; None makes an ids-only dataset.
        images: folder of the pictures that the image column names or that are called after an item's id; where it is
            None, the image column's paths start at the folder of ``items``.
        output: must not exist.
        columns: how the files call one of our columns (see ``OPTIONS``) where it is otherwise than we do.
        progress: show bars.

    Returns:
        What was left out, a line for each reason; ``dropped.csv`` in ``output`` has the rows.

    Raises:
        InputError: a file is missing, broken or not what its option says, or too little of it would be left.
    """
    interactions, output = Path(interactions), Path(output)
    items, images = (path and Path(path) for path in (items, images))
    if unknown := [name for name in columns if name not in OPTIONS]:
        raise InputError(f"columns names {listed(unknown)}, none of ours; ours are {', '.join(OPTIONS)}.")
    refuse_existing(output)  # before the long work on pictures
    if images and not items:
        raise InputError(f"--images {images} has pictures of the items in --items FILE; give that, too.")
    if images and not images.is_dir():
        raise InputError(f"--images {images} is not there, or no folder; name the folder of the pictures.")
    sales, goods = read_source(interactions), read_source(items) if items else None
    refuse_swapped(interactions, sales, items, goods, columns)
    sales = pick_columns(interactions, sales, ("user_id", "item_id", "timestamp"), (), columns)
    of_rows = {"timestamp is empty": sales["timestamp"] == "", "the same row is there already": sales.duplicated()}
    sales["reason"] = first_reason(unfit(sales, "user_id") | unfit(sales, "item_id") | of_rows)
    times = read_times(interactions, kept(sales))
    if items:
        goods = pick_columns(items, goods, ("item_id", "title"), (*TEXT_COLUMNS[1:], "image"), of_items(columns))
        refuse_strangers(interactions, kept(sales), items, goods)
        goods = judge_goods(goods, items.parent, images, progress)
        if kept(goods).empty:
            remedy = "give titles and pictures (--images DIR), or leave --items out to train on ids alone"
            raise InputError(f"Nothing of {items} is left: {told(goods)}; {remedy}.")
        sales["reason"] = sales["reason"].where(sales["reason"] != "", reasons_of_items(sales, goods, items.name))
    left = kept(sales).assign(timestamp=times)
    if (items_left := five_core(left)["item_id"].nunique()) < 2:  # to rank takes two
        counts = f"of the other {len(left):,}, {core_counts(left)}" if len(left) else "there are no others"
        much = "One item alone" if items_left else "Nothing"
        raise InputError(f"{much} of {interactions} would be left: {told(sales)}; {counts}; add more data.")
    settings = {"interactions": str(interactions), "items": str(items), "images": str(images), "columns": columns}
    with staged(output, {"command": "prepare csv"} | settings) as folder, DropLog(folder / DROPPED_FILE) as log:
        log_dropped(log, interactions, sales)
        if items:
            log_dropped(log, items, goods)
            goods = kept(goods).assign(image=copy_pictures(kept(goods)["picture"], folder, progress))
        write_tables(folder, left, goods)
    return log.lines()


def kept(table: pd.DataFrame) -> pd.DataFrame:
    """The rows without a reason to leave them out."""
    return table[table["reason"] == ""]


def log_dropped(log: DropLog, source: Path, table: pd.DataFrame) -> None:
    """Write the rows of ``table`` that have a reason to the log."""
    dropped = table[table["reason"] != ""]
    names = dropped["item_id"].str.replace(CONTROL, " ", regex=True)
    for line, name, reason in zip(dropped.index, names, dropped["reason"], strict=True):
        log.drop(str(source), line, name, reason)


def told(table: pd.DataFrame) -> str:
    """What was left out, for a sentence."""
    counts = table["reason"][table["reason"] != ""].value_counts()
    return ", ".join(f"{count:,} left out ({reason})" for reason, count in counts.items()) or "no row is left out"


def read_source(path: Path) -> pd.DataFrame:
    """A CSV or Parquet file as strings, empty where missing; the index is the line, of Parquet the row from 1."""
    if not path.is_file():
        raise InputError(
            f"{path} is {'a folder' if path.is_dir() else 'not there'}; give the path of a CSV or Parquet file."
        )
    table = read_parquet(path) if path.suffix.lower() == ".parquet" else read_table(path)
    if table.columns.empty:
        raise InputError(f"{path} is empty; export it anew, with the names of its columns in the first line.")
    if table.empty:
        raise InputError(f"{path} has no rows, only the names of its columns; export it anew.")
    return table


def read_parquet(path: Path) -> pd.DataFrame:
    """The columns of a Parquet file that are text, numbers or times, as strings."""
    import pyarrow
    from pyarrow import compute, parquet, types

    try:
        with parquet.ParquetFile(path) as file:
            others = [f.name for f in file.schema_arrow if types.is_nested(f.type) or OTHER_TYPES.search(str(f.type))]
            names = [name for name in file.schema_arrow.names if name not in others]
            tables, size = [pyarrow.schema([(name, pyarrow.string()) for name in names]).empty_table()], 0
            for batch in file.iter_batches(PARQUET_ROWS, columns=names):
                texts = [compute.fill_null(column.cast(pyarrow.string()), "") for column in batch.columns]
                tables.append(pyarrow.table(texts, names=names))
                size += tables[-1].nbytes
                if size > MAX_TABLE:
                    raise InputError(f"{path} unpacks to more than {MAX_TABLE / 1e9:g} GB of text; give it in parts.")
        table = pyarrow.concat_tables(tables)
        table.validate(full=True)  # UTF-8, say
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{path} is not a whole Parquet file of text, numbers and times ({reason}); export it anew."
        ) from None
    frame = table.to_pandas()
    return frame.set_index(pd.RangeIndex(1, len(frame) + 1))


def of_items(columns: dict[str, str]) -> dict[str, str]:
    """``columns`` for the file of items, which may call the item's id otherwise."""
    return columns | {"item_id": columns.get("items_item_id") or columns.get("item_id", "item_id")}


def refuse_swapped(
    interactions: Path, sales: pd.DataFrame, items: Path | None, goods: pd.DataFrame | None, columns: dict[str, str]
) -> None:
    """Raise ``InputError`` where each file has more of the columns that the other should have than of its own."""
    if goods is None:
        return
    of_sales = {columns.get(name, name) for name in ("user_id", "item_id", "timestamp")}
    of_goods = {of_items(columns).get(name, name) for name in ("item_id", *TEXT_COLUMNS, "image")}
    here, there = set(sales.columns), set(goods.columns)
    own, others = (len(of_sales & one) + len(of_goods & other) for one, other in ((here, there), (there, here)))
    strayed = sorted(of_sales & there - here)
    if strayed and others > own:
        raise InputError(
            f"The files seem swapped: {items} has {listed(strayed)}, which {interactions} should have; "
            "swap --interactions and --items."
        )


def pick_columns(
    source: Path, table: pd.DataFrame, required: tuple[str, ...], optional: tuple[str, ...], columns: dict[str, str]
) -> pd.DataFrame:
    """The columns of a shop's file by our names, stripped; optional ones that it has not are empty.

    Raises:
        InputError: a column is missing, there twice, or meant to be two things at once.
    """
    header, picked = list(table.columns), {}
    for ours in (*required, *optional):
        theirs = columns.get(ours, ours)
        option = OPTIONS["items_item_id" if ours == "item_id" and optional else ours]
        count = header.count(theirs)
        if count > 1 or (count == 0 and (ours in required or ours in columns)):
            found = f"it has {count or 'no'} {quote(theirs)} but {listed(header)}"
            raise InputError(f"{source} must have one column for {ours}, and {found}; name it with {option}.")
        picked[ours] = table[theirs].str.strip().replace(MISSING, "") if count else ""
    names = [columns.get(name, name) for name in required]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"{source}: column {quote(name)} is named twice; name one each for {' and '.join(required)}."
            )
    return pd.DataFrame(picked, index=table.index, dtype=str)


def unfit(table: pd.DataFrame, name: str) -> dict[str, pd.Series]:
    """Which ids in column ``name`` can't be ids, by reason."""
    return {
        f"{name} is empty": table[name] == "",
        f"{name} holds a control character": table[name].str.contains(CONTROL),
        f"{name} has more than {MAX_ID} characters": table[name].str.len() > MAX_ID,
    }


def first_reason(checks: dict[str, pd.Series]) -> np.ndarray:
    """For each row the first of the reasons that hold, empty if none does."""
    masks = [mask.to_numpy(bool) for mask in checks.values()]
    return np.select(masks, list(checks), default="").astype(object)


def read_times(source: Path, table: pd.DataFrame) -> pd.Series:
    """The timestamps of ``table`` in seconds since 1970, whether they are numbers or dates.

    Raises:
        InputError: one is neither, or could be read in two ways.
    """
    text = table["timestamp"]
    numbers = pd.to_numeric(text, errors="coerce").astype(float)
    numeric = np.isfinite(numbers)

    def refuse(bad: pd.Series, problem: str, remedy: str) -> None:
        refuse_lines(source, table, "timestamp", bad, problem, remedy)

    if numeric.any():
        refuse(~numeric, "is not a number, as others in its column are", "write all in one way")
        compact = numbers.map("{:.15g}".format).str.fullmatch(COMPACT_DATE)  # 20240531.0, too
        refuse(compact & compact.all(), "may be a date or a number", "write dates as 2024-05-31")
        rounded = text.str.fullmatch(ROUNDED)  # all of them: an exact one may be as short
        refuse(rounded & rounded.all(), "is a rounded number", "show the whole of it in the spreadsheet, export anew")
        for _ in ("milliseconds", "microseconds", "nanoseconds"):
            if numbers.abs().min() >= TOO_LATE:
                numbers = numbers / 1000
        refuse(numbers.abs() >= TOO_LATE, "is no time in seconds since 1970, as others are", "write all in one unit")
    else:
        moments = pd.to_datetime(text.where(text.str.fullmatch(ISO_DATE)), format="ISO8601", utc=True, errors="coerce")
        refuse(
            moments.isna(),
            "is neither a number nor a date such as 2024-05-31 or 2024-05-31T18:30:00Z",
            "write it so, or name the column of times with --timestamp-column",
        )
        zoned = text.str.contains(TIME_ZONE)
        refuse(~zoned & zoned.any(), "has no time zone, and others have", "give it to all or none")
        numbers = (moments - pd.Timestamp("1970-01-01", tz="UTC")) / pd.Timedelta(seconds=1)
        refuse(numbers.abs() >= TOO_LATE, "is after the year 5000", "leave out what has no date")
    whole = (numbers == numbers.round()).all()
    return numbers.astype("int64") if whole else numbers.astype(float)


def refuse_strangers(interactions: Path, sales: pd.DataFrame, items: Path, goods: pd.DataFrame) -> None:
    """Raise ``InputError`` where not one interaction is with an item that is described."""
    if sales.empty or goods.empty or sales["item_id"].isin(goods["item_id"]).any():
        return
    if sales["user_id"].isin(goods["item_id"]).any():
        raise InputError(f"The user ids of {interactions} are items of {items}; swap --user-column and --item-column.")
    one, other = quote(sales["item_id"].iloc[0]), quote(goods["item_id"].iloc[0])
    raise InputError(
        f"No item of {interactions}, such as {one}, is in {items}, whose items are such as {other}; "
        "write the ids alike, or name the columns that hold the same with --item-column and --items-item-column."
    )


def reasons_of_items(sales: pd.DataFrame, goods: pd.DataFrame, name: str) -> np.ndarray:
    """Why an interaction can't be kept for its item's sake, empty if it can; ``name`` is that of the file of items."""
    return first_reason(
        {
            f"no row of {name} describes its item": ~sales["item_id"].isin(goods["item_id"]),
            "its item is left out": ~sales["item_id"].isin(kept(goods)["item_id"]),
        }
    )


def judge_goods(goods: pd.DataFrame, base: Path, images: Path | None, progress: bool) -> pd.DataFrame:
    """The items with plain texts, the path of each one's "picture", and the "reason" to leave it out, if any.

    Of several rows of an item the first that lacks nothing stays.
    """
    goods = goods.assign(**{column: goods[column].map(plain_text) for column in TEXT_COLUMNS}, picture=None)
    goods["reason"] = first_reason(
        {
            **unfit(goods, "item_id"),
            "it has no text": (goods[["title", "brand", "category"]] == "").all(axis=1),
        }
    )
    candidates = sorted(images.iterdir()) if images else []
    # by item id; macOS takes the accents apart in names of files
    by_id = {normalize("NFC", path.stem): path for path in candidates if path.suffix.lower() in PICTURE_SUFFIXES}
    rows = kept(goods)[["item_id", "image"]]
    for line, item_id, named in tqdm(rows.itertuples(), "pictures", len(rows), disable=not progress):
        own = by_id.get(normalize("NFC", item_id))
        path = Path(images or base, named) if named else own
        goods.at[line, "reason"] = why_no_picture(images or base, path, named)
        goods.at[line, "picture"] = path
    complete = kept(goods)["item_id"]
    goods.loc[complete.index[complete.duplicated()], "reason"] = "item_id has a row already"
    return goods


def why_no_picture(folder: Path, path: Path | None, named: str) -> str:
    """What keeps ``path`` from being a picture in ``folder``, which its row ``named``; empty if nothing does."""
    if path is None:
        return "it has no picture"
    if leaves_folder(named) or (os.path.isfile(path) and links_out(folder, path.relative_to(folder))):
        return "its picture's path is not one below the folder of pictures"
    if not os.path.isfile(path):
        return "its picture is not there"
    try:
        open_image(path)
    except InputError as error:
        return "its picture can't be read " + (f"({TOO_DEEP})" if TOO_DEEP in str(error) else "as one")
    return ""


def copy_pictures(pictures: pd.Series, folder: Path, progress: bool) -> list[str]:
    """Copy pictures below ``folder``, under numbers for names; returns the paths there."""
    shutil.rmtree(folder / "images", ignore_errors=True)  # what an interrupted command left
    suffixes = (source.suffix.lower() for source in pictures)
    names = [f"images/{n:06}{suffix if suffix in PICTURE_SUFFIXES else ''}" for n, suffix in enumerate(suffixes, 1)]
    for name, source in zip(names, tqdm(pictures, "copies", disable=not progress), strict=True):
        write_atomically(folder / name, partial(shutil.copyfile, source))
    return names
