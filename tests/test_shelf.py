"""Shelves of items: what a person sees, with nothing from the data taken for markup."""

import base64
import dataclasses
import io
import os
import re
from html.parser import HTMLParser

import pytest
import tiny
from PIL import Image

from imecd_lite.config import BUNDLED_DATA
from imecd_lite.dataset import load_dataset
from imecd_lite.errors import InputError
from imecd_lite.shelf import CARD_WIDTH, GAP, SMALLEST_CARD, THUMBNAIL_SIZE, Card, Shelf, make_shelf, thumbnail


@pytest.fixture(scope="module")
def shop():
    return load_dataset(BUNDLED_DATA / "shop")


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def pictures(shelf: Shelf) -> list[dict]:
    return [attributes for tag, attributes in Tags(shelf._repr_html_()).found if tag == "img"]


def test_items_stand_in_order_with_their_own_titles_and_pictures(shop):
    shelf = make_shelf(shop, [3, 1, 7])
    assert [card.item_id for card in shelf.cards] == ["T0003", "T0001", "T0007"]
    titles = [shop.items["title"][row] for row in (2, 0, 6)]
    assert [picture["alt"] for picture in pictures(shelf)] == titles
    for card, picture in zip(shelf.cards, pictures(shelf), strict=True):
        assert picture["src"] == thumbnail(shop.path / f"images/{card.item_id}.png")


def test_a_thumbnail_is_a_small_picture_of_the_file(tmp_path):
    Image.new("RGB", (400, 200), "red").save(tmp_path / "wide.jpg")
    data = thumbnail(tmp_path / "wide.jpg").removeprefix("data:image/png;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (THUMBNAIL_SIZE, THUMBNAIL_SIZE // 2)
    assert image.convert("RGB").getpixel((5, 5))[0] > 240


def test_a_picture_that_has_changed_is_drawn_anew(tmp_path):
    path = tmp_path / "1.png"
    Image.new("RGB", (9, 9), "red").save(path)
    shelf = Shelf((Card("1", "One", path),))
    before = pictures(shelf)[0]["src"]
    Image.new("RGB", (9, 9), "blue").save(path)
    os.utime(path, (1, 1))
    assert pictures(shelf)[0]["src"] != before


def test_prices_are_no_formula():
    """JupyterLab's typesetter leaves out what is in a tag of this class."""
    shelf = Shelf((Card("1", "Gift card, $25 to $50", None),))
    assert Tags(shelf._repr_html_()).found[0] == ("div", {"class": "mathjax_ignore"})


def test_markup_from_data_is_shown_and_never_rendered(shop):
    evil = '<script>alert("1")</script><img src=x onerror=1> & "quoted"'
    items = shop.items.assign(title=evil)
    dataset = dataclasses.replace(shop, items=items)
    page = make_shelf(dataset, [1], heading=evil, notes=[evil])._repr_html_()
    tags = [tag for tag, _ in Tags(page).found]
    assert "script" not in tags
    assert tags.count("img") == 1
    assert Tags(page).found[-2][1]["alt"] == evil


def test_the_marked_item_alone_is_framed(shop):
    cards = re.findall(r"border:2px solid (#\w+|transparent)", make_shelf(shop, [5, 6, 7], marked=6)._repr_html_())
    assert cards == ["transparent", "#d55e00", "transparent"]


@pytest.mark.parametrize(("items", "columns"), [(1, 1), (6, 6), (10, 10), (19, 10)])
def test_cards_shrink_before_they_wrap(shop, items, columns):
    page = make_shelf(shop, range(1, items + 1))._repr_html_()
    assert f"clamp({SMALLEST_CARD}px,(100% - {GAP * columns}px)/{columns},{CARD_WIDTH}px)" in page


def test_a_shelf_reads_itself_out():
    shelf = Shelf((Card("a", "Ball", None, "1"), Card("b", "", None, marked=True)), "Two things")
    assert repr(shelf) == "Two things:\n  1 a Ball\n* b"


def test_a_catalogue_without_pictures_is_shown_by_its_ids():
    shelf = make_shelf(tiny.tiny_dataset(), [1, 2])
    assert pictures(shelf) == []
    assert all(card.item_id in shelf._repr_html_() for card in shelf.cards)


def test_notes_have_to_be_as_many_as_items(shop):
    with pytest.raises(ValueError, match="argument"):
        make_shelf(shop, [1, 2], notes=["one"])


@pytest.mark.parametrize("item", [0, -1, 10_000, "T0001", 1.0])
def test_what_is_no_item_is_named(shop, item):
    with pytest.raises(InputError, match=f"{re.escape(repr(item))} is no item; give whole numbers from 1 to"):
        make_shelf(shop, [1, item])
