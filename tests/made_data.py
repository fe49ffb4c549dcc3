"""Small made-up dataset folders."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def write_csv(path: Path, header: tuple[str, ...], rows: list[tuple]) -> Path:
    """A CSV file with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


def write_ids(folder: Path, num_users: int = 30, num_items: int = 12, seed: int = 0) -> Path:
    """An ids-only dataset that the filters leave whole: users U000 ..., items I000 ..., times rising."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = [
        (f"U{user:03}", f"I{item:03}", 1000 * user + step)
        for user in range(num_users)
        for step, item in enumerate(rng.permutation(num_items)[: rng.integers(7, num_items + 1)])
    ]
    write_csv(folder / "interactions.csv", ("user_id", "item_id", "timestamp"), rows)
    return folder


def write_shop(folder: Path, num_users: int = 30, num_items: int = 12, seed: int = 0) -> Path:
    """``write_ids`` with titles and little pictures, one colour an item."""
    write_ids(folder, num_users, num_items, seed)
    (folder / "images").mkdir(exist_ok=True)
    rows = []
    for item in range(num_items):
        colour = (20 * item, 255 - 20 * item, 60 + 10 * item)
        Image.new("RGB", (16, 16), colour).save(folder / f"images/I{item:03}.png")
        rows.append((f"I{item:03}", f"Thing {item}", "Acme", "Things|Small", "A thing.", f"images/I{item:03}.png"))
    write_csv(folder / "items.csv", ("item_id", "title", "brand", "category", "description", "image"), rows)
    return folder
