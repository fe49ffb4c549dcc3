"""Widgets without a browser: what each move shows, at the sliders' ends too."""

import pytest
import tiny

from imecd_lite.widgets import shopper_explorer, view_shopper

DATASET = tiny.tiny_dataset()


@pytest.mark.parametrize(("held_back", "role"), [(1, "held out for the test"), (2, "held out for validation")])
def test_the_next_item_is_shown_with_its_rank_and_its_role(held_back, role):
    sequence = DATASET.sequences[3]
    num_bought = len(sequence) - held_back
    view = view_shopper(tiny.Listed(), DATASET, 3, num_bought)
    target = int(sequence[num_bought])
    assert [card.item_id for card in view.next_item.cards] == [DATASET.item_ids[target - 1]]
    assert view.news == (
        f"What user 3 bought next ({role}) is at rank {tiny.NUM_ITEMS + 1 - target} of {tiny.NUM_ITEMS}."
    )


def test_what_was_trained_on_is_said_to_be():
    assert "seen in training" in view_shopper(tiny.Listed(), DATASET, 3, 1).news


def test_after_the_last_purchase_nobody_knows():
    view = view_shopper(tiny.Listed(), DATASET, 3, len(DATASET.sequences[3]))
    assert view.news == "What user 3 will buy next, nobody knows yet."
    assert view.next_item.cards == ()
    assert not any(card.marked for card in view.shown.cards)


def test_recommendations_are_the_best_scores_with_the_true_item_framed():
    view = view_shopper(tiny.Listed(), DATASET, 3, 2, top_k=tiny.NUM_ITEMS)
    assert [card.item_id for card in view.shown.cards] == DATASET.item_ids[::-1]
    framed = [card.item_id for card in view.shown.cards if card.marked]
    assert framed == [DATASET.item_ids[DATASET.sequences[3][2] - 1]]


def test_the_history_shows_its_latest_items_alone():
    view = view_shopper(tiny.Listed(), DATASET, 3, 3, latest=2)
    assert [card.item_id for card in view.history.cards] == [DATASET.item_ids[i - 1] for i in DATASET.sequences[3][1:3]]


def test_moving_a_slider_asks_the_model_once_with_the_history_so_far():
    model = tiny.Listed()
    panel = shopper_explorer(model, DATASET, "user 3")
    shopper, bought, page = panel.children
    assert (shopper.value, bought.value, bought.max) == (4, len(DATASET.sequences[3]) - 1, len(DATASET.sequences[3]))
    model.asked.clear()
    bought.value = 1
    assert [item_seq.tolist() for item_seq, *_ in model.asked] == [[DATASET.sequences[3][:1].tolist()]]
    assert "user 3" in page.value


@pytest.mark.parametrize("number", [1, len(DATASET.user_ids)])
def test_every_shopper_can_be_reached_and_every_length(number):
    model = tiny.Listed()
    shopper, bought, page = shopper_explorer(model, DATASET, "user 3").children
    model.asked.clear()
    shopper.value = number
    assert len(model.asked) == 1, "one move, one picture"
    length = len(DATASET.sequences[number - 1])
    assert (bought.value, bought.max) == (length - 1, length)
    for bought.value in (1, length):
        assert DATASET.user_ids[number - 1] in page.value


def test_a_saved_notebook_shows_one_line():
    assert repr(shopper_explorer(tiny.Listed(), DATASET)) == "[widget: shopper, bought; run the notebook to move it]"
