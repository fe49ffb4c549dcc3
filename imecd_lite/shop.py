"""The teaching shop: a made-up toy shop with a planted truth behind every claim of the paper.

Everything follows from one seed, byte for byte: weights are whole numbers, nothing depends on rounding. What was
planted is written to ``truth/``, which training never reads; ``data/README.md`` explains it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imecd_lite.prepare import whole_folder
from imecd_lite.shop_pictures import draw_item, png_bytes

NUM_USERS = 3000
VARIANTS = 50  # items of each kind
MIN_CLICKS, MAX_CLICKS = 5, 20
STRAY_PERCENT = 12  # clicks that follow no journey
ADVANCE_PERCENT = 30  # clicks, strays aside, after which a shopper enters the next stage of her journey
COMPANION_PERCENT = 15  # clicks that go to what goes with the last one, strays aside, where it is on the shelf
FIRST_STAGE_SHARES = (3, 2, 1, 0)  # shoppers who come in at each stage of their journey
TASTE_WEIGHT = 3  # how much likelier an item of the favourite theme, the right age or the usual price is
FIRST_DAY, DAY = 1_735_689_600, 86_400  # 1 January 2025, in seconds since 1970

THEMES = ("space", "sea", "farm", "jungle", "royal", "racing")
AGES = ("6 months", "18 months", "3 years", "6 years")
PRICES = ("low", "middle", "high")


@dataclass(frozen=True)
class Kind:
    """A kind of toy and how a shop talks about it."""

    family: str
    noun: str
    details: tuple[str, ...]
    category: str
    pitch: str


KINDS = {
    "blocks": Kind(
        "building",
        "Building Blocks",
        ("40 Pieces", "80 Pieces", "120 Pieces"),
        "Building Sets",
        "Stack, sort and build towers with chunky blocks that click together.",
    ),
    "castle": Kind(
        "building",
        "Castle Playset",
        ("with Drawbridge", "2 Towers", "15 Pieces"),
        "Playsets",
        "Two towers, a gate that opens and room for every knight.",
    ),
    "robot": Kind(
        "building",
        "Robot Kit",
        ("with Remote", "Build and Play", "68 Pieces"),
        "Robot Kits",
        "Put the robot together, press the button and watch it march.",
    ),
    "car": Kind(
        "vehicles",
        "Toy Car",
        ("Pull Back", "1:32", "Friction Powered"),
        "Cars",
        "A sturdy car with smooth wheels for carpets and corridors.",
    ),
    "train": Kind(
        "vehicles",
        "Train Set",
        ("with Track", "3 Carriages", "Wooden"),
        "Trains",
        "An engine that pulls its carriages round and round the track.",
    ),
    "airplane": Kind(
        "vehicles",
        "Airplane",
        ("with Lights", "Die Cast", "Foam Glider"),
        "Airplanes",
        "Ready for take-off: wide wings and windows for all passengers.",
    ),
    "ball": Kind(
        "outdoor",
        "Play Ball",
        ("9 Inch", "Soft Grip", "with Pump"),
        "Balls",
        "Bounces high, rolls straight and is easy to catch.",
    ),
    "kite": Kind(
        "outdoor",
        "Kite",
        ("with 100 ft Line", "Easy Flyer", "with Tail"),
        "Kites",
        "Climbs in the lightest breeze and stays up by itself.",
    ),
    "scooter": Kind(
        "outdoor",
        "Kick Scooter",
        ("Adjustable", "with Brake", "2 Wheels"),
        "Scooters",
        "A low deck and a firm brake make the first rides safe.",
    ),
    "bear": Kind(
        "plush",
        "Teddy Bear",
        ("12 Inch", "Extra Soft", "with Bow"),
        "Stuffed Animals",
        "A soft friend with a ribbon who listens to every story.",
    ),
    "bunny": Kind(
        "plush",
        "Plush Bunny",
        ("10 Inch", "Floppy Ears", "Washable"),
        "Stuffed Animals",
        "Long ears to hold on to and a tail like a snowball.",
    ),
    "dinosaur": Kind(
        "plush",
        "Cuddly Dinosaur",
        ("14 Inch", "with Roar", "Soft Spikes"),
        "Stuffed Animals",
        "Friendly giant with soft spikes, made for brave cuddles.",
    ),
    "doll": Kind(
        "pretend",
        "Rag Doll",
        ("with Dress", "15 Inch", "Soft Body"),
        "Dolls",
        "Plaits to braid, a dress to change and a smile that stays.",
    ),
    "dollhouse": Kind(
        "pretend",
        "Dollhouse",
        ("with Furniture", "2 Floors", "Wooden"),
        "Dollhouses",
        "Open the roof and furnish every room as you like.",
    ),
    "teapot": Kind(
        "pretend",
        "Tea Party Set",
        ("13 Pieces", "Tin", "with Tray"),
        "Pretend Food",
        "Pour, stir and invite everybody to the table.",
    ),
    "drum": Kind(
        "music",
        "Toy Drum",
        ("with Sticks", "8 Inch", "with Strap"),
        "Drums",
        "A warm sound that even the neighbours can live with.",
    ),
    "guitar": Kind(
        "music",
        "First Guitar",
        ("6 Strings", "23 Inch", "with Pick"),
        "Guitars",
        "Six strings, easy tuning and a book with the first songs.",
    ),
    "xylophone": Kind(
        "music",
        "Xylophone",
        ("8 Notes", "with 2 Mallets", "Wooden"),
        "Xylophones",
        "Clear notes in colours that match the song cards.",
    ),
    "jigsaw": Kind(
        "games",
        "Jigsaw Puzzle",
        ("24 Pieces", "48 Pieces", "100 Pieces"),
        "Puzzles",
        "Thick pieces that fit with a click, again and again.",
    ),
    "dice": Kind(
        "games",
        "Board Game",
        ("2-4 Players", "20 Minutes", "Family Edition"),
        "Board Games",
        "Roll, move and laugh: the rules are learned in a minute.",
    ),
    "cards": Kind(
        "games",
        "Card Game",
        ("110 Cards", "2-6 Players", "Travel Tin"),
        "Card Games",
        "Quick rounds for the kitchen table and the back seat.",
    ),
    "rocket": Kind(
        "discovery",
        "Rocket Launcher",
        ("with 3 Rockets", "Stomp", "100 ft"),
        "Science Kits",
        "Count down, stomp and learn why it flies.",
    ),
    "microscope": Kind(
        "discovery",
        "Junior Microscope",
        ("40x-400x", "with Slides", "LED"),
        "Science Kits",
        "Onion skin, sand and pond water as never seen before.",
    ),
    "paint": Kind(
        "discovery",
        "Paint Set",
        ("24 Colours", "with Brushes", "Washable"),
        "Arts and Crafts",
        "Bright colours that wash out of clothes and carpets.",
    ),
}
# A family of kinds: its department, the youngest and the oldest age it is for, its brands.
FAMILIES = {
    "building": ("Building Toys", (1, 3), ("Brickwell", "Studly", "Toweroo")),
    "vehicles": ("Vehicles", (1, 3), ("Rollaway", "Motorino", "Trackhouse")),
    "outdoor": ("Sports and Outdoor Play", (1, 3), ("Skipfield", "Gustly", "Parkside Pals")),
    "plush": ("Stuffed Animals and Plush", (0, 2), ("Cuddlemoor", "Woolly and Sons", "Snugbury")),
    "pretend": ("Dolls and Pretend Play", (1, 3), ("Lindenlane", "Tiny Parlour", "Rosehip Row")),
    "music": ("Musical Toys", (0, 2), ("Tapatap", "Little Octave", "Humberry")),
    "games": ("Games and Puzzles", (2, 3), ("Foxglove Games", "Pondering Owl", "Sixpence")),
    "discovery": ("Learning and Education", (2, 3), ("Curio Lab", "Brightspark", "Petri and Paint")),
}
HOUSE_BRANDS = ("Kindermoon", "Playgood", "Merrimack Toys", "Oak and Otter", "Hoppla", "Bluebird Basics")
THEME_WORDS = {
    "space": ("Space", "Galaxy", "Moon"),
    "sea": ("Ocean", "Harbour", "Coral"),
    "farm": ("Farm", "Meadow", "Barnyard"),
    "jungle": ("Jungle", "Safari", "Rainforest"),
    "royal": ("Royal", "Knights", "Fairy Tale"),
    "racing": ("Racing", "Turbo", "Speedway"),
}
AGE_WORDS = {
    "6 months": ("for Babies", "6 Months and Up"),
    "18 months": ("for Toddlers", "18 Months and Up"),
    "3 years": ("for Preschoolers", "Ages 3+"),
    "6 years": ("for Kids", "Ages 6+"),
}
PRICE_WORDS = {"low": ("Mini", "Pocket", ""), "middle": ("Classic", "", ""), "high": ("Deluxe", "Premium", "Grand")}
FLATTERY = ("Great Gift", "Birthday Present", "Best Seller", "New Edition", "Gift Boxed", "Award Winning")
BUZZWORDS = ("Digital Learning", "Early Education", "Smart Start", "Brain Boost")
CLOSINGS = (
    "Comes in a box that is easy to open.",
    "Rounded edges and colours safe for children.",
    "Batteries are not needed.",
    "Easy to clean with a damp cloth.",
    "A favourite in nurseries and at home.",
    "Stores away on any shelf.",
    "Made to be handed down.",
)

# A journey: its share of shoppers, its themes, and the kinds it passes through, stage by stage.
JOURNEYS = {
    "first cuddles": (6, ("farm", "royal", "sea"), ("bunny", "bear", "dinosaur", "doll")),
    "little engineer": (5, ("space", "racing", "sea"), ("blocks", "castle", "robot", "rocket")),
    "small musician": (2, ("farm", "jungle", "space"), ("xylophone", "drum", "guitar", "bear")),
    "knights and castles": (3, ("royal", "jungle", "farm"), ("blocks", "castle", "robot", "dice")),
    "station master": (3, ("racing", "farm", "royal"), ("car", "train", "airplane", "blocks")),
    "tea party": (3, ("royal", "sea", "jungle"), ("doll", "teapot", "dollhouse", "bunny")),
    "young naturalist": (2, ("jungle", "sea", "royal"), ("paint", "microscope", "rocket", "dinosaur")),
    "astronaut": (3, ("space", "racing", "farm"), ("rocket", "microscope", "paint", "airplane")),
    "weekend outside": (3, ("sea", "racing", "space"), ("ball", "kite", "scooter", "car")),
    "games night": (2, ("royal", "space", "racing"), ("jigsaw", "cards", "dice", "guitar")),
    "doll's family": (3, ("farm", "space", "racing"), ("doll", "dollhouse", "teapot", "cards")),
    "rough and tumble": (2, ("jungle", "farm", "royal"), ("ball", "kite", "scooter", "dinosaur")),
    "on the road": (5, ("jungle", "sea", "space"), ("train", "car", "airplane", "scooter")),
    "band practice": (1, ("sea", "racing", "royal"), ("drum", "guitar", "xylophone", "jigsaw")),
    "rainy day": (1, ("sea", "farm", "jungle"), ("jigsaw", "dice", "cards", "paint")),
    "quiet corner": (2, ("space", "racing", "jungle"), ("bear", "bunny", "dinosaur", "teapot")),
}


@dataclass(frozen=True)
class Item:
    """A toy: what it is, and what its text and its picture pretend it to be."""

    item_id: str
    kind: str
    theme: str
    age: int
    price: int
    misleading: str  # "", "text" or "image"
    text_kind: str
    text_theme: str
    image_kind: str
    image_theme: str
    weight: int  # popularity within its kind and theme


@dataclass(frozen=True)
class Click:
    """One interaction."""

    user: int
    item: int
    timestamp: int
    stage: int
    stray: bool


def generate_shop(output: Path | str, seed: int = 0) -> None:
    """Write the shop as a dataset folder with its truth; ``output`` must not exist, or be empty.

    Raises:
        InputError: ``output`` holds something.
    """
    with whole_folder(Path(output)) as folder:
        rng = np.random.default_rng(seed)
        items = make_items(rng)
        users = make_users(rng)
        clicks = make_clicks(rng, items, users)
        (folder / "truth").mkdir()
        (folder / "images").mkdir()
        write_items(rng, items, folder)
        write_truth(items, users, clicks, folder / "truth")
        write_csv(
            folder / "interactions.csv",
            ("user_id", "item_id", "timestamp"),
            [(user_name(click.user), items[click.item].item_id, click.timestamp) for click in clicks],
        )


def pick(rng: np.random.Generator, options, weights=None):
    """One of ``options``, each as likely as its whole-numbered weight."""
    if weights is None:
        return options[int(rng.integers(len(options)))]
    bounds = np.cumsum(np.asarray(weights, dtype=np.int64))
    return options[int(np.searchsorted(bounds, rng.integers(bounds[-1]), side="right"))]


def pick_age(rng: np.random.Generator, kind: str) -> int:
    """An age group that the kind is for."""
    youngest, oldest = FAMILIES[KINDS[kind].family][1]
    return int(rng.integers(youngest, oldest + 1))


def chance(rng: np.random.Generator, percent: int) -> bool:
    """True in ``percent`` of a hundred cases."""
    return int(rng.integers(100)) < percent


def make_items(rng: np.random.Generator) -> list[Item]:
    """All items, in the order of their ids, which says nothing about them."""
    total = len(KINDS) * VARIANTS
    numbers = rng.permutation(total)
    lies = np.array(["text"] * (total // 5) + ["image"] * (total // 5) + [""] * (total - 2 * (total // 5)))
    lies = lies[rng.permutation(total)]
    items = []
    for k, kind in enumerate(KINDS):
        ranks: dict[str, int] = {}
        for variant in range(VARIANTS):
            number = k * VARIANTS + variant
            theme = THEMES[(variant + k) % len(THEMES)]
            ranks[theme] = ranks.get(theme, -1) + 1
            lie = str(lies[number])
            other = pick(rng, [name for name in KINDS if KINDS[name].family != KINDS[kind].family])
            other_theme = pick(rng, THEMES)
            items.append(
                Item(
                    item_id=f"T{numbers[number] + 1:04}",
                    kind=kind,
                    theme=theme,
                    age=pick_age(rng, kind),
                    price=int(rng.integers(len(PRICES))),
                    misleading=lie,
                    text_kind=other if lie == "text" else kind,
                    text_theme=other_theme if lie == "text" else theme,
                    image_kind=other if lie == "image" else kind,
                    image_theme=other_theme if lie == "image" else theme,
                    weight=1000 // (ranks[theme] * ranks[theme] + 1),
                )
            )
    return sorted(items, key=lambda item: item.item_id)


def make_users(rng: np.random.Generator) -> list[dict]:
    """Journey, first stage and lasting tastes of every shopper."""
    names = list(JOURNEYS)
    shares = [JOURNEYS[name][0] for name in names]
    users = []
    for _ in range(NUM_USERS):
        journey = pick(rng, names, shares)
        users.append(
            {
                "journey": journey,
                "first_stage": pick(rng, range(len(FIRST_STAGE_SHARES)), FIRST_STAGE_SHARES),
                "favourite_theme": pick(rng, JOURNEYS[journey][1]),
                "age": pick_age(rng, JOURNEYS[journey][2][0]),
                "price": int(rng.integers(len(PRICES))),
            }
        )
    return users


def make_clicks(rng: np.random.Generator, items: list[Item], users: list[dict]) -> list[Click]:
    """Every shopper's walk through her journey, in order of time; no item twice, every item at least five times."""
    cells, companions = make_cells(items)
    walks = [walk(rng, items, cells, companions, user) for user in users]
    scatter_strays(rng, items, walks)
    clicks = []
    for user, steps in enumerate(walks):
        moment = FIRST_DAY + int(rng.integers(300 * DAY))
        for item, stage, stray in steps:
            clicks.append(Click(user, item, moment, stage, stray))
            moment += 0 if chance(rng, 2) else int(rng.integers(600, 12 * DAY))  # now and then two in one basket
    return sorted(clicks, key=lambda click: click.timestamp)


