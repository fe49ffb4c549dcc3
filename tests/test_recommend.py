"""What a shopper is shown."""

# B batch, L sequence, I items

import dataclasses

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from imecd_lite.errors import InputError
from imecd_lite.evaluate import top_items
from imecd_lite.recommend import recommend, score_history, score_items

DATASET = tiny.tiny_dataset()


def test_the_best_items_come_first_with_their_scores():
    table = recommend(tiny.Listed(), DATASET, "user 3", top_k=4)
    assert table.to_dict("list") == {
        "rank": [1, 2, 3, 4],
        "item_id": ["item 13", "item 12", "item 11", "item 10"],
        "item": [13, 12, 11, 10],
        "score": [13, 12, 11, 10],
    }


def test_the_model_is_asked_for_the_latest_items_of_the_whole_history_and_with_the_users_key():
    long = tiny.tiny_dataset([*tiny.random_sequences()[:-1], np.arange(1, 10)])
    model = tiny.Listed()
    recommend(model, long, "user 23", seed=5)
    item_seq, user_keys, seed = model.asked[0]
    assert item_seq.tolist() == [[4, 5, 6, 7, 8, 9]] and seed == 5  # max_length is 6
    assert user_keys.tolist() == [long.user_keys[23]]


def test_padding_is_never_recommended():
    assert len(recommend(tiny.Listed(), DATASET, "user 0", top_k=tiny.NUM_ITEMS)) == tiny.NUM_ITEMS
    assert 0 not in recommend(tiny.Listed(), DATASET, "user 0", top_k=tiny.NUM_ITEMS)["item"].tolist()


def test_what_the_user_has_is_left_out_on_request_however_long_ago():
    dataset = tiny.tiny_dataset([*tiny.random_sequences()[:-1], np.array([13, 1, 2, 3, 4, 5, 6, 7])])
    table = recommend(tiny.Listed(), dataset, "user 23", top_k=13, mask_seen=True)
    assert table["item"].tolist() == [12, 11, 10, 9, 8] and table["rank"].tolist() == [1, 2, 3, 4, 5]
    assert 13 in recommend(tiny.Listed(), dataset, "user 23")["item"].tolist()


def test_titles_are_shown_where_there_are_some():
    items = pd.DataFrame({"item_id": DATASET.item_ids, "title": [f"Title of {i}" for i in DATASET.item_ids]})
    table = recommend(tiny.Listed(), dataclasses.replace(DATASET, items=items), "user 0", top_k=2)
    assert table["title"].tolist() == ["Title of item 13", "Title of item 12"]
    assert list(table)[:3] == ["rank", "item_id", "title"]


def test_a_trained_model_recommends_what_the_evaluator_ranks():
    """On the history without the test item, whichever way the scores are asked for."""
    model = tiny.tiny_model().eval()
    shortened = tiny.tiny_dataset([sequence[:-1] for sequence in DATASET.sequences])
    top = top_items(model, DATASET, DATASET.split("test"), k=5, seed=2)
    for user in (0, 7, 23):
        assert recommend(model, shortened, f"user {user}", top_k=5, seed=2)["item"].tolist() == top[user].tolist()


def test_the_times_of_a_made_history_are_whole_days_to_the_second():
    class Timed(tiny.Listed):
        def predict(self, batch, seed=0):
            self.times = batch.timestamps
            return super().predict(batch, seed)

    late = [np.arange(len(sequence)) + 1_766_444_653.0 for sequence in DATASET.sequences]
    model, last = Timed(), max(float(times[-1]) for times in late)
    score_items(model, dataclasses.replace(DATASET, timestamps=late), [1, 2, 3])
    assert model.times.tolist() == [[last - 2 * 86_400, last - 86_400, last]]


def test_an_unknown_user_is_refused_with_an_example():
    with pytest.raises(InputError, match="no user 'nobody' in made-up; user ids look like 'user 0'"):
        recommend(tiny.Listed(), DATASET, "nobody")


@pytest.mark.parametrize(
    ("user", "num_bought", "message"),
    [
        (-1, None, f"no user number -1; give one from 0 to {tiny.NUM_USERS - 1}"),
        (tiny.NUM_USERS, None, f"no user number {tiny.NUM_USERS}"),
        (3, 0, f"num_bought is 0; it must be from 1 to {len(DATASET.sequences[3])}, the length"),
        (3, -1, "num_bought is -1"),
        (3, 99, "num_bought is 99"),
    ],
)
def test_a_history_that_is_not_there_is_refused(user, num_bought, message):
    with pytest.raises(InputError, match=message):
        score_history(tiny.Listed(), DATASET, user, num_bought)


@pytest.mark.parametrize("top_k", [0, -1, tiny.NUM_ITEMS + 1, 2.5, True])
def test_an_impossible_top_k_is_refused_with_the_range(top_k):
    with pytest.raises(InputError, match=f"top_k is {top_k}; it must be from 1 to 13"):
        recommend(tiny.Listed(), DATASET, "user 0", top_k=top_k)


def test_a_history_that_nobody_has_is_scored_by_its_latest_items_alone():
    model = tiny.Listed()
    scores = score_items(model, DATASET, [*range(1, 10)], seed=5)
    item_seq, user_keys, seed = model.asked[0]
    assert item_seq.tolist() == [[4, 5, 6, 7, 8, 9]] and seed == 5 and user_keys.shape == (1,)
    assert scores.tolist()[1:] == list(range(1, tiny.NUM_ITEMS + 1))
    assert torch.equal(score_items(model, DATASET, np.arange(1, 10), seed=5), scores)
    with pytest.raises(InputError, match="The history is empty"):
        score_items(model, DATASET, [])
    assert torch.equal(score_items(model, DATASET, pd.Series(range(1, 10), index=range(5, 14)), seed=5), scores)
    for items in ([0], [1, tiny.NUM_ITEMS + 1], [1.5], [-1], [True], [[1, 2], [3, 4]]):
        with pytest.raises(InputError, match=r"The history is \[.*\]; give whole numbers from 1 to 13"):
            score_items(model, DATASET, items)


def test_a_history_that_nobody_has_ends_where_the_data_do(monkeypatch):
    model = tiny.Listed()
    asked = []
    monkeypatch.setattr(model, "predict", lambda batch, seed: asked.append(batch) or torch.zeros(1, 14))
    score_items(model, DATASET, [3, 1, 2])
    latest = max(times[-1] for times in DATASET.timestamps)
    assert asked[0].timestamps.tolist() == [[latest - 172_800, latest - 86_400, latest]]


def test_scores_that_are_not_numbers_are_told_as_such():
    model = tiny.tiny_model().eval()
    model.item_embedding.weight.data[3] = torch.nan
    for ask in (lambda: recommend(model, DATASET, "user 0"), lambda: score_items(model, DATASET, [1, 2])):
        with pytest.raises(InputError, match="The scores hold NaN: the model has diverged"):
            ask()


def test_who_has_everything_and_a_model_of_other_items_are_refused():
    everything = tiny.tiny_dataset([np.arange(1, tiny.NUM_ITEMS + 1)] * 3)
    with pytest.raises(InputError, match="'user 0' has all items already"):
        recommend(tiny.Listed(), everything, "user 0", mask_seen=True)
    other = dataclasses.replace(DATASET, item_ids=DATASET.item_ids[:-1])
    with pytest.raises(InputError, match="The model ranks 13 items, made-up has 12"):
        recommend(tiny.Listed(), other, "user 0")
