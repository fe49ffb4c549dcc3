"""Widgets of the notebooks: thin, every callback a function of the library that a test can call."""

# I items, D size of a space, N experts

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import ipywidgets
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from plotly.graph_objects import Figure, FigureWidget

from imecd_lite.counterfactual import WhatIf, scores_before_last, what_if
from imecd_lite.dataset import Dataset
from imecd_lite.encoders import Features
from imecd_lite.errors import InputError
from imecd_lite.evaluate import ndcg, paired_bootstrap
from imecd_lite.model import IMECD, LossOutput, Recommender
from imecd_lite.plots import COLOURS, NAMES, WORDS, gate_bars, plot_duel, plot_training
from imecd_lite.recommend import score_history
from imecd_lite.shelf import Shelf, make_shelf
from imecd_lite.spaces import item_spaces, nearest

if TYPE_CHECKING:
    from imecd_lite.runs import ShortRun  # loads scikit-learn, which other widgets can do without

WIDE = ipywidgets.Layout(width="480px")
HELD_OUT = {1: "held out for the test", 2: "held out for validation"}


class Panel(ipywidgets.VBox):
    """A widget whose ``repr`` is one readable line, for saved notebooks and code hosts."""

    def __repr__(self) -> str:
        names = [child.description for child in self.children if getattr(child, "description", "")]
        return f"[widget: {', '.join(names)}; run the notebook to move it]"


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
        set_quietly(bought, show, max=length, value=length - 1)
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
    from imecd_lite.diagnostics import read_truth  # loads scikit-learn, which other widgets can do without

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
        set_quietly(item, show, value=1, max=len(groups[among.value]))
        show()

    among.observe(change_group, "value")
    item.observe(show, "value")
    show()
    return Panel([among, item, page])


LABELLED = {"description_width": "90px"}


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

    def _repr_html_(self) -> str:
        """HTML with its pictures inside; all that comes from data is escaped."""
        bars = "".join(gate_bars(*self.gates[name], name).data for name in self.gates)
        columns = "".join(
            f'<div style="border-top:4px solid {COLOURS[name]}">{shelf._repr_html_()}</div>'
            for name, shelf in self.neighbours.items()
        )
        grid = "display:grid;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));gap:16px"
        row = "display:flex;flex-wrap:wrap;gap:24px;align-items:center"
        return (
            f'<div style="{row}">{self.item._repr_html_()}{bars}</div>'
            f"<p>{html.escape(self.verdict)}</p><p><b>{html.escape(self.news)}</b></p>"
            f'<div style="{grid}">{columns}</div>{self.shown._repr_html_()}'
        )


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
    """
    if not model.experts:
        raise InputError(
            "This model has no experts to listen to; it was made with use_experts set to False or ids only."
        )
    before, now = before or what_if(model), what_if(model, item, id_of, muted)
    scores = [scores_before_last(model, dataset, user, tables, num_inference_steps) for _, tables in (now, before)]
    ranks = tuple(int((score >= score[item]).sum()) for score in scores)
    best = scores[0].topk(min(top_k, dataset.num_items)).indices.tolist()
    kinds = None if truth is None else truth["kind"].to_numpy()
    neighbours = {}
    for name in now.gates:
        found = nearest(now.tables[name][1:], torch.tensor([item]), top_k)[0].tolist()
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
    start = dataset.item_ids.index(item_id) + 1 if item_id else 1
    first = dataset.user_ids.index(user_id) + 1 if user_id else 1
    item = ipywidgets.IntSlider(start, 1, count, description="item", layout=WIDE, style=LABELLED)
    id_of = ipywidgets.IntSlider(start, 1, count, description="has the ID of", layout=WIDE, style=LABELLED)
    experts = (
        [(f"expert {n + 1}", (n,)) for n in range(model.config.num_experts)] if model.config.num_experts > 1 else []
    )
    muted = ipywidgets.Dropdown(options=[("nobody", ()), *experts], description="mute", style=LABELLED)
    shopper = ipywidgets.IntSlider(first, 1, dataset.num_users, description="shopper", layout=WIDE, style=LABELLED)
    page = ipywidgets.HTML()

    before = what_if(model) if model.experts else None

    def show(_=None) -> None:
        chosen = (item.value, id_of.value, muted.value, shopper.value - 1)
        view = view_gates(model, dataset, *chosen, truth, top_k, before=before)
        page.value = view._repr_html_()

    def change_item(change) -> None:
        set_quietly(id_of, show, value=change.new)
        show()

    item.observe(change_item, "value")
    for control in (id_of, muted, shopper):
        control.observe(show, "value")
    show()
    return Panel([item, id_of, muted, shopper, page])


class TrainingMonitor(ipywidgets.VBox):
    """Curves of a training run that grow while it runs: give ``on_step`` and ``on_epoch`` to ``train``.

    One figure is filled again and again, at most once in ``every`` seconds, so that drawing costs the training little.

    Args:
        model: the one that is trained.
        num_items: I; guessing among them is marked.
        baseline: the validation N@10 of something simple, marked as well.
        every: seconds between two pictures.
    """

    def __init__(
        self, model: Recommender, num_items: int | None = None, baseline: float | None = None, every: float = 1.0
    ) -> None:
        self.watched, self.references, self.every = model, (num_items, baseline), every
        self.step_rows: list[dict[str, float]] = []
        self.epoch_rows: list[dict[str, float]] = []
        self.drawn = -every  # when, in seconds of ``time.monotonic``
        self.news, self.curves = ipywidgets.HTML("<b>Waiting for the first step.</b>"), FigureWidget(self.figure())
        super().__init__([self.news, self.curves])

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

    def draw(self) -> None:
        """Fill the figure with what is there."""
        self.drawn = time.monotonic()
        fresh = self.figure()
        with self.curves.batch_update():
            for line, new in zip(self.curves.data, fresh.data, strict=True):
                line.x, line.y = new.x, new.y
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

    def draw(scores: Sequence[float]) -> None:
        fresh = plot_duel({"default": base.scores, chosen.value: scores}, "A short duel")
        with curves.batch_update():
            for line, new in zip(curves.data, fresh.data, strict=True):
                line.x, line.y, line.name = new.x, new.y, new.name

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
        news.value = html.escape(f"{name}: training …")

        def on_epoch(row: dict[str, float]) -> None:
            scores.append(row["valid_ndcg@10"])
            draw(scores)

        try:
            runs[name] = train_variant(name, on_epoch)
        finally:
            chosen.disabled = False
            show()

    chosen.observe(show, "value")
    button.on_click(train_it)
    show()
    return Panel([chosen, button, news, curves])
