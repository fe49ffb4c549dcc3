"""Made-up files in the format of the Amazon review data of 2018."""

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image


def asin(item: int) -> str:
    """B000000007."""
    return f"B{item:09}"


def reviews(num_users: int, num_items: int, seed: int = 0) -> Iterator[dict]:
    """Reviews, 5 to 8 different items a user; with as many users as items every item has five."""
    rng = np.random.default_rng(seed)
    for user in range(num_users):
        for step in range(rng.integers(5, 9)):
            yield {
                "overall": 5.0,
                "vote": "1,234",
                "verified": True,
                "reviewTime": "09 4, 2015",
                "reviewerID": f"A{user:012}",
                "asin": asin((7 * user + step) % num_items),
                "style": {"Color:": " Blue"},
                "reviewerName": f"Reviewer {user}",
                "reviewText": "Great product and price! " * int(rng.integers(1, 20)),
                "summary": "Five Stars",
                "unixReviewTime": 1441324800 + 86400 * int(rng.integers(0, 400)),
            }


def metadata(num_items: int, pictures: str) -> Iterator[dict]:
    """A record for each item, its picture named below the address ``pictures``."""
    for item in range(num_items):
        yield {
            "category": ["Musical Instruments", "Drums &amp; Percussion", "</span></span></span>"],
            "tech1": "",
            "description": ["A <b>drum</b>.", "Loud. " * (item % 50)],
            "fit": "",
            "title": f"Drum No. {item} &amp; Sticks",
            "also_buy": [],
            "brand": "Acme",
            "feature": [],
            "rank": [">#2,623,937 in Toys &amp; Games (See Top 100 in Toys &amp; Games)"],
            "main_cat": "Musical Instruments",
            "price": "",
            "asin": asin(item),
            "details": {"ASIN:": "B000000000"},
            "imageURL": [f"{pictures}/images/I/{item}._SS40_.jpg"],
            "imageURLHighRes": [f"{pictures}/images/I/{item}.jpg"],
        }


def picture_path(item: int) -> str:
    """Where the server has the picture of an item, in the size that is asked for."""
    return f"/images/I/{item}._SL448_.jpg"


def picture(item: int, kind: str = "JPEG", size: tuple[int, int] = (16, 16)) -> bytes:
    """A little picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, (item % 256, 100, 200)).save(file, kind)
    return file.getvalue()


def packed(records: Iterator[dict]) -> bytes:
    """gzip of JSON, one record a line."""
    return gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode(), mtime=0)


def write(path: Path, records: Iterator[dict]) -> Path:
    """A plain file, one record a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
