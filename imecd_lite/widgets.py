"""Widgets of the notebooks: thin, every callback a function of the library that a test can call."""

# I items, U users, D size of a space, N experts, Z codes

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, NamedTuple

import ipywidgets
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import HTML
from plotly.graph_objects import Figure, FigureWidget

from imecd_lite.codebooks import gumbel
from imecd_lite.counterfactual import WhatIf, scores_before_last, what_if, with_codebooks
from imecd_lite.dataset import Dataset
from imecd_lite.encoders import Features
from imecd_lite.errors import InputError
from imecd_lite.evaluate import ndcg, paired_bootstrap, user_values
from imecd_lite.model import IMECD, LossOutput, Recommender
from imecd_lite.plots import (
    COLOURS,
    NAMES,
    WORDS,
    code_bars,
    draw_ranks,
    draw_walk,
    gate_bars,
    in_words,
    plot_duel,
    plot_training,
    share_bars,
    system_bars,
    training_curves,
)
from imecd_lite.recommend import score_history, score_items
from imecd_lite.results import Outcome, stack_ranks
from imecd_lite.shelf import CARD_WIDTH, Shelf, make_shelf
from imecd_lite.spaces import FlatMap, flat_map, item_spaces, nearest
from imecd_lite.walks import Walk, walk

if TYPE_CHECKING:
    from imecd_lite.runs import ShortRun  # loads scikit-learn, which other widgets can do without

WIDE = ipywidgets.Layout(width="480px")
LABELLED = {"description_width": "90px"}
HELD_OUT = {1: "held out for the test", 2: "held out for validation"}


class Panel(ipywidgets.VBox):
    """A widget whose ``repr`` is one readable line, for saved notebooks and code hosts."""

    def __repr__(self) -> str:
        names = [control.description for control in descendants(self) if getattr(control, "description", "")]
        return f"[widget: {', '.join(names)}; run the notebook to move it]"


def told(sentence: str) -> str:
    """HTML: a sentence to stand out, on lines that are closer than a widget's."""
    return f'<p style="line-height:1.35;margin:6px 0"><b>{html.escape(sentence)}</b></p>'


