"""Widgets of the notebooks: thin, every callback a function of the library that a test can call."""

# I items

from __future__ import annotations

import html
from typing import NamedTuple

import ipywidgets

from imecd_lite.dataset import Dataset
from imecd_lite.model import Recommender
from imecd_lite.recommend import score_history
from imecd_lite.shelf import Shelf, make_shelf

WIDE = ipywidgets.Layout(width="480px")
HELD_OUT = {1: "held out for the test", 2: "held out for validation"}


class Panel(ipywidgets.VBox):
    """A widget whose ``repr`` is one readable line, for saved notebooks and code hosts."""

    def __repr__(self) -> str:
        names = [child.description for child in self.children if getattr(child, "description", "")]
        return f"[widget: {', '.join(names)}; run the notebook to move it]"


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
    first = dataset.user_ids.index(user_id) if user_id else 0
    length = int(dataset.lengths[first])
    shopper = ipywidgets.IntSlider(first + 1, 1, dataset.num_users, description="shopper", layout=WIDE)
    bought = ipywidgets.IntSlider(length - 1, 1, length, description="bought", layout=WIDE)
    page = ipywidgets.HTML()

    def show(_=None) -> None:
        view = view_shopper(model, dataset, shopper.value - 1, bought.value, top_k)
        parts = (view.history, view.shown, f"<p><b>{html.escape(view.news)}</b></p>", view.next_item)
        page.value = "".join(part if isinstance(part, str) else part._repr_html_() for part in parts)

    def change_shopper(change) -> None:
        length = int(dataset.lengths[change.new - 1])
        bought.unobserve(show, "value")  # one picture a move, not two
        bought.max, bought.value = length, length - 1
        bought.observe(show, "value")
        show()

    shopper.observe(change_shopper, "value")
    bought.observe(show, "value")
    show()
    return Panel([shopper, bought, page])
