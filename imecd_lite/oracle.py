"""The most that a history tells: the odds of the next click, by one who knows how the shop was made."""

# B batch, L sequence, I items, J journeys, H kinds of shoppers, S stages, K = L + 1 places, the first before them

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F

from imecd_lite.dataset import Dataset, length_chunks
from imecd_lite.diagnostics import read_truth
from imecd_lite.errors import InputError
from imecd_lite.model import Recommender
from imecd_lite.shop import (
    ADVANCE_PERCENT,
    COMPANION_PERCENT,
    FAMILIES,
    FIRST_STAGE_SHARES,
    JOURNEYS,
    KINDS,
    PRICES,
    STRAY_PERCENT,
    appeal,
    make_cells,
    make_items,
)

ADVANCE, COMPANION, STRAY = (percent / 100 for percent in (ADVANCE_PERCENT, COMPANION_PERCENT, STRAY_PERCENT))


class ShopOracle(Recommender):
    """Knows what ``imecd_lite.shop`` draws from, sees what a shopper has bought, and gives the odds of each next item.

    By Bayes' rule over all that is hidden: her journey, her tastes, the stage she is in and which clicks were strays.
    To rank by these odds is the best that anybody can do with a history, on average over the shops that could have been
    made, so it says what is left to gain; but for strays, one click in eight, which it simplifies. How popular an item
    is with them it does not know and counts training clicks, and it takes a stray for a click of its moment, on an item
    that was not clicked yet and now leaves the shelf; the shop adds strays when the rest of the walk is known. It reads
    no text and no picture, as it knows what the items are.

    Args:
        dataset: a shop made by ``shop --seed``, with all of its items.
        seed: of that shop; the bundled one has 0.

    Raises:
        InputError: the dataset is not that shop.
    """

    ROWS_AT_ONCE = 32  # a row takes H x S x K numbers

    def __init__(self, dataset: Dataset, seed: int = 0) -> None:
        super().__init__()
        items, truth = make_items(np.random.default_rng(seed)), read_truth(dataset).get("items")
        made = [(item.item_id, item.kind, item.theme) for item in items]
        if truth is None or made != list(truth[["kind", "theme"]].itertuples(name=None)):
            raise InputError(f"{dataset.path} is not the shop of seed {seed}; give the one it was made with.")
        cells, companions = make_cells(items)
        offers, prior, journeys = [], [], []
        total = sum(share for share, _, _ in JOURNEYS.values())
        for journey, (share, themes, kinds) in enumerate(JOURNEYS.values()):
            shelves = [[n for theme in themes for n in cells[kind, theme]] for kind in kinds]
            youngest, oldest = FAMILIES[KINDS[kinds[0]].family][1]
            tastes = list(itertools.product(themes, range(youngest, oldest + 1), range(len(PRICES))))
            for theme, age, price in tastes:
                user = {"favourite_theme": theme, "age": age, "price": price}
                offer = np.zeros((len(kinds), len(items) + 1))  # (S, I + 1)
                for stage, shelf in enumerate(shelves):
                    offer[stage, [n + 1 for n in shelf]] = [appeal(items[n], user) for n in shelf]
                offers.append(offer)
                prior.append(share / total / len(tastes))
                journeys.append(journey)
        first = np.array(FIRST_STAGE_SHARES) / sum(FIRST_STAGE_SHARES)
        self.register_buffer("offers", torch.from_numpy(np.stack(offers)))  # (H, S, I + 1), whole numbers
        self.register_buffer("journeys", torch.tensor(journeys))  # (H,)
        _, first_of = np.unique(journeys, return_index=True)
        self.register_buffer("on_shelf", self.offers[first_of] > 0)  # (J, S, I + 1), the same for all of a journey
        self.register_buffer("prior", torch.from_numpy(np.outer(prior, first)))  # (H, S)
        goes_with = [0, *(companions[n] + 1 for n in range(len(items)))]
        self.register_buffer("companions", torch.tensor(goes_with))  # (I + 1,), 0 goes with nothing
        popularity = F.pad(torch.from_numpy(dataset.train_counts[1:] + 1.0), (1, 0))
        self.register_buffer("popularity", popularity)  # (I + 1,)

    def odds(
        self, belief: torch.Tensor, lasts: torch.Tensor, bought: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """How likely each way to the next click is under each explanation of the clicks so far.

        Args:
            belief: (B, H, S, K) how likely each explanation is: the kind of shopper, the stage she is in, and at which
                of K places her journey took its last step.
            lasts: (B, K) the items at these places, 0 before the first.
            bought: (B, I + 1) bool.
            weight: (B, H, S) what the items that are left on the shelf weigh together.

        Returns:
            Of a stray, of taking the companion of the last step, and of choosing from the shelf, (B, H, S, K) each.
        """
        companion = self.companions[lasts]  # (B, K)
        there = self.on_shelf[..., companion].movedim(2, 0)  # (B, J, S, K), on the shelf and
        there = (there & ~bought.gather(1, companion)[:, None, None])[:, self.journeys]  # not yet bought
        along = (1 - STRAY) * belief * (weight > 0)[..., None]  # an empty shelf leaves nothing but to stray
        with_last = COMPANION * along * there
        return belief - along, with_last, along - with_last

    def follow(self, item_seq: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What explains the clicks of left-padded histories (B, L), and what is left: the arguments of ``odds``."""
        rows, length = item_seq.shape
        belief = self.prior.new_zeros(rows, *self.prior.shape, length + 1)  # (B, H, S, K)
        belief[..., 0] = self.prior
        lasts = F.pad(item_seq, (1, 0))
        bought = torch.zeros(rows, self.offers.shape[-1], dtype=torch.bool, device=item_seq.device)
        bought[:, 0] = True
        weight = self.offers.sum(dim=-1).repeat(rows, 1, 1)  # (B, H, S)
        for place, click in enumerate(item_seq.T, start=1):
            stray, with_last, chosen = self.odds(belief[..., :place], lasts[:, :place], bought, weight)
            is_companion = self.companions[lasts[:, :place]] == click[:, None]  # (B, K)
            offered = self.offers[..., click].movedim(2, 0)  # (B, H, S)
            by_choice = chosen.sum(dim=-1) * offered / weight.clamp(min=1.0)
            step = (with_last * is_companion[:, None, None]).sum(dim=-1) + by_choice
            ahead = ADVANCE * step[..., :-1]  # goes on to the next stage, where there is one
            popularity = (self.popularity * ~bought).sum(dim=1)  # (B,)
            after = torch.zeros_like(belief)
            after[..., :place] = stray * (self.popularity[click] / popularity)[:, None, None, None]
            after[..., place] = step + F.pad(ahead, (1, 0)) - F.pad(ahead, (0, 1))
            belief = torch.where(
                (click > 0)[:, None, None, None], after / after.sum(dim=(1, 2, 3), keepdim=True), belief
            )
            weight = weight - offered * ~bought.gather(1, click[:, None])[..., None]
            bought.scatter_(1, click[:, None], True)
        return belief, lasts, bought, weight

    @torch.no_grad()
    def full_sort_predict(self, item_seq: torch.Tensor, user_keys: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """The probability that each item is the next, (B, I + 1), column 0 minus infinity; nothing is random."""
        scores = self.prior.new_empty(len(item_seq), self.offers.shape[-1])
        for rows, chunk in length_chunks(item_seq):
            for some, histories in zip(rows.split(self.ROWS_AT_ONCE), chunk.split(self.ROWS_AT_ONCE), strict=True):
                belief, lasts, bought, weight = self.follow(histories)
                stray, with_last, chosen = self.odds(belief, lasts, bought, weight)
                each = (chosen.sum(dim=-1) / weight.clamp(min=1.0)).flatten(1)  # (B, H S), of an item's weight
                odds = each @ self.offers.flatten(0, 1)
                odds.scatter_add_(1, self.companions[lasts], with_last.sum(dim=(1, 2)))
                odds += stray.sum(dim=(1, 2, 3))[:, None] * F.normalize(self.popularity * ~bought, p=1, dim=1)
                scores[some] = odds.masked_fill(bought, 0.0)
        scores[:, 0] = -torch.inf
        return scores
