"""Make data/toy_corner: what the till of a small toy shop exports, with the dirt of real exports.

It is a corner of the teaching shop with another seed, and without toys that mislead. `data/README.md` lists the dirt.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from imecd_lite.config import BUNDLED_DATA
from imecd_lite.shop import (
    Click,
    Item,
    chance,
    describe,
    make_clicks,
    make_items,
    make_users,
    pick,
    user_name,
    write_csv,
)
from imecd_lite.shop_pictures import draw_item, png_bytes

SEED = 7
NUM_CUSTOMERS = 600
LEAST_WEIGHT = 200  # of a toy's popularity: the three that sell best of each kind and theme
NUM_RARE = 10  # toys that hardly anybody has bought yet
NUM_NEWCOMERS = 40  # customers who have bought one to four things


def make_toy_corner(output: Path) -> None:
    """Write orders.csv, products.csv and photos/ to ``output``, which must not exist."""
    if output.exists():
        raise SystemExit(f"{output} is there already; delete it, or name another folder.")
    rng = np.random.default_rng(SEED)
    items = [item for item in make_items(rng) if not item.misleading and item.weight >= LEAST_WEIGHT]
    users = make_users(rng)[:NUM_CUSTOMERS]
    rare, sold = items[:NUM_RARE], items[NUM_RARE:]
    names = {item.item_id: f"TC-{number:03}" for number, item in enumerate(sold + rare, start=1)}
    clicks = make_clicks(rng, sold, users)
    (output / "photos").mkdir(parents=True)
    orders = make_orders(rng, clicks, [names[item.item_id] for item in sold], [names[item.item_id] for item in rare])
    write_csv(output / "orders.csv", ("customer", "article", "bought_at"), orders)
    products = [make_product(rng, item, names[item.item_id], output / "photos") for item in sold + rare]
    soil(products, output / "photos")
    write_csv(output / "products.csv", ("sku", "name", "maker", "department", "blurb", "photo"), products)


def make_orders(rng: np.random.Generator, clicks: list[Click], sold: list[str], rare: list[str]) -> list[tuple]:
    """(customer, article, bought_at), the latest first: the regulars' purchases, the newcomers', and the till's own."""
    orders = [(click.timestamp, user_name(click.user), sold[click.item]) for click in clicks]
    first, last = orders[0][0], orders[-1][0]

    def moment() -> int:
        return int(rng.integers(first, last))

    for newcomer in range(NUM_NEWCOMERS):
        bought = rng.permutation(len(sold))[: int(rng.integers(1, 5))]
        orders += [(moment(), user_name(NUM_CUSTOMERS + newcomer), sold[article]) for article in bought]
    for article in rare:
        buyers = rng.permutation(NUM_CUSTOMERS)[: int(rng.integers(1, 5))]
        orders += [(moment(), user_name(buyer), article) for buyer in buyers]
    orders += [(moment(), "", pick(rng, sold)) for _ in range(40)]  # paid in cash, no card shown
    orders += [(moment(), user_name(int(rng.integers(NUM_CUSTOMERS))), "GIFT-CARD") for _ in range(25)]
    orders.sort(key=lambda order: order[0], reverse=True)
    return [
        (customer.replace("U", "C"), article, datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
        for time, customer, article in orders
    ]


def make_product(rng: np.random.Generator, item: Item, sku: str, photos: Path) -> list[str]:
    """A row of products.csv; its photo is drawn."""
    name, maker, category, blurb = describe(rng, item)
    colourway, shift = 2 * item.age + int(rng.integers(2)), tuple(int(rng.integers(-3, 4)) for _ in range(2))
    image = draw_item(item.kind, item.theme, colourway, shift, int(rng.integers(82, 95)), chance(rng, 50))
    (photos / f"{sku}.png").write_bytes(png_bytes(image))
    return [sku, name, maker, category.removeprefix("Toys & Games|").replace("|", " / "), blurb, f"{sku}.png"]


def soil(products: list[list[str]], photos: Path) -> None:
    """The dirt of real exports, here and there, in ``products`` and among their ``photos``."""
    for product in products[5:60:9]:
        product[1] += " <b>Fun &amp; Games</b>"  # a name as the web page has it
    for product in products[60:75:5]:
        product[1:5] = [""] * 4  # a row that nobody has filled in
    for product in products[80:90:5]:
        product[1] = ""  # no name, but maker and department
    for product in products[90:110:4]:
        product[5] = ""  # no photo named; there is one by the article's number
    for product in products[110:122:4]:
        product[5] = product[5].replace(".png", "_new.png")  # a photo that was never put into the folder
    for product in products[125:135:5]:
        (photos / product[5]).unlink()
    text = photos / products[140][5]
    text.write_text("Photo to follow.\n", encoding="utf-8", newline="\n")
    products.insert(150, [*products[30][:4], "Now in a larger box!", products[30][5]])  # a second row of a product


if __name__ == "__main__":
    make_toy_corner(Path(sys.argv[1]) if sys.argv[1:] else BUNDLED_DATA / "toy_corner")