def descendants(box: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    """All that is in a box, and in the boxes in it, in the order of reading."""
    for child in getattr(box, "children", ()):
        yield child
        yield from descendants(child)


DRAWING = threading.RLock()


def one_at_a_time(show: Callable) -> Callable:
    """Let a callback that reads or moves controls and draws run to its end before another one begins.

    JupyterLab may serve two moves at once, in two threads: the slower of them, which began with old values, would
    have the last word.
    """

    @wraps(show)
    def alone(*arguments: object) -> None:
        with DRAWING:
            show(*arguments)

    return alone


def set_quietly(control: ipywidgets.Widget, show: Callable, **traits: int) -> None:
    """Set traits of a control, in their order, without ``show`` hearing of it: one picture a move, not two."""
    control.unobserve(show, "value")
    for name, value in traits.items():
        setattr(control, name, value)
    control.observe(show, "value")


class ShopperView(NamedTuple):
    """A shopper at one moment of her history."""

    news: str  # a sentence on what she bought next
    next_item: Shelf
    history: Shelf
    shown: Shelf


def view_shopper(
    model: Recommender, dataset: Dataset, user: int, num_bought: int, top_k: int = 10, latest: int = 10
) -> ShopperView:
    """User number ``user`` after her first ``num_bought`` purchases.

    Args:
        model: in eval mode.
        num_bought: 1 to the length of her history.
        top_k: recommendations shown; the item that she did buy next is framed.
        latest: purchases shown.
    """
    name, sequence = dataset.user_ids[user], dataset.sequences[user]
    scores = score_history(model, dataset, user, num_bought)  # (I + 1,)
    best = scores.topk(min(top_k, dataset.num_items)).indices.tolist()
    remaining = len(sequence) - num_bought
    target = int(sequence[num_bought]) if remaining else None
    if remaining:
        rank = int((scores >= scores[target]).sum())
        role = HELD_OUT.get(remaining, "seen in training")
        news = f"What {name} bought next ({role}) is at rank {rank:,} of {dataset.num_items:,}."
    else:
        news = f"What {name} will buy next, nobody knows yet."
    return ShopperView(
        news,
        make_shelf(dataset, [target] if remaining else []),
        make_shelf(dataset, sequence[:num_bought][-latest:], f"What {name} bought, the latest on the right"),
        make_shelf(dataset, best, "What the model would show her", [str(k + 1) for k in range(len(best))], target),
    )


def shopper_explorer(model: Recommender, dataset: Dataset, user_id: str | None = None, top_k: int = 10) -> Panel:
    """Walk through a shopper's history and see what the model would show her after each purchase.

    Args:
        model: in eval mode.
        user_id: who is shown first; the first of all when None.
        top_k: recommendations shown.
    """
    first = dataset.user_number(user_id) if user_id else 0
    length = int(dataset.lengths[first])
    shopper = ipywidgets.IntSlider(first + 1, 1, dataset.num_users, description="shopper", layout=WIDE)
    bought = ipywidgets.IntSlider(length - 1, 1, length, description="bought", layout=WIDE)
    page = ipywidgets.HTML()

    @one_at_a_time
    def show(_=None) -> None:
        view = view_shopper(model, dataset, shopper.value - 1, bought.value, top_k)
        parts = (view.history, view.shown, told(view.news), view.next_item)
        page.value = "".join(part if isinstance(part, str) else part._repr_html_() for part in parts)

    @one_at_a_time
    def change_shopper(_) -> None:
        length = int(dataset.lengths[shopper.value - 1])
        set_quietly(bought, show, max=length, value=length - 1)
        show()

    shopper.observe(change_shopper, "value")
    bought.observe(show, "value")
    show()
    return Panel([shopper, bought, page])


class HistoryView(NamedTuple):
    """A history of somebody's choice, and what the model would show."""

    news: str
    history: Shelf
    shown: Shelf
    best: list[int]  # the items on ``shown``

    def __repr__(self) -> str:
        return "\n".join((repr(self.history), self.news, repr(self.shown)))

    def _repr_html_(self) -> str:
        """HTML with its pictures inside; all that comes from data is escaped."""
        return f"{self.history._repr_html_()}{told(self.news)}{self.shown._repr_html_()}"


def view_history(
    model: Recommender,
    dataset: Dataset,
    items: Sequence[int],
    before: Sequence[int] = (),
    top_k: int = 8,
    latest: int = 10,
) -> HistoryView:
    """What the model would show somebody with this history.

    Args:
        model: in eval mode.
        items: 1 ... I, the latest last; may be empty.
        before: what was shown before the last move; each item says where it has come from, or that it is bought.
        top_k: recommendations shown.
        latest: purchases shown.
    """
    bought = make_shelf(dataset, items[-latest:], "Bought, the latest on the right")
    if not items:
        return HistoryView("Nothing is bought yet: choose a product and add it.", bought, make_shelf(dataset, []), [])
    best = score_items(model, dataset, items).topk(min(top_k, dataset.num_items)).indices.tolist()
    old, notes = {item: rank for rank, item in enumerate(before, start=1)}, []
    for rank, item in enumerate(best, start=1):
        climbed = old.get(item, rank) - rank
        moved = f" {'↑' if climbed > 0 else '↓'}{abs(climbed)}" if climbed else ""
        moved = " new" if old and item not in old else moved
        notes.append(f"{rank}{moved}{', bought' if item in items else ''}")
    news = f"After {len(items)} purchase{'s' * (len(items) > 1)}"
    if old:
        fresh = len(set(best) - set(old))
        news += f": {fresh or 'none'} of the {len(best)} shown {'are' if fresh > 1 else 'is'} new since the last move"
    return HistoryView(f"{news}.", bought, make_shelf(dataset, best, "What the model would show next", notes), best)


MOST_FOUND = 500
"""Products that a drop-down lists; of more, it asks for another word."""


def find_items(dataset: Dataset, words: str) -> list[int]:
    """The items, 1 ... I, whose title, brand and category, or id, hold all of ``words``."""
    texts = dataset.item_ids if dataset.items is None else dataset.item_texts()
    wanted = words.casefold().split()
    return [n for n, text in enumerate(texts, start=1) if all(word in text.casefold() for word in wanted)]


def history_explorer(model: Recommender, dataset: Dataset, user_id: str | None = None, top_k: int = 8) -> Panel:
    """Put a history together, from a customer's or from nothing, and see the recommendations move.

    Args:
        model: in eval mode.
        user_id: whose history is there first; the first customer's when None.
        top_k: recommendations shown.
    """
    first = dataset.user_number(user_id) + 1 if user_id else 1
    names = dataset.item_ids if dataset.items is None else dataset.items["title"].tolist()
    customer = ipywidgets.IntSlider(first, 1, dataset.num_users, description="customer", layout=WIDE, style=LABELLED)
    find = ipywidgets.Text(description="find", placeholder="a word or two", layout=WIDE, style=LABELLED)
    product = ipywidgets.Dropdown(description="product", layout=WIDE, style=LABELLED)
    add, undo, clear = (ipywidgets.Button(description=name) for name in ("add it", "take out the last", "empty"))
    who, found, card, page = (ipywidgets.HTML() for _ in range(4))
    items: list[int] = []
    best: list[int] = []

    @one_at_a_time
    def show(_=None) -> None:
        view = view_history(model, dataset, items, best, top_k)
        best[:] = view.best
        undo.disabled = clear.disabled = not items
        page.value = view._repr_html_()

    @one_at_a_time
    def show_product(_=None) -> None:
        add.disabled = product.value is None
        card.value = "" if product.value is None else make_shelf(dataset, [product.value])._repr_html_()

    @one_at_a_time
    def search(_=None) -> None:
        hits = find_items(dataset, find.value)
        more = f", of which the first {MOST_FOUND} are listed; add a word" * (len(hits) > MOST_FOUND)
        found.value = f"{len(hits):,} of {dataset.num_items:,} products{more}"
        product.options = [(names[item - 1] or dataset.item_ids[item - 1], item) for item in hits[:MOST_FOUND]]
        product.index = 0 if hits else None  # after an empty list nothing is chosen
        show_product()

    @one_at_a_time
    def put(history: Sequence[int], name: str = "") -> None:
        items[:], who.value = history, html.escape(name)
        show()

    @one_at_a_time
    def start(_=None) -> None:
        best.clear()
        put(dataset.sequences[customer.value - 1].tolist(), dataset.user_ids[customer.value - 1])

    customer.observe(start, "value")
    find.observe(search, "value")
    product.observe(show_product, "value")
    add.on_click(one_at_a_time(lambda _: put([*items, product.value])))
    undo.on_click(one_at_a_time(lambda _: put(items[:-1])))
    clear.on_click(lambda _: put([]))
    search()
    start()
    choice = ipywidgets.VBox(
        [find, found, product, ipywidgets.HBox([add, undo, clear])], layout=ipywidgets.Layout(flex="0 0 490px")
    )
    return Panel([ipywidgets.HBox([customer, who]), ipywidgets.HBox([choice, card]), page])


class NeighbourView(NamedTuple):
    """An item and its nearest neighbours in each space."""

    verdict: str  # whether its text or its picture misleads, and whom; empty where nobody knows
    item: Shelf
    shelves: dict[str, Shelf]  # by modality


def view_neighbours(
    spaces: dict[str, torch.Tensor], dataset: Dataset, item: int, truth: pd.DataFrame | None = None, top_k: int = 6
) -> NeighbourView:
    """Item number ``item``, 1 ... I, and those nearest to it.

    Args:
        spaces: by modality, (I, D); from ``item_spaces``.
        truth: row i - 1 says what was planted in item i, ``read_truth(dataset)["items"]``.
        top_k: neighbours shown.
    """
    shopper_of = np.repeat(np.arange(dataset.num_users), dataset.lengths)  # of each purchase
    buyers = np.unique(shopper_of[dataset.flat == item])
    kinds = None if truth is None else truth["kind"].to_numpy()
    shelves = {}
    for name, vectors in spaces.items():
        found = nearest(vectors, torch.tensor([item]), top_k)[0].numpy()
        also = np.intersect1d(buyers, shopper_of[np.isin(dataset.flat, found)])
        heading = f"{len(also)} of {len(buyers)} buyers bought one"
        if kinds is not None:
            heading = f"{(kinds[found - 1] == kinds[item - 1]).sum()} of {len(found)} of its kind; " + heading
        notes = None if kinds is None else kinds[found - 1].tolist()
        shelves[name] = make_shelf(dataset, found.tolist(), f"{NAMES[name]}: {heading}", notes)
    verdict = "" if truth is None else tell_misleading(truth.iloc[item - 1])
    return NeighbourView(
        verdict, make_shelf(dataset, [item], notes=None if kinds is None else [kinds[item - 1]]), shelves
    )


def tell_misleading(planted: pd.Series) -> str:
    """Whether an item's text or picture misleads, and whom; ``planted`` is its row of the truth."""
    kind, misleading = planted["kind"], planted["misleading"]
    if not misleading:
        return f"Text and picture are honest: this is of the kind “{kind}”."
    subject, claimed = {
        "text": ("text misleads: it speaks of", planted["text_kind"]),
        "image": ("picture misleads: it shows", planted["image_kind"]),
    }[misleading]
    return (
        f"Its {subject} “{claimed}”, this is of the kind “{kind}”. It claims to be for those who look for “{claimed}”."
    )


def neighbour_explorer(
    dataset: Dataset, features: Features | None, model: IMECD, item_id: str | None = None, top_k: int = 6
) -> Panel:
    """Pick an item and see its nearest neighbours by text, by picture and by behaviour, and whom it misleads.

    Args:
        features: None for an ids-only dataset: then there is one shelf, by behaviour.
        item_id: what is shown first; the first of all when None.
        top_k: neighbours shown in each space.
    """
    from imecd_lite.diagnostics import read_truth  # loads scikit-learn, which other widgets can do without

    spaces, truth = item_spaces(model, features), read_truth(dataset).get("items")
    groups = {"all items": list(range(1, dataset.num_items + 1))}
    if truth is not None:
        for label, value in (("the honest", ""), ("text misleads", "text"), ("picture misleads", "image")):
            groups[label] = (np.flatnonzero(truth["misleading"] == value) + 1).tolist()
    start = dataset.item_number(item_id) if item_id else 1
    among = ipywidgets.Dropdown(options=[label for label in groups if groups[label]], description="among")
    item = ipywidgets.IntSlider(start, 1, dataset.num_items, description="item", layout=WIDE)
    page = ipywidgets.HTML()

    @one_at_a_time
    def show(_=None) -> None:
        view = view_neighbours(spaces, dataset, groups[among.value][item.value - 1], truth, top_k)
        columns = "".join(
            f'<div style="border-top:4px solid {COLOURS[name]}">{shelf._repr_html_()}</div>'
            for name, shelf in view.shelves.items()
        )
        grid = "display:grid;grid-template-columns:minmax(0,1fr);gap:8px"
        page.value = (
            f'<div style="display:flex;gap:16px;align-items:center"><div style="flex:0 0 {CARD_WIDTH}px">'
            f"{view.item._repr_html_()}</div>"
            f'{told(view.verdict)}</div><div style="{grid}">{columns}</div>'
        )

    @one_at_a_time
    def change_group(_) -> None:
        set_quietly(item, show, value=1, max=len(groups[among.value]))
        show()

    among.observe(change_group, "value")
    item.observe(show, "value")
    show()
    return Panel([among, item, page])


class GateView(NamedTuple):
    """An item as it would be with another's ID or without an expert, beside what it is."""

    item: Shelf  # and whose ID it has, if another's
    verdict: str  # whether its text or its picture misleads, and whom; empty where nobody knows
    gates: dict[str, tuple[np.ndarray, np.ndarray]]  # "text" and "image": its gate (N,), now and before
    cosines: dict[str, float]  # by modality, of its representation to its former self
    neighbours: dict[str, Shelf]  # "text" and "image", after the experts
    ranks: tuple[int, int]  # of the item for the shopper, now and before
    shown: Shelf

    @property
    def news(self) -> str:
        """How far it has moved, in a sentence."""
        moved = ", ".join(f"{WORDS[name]} {cosine:.2f}" for name, cosine in self.cosines.items())
        now, before = self.ranks
        return f"Cosine to its former self: {moved}. Its rank for the shopper: {before:,} before, {now:,} now."

    def __repr__(self) -> str:
        parts = (self.item, self.verdict, self.news, *self.neighbours.values(), self.shown)
        return "\n".join(part if isinstance(part, str) else repr(part) for part in parts if part != "")

    @property
    def head(self) -> str:
        """HTML: the item, and whose ID it has."""
        return self.item._repr_html_()

    @property
    def body(self) -> str:
        """HTML: what becomes of it; all that comes from data is escaped."""
        said = f"{html.escape(self.verdict)} <b>{html.escape(self.news)}</b>"
        sides = [(gate_bars(*self.gates[name], name).data, shelf) for name, shelf in self.neighbours.items()]
        sides += [(f'<div style="flex:0 0 250px;line-height:1.35">{said}</div>', self.shown)]
        return "".join(
            '<div style="display:flex;gap:16px;align-items:start">'
            f'{left}<div style="flex:1;min-width:0">{shelf._repr_html_()}</div></div>'
            for left, shelf in sides
        )

    def _repr_html_(self) -> str:
        """HTML with its pictures inside."""
        return self.head + self.body


def view_gates(
    model: IMECD,
    dataset: Dataset,
    item: int,
    id_of: int | None = None,
    muted: Sequence[int] = (),
    user: int = 0,
    truth: pd.DataFrame | None = None,
    top_k: int = 6,
    num_inference_steps: int | None = 8,
    before: WhatIf | None = None,
    scores_before: torch.Tensor | None = None,
) -> GateView:
    """Item number ``item``, 1 ... I, as it is and as it would be.

    Args:
        model: in eval mode, with experts.
        id_of: the item whose ID it gets; None for its own.
        muted: experts 0 ... N - 1 that no item may listen to.
        user: the shopper, by number, before whose last purchase the items are ranked.
        truth: row i - 1 says what was planted in item i, ``read_truth(dataset)["items"]``.
        top_k: neighbours and recommendations shown.
        num_inference_steps: reverse steps; T when None, and slower.
        before: ``what_if(model)``, when at hand.
        scores_before: the scores (I + 1,) of the shop as it is, when at hand.
    """
    if not model.experts:
        raise InputError(
            "This model has no experts to listen to; it was made with use_experts set to False or ids only."
        )
    before, now = before or what_if(model), what_if(model, item, id_of, muted)
    scores = scores_before_last(model, dataset, user, now.tables, num_inference_steps)
    if scores_before is None:
        scores_before = scores_before_last(model, dataset, user, before.tables, num_inference_steps)
    ranks = tuple(int((score >= score[item]).sum()) for score in (scores, scores_before))
    best = scores.topk(min(top_k, dataset.num_items)).indices.tolist()
    kinds = None if truth is None else truth["kind"].to_numpy()
    neighbours = {}
    for name in now.gates:
        table = now.tables[name][1:]
        found = nearest(table, torch.tensor([item], device=table.device), top_k)[0].tolist()
        notes = None if kinds is None else [kinds[other - 1] for other in found]
        neighbours[name] = make_shelf(dataset, found, f"{NAMES[name]}, after the experts: its neighbours", notes)
    cards, notes = ([item], ["the item"]) if id_of in (None, item) else ([item, id_of], ["the item", "with the ID of"])
    return GateView(
        make_shelf(dataset, cards, notes=notes),
        "" if truth is None else tell_misleading(truth.iloc[item - 1]),
        {name: tuple(side.gates[name][item - 1].cpu().numpy() for side in (now, before)) for name in now.gates},
        {
            name: float(F.cosine_similarity(table[item], before.tables[name][item], 0))
            for name, table in now.tables.items()
        },
        neighbours,
        ranks,
        make_shelf(
            dataset,
            best,
            f"What {dataset.user_ids[user]} would be shown before her last purchase",
            [str(k + 1) for k in range(len(best))],
            item,
        ),
    )


def few_steps(model: IMECD) -> int:
    """How many reverse steps a widget takes at each move: 8, or T where that is less."""
    return min(8, model.config.num_train_timesteps)


def gate_explorer(
    model: IMECD, dataset: Dataset, item_id: str | None = None, user_id: str | None = None, top_k: int = 6
) -> Panel:
    """Pick an item, give it another's ID or mute an expert, and see what it does to the item and to a shopper.

    Args:
        model: in eval mode, with experts.
        item_id: what is shown first; the first of all when None.
        user_id: whose recommendations are shown first; the first of all when None.
        top_k: neighbours and recommendations shown.
    """
    from imecd_lite.diagnostics import read_truth  # loads scikit-learn, which other widgets can do without

    truth, count = read_truth(dataset).get("items"), dataset.num_items
    start = dataset.item_number(item_id) if item_id else 1
    first = dataset.user_number(user_id) + 1 if user_id else 1
    look = {"layout": ipywidgets.Layout(width="440px", max_width="100%"), "style": LABELLED}
    item = ipywidgets.IntSlider(start, 1, count, description="item", **look)
    id_of = ipywidgets.IntSlider(start, 1, count, description="has the ID of", **look)
    experts = (
        [(f"expert {n + 1}", (n,)) for n in range(model.config.num_experts)] if model.config.num_experts > 1 else []
    )
    muted = ipywidgets.Dropdown(options=[("nobody", ()), *experts], description="mute", style=LABELLED)
    shopper = ipywidgets.IntSlider(first, 1, dataset.num_users, description="shopper", **look)
    tight = {"margin": "0 2px"}  # all of it fits a laptop's screen
    head = ipywidgets.HTML(layout=ipywidgets.Layout(flex="1", min_width="240px", **tight))
    body = ipywidgets.HTML(layout=ipywidgets.Layout(**tight))

    before = what_if(model) if model.experts else None
    steps = few_steps(model)
    scores_of = lru_cache(maxsize=1)(lambda user: scores_before_last(model, dataset, user, before.tables, steps))

    @one_at_a_time
    def show(_=None) -> None:
        user = shopper.value - 1
        at_hand = {"before": before, "scores_before": scores_of(user)} if before else {}
        view = view_gates(model, dataset, item.value, id_of.value, muted.value, user, truth, top_k, steps, **at_hand)
        head.value, body.value = view.head, view.body

    @one_at_a_time
    def change_item(_) -> None:
        set_quietly(id_of, show, value=item.value)
        show()

    item.observe(change_item, "value")
    for control in (id_of, muted, shopper):
        control.observe(show, "value")
    show()
    controls = ipywidgets.VBox([item, id_of, muted, shopper])
    return Panel([ipywidgets.HBox([controls, head], layout=ipywidgets.Layout(flex_flow="row wrap")), body])


class GumbelView(NamedTuple):
    """One draw of Eq. 8, and many."""

    likely: np.ndarray  # (Z,) softmax of the logits
    soft: np.ndarray  # (Z,) the soft choice of this draw
    drawn: np.ndarray  # (Z,) the share of all draws whose hard choice was each code
    num_draws: int
    modality: str

    @property
    def hard(self) -> int:
        """The code 0 ... Z - 1 that this draw chooses."""
        return int(self.soft.argmax())

    @property
    def news(self) -> str:
        """Both choices of the draw, in a sentence."""
        code = self.hard
        return (
            f"This draw chooses code {code + 1}; the soft choice gives it {self.soft[code]:.0%}. The selector alone "
            f"gives it {self.likely[code]:.0%}, and {self.drawn[code]:.0%} of {self.num_draws:,} draws choose it."
        )

    def __repr__(self) -> str:
        return self.news

    def _repr_html_(self) -> str:
        """HTML, three rows of bars and a sentence."""
        bars = (
            code_bars(self.likely, "The selector alone: softmax(o)", self.modality),
            code_bars(self.soft, "This draw: the soft choice, the hard one in full colour", self.modality, self.hard),
            code_bars(self.drawn, "All draws, with softmax(o) as lines", self.modality, marks=self.likely),
        )
        row = "".join(bar.data for bar in bars)
        return f'<div style="display:flex;flex-wrap:wrap;gap:14px 28px">{row}</div>{told(self.news)}'


def view_gumbel(
    logits: torch.Tensor,
    temperature: float = 0.1,
    noise: float = 1.0,
    draw: int = 1,
    modality: str = "id",
    num_draws: int = 2000,
) -> GumbelView:
    """Eq. 8 for one history.

    Args:
        logits: (Z,), Eq. 7.
        temperature: tau, above 0.
        noise: how loud the noise is; 1 is Eq. 8.
        draw: 1 to ``num_draws``, which of them is shown.
        modality: whose colour the bars have.
    """
    sounds = noise * gumbel((num_draws, len(logits)), torch.Generator().manual_seed(0))  # always the same
    summed = logits.detach().cpu() + sounds  # (num_draws, Z)
    counts = torch.bincount(summed.argmax(dim=1), minlength=len(logits))
    likely, soft = logits.detach().cpu().softmax(dim=0), (summed[draw - 1] / temperature).softmax(dim=0)
    return GumbelView(likely.numpy(), soft.numpy(), (counts / num_draws).numpy(), num_draws, modality)


def gumbel_explorer(logits: torch.Tensor, modality: str = "id") -> Panel:
    """Move temperature and noise of Eq. 8 and watch the soft choice, the hard choice, and how often each code is drawn.

    Args:
        logits: (Z,) of one history, Eq. 7.
        modality: whose colour the bars have.
    """
    wide = {"layout": WIDE, "style": LABELLED}
    temperature = ipywidgets.FloatLogSlider(0.1, min=-2, max=1, step=0.1, description="temperature", **wide)
    noise = ipywidgets.FloatSlider(1.0, min=0, max=3, step=0.1, description="noise", **wide)
    draw = ipywidgets.IntSlider(1, 1, 50, description="draw", **wide)
    page = ipywidgets.HTML()

    @one_at_a_time
    def show(_=None) -> None:
        page.value = view_gumbel(logits, temperature.value, noise.value, draw.value, modality)._repr_html_()

    for control in (temperature, noise, draw):
        control.observe(show, "value")
    show()
    return Panel([temperature, noise, draw, page])


class CodeView(NamedTuple):
    """A code and those who chose it."""

    heading: str
    members: np.ndarray  # (n,) user numbers, the nearest to the code first
    journeys: pd.Series | None  # the share of members on each planted journey, the commonest first
    histories: tuple[Shelf, ...]  # of the nearest members
    modality: str

    def __repr__(self) -> str:
        shares = [] if self.journeys is None else [f"{name} {share:.0%}" for name, share in self.journeys.items()]
        return "\n".join([self.heading, ", ".join(shares), *map(repr, self.histories)])

    def _repr_html_(self) -> str:
        """HTML with its pictures inside; all that comes from data is escaped."""
        heading = f'<b style="color:{COLOURS[self.modality]}">{html.escape(self.heading)}</b>'
        bars = ""
        if self.journeys is not None and len(self.journeys):
            bars = share_bars(self.journeys.head(5), "They are on these planted journeys", COLOURS[self.modality]).data
        shelves = "".join(shelf._repr_html_() for shelf in self.histories)
        return f"{heading}{bars}{shelves}"


def view_code(
    dataset: Dataset,
    indices: np.ndarray,
    distances: np.ndarray,
    code: int,
    modality: str = "id",
    truth: dict[str, pd.DataFrame] | None = None,
    top_k: int = 3,
    latest: int = 6,
) -> CodeView:
    """Code number ``code``, 0 ... Z - 1, and those whose history, all but the last purchase, chose it.

    Args:
        indices: (U,) the code of each user, from ``chosen_codes`` on the test split.
        distances: (U,) to it, from ``distances_to_codes``.
        truth: ``read_truth(dataset)``, where something was planted.
        top_k: members shown.
        latest: purchases shown of each.
    """
    truth = truth or {}
    members = np.flatnonzero(indices == code)
    members = members[np.argsort(distances[members], kind="stable")]
    journeys = truth["users"]["journey"].to_numpy() if "users" in truth else None
    shares = None if journeys is None else pd.Series(journeys[members]).value_counts(normalize=True)
    shelves = tuple(history_shelf(dataset, user, truth, latest) for user in members[:top_k])
    heading = f"Code {code + 1} of the {WORDS[modality]}: {len(members):,} of {len(indices):,} shoppers chose it"
    heading += "; the nearest to it:" if len(members) else "."
    return CodeView(heading, members, shares, shelves, modality)


def history_shelf(dataset: Dataset, user: int, truth: dict[str, pd.DataFrame], latest: int) -> Shelf:
    """The ``latest`` purchases of user number ``user`` before her last one, with what each is and her journey."""
    items = dataset.sequences[user][:-1][-latest:]
    notes = truth["items"]["kind"].to_numpy()[items - 1].tolist() if "items" in truth else None
    heading = f"What {dataset.user_ids[user]} bought, the latest on the right"
    if "users" in truth:
        heading += f"; she is on the journey “{truth['users']['journey'].iloc[user]}”"
    return make_shelf(dataset, items.tolist(), heading, notes)


class InjectionView(NamedTuple):
    """A shopper's recommendations with the lambda_q of training, and with another."""

    news: str
    before: Shelf
    shown: Shelf
    ranks: tuple[int, int]  # of what she bought next, now and before

    def __repr__(self) -> str:
        return "\n".join([repr(self.before), repr(self.shown), self.news])

    def _repr_html_(self) -> str:
        """HTML with its pictures inside; all that comes from data is escaped."""
        return f"{told(self.news)}{self.before._repr_html_()}{self.shown._repr_html_()}"


def view_injection(
    model: IMECD,
    dataset: Dataset,
    user: int,
    lambda_q: float,
    top_k: int = 6,
    num_inference_steps: int | None = 8,
    tables: dict[str, torch.Tensor] | None = None,
    before: torch.Tensor | None = None,
) -> InjectionView:
    """What user number ``user`` is shown before her last purchase when codes weigh ``lambda_q`` in Eq. 9.

    Args:
        model: in eval mode, with codebooks.
        lambda_q: of all modalities; 0 leaves the codes out.
        top_k: recommendations shown; what she did buy next is framed.
        num_inference_steps: reverse steps; T when None, and slower.
        tables: ``model.item_embeddings()``, when at hand.
        before: the scores (I + 1,) with the model's own lambda_q, when at hand.
    """
    tables = tables or model.item_embeddings()
    if before is None:
        before = scores_before_last(model, dataset, user, tables, num_inference_steps)
    now = scores_before_last(with_codebooks(model, lambda_q), dataset, user, tables, num_inference_steps)
    target, count = int(dataset.sequences[user][-1]), min(top_k, dataset.num_items)
    ranks = tuple(int((scores >= scores[target]).sum()) for scores in (now, before))
    best = [scores.topk(count).indices.tolist() for scores in (now, before)]
    name, own = dataset.user_ids[user], model.config.lambda_q
    notes = [f"{k + 1}" if item in best[1] else f"{k + 1}, new" for k, item in enumerate(best[0])]
    same = len(set(best[0]) & set(best[1]))
    return InjectionView(
        f"What {name} bought next is at rank {ranks[0]:,} of {dataset.num_items:,} with λ_q = {lambda_q:.1f}; "
        f"it was at {ranks[1]:,} with {own:.1f}. Of the {count} shown, {same} are the same.",
        make_shelf(
            dataset,
            best[1],
            f"Shown to {name} with λ_q = {own:.1f}, as trained",
            [f"{k + 1}" for k in range(count)],
            target,
        ),
        make_shelf(dataset, best[0], f"Shown to {name} with λ_q = {lambda_q:.1f}", notes, target),
        ranks,
    )


def code_explorer(
    model: IMECD, dataset: Dataset, modality: str = "id", user_id: str | None = None, top_k: int = 6
) -> Panel:
    """Pick a code, see who chose it and what journey they are on, and turn the codes up or down for one of them.

    Args:
        model: in eval mode, with codebooks.
        modality: shown first.
        user_id: whose code is shown first; None for the first code, and for the shopper nearest to it.
        top_k: purchases and recommendations shown.
    """
    from imecd_lite.diagnostics import chosen_codes, distances_to_codes, read_truth  # loads scikit-learn

    if not model.codebooks:
        raise InputError("This model has no codebooks to look into; it was made with use_codebooks set to False.")
    truth, tables, choices, split = read_truth(dataset), model.item_embeddings(), {}, dataset.split("test")
    for name in model.codebooks:
        indices, sequences = chosen_codes(model, dataset, split, name)
        choices[name] = indices, distances_to_codes(model, name, indices, sequences)
    own, steps = model.config.lambda_q, few_steps(model)
    wide = {"layout": WIDE, "style": LABELLED}
    names = [(WORDS[name], name) for name in choices]
    space = ipywidgets.Dropdown(options=names, value=modality, description="modality", style=LABELLED)
    code = ipywidgets.IntSlider(1, 1, model.config.codebook_size, description="code", **wide)
    shopper = ipywidgets.IntSlider(1, 1, 1, description="shopper", **wide)
    lambda_q = ipywidgets.FloatSlider(own, min=0, max=max(3, own), step=0.1, description="lambda_q", **wide)
    gathered, changed = ipywidgets.HTML(), ipywidgets.HTML()
    state: dict[str, object] = {}

    @one_at_a_time
    def show_code(user: int | None = None) -> None:
        view = view_code(dataset, *choices[space.value], code.value - 1, space.value, truth, latest=top_k)
        state["members"] = view.members.tolist()
        first = state["members"].index(user) + 1 if user is not None else 1
        set_quietly(shopper, show_shopper, max=max(1, len(view.members)), value=first)
        gathered.value = view._repr_html_()
        show_shopper()

    @one_at_a_time
    def show_shopper(_=None) -> None:
        if not state["members"]:
            changed.value = told("Nobody chose this code: it is dead.")
            return
        user = state["members"][shopper.value - 1]
        if state.get("user") != user:  # her scores with the model's own lambda_q serve all moves of the slider
            state.update(user=user, before=scores_before_last(model, dataset, user, tables, steps))
        view = view_injection(model, dataset, user, lambda_q.value, top_k, steps, tables, state["before"])
        history = history_shelf(dataset, user, truth, top_k)
        changed.value = f"<hr>{history._repr_html_()}{view._repr_html_()}"

    for control in (shopper, lambda_q):
        control.observe(show_shopper, "value")
    if user_id is not None:
        user = dataset.user_number(user_id)
        code.value = int(choices[modality][0][user]) + 1
        show_code(user)
    else:
        show_code()
    for control in (space, code):
        control.observe(lambda _: show_code(), "value")
    return Panel([space, code, gathered, shopper, lambda_q, changed])


SIDE_BY_SIDE = "1 1 320px"  # two shelves: half a page each, or one below the other where it is narrow


class DiffusionView(NamedTuple):
    """A shopper's reverse diffusion at one step."""

    news: str  # where it stands, in words and ranks
    map: HTML
    track: HTML  # the rank of the true item at every step
    near: Shelf  # whom x_t is nearest to
    predicted: Shelf  # whom x-hat_0 is nearest to

    def __repr__(self) -> str:
        return "\n".join((self.news, repr(self.near), repr(self.predicted)))

    def _repr_html_(self) -> str:
        """HTML with its pictures inside; all that comes from data is escaped."""
        row = "display:flex;flex-wrap:wrap;gap:16px"
        shelves = "".join(
            f'<div style="flex:{SIDE_BY_SIDE}">{shelf._repr_html_()}</div>' for shelf in (self.near, self.predicted)
        )
        return (
            f'{told(self.news)}<div style="{row}">{self.map.data}{self.track.data}</div>'
            f'<div style="{row}">{shelves}</div>'
        )


def view_diffusion(
    dataset: Dataset,
    tables: dict[str, torch.Tensor],
    flat: FlatMap,
    walked: Walk,
    step: int,
    modality: str = "id",
    top_k: int = 4,
) -> DiffusionView:
    """A walk after ``step`` of its S reverse steps.

    Args:
        tables: ``model.item_embeddings()``.
        flat: ``flat_map`` of the modality's items.
        walked: from ``walk``.
        step: 0 (pure noise) to S.
        modality: the space that is shown; the ranks are of all of them, Eq. 19.
        top_k: neighbours shown.
    """
    items = tables[modality][1:].detach()  # (I, D)
    x_t = walked.samples[modality][step]
    last = min(step, len(walked.predictions[modality]) - 1)  # from x_0 nothing is predicted any more
    x_hat = walked.predictions[modality][last]
    cosines = F.normalize(torch.stack([x_t, x_hat]), dim=-1) @ F.normalize(items, dim=-1).T  # (2, I)
    best = cosines.topk(min(top_k, len(items)))
    near, predicted = (
        make_shelf(dataset, (found + 1).tolist(), heading, [f"cosine {cosine:.2f}" for cosine in values], walked.target)
        for found, values, heading in zip(
            best.indices,
            best.values.tolist(),
            (f"● nearest to x_t by {WORDS[modality]}", "◇ nearest to what is predicted from it"),
            strict=True,
        )
    )
    name, steps, t = dataset.user_ids[walked.user], len(walked.timesteps) - 1, walked.timesteps[step]
    news = (
        f"{name} after {step} of {steps} steps, t = {t}. What she did buy (○) is at rank {walked.ranks[step]:,} of "
        f"{dataset.num_items:,} by x_t (●), at rank {walked.predicted_ranks[last]:,} by what the denoiser predicts (◇)."
    )
    path, target = flat.place(walked.samples[modality][: step + 1]), flat.place(items[walked.target - 1][None])[0]
    alt = f"Map of the items by {WORDS[modality]}, {flat.share:.0%} of their variance, with the walk of {news}"
    return DiffusionView(
        news,
        draw_walk(flat.place(items), path, flat.place(x_hat[None])[0], target, modality, alt),
        draw_ranks(walked.ranks, walked.predicted_ranks, step, dataset.num_items),
        near,
        predicted,
    )


def diffusion_explorer(model: IMECD, dataset: Dataset, user_id: str | None = None, top_k: int = 4) -> Panel:
    """Play a reverse diffusion, or scrub through it: where x_t is, whom it is near, where the true item ranks.

    Args:
        model: in eval mode.
        user_id: who is shown first; the first of all when None.
        top_k: neighbours shown.
    """
    tables = {name: table.detach() for name, table in model.item_embeddings().items()}
    maps = {name: flat_map(table[1:]) for name, table in tables.items()}
    first, most = dataset.user_number(user_id) + 1 if user_id else 1, model.config.num_train_timesteps
    walk_of = lru_cache(maxsize=64)(lambda *chosen: walk(model, dataset, *chosen, tables))
    look = {"layout": WIDE, "style": LABELLED}
    play = ipywidgets.Play(value=0, min=0, max=most, interval=400, show_repeat=False, description="play")
    step = ipywidgets.IntSlider(0, 0, most, description="steps done", **look)
    shopper = ipywidgets.IntSlider(first, 1, dataset.num_users, description="shopper", **look)
    counts = [count for count in (1, 2, 4, 8, 16, 32) if count < most] + [most]
    steps = ipywidgets.Dropdown(options=counts, value=most, description="steps", style=LABELLED)
    seed = ipywidgets.IntSlider(0, 0, 19, description="seed", **look)
    modality = ipywidgets.Dropdown(
        options=[(WORDS[name], name) for name in tables], description="modality", style=LABELLED
    )
    news, picture = ipywidgets.HTML(), ipywidgets.HTML()  # apart: what stays is not drawn anew
    near, predicted = (ipywidgets.HTML(layout=ipywidgets.Layout(flex=SIDE_BY_SIDE)) for _ in range(2))
    ipywidgets.jslink((play, "value"), (step, "value"))

    @one_at_a_time
    def show(_=None) -> None:
        count, name = steps.value, modality.value
        done, chosen = min(step.value, count), walk_of(shopper.value - 1, count, seed.value)
        view = view_diffusion(dataset, tables, maps[name], chosen, done, name, top_k)
        news.value = told(view.news)
        picture.value = f'<div style="display:flex;flex-wrap:wrap">{view.map.data}{view.track.data}</div>'
        near.value, predicted.value = view.near._repr_html_(), view.predicted._repr_html_()

    @one_at_a_time
    def change_steps(_) -> None:
        set_quietly(step, show, value=0, max=steps.value)
        play.value, play.max = 0, steps.value
        show()

    steps.observe(change_steps, "value")
    for control in (step, shopper, seed, modality):
        control.observe(show, "value")
    show()
    side = ipywidgets.Layout(flex_flow="row wrap")
    return Panel(
        [
            ipywidgets.HBox([play, step], layout=side),
            *(shopper, steps, seed, modality, news, picture),
            ipywidgets.HBox([near, predicted], layout=side),
        ]
    )


class TrainingMonitor(ipywidgets.VBox):
    """Curves of a training run that grow while it runs: give ``on_step`` and ``on_epoch`` to ``train``.

    One figure is filled again and again, at most once in ``every`` seconds, so that drawing costs the training little.

    Args:
        model: the one that is trained.
        num_items: I; guessing among them is marked.
        baseline: the validation N@10 of popularity, marked as well.
        every: seconds between two pictures.
    """

    def __init__(
        self, model: Recommender, num_items: int | None = None, baseline: float | None = None, every: float = 2.0
    ) -> None:
        self.watched, self.references, self.every = model, (num_items, baseline), every
        self.step_rows: list[dict[str, float]] = []
        self.epoch_rows: list[dict[str, float]] = []
        self.drawn = -every  # when, in seconds of ``time.monotonic``
        self.news, self.curves = ipywidgets.HTML("<b>Waiting for the first step.</b>"), FigureWidget(self.figure())
        self.words = ipywidgets.HTML()
        super().__init__([self.news, self.curves, self.words])

    def __repr__(self) -> str:
        return f"[live curves of the training: {len(self.step_rows)} steps, {len(self.epoch_rows)} epochs]"

    @property
    def steps(self) -> pd.DataFrame:
        """A row for each step, from 1: ``diagnostics.step_numbers``."""
        return pd.DataFrame(self.step_rows, index=range(1, len(self.step_rows) + 1))

    @property
    def epochs(self) -> pd.DataFrame:
        """A row for each epoch, as in the history of ``train``, with "step", its last."""
        return pd.DataFrame(self.epoch_rows)

    def figure(self) -> Figure:
        """The curves as they are now, to keep."""
        return plot_training(self.steps, self.epochs, *self.references)

    def on_step(self, output: LossOutput) -> None:
        """Note a step whose gradients are still there; draw if it is time."""
        from imecd_lite.diagnostics import step_numbers  # loads scikit-learn, which other widgets can do without

        self.step_rows.append(step_numbers(self.watched, output))
        if time.monotonic() - self.drawn >= self.every:
            self.draw()

    def on_epoch(self, row: dict[str, float]) -> None:
        """Note the end of an epoch, and draw."""
        self.epoch_rows.append({**row, "step": len(self.step_rows)})
        self.draw()
        self.words.value = in_words(self.figure().layout.meta["alt"])

    def draw(self) -> None:
        """Fill the figure with what is there."""
        self.drawn = time.monotonic()
        with self.curves.batch_update():
            for line, (x, y) in zip(self.curves.data, training_curves(self.steps, self.epochs), strict=True):
                line.x, line.y = x, y
        self.news.value = f"<b>{html.escape(tell_progress(self.step_rows, self.epoch_rows))}</b>"


def tell_progress(steps: Sequence[dict[str, float]], epochs: Sequence[dict[str, float]]) -> str:
    """How far a training run is, in a sentence."""
    told = f"Step {len(steps):,}: loss {steps[-1]['loss']:.2f}." if steps else "No step yet."
    scores = [row["valid_ndcg@10"] for row in epochs]
    if scores:
        best = scores.index(max(scores)) + 1
        told += f" Epochs done: {len(scores)}; validation N@10 {scores[-1]:.3f}, "
        told += f"the best {max(scores):.3f} (epoch {best})."
    return told


def view_ablation(name: str, run: ShortRun, base: ShortRun) -> str:
    """What a short run of a variant says, and what it can't: N@10, the paired interval, a caution.

    Args:
        name: of the variant.
        run: of the variant.
        base: of the default, on the same shoppers.
    """
    value, other = (float(ndcg(one.ranks, 10).mean()) for one in (run, base))
    low, high = paired_bootstrap(run.ranks, base.ranks, "ndcg@10")
    verdict = (
        "The interval holds 0: this short run can't tell the two apart."
        if low <= 0 <= high
        else "The interval excludes 0: on these shoppers, with this seed and after so few epochs, the two differ."
    )
    return (
        f"{name}: validation N@10 {value:.3f}; the default: {other:.3f}. Difference {value - other:+.3f}, 95% interval "
        f"{low:+.3f} to {high:+.3f} over {len(run.ranks):,} shoppers. {verdict}"
    )


def ablation_explorer(
    runs: dict[str, ShortRun],
    train_variant: Callable[[str, Callable[[dict[str, float]], None]], ShortRun],
    variants: Sequence[str],
    first: str | None = None,
) -> Panel:
    """Choose what to take away from the model, train it without, and lay the curve over the default's.

    Args:
        runs: by name, what has been trained already; the default's run, under "default", has to be there. What is
            trained here is added.
        train_variant: name and ``on_epoch`` -> its run; called when the button is pressed.
        variants: the names to choose from.
        first: the one shown first; the first of all when None.
    """
    base = runs["default"]
    chosen = ipywidgets.Dropdown(options=list(variants), value=first or variants[0], description="variant")
    button = ipywidgets.Button(description="train it", button_style="primary")
    news, curves = ipywidgets.HTML(), FigureWidget(plot_duel({"default": base.scores, "variant": []}, "A short duel"))
    words = ipywidgets.HTML()

    @one_at_a_time
    def draw(scores: Sequence[float]) -> None:
        fresh = plot_duel({"default": base.scores, chosen.value: scores}, "A short duel")
        with curves.batch_update():
            for line, new in zip(curves.data, fresh.data, strict=True):
                line.x, line.y, line.name = new.x, new.y, new.name
        words.value = in_words(fresh.layout.meta["alt"])

    @one_at_a_time
    def show(_=None) -> None:
        run = runs.get(chosen.value)
        button.disabled = run is not None
        draw(run.scores if run else [])
        news.value = html.escape(
            view_ablation(chosen.value, run, base) if run else f"{chosen.value}: not trained yet. Press the button."
        )

    def train_it(_) -> None:
        name, scores = chosen.value, []
        if name in runs:  # a second click, made while the first was being served
            return
        chosen.disabled = button.disabled = True

        def on_epoch(row: dict[str, float]) -> None:
            scores.append(row["valid_ndcg@10"])
            draw(scores)
            news.value = html.escape(f"{name}: training, epoch {len(scores) + 1} …")

        news.value = html.escape(f"{name}: training, epoch 1 …")

        try:
            runs[name] = train_variant(name, on_epoch)
        finally:
            chosen.disabled = False
            show()

    chosen.observe(show, "value")
    button.on_click(train_it)
    show()
    return Panel([chosen, button, news, curves, words])


class ComparisonView(NamedTuple):
    """Two systems on a group of shoppers, among all the systems."""

    means: dict[str, float]  # by system, the mean over seeds and shoppers, best first
    news: str  # by how much the first is above the second, with the paired interval
    users: np.ndarray  # the shoppers of the group, those first whom the first system serves better
    differences: np.ndarray  # (U,) of each shopper, first minus second, over the seeds


def view_comparison(
    systems: dict[str, Sequence[Outcome]], rows: np.ndarray, metric: str, first: str, second: str
) -> ComparisonView:
    """Compare two of ``systems`` on the shoppers ``rows``.

    Args:
        systems: by title, the seeds of each.
        rows: (U,) bool, at least one of them true.
        metric: such as "ndcg@10".
    """
    ranks = {name: stack_ranks(seeds)[:, rows] for name, seeds in systems.items()}
    means = {name: float(user_values(table, metric).mean()) for name, table in ranks.items()}
    values = [user_values(ranks[name], metric).mean(axis=0) for name in (first, second)]  # of the group
    differences = np.zeros(len(rows))
    differences[rows] = values[0] - values[1]
    users = np.flatnonzero(rows)
    low, high = paired_bootstrap(ranks[first], ranks[second], metric)
    verdict = "which holds 0: these shoppers can’t tell the two apart" if low <= 0 <= high else "which excludes 0"
    name = metric.replace("hit", "H").replace("ndcg", "N")
    news = (
        f"{name} of {first}: {means[first]:.3f}, of {second}: {means[second]:.3f}. Difference "
        f"{means[first] - means[second]:+.3f}, 95% interval {low:+.3f} to {high:+.3f} over {len(users):,} shoppers, "
        f"{verdict}."
    )
    means = dict(sorted(means.items(), key=lambda system: -system[1]))
    return ComparisonView(means, news, users[np.argsort(-differences[users], kind="stable")], differences)


class CaseView(NamedTuple):
    """A shopper behind a difference: what two systems, their first seeds, recommended to her."""

    news: str
    bought: Shelf  # what she bought last is framed
    lists: dict[str, Shelf]  # by system

    def __repr__(self) -> str:
        return "\n".join((self.news, *map(repr, (self.bought, *self.lists.values()))))

    def _repr_html_(self) -> str:
        """HTML with its pictures inside; all that comes from data is escaped."""
        shelves = "".join(shelf._repr_html_() for shelf in (self.bought, *self.lists.values()))
        return f"{told(self.news)}{shelves}"


def view_case(
    systems: dict[str, Sequence[Outcome]], dataset: Dataset, user: int, first: str, second: str, top_k: int = 8
) -> CaseView:
    """What two systems make of shopper number ``user``; ``top_k`` items are shown, what she did buy is framed."""
    name, history, target = dataset.user_ids[user], dataset.sequences[user][:-1], int(dataset.sequences[user][-1])
    ranks = {system: int(systems[system][0].ranks[user]) for system in (first, second)}
    told = " and ".join(f"at rank {rank:,} by {system}" for system, rank in ranks.items())
    lists = {}
    for system in ranks:
        shown = systems[system][0].top[user, :top_k].tolist()
        notes = ["she has it" if item in history else "" for item in shown]
        lists[system] = make_shelf(dataset, shown, f"{system} shows her", notes, target)
    latest = history[-(top_k - 1) :].tolist()
    return CaseView(
        f"What {name} bought last is {told}, of {dataset.num_items:,}.",
        make_shelf(
            dataset, [*latest, target], f"What {name} bought, the last framed", [""] * len(latest) + ["last"], target
        ),
        lists,
    )


def evaluation_explorer(
    systems: dict[str, Sequence[Outcome]],
    dataset: Dataset,
    slices: dict[str, np.ndarray],
    first: str,
    second: str,
    top_k: int = 8,
) -> Panel:
    """Choose metric, K, two systems and a group of shoppers; see all systems on it, and who is behind a difference.

    Args:
        systems: by title, the outcomes of all seeds on the test items, from 0.
        slices: from ``user_slices`` of the test split.
        first, second: the two that are compared at first.
        top_k: recommendations shown.
    """
    look = {"layout": WIDE, "style": LABELLED}
    metric = ipywidgets.Dropdown(options=[("N@K", "ndcg"), ("H@K", "hit")], description="metric", style=LABELLED)
    k = ipywidgets.IntSlider(10, 1, 50, description="K", **look)
    names = list(systems)
    left = ipywidgets.Dropdown(options=names, value=first, description="first", **look)
    right = ipywidgets.Dropdown(options=names, value=second, description="second", **look)
    group = ipywidgets.Dropdown(options=list(slices), description="shoppers", **look)
    case = ipywidgets.IntSlider(1, 1, 1, description="case", **look)
    table, page = ipywidgets.HTML(), ipywidgets.HTML()
    state: dict[str, ComparisonView] = {}

    @one_at_a_time
    def show(_=None) -> None:
        chosen = (left.value, right.value)
        view = view_comparison(systems, slices[group.value], f"{metric.value}@{k.value}", *chosen)
        state["view"] = view
        set_quietly(case, show_case, max=len(view.users), value=1)
        bars = system_bars(view.means, chosen)
        table.value = f"{bars.data}{told(view.news)}"
        show_case()

    @one_at_a_time
    def show_case(_=None) -> None:
        view, chosen = state["view"], (left.value, right.value)
        user = int(view.users[case.value - 1])
        difference = f"Case {case.value:,} of {len(view.users):,}: difference {view.differences[user]:+.3f}."
        page.value = f"{told(difference)}{view_case(systems, dataset, user, *chosen, top_k)._repr_html_()}"

    for control in (metric, k, left, right, group):
        control.observe(show, "value")
    case.observe(show_case, "value")
    show()
    return Panel([metric, k, left, right, group, table, case, page])