def make_cells(items: list[Item]) -> tuple[dict[tuple[str, str], list[int]], dict[int, int]]:
    """The numbers of the items of each kind and theme, and which one goes with each."""
    cells = {(kind, theme): [] for kind in KINDS for theme in THEMES}
    for number, item in enumerate(items):
        cells[item.kind, item.theme].append(number)
    return cells, {a: b for cell in cells.values() for a, b in zip(cell, cell[1:] + cell[:1], strict=True)}


def walk(rng, items: list[Item], cells: dict, companions: dict[int, int], user: dict) -> list[list]:
    """One shopper's clicks as [item, stage, stray]; a stray's item is None until ``scatter_strays``."""
    _, themes, kinds = JOURNEYS[user["journey"]]
    length = MIN_CLICKS
    while length < MAX_CLICKS and chance(rng, 78):
        length += 1
    stage, steps, bought, last = user["first_stage"], [], set(), None
    for _ in range(length):
        shelf = [n for theme in themes for n in cells[kinds[stage], theme] if n not in bought]
        if chance(rng, STRAY_PERCENT) or not shelf:
            steps.append([None, stage, True])
            continue
        companion = companions.get(last)
        if companion in shelf and chance(rng, COMPANION_PERCENT):
            last = companion
        else:
            last = pick(rng, shelf, [appeal(items[n], user) for n in shelf])
        bought.add(last)
        steps.append([last, stage, False])
        if stage + 1 < len(kinds) and chance(rng, ADVANCE_PERCENT):
            stage += 1
    return steps


