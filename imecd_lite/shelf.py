"""Items as a shopper sees them: a row of pictures with titles."""

# n items on the shelf

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from pathlib import Path

from imecd_lite.dataset import Dataset
from imecd_lite.encoders import open_image
from imecd_lite.errors import InputError, quote

THUMBNAIL_SIZE = 96  # pixels, the longer side
CARD_WIDTH, SMALLEST_CARD, GAP = 116, 72, 6  # pixels
CARDS_IN_A_ROW = 10  # as many fit side by side on a laptop's screen: cards shrink before they wrap
CARD = (
    "padding:2px;min-width:0;border-radius:8px;text-align:center;overflow-wrap:anywhere;"
    "font-size:11px;line-height:1.25;border:2px solid {border};"
)
CLAMP = "display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:4;overflow:hidden;"


@dataclass(frozen=True)
class Card:
    """One item on a shelf."""

    item_id: str
    title: str  # empty where the catalogue has none
    picture: Path | None
    note: str = ""  # a line above the picture
    marked: bool = False  # framed


@dataclass(frozen=True)
class Shelf:
    """A row of cards; a notebook draws it, ``repr`` reads it out."""

    cards: tuple[Card, ...]
    heading: str = ""

    def __repr__(self) -> str:
        lines = [f"{self.heading or 'Shelf'}:"]
        for card in self.cards:
            parts = ("*" if card.marked else " ", card.note, card.item_id, card.title)
            lines.append(" ".join(part for part in parts if part).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """HTML with its pictures inside; all that comes from data is escaped."""
        heading = (
            f'<div style="font-weight:600;line-height:1.35;margin:2px 0">{html.escape(self.heading)}</div>'
            * bool(self.heading)
        )
        noted = any(card.note for card in self.cards)
        cards = "".join(card_html(card, noted) for card in self.cards)
        count = min(max(len(self.cards), 1), CARDS_IN_A_ROW)
        width = f"clamp({SMALLEST_CARD}px,(100% - {GAP * count}px)/{count},{CARD_WIDTH}px)"
        row = f'<div style="display:grid;grid-template-columns:repeat(auto-fill,{width});gap:{GAP}px">{cards}</div>'
        return f'<div class="mathjax_ignore">{heading}{row}</div>'  # two prices in dollars are no formula


def make_shelf(
    dataset: Dataset,
    items: Sequence[int],
    heading: str = "",
    notes: Sequence[str] | None = None,
    marked: int | None = None,
) -> Shelf:
    """A shelf of catalogue items.

    Args:
        items: (n,) indices 1 ... I.
        heading: a line above all.
        notes: (n,) a line above each picture.
        marked: the item to frame, if it is among them.

    Raises:
        InputError: one of ``items`` is no index.
    """
    for item in items:
        if not isinstance(item, Integral) or not 1 <= item <= dataset.num_items:
            raise InputError(f"{quote(item)} is no item; give whole numbers from 1 to {dataset.num_items}.")
    notes = notes if notes is not None else [""] * len(items)
    titles, pictures = [""] * len(items), [None] * len(items)
    if dataset.items is not None:
        rows = dataset.items.iloc[[item - 1 for item in items]]
        titles, pictures = rows["title"], [dataset.path / image for image in rows["image"]]
    return Shelf(
        tuple(
            Card(dataset.item_ids[item - 1], title, picture, note, item == marked)
            for item, title, picture, note in zip(items, titles, pictures, notes, strict=True)
        ),
        heading,
    )


def card_html(card: Card, noted: bool = False) -> str:
    """One card; where others of its shelf are ``noted``, with room for a note."""
    name = html.escape(card.title or card.item_id, quote=True)
    picture = ""
    if card.picture:
        picture = (
            f'<img alt="{name}" src="{thumbnail(card.picture, card.picture.stat().st_mtime_ns)}" '
            f'style="width:100%;max-width:{THUMBNAIL_SIZE}px;aspect-ratio:1;object-fit:contain;border-radius:4px;'
            'margin:0 auto;display:block">'
        )
    note = f'<div style="opacity:.75">{html.escape(card.note) or "&nbsp;"}</div>' if card.note or noted else ""
    style = CARD.format(border="#d55e00" if card.marked else "transparent")
    return f'<div title="{name}" style="{style}">{note}{picture}<div style="{CLAMP}">{name}</div></div>'


@lru_cache(maxsize=4096)
def thumbnail(path: Path, changed: int = 0) -> str:
    """A small PNG of a picture as a data URL; one that has ``changed`` at another time is read anew."""
    image = open_image(path)
    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    buffer = io.BytesIO()
    image.quantize(64).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
