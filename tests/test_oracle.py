"""The shop's own odds against all stories that can have led to a history, told one by one."""

import itertools

import numpy as np
import pytest
import tiny
import torch

from imecd_lite import BUNDLED_DATA, InputError, load_dataset, metrics, target_ranks
from imecd_lite.dataset import Split
from imecd_lite.oracle import ADVANCE, COMPANION, STRAY, ShopOracle
from imecd_lite.reproduce import kept_systems
from imecd_lite.results import stack_ranks
from imecd_lite.shop import FAMILIES, JOURNEYS, KINDS, appeal, make_cells, make_items

SHOP = load_dataset(BUNDLED_DATA / "shop")
ITEMS = make_items(np.random.default_rng(0))
CELLS, COMPANIONS = make_cells(ITEMS)


def shoppers():
    """(probability, user, her shelf at each stage) of every kind of shopper and stage she may come in at."""
    total = sum(share for share, _, _ in JOURNEYS.values())
    for share, themes, kinds in JOURNEYS.values():
        youngest, oldest = FAMILIES[KINDS[kinds[0]].family][1]
        ages = range(youngest, oldest + 1)
        shelves = [{n for theme in themes for n in CELLS[kind, theme]} for kind in kinds]
        for theme, age, price in itertools.product(themes, ages, range(3)):
            user = {"favourite_theme": theme, "age": age, "price": price}
            for first, chance in enumerate((3 / 6, 2 / 6, 1 / 6)):
                yield share / total / 3 / len(ages) / 3 * chance, first, user, shelves


def next_odds(history: list[int], popularity: np.ndarray) -> np.ndarray:
    """Of each item number, that it follows a history of item numbers: every story, weighted by its probability."""
    odds = np.zeros(len(ITEMS))

    def stray_odds(bought: set[int]) -> np.ndarray:
        free = np.array([0.0 if n in bought else popularity[n] for n in range(len(ITEMS))])
        return free / free.sum()

    strays = [stray_odds(set(history[:place])) for place in range(len(history) + 1)]

    def tell(probability, user, shelves, stage, last, place):
        shelf = shelves[stage] - set(history[:place])
        weights = {n: appeal(ITEMS[n], user) for n in shelf}
        total, companion = sum(weights.values()), COMPANIONS.get(last)
        with_companion = COMPANION if companion in shelf else 0.0
        if place == len(history):
            odds[:] += probability * STRAY * strays[place]
            for n, weight in weights.items():
                odds[n] += probability * (1 - STRAY) * (1 - with_companion) * weight / total
            if with_companion:
                odds[companion] += probability * (1 - STRAY) * with_companion
            return
        click = history[place]
        tell(probability * STRAY * strays[place][click], user, shelves, stage, last, place + 1)
        if click in shelf:
            taken = (1 - with_companion) * weights[click] / total + with_companion * (click == companion)
            step = probability * (1 - STRAY) * taken
            advance = ADVANCE if stage + 1 < len(shelves) else 0.0
            tell(step * (1 - advance), user, shelves, stage, click, place + 1)
            if advance:
                tell(step * advance, user, shelves, stage + 1, click, place + 1)

    for probability, first, user, shelves in shoppers():
        tell(probability, user, shelves, first, None, 0)
    return odds / odds.sum()


def test_odds_are_the_sum_over_every_story_that_leads_to_a_history():
    oracle = ShopOracle(SHOP)
    pair = next(a for a, b in COMPANIONS.items() if a != b)
    histories = [
        [item - 1 for item in SHOP.sequences[41][:4].tolist()],
        [item - 1 for item in SHOP.sequences[7][:3].tolist()],
        [pair, COMPANIONS[pair]],  # a pair that belongs together
    ]
    item_seq = torch.zeros(len(histories), 6, dtype=torch.int64)
    for row, history in zip(item_seq, histories, strict=True):
        row[-len(history) :] = torch.tensor(history) + 1
    scores = oracle.full_sort_predict(item_seq, torch.arange(len(histories)))
    popularity = SHOP.train_counts[1:] + 1.0
    assert torch.isneginf(scores[:, 0]).all()
    for row, history in zip(scores[:, 1:].numpy(), histories, strict=True):
        np.testing.assert_allclose(row, next_odds(history, popularity), rtol=1e-9, atol=1e-15)


def test_odds_sum_to_one_and_what_she_has_is_not_among_them():
    batch = torch.zeros(3, 20, dtype=torch.int64)
    for row, user in zip(batch, (0, 5, 9), strict=True):
        sequence = torch.from_numpy(SHOP.sequences[user])
        row[-len(sequence) :] = sequence
    scores = ShopOracle(SHOP).full_sort_predict(batch, torch.arange(3))
    torch.testing.assert_close(scores[:, 1:].sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert scores.gather(1, batch)[batch > 0].eq(0).all()


def test_nobody_who_was_kept_ranks_better():
    split = SHOP.split("test")
    few = Split(split.users[:300], split.histories[:300], split.targets[:300])
    best = metrics(target_ranks(ShopOracle(SHOP), SHOP, few))
    for seeds in kept_systems(BUNDLED_DATA / "results/shop").values():
        for ranks in stack_ranks(seeds):
            assert metrics(ranks[:300])["ndcg@10"] < best["ndcg@10"]


def test_another_shop_is_refused(tmp_path):
    with pytest.raises(InputError, match="not the shop of seed 1"):
        ShopOracle(SHOP, seed=1)
    with pytest.raises(InputError, match="not the shop of seed 0"):
        ShopOracle(tiny.tiny_dataset())