def appeal(item: Item, user: dict) -> int:
    """How likely a shopper takes an item of the stage she is in: its popularity, and how it suits her."""
    suits = (item.theme == user["favourite_theme"]) + (item.age == user["age"]) + (item.price == user["price"])
    return item.weight * TASTE_WEIGHT**suits


def scatter_strays(rng: np.random.Generator, items: list[Item], walks: list[list]) -> None:
    """Fill in the stray clicks: first the items that the journeys neglect, the others by popularity."""
    counts = np.bincount([item for steps in walks for item, _, stray in steps if not stray], minlength=len(items))
    neglected = [n for n, count in enumerate(counts) for _ in range(MIN_CLICKS - count)]
    neglected = [neglected[n] for n in rng.permutation(len(neglected))]
    slots = [(user, step) for user, steps in enumerate(walks) for step, (_, _, stray) in enumerate(steps) if stray]
    everything, popularity = range(len(items)), counts + 1
    for slot in rng.permutation(len(slots)):
        user, step = slots[slot]
        bought = {item for item, _, _ in walks[user]}
        wanted = next((n for n, item in enumerate(neglected) if item not in bought), None)
        choice = neglected.pop(wanted) if wanted is not None else None
        while choice is None or choice in bought:
            choice = pick(rng, everything, popularity)
        walks[user][step][0] = choice
    if neglected:
        raise RuntimeError(
            f"{len(neglected)} clicks are missing for items to have {MIN_CLICKS} each; raise STRAY_PERCENT"
        )


