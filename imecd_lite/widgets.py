"""Widgets of the notebooks: thin, every callback a function of the library that a test can call."""

# I items, D size of a space

from __future__ import annotations

import html
from typing import NamedTuple

import ipywidgets
import numpy as np
import pandas as pd
import torch

from imecd_lite.dataset import Dataset
from imecd_lite.diagnostics import read_truth
from imecd_lite.encoders import Features
from imecd_lite.model import IMECD, Recommender
from imecd_lite.plots import COLOURS, NAMES
from imecd_lite.recommend import score_history
from imecd_lite.shelf import Shelf, make_shelf
from imecd_lite.spaces import item_spaces, nearest

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
    return f"Its {subject} “{claimed}”, this is of the kind “{kind}”. It draws in those who look for “{claimed}”."


def neighbour_explorer(
    dataset: Dataset, features: Features | None, model: IMECD, item_id: str | None = None, top_k: int = 6
) -> Panel:
    """Pick an item and see its nearest neighbours by text, by picture and by behaviour, and whom it misleads.

    Args:
        features: None for an ids-only dataset: then there is one shelf, by behaviour.
        item_id: what is shown first; the first of all when None.
        top_k: neighbours shown in each space.
    """
    spaces, truth = item_spaces(model, features), read_truth(dataset).get("items")
    groups = {"all items": list(range(1, dataset.num_items + 1))}
    if truth is not None:
        for label, value in (("the honest", ""), ("text misleads", "text"), ("picture misleads", "image")):
            groups[label] = (np.flatnonzero(truth["misleading"] == value) + 1).tolist()
    start = dataset.item_ids.index(item_id) + 1 if item_id else 1
    among = ipywidgets.Dropdown(options=[label for label in groups if groups[label]], description="among")
    item = ipywidgets.IntSlider(start, 1, dataset.num_items, description="item", layout=WIDE)
    page = ipywidgets.HTML()

    def show(_=None) -> None:
        view = view_neighbours(spaces, dataset, groups[among.value][item.value - 1], truth, top_k)
        columns = "".join(
            f'<div style="border-top:4px solid {COLOURS[name]}">{shelf._repr_html_()}</div>'
            for name, shelf in view.shelves.items()
        )
        grid = "display:grid;grid-template-columns:repeat(auto-fit,minmax(240px,1fr));gap:16px"
        page.value = (
            f'<div style="display:flex;gap:16px;align-items:center">{view.item._repr_html_()}'
            f'<b>{html.escape(view.verdict)}</b></div><div style="{grid}">{columns}</div>'
        )

    def change_group(_) -> None:
        item.unobserve(show, "value")  # one picture a move, not two
        item.value, item.max = 1, len(groups[among.value])
        item.observe(show, "value")
        show()

    among.observe(change_group, "value")
    item.observe(show, "value")
    show()
    return Panel([among, item, page])
