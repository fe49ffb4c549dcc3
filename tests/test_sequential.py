"""What the comparators share, against plain loops."""

# B batch, L sequence, D hidden

import math

import pytest
import tiny
import torch

from imecd_lite.baselines.sequential import attention_mask, drop_items, info_nce, register_features
from imecd_lite.errors import InputError


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def test_info_nce_is_that_of_plain_loops_and_same_targets_are_no_negatives():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    targets, temperature = [3, 1, 3, 2, 1], 0.5
    total = 0.0
    for i in range(5):
        own = math.exp(cosine(first[i], second[i]) / temperature)
        others = sum(math.exp(cosine(first[i], second[j]) / temperature) for j in range(5) if targets[j] != targets[i])
        total -= math.log(own / (own + others)) / 5
    assert float(info_nce(first, second, torch.tensor(targets), temperature)) == pytest.approx(total)


def test_dropping_keeps_the_first_item_and_the_order_and_pads_left():
    item_seq = tiny.left_padded(tiny.HISTORIES)
    wider = torch.nn.functional.pad(item_seq, (3, 0))
    kept_items, real_items = 0, 0
    for seed in range(200):
        dropped = drop_items(item_seq, torch.Generator().manual_seed(seed), 9)
        for row, history in zip(dropped.tolist(), tiny.HISTORIES, strict=True):
            items = [item for item in row if item]
            assert row == [0] * (len(row) - len(items)) + items
            assert items[0] == history[0]
            rest = iter(history)
            assert all(item in rest for item in items), "a subsequence"
            kept_items, real_items = kept_items + len(items) - 1, real_items + len(history) - 1
        padded = drop_items(wider, torch.Generator().manual_seed(seed), 9)
        assert torch.equal(padded, torch.nn.functional.pad(dropped, (3, 0)))
    assert kept_items / real_items == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("causal", [True, False])
def test_everybody_sees_itself_and_real_items_that_are_not_later(causal):
    mask = attention_mask(tiny.left_padded(tiny.HISTORIES), causal)
    for row, history in zip(mask.tolist(), tiny.left_padded(tiny.HISTORIES).tolist(), strict=True):
        for i in range(len(history)):
            for j in range(len(history)):
                assert row[i][j] == (i == j or (history[j] > 0 and (j <= i or not causal)))


def test_features_are_standardised_and_missing_ones_named():
    model, table = torch.nn.Module(), tiny.random_features()
    register_features(model, ("text", "image"), **table)
    assert not model.text_features[0].any() and not model.image_features[0].any()
    torch.testing.assert_close(model.text_features[1:].mean(dim=0), torch.zeros(tiny.TEXT_SIZE), atol=1e-6, rtol=0)
    torch.testing.assert_close(model.text_features[1:].std(dim=0), torch.ones(tiny.TEXT_SIZE))
    assert not model.state_dict()
    with pytest.raises(InputError, match=r"Module needs image features; give a dataset with items\.csv"):
        register_features(torch.nn.Module(), ("image",), text=table["text"], image=None)