def write_items(rng: np.random.Generator, items: list[Item], folder: Path) -> None:
    """``items.csv`` and the pictures."""
    rows = []
    for item in items:
        title, brand, category, description = describe(rng, item)
        picture = f"images/{item.item_id}.png"
        rows.append((item.item_id, title, brand, category, description, picture))
        colourway = 2 * item.age + int(rng.integers(2)) if chance(rng, 75) else int(rng.integers(8))
        shift = (int(rng.integers(-3, 4)), int(rng.integers(-3, 4)))
        zoom, mirrored = int(rng.integers(82, 95)), chance(rng, 50)
        image = draw_item(item.image_kind, item.image_theme, colourway, shift, zoom, mirrored)
        (folder / picture).write_bytes(png_bytes(image))
    write_csv(folder / "items.csv", ("item_id", "title", "brand", "category", "description", "image"), rows)


def describe(rng: np.random.Generator, item: Item) -> tuple[str, str, str, str]:
    """Title, brand, category and description."""
    kind = KINDS[item.text_kind]
    department, (youngest, oldest), brands = FAMILIES[kind.family]
    brand = pick(rng, HOUSE_BRANDS) if chance(rng, 25) else pick(rng, brands)
    age, price = AGES[min(max(item.age, youngest), oldest)], PRICES[item.price]  # a false text fits itself
    theme = pick(rng, THEME_WORDS[item.text_theme])
    lead = [pick(rng, PRICE_WORDS[price]), theme if chance(rng, 67) else "", kind.noun]
    tail = [pick(rng, kind.details)]
    if chance(rng, 60 if item.misleading == "text" else 10):
        tail.append(pick(rng, BUZZWORDS))
    if chance(rng, 60):
        tail.append(pick(rng, AGE_WORDS[age]))
    if chance(rng, 30):
        tail.append(pick(rng, FLATTERY))
    title = ", ".join([" ".join([brand, *filter(None, lead)]), *tail])
    first = f"{theme} fun with the {kind.noun.lower()} from {brand}." if chance(rng, 50) else f"From {brand}."
    description = " ".join([first, kind.pitch, f"For children from {age}.", pick(rng, CLOSINGS)])
    return title, brand, f"Toys & Games|{department}|{kind.category}", description


