"""The popularity baseline counts training items and nothing else."""

# B batch, I items

import numpy as np
import pytest
import tiny
import torch

from imecd_lite.baselines import Popularity

SEQUENCES = [np.array(s) for s in ([1, 2, 3, 4, 5], [1, 2, 2, 6, 7], [1, 8, 9, 10, 11], [3, 3, 3, 12, 13])]


def fitted(sequences=SEQUENCES) -> Popularity:
    model = Popularity(tiny.CONFIG, tiny.NUM_ITEMS)
    model.fit_statistics(tiny.tiny_dataset(sequences))
    return model


def scores(model: Popularity) -> torch.Tensor:
    batch = tiny.tiny_batch()
    return model.full_sort_predict(batch.item_seq, batch.user_keys)


def test_an_item_scores_its_count_in_the_training_part_of_all_histories():
    row = scores(fitted())[0]
    assert row[1:].tolist() == [3, 3, 4, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0]
    assert row[0] == -torch.inf


def test_held_out_items_do_not_count():
    other_future = [np.append(s[:-2], [13, 13]) for s in SEQUENCES]
    assert torch.equal(scores(fitted(other_future)), scores(fitted()))
    other_past = [np.append(s[:1] % 13 + 1, s[1:]) for s in SEQUENCES]
    assert not torch.equal(scores(fitted(other_past)), scores(fitted()))


def test_every_user_gets_the_same_scores_and_may_change_them():
    model = fitted()
    table = scores(model)
    assert table.shape == (7, tiny.NUM_ITEMS + 1) and torch.equal(table, table[:1].expand(7, -1))
    table += 100  # a caller masks seen items in place
    assert scores(model)[0, 1] == 3


def test_fitting_again_starts_from_nothing():
    model = fitted()
    model.fit_statistics(tiny.tiny_dataset(SEQUENCES))
    assert torch.equal(scores(model), scores(fitted()))


def test_it_has_nothing_to_learn():
    model = fitted()
    assert not list(model.parameters()) and set(model.state_dict()) == {"counts"}
    with pytest.raises(NotImplementedError):
        model.loss(tiny.tiny_batch(), torch.Generator())