def write_truth(items: list[Item], users: list[dict], clicks: list[Click], folder: Path) -> None:
    """What was planted, for measuring and never for training."""
    write_csv(
        folder / "items.csv",
        ("item_id", "type", "kind", "theme", "age", "price", "misleading", "text_kind", "image_kind"),
        [
            (
                *(i.item_id, KINDS[i.kind].family, i.kind, i.theme, AGES[i.age], PRICES[i.price]),
                *(i.misleading, i.text_kind, i.image_kind),
            )
            for i in items
        ],
    )
    write_csv(
        folder / "users.csv",
        ("user_id", "journey", "first_stage", "favourite_theme", "age", "price"),
        [
            (user_name(n), u["journey"], u["first_stage"], u["favourite_theme"], AGES[u["age"]], PRICES[u["price"]])
            for n, u in enumerate(users)
        ],
    )
    write_csv(
        folder / "interactions.csv",
        ("user_id", "item_id", "stage", "stray"),
        [(user_name(c.user), items[c.item].item_id, c.stage, int(c.stray)) for c in clicks],
    )
    write_csv(
        folder / "journeys.csv",
        ("journey", "stage", "kind", "themes"),
        [
            (name, stage, kind, "|".join(themes))
            for name, (_, themes, kinds) in JOURNEYS.items()
            for stage, kind in enumerate(kinds)
        ],
    )


def user_name(number: int) -> str:
    """The id of a shopper."""
    return f"U{number + 1:04}"


def write_csv(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    """A CSV file, the same on every system."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
