"""Widgets without a browser: what each move shows, at the sliders' ends too."""

import html
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from imecd_lite import widgets
from imecd_lite.checkpoint import load_checkpoint
from imecd_lite.codebooks import gumbel
from imecd_lite.config import BUNDLED_DATA, IMECDConfig, TrainConfig
from imecd_lite.dataset import load_dataset
from imecd_lite.encoders import Features, load_features
from imecd_lite.errors import InputError
from imecd_lite.evaluate import paired_bootstrap, user_values
from imecd_lite.model import IMECD, LossOutput
from imecd_lite.results import Outcome
from imecd_lite.runs import ShortRun, new_model
from imecd_lite.slices import EVERYBODY
from imecd_lite.spaces import flat_map
from imecd_lite.train import train
from imecd_lite.walks import walk
from imecd_lite.widgets import (
    TrainingMonitor,
    ablation_explorer,
    code_explorer,
    diffusion_explorer,
    evaluation_explorer,
    find_items,
    gate_explorer,
    gumbel_explorer,
    history_explorer,
    neighbour_explorer,
    shopper_explorer,
    tell_progress,
    view_ablation,
    view_case,
    view_code,
    view_comparison,
    view_diffusion,
    view_gates,
    view_gumbel,
    view_history,
    view_injection,
    view_neighbours,
    view_shopper,
)

DATASET = tiny.tiny_dataset()


NETWORK = torch.nn.Sequential(*(torch.nn.Linear(*shape) for _ in range(12) for shape in ((128, 512), (512, 128))))
PACE = 0.0015
"""Seconds that ``NETWORK`` takes for one vector on the machine on which 200 milliseconds are promised."""


def seconds_of(action: Callable[[], object]) -> float:
    """Seconds of one thread, which others on the machine make longer: divided by how far it is behind ``PACE``."""

    def timed(call: Callable[[], object]) -> float:
        start = time.process_time()
        call()
        return time.process_time() - start

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # process time counts every thread
    try:
        took, pace = timed(action), np.median([timed(lambda: NETWORK(torch.zeros(1, 128))) for _ in range(10)])
    finally:
        torch.set_num_threads(threads)
    return took / max(pace / PACE, 1)


def cost_of(moves: Iterable[tuple[ipywidgets.Widget, object]], *pages: ipywidgets.HTML) -> tuple[float, int]:
    """What moves, each a control and its new value, cost: median ``seconds_of`` one, most characters in ``pages``."""
    seconds, sizes = [], [0]
    for control, value in moves:
        seconds.append(seconds_of(partial(setattr, control, "value", value)))
        sizes.append(sum(len(page.value) for page in pages))
    return float(np.median(seconds)), max(sizes)


TRUTH = pd.DataFrame(
    {
        "kind": ["bear"] * 7 + ["blocks"] * 6,
        "misleading": ["", "text", "image"] + [""] * 10,
        "text_kind": ["bear", "blocks"] + ["bear"] * 5 + ["blocks"] * 6,
        "image_kind": ["bear", "bear", "<blocks>"] + ["bear"] * 4 + ["blocks"] * 6,
    },
    index=DATASET.item_ids,
)


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


def circle() -> torch.Tensor:
    """Items around a circle, each nearest to the next in line."""
    angles = torch.arange(tiny.NUM_ITEMS) ** 1.5 / tiny.NUM_ITEMS
    return torch.stack([angles.cos(), angles.sin()], dim=1)  # (I, 2)


def test_neighbours_are_counted_by_kind_and_by_buyers():
    dataset = tiny.tiny_dataset([np.array([7, 8]), np.array([7, 1]), np.array([6, 8])])
    view = view_neighbours({"id": circle()}, dataset, 7, TRUTH, top_k=2)
    shelf = view.shelves["id"]
    assert [(card.item_id, card.note) for card in shelf.cards] == [("item 6", "bear"), ("item 8", "blocks")]
    assert shelf.heading == "By behaviour (ID): 1 of 2 of its kind; 1 of 2 buyers bought one"
    assert [card.item_id for card in view.item.cards] == ["item 7"]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (1, "Text and picture are honest: this is of the kind “bear”."),
        (2, "Its text misleads: it speaks of “blocks”, this is of the kind “bear”."),
        (3, "It claims to be for those who look for “<blocks>”."),
    ],
)
def test_it_is_said_what_misleads_and_whom(item, words):
    assert words in view_neighbours({"id": circle()}, DATASET, item, TRUTH).verdict


def test_where_nothing_was_planted_nothing_is_said():
    view = view_neighbours({"id": circle()}, DATASET, 1, top_k=3)
    assert view.verdict == "" and "kind" not in view.shelves["id"].heading
    assert [card.note for card in view.shelves["id"].cards] == [""] * 3


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setattr("imecd_lite.diagnostics.read_truth", lambda dataset: {"items": TRUTH})


def explorer(**options):
    return neighbour_explorer(DATASET, Features(**tiny.random_features(), fingerprint=""), tiny.tiny_model(), **options)


def test_every_item_of_every_group_can_be_reached(planted):
    among, item, page = explorer(item_id="item 3").children
    assert item.value == 3 and "picture misleads" in page.value
    sizes = {}
    for group in reversed(among.options):
        among.value = group
        sizes[group] = item.max
        for number in (1, item.max):
            item.value = number
            assert page.value.count("By ") == 3
    assert sizes == {"picture misleads": 1, "text misleads": 1, "the honest": 11, "all items": tiny.NUM_ITEMS}
    among.value = "text misleads"
    assert "Its text misleads" in page.value


def test_a_move_draws_once(planted, monkeypatch):
    among, item, _ = explorer().children
    drawn = []
    monkeypatch.setattr(
        "imecd_lite.widgets.view_neighbours", lambda *args: drawn.append(args[2]) or view_neighbours(*args)
    )
    item.value = 3
    assert drawn == [3]
    among.value = "the honest"
    assert drawn == [3, 1]


def test_markup_stays_text(planted):
    page = explorer(item_id="item 3").children[-1].value
    assert "&lt;blocks&gt;" in page and "<blocks>" not in page


def test_items_without_features_have_one_shelf():
    among, item, page = neighbour_explorer(DATASET, None, tiny.tiny_model(), top_k=50).children
    assert among.options == ("all items",)
    assert page.value.count("By ") == page.value.count("By behaviour (ID)") == 1
    item.value = tiny.NUM_ITEMS
    assert page.value.count("<div title=") == tiny.NUM_ITEMS


def test_the_neighbour_explorer_is_saved_as_one_line():
    assert repr(explorer()) == "[widget: among, item; run the notebook to move it]"


def test_a_move_through_the_shop_takes_less_than_150_milliseconds():
    shop = load_dataset(BUNDLED_DATA / "shop")
    generator = torch.Generator().manual_seed(0)
    features = Features(*(torch.randn(shop.num_items, 96, generator=generator) for _ in range(2)), fingerprint="")
    model = IMECD(tiny.tiny_config(), shop.num_items, features.text, features.image)
    _, item, page = neighbour_explorer(shop, features, model).children
    seconds, characters = cost_of(((item, number) for number in range(2, 32)), page)
    assert seconds < 0.15, "though its pictures are seen for the first time"
    assert characters < 200_000


MODEL = tiny.tiny_model(**tiny.DEFAULTS).float().eval()


def test_an_item_as_it_is_has_not_moved():
    view = view_gates(MODEL, DATASET, 4, user=2, truth=TRUTH, top_k=3)
    for name, (now, before) in view.gates.items():
        assert now.tolist() == before.tolist() == MODEL.route(name).routing_weights[3].tolist()
    assert list(view.cosines.values()) == pytest.approx([1, 1, 1])
    assert view.ranks[0] == view.ranks[1]
    assert [card.item_id for card in view.item.cards] == ["item 4"]
    assert "former self: ID 1.00, text 1.00, picture 1.00. Its rank for the shopper:" in view.news
    assert [len(shelf.cards) for shelf in (*view.neighbours.values(), view.shown)] == [3, 3, 3]


def test_with_another_s_id_gate_representation_and_rank_are_those_of_the_changed_model():
    changed = tiny.tiny_model(**tiny.DEFAULTS).float().eval()
    changed.item_embedding.weight.data[4] = changed.item_embedding.weight.data[9]
    view = view_gates(MODEL, DATASET, 4, id_of=9, user=2, top_k=3, num_inference_steps=None)
    tables, former = changed.item_embeddings(), MODEL.item_embeddings()
    history, key = torch.as_tensor(DATASET.sequences[2][:-1]), torch.as_tensor(DATASET.user_keys[2:3])
    for rank, model in zip(view.ranks, (changed, MODEL), strict=True):
        scores = model.full_sort_predict(history[None, -DATASET.max_length :], key)[0]
        assert rank == int((scores >= scores[4]).sum())
    for name, shelf in view.neighbours.items():
        assert view.gates[name][0] == pytest.approx(changed.route(name).routing_weights[3].tolist(), abs=1e-6)
        unit = tables[name][1:] / tables[name][1:].norm(dim=1, keepdim=True)
        order = [i + 1 for i in (unit @ unit[3]).argsort(descending=True).tolist() if i != 3]
        assert [card.item_id for card in shelf.cards] == [f"item {i}" for i in order[:3]]
        cosine = torch.nn.functional.cosine_similarity(tables[name][4], former[name][4], dim=0)
        assert view.cosines[name] == pytest.approx(cosine.item(), abs=1e-5) and cosine < 0.999
    assert [card.note for card in view.item.cards] == ["the item", "with the ID of"]


def test_a_model_without_experts_is_refused():
    with pytest.raises(InputError, match="no experts"):
        view_gates(tiny.tiny_model(use_experts=False), DATASET, 1)


def gate_parts(*arguments, **options):
    """What a gate explorer is made of: four controls, the item's HTML and that of what becomes of it."""
    (controls, head), page = (getattr(part, "children", part) for part in gate_explorer(*arguments, **options).children)
    return *controls.children, head, page


def test_explorers_take_no_more_steps_than_a_model_has():
    model = tiny.tiny_model(num_train_timesteps=4).float().eval()
    assert "rank" in gate_parts(model, DATASET)[-1].value
    assert "rank" in code_explorer(model, DATASET).children[-1].value


def test_each_move_of_the_gate_explorer_draws_once_and_all_can_be_reached(planted):
    item, id_of, muted, shopper, head, page = gate_parts(MODEL, DATASET, "item 3", "user 1", top_k=50)
    assert (item.value, id_of.value, shopper.value, muted.value) == (3, 3, 2, ())
    drawn = []
    page.observe(lambda change: drawn.append(change.new), "value")
    id_of.value = 13
    assert len(drawn) == 1 and head.value.count("with the ID of") == 1
    for n, choice in enumerate(muted.options[1:]):
        muted.value = choice[1]
        assert page.value.count(f"expert {n + 1} 0%") == 2
    assert len(drawn) == 1 + MODEL.config.num_experts
    item.value = 1
    assert id_of.value == 1, "another item starts with its own ID"
    assert len(drawn) == 2 + MODEL.config.num_experts and "with the ID of" not in head.value
    for control in (item, id_of, shopper):
        for number in (control.min, control.max):
            control.value = number
            assert page.value.count("after the experts") == 2
    assert f"user {DATASET.num_users - 1}" in page.value
    for number in range(1, DATASET.num_users + 1):
        shopper.value = number
        afresh = view_gates(MODEL, DATASET, item.value, id_of.value, muted.value, number - 1, TRUTH, 50)
        assert page.value == afresh.body


def test_of_two_moves_served_at_once_the_later_has_the_last_word(monkeypatch):
    item, _, muted, *_, page = gate_parts(MODEL, DATASET)
    view, begun = widgets.view_gates, threading.Event()

    def slow_when_muted(*arguments, **options):
        seen = view(*arguments, **options)
        if arguments[4]:  # the earlier move
            begun.set()
            time.sleep(0.5)
        return seen

    monkeypatch.setattr(widgets, "view_gates", slow_when_muted)
    earlier = threading.Thread(target=lambda: setattr(muted, "value", (1,)))
    earlier.start()
    assert begun.wait(10)
    monkeypatch.setattr(widgets, "view_gates", view)
    item.value = 3  # while the earlier move is still being drawn
    earlier.join()
    shown = page.value
    muted.value = ()
    muted.value = (1,)
    assert shown == page.value, "it shows what the controls say"


def at_once(first: Callable, second: Callable) -> None:
    """The second move comes while the first is being served, each in a thread."""
    moves = [threading.Thread(target=move) for move in (first, second)]
    for move in moves:
        move.start()
        time.sleep(0.1)
    for move in moves:
        move.join()


def test_two_shoppers_chosen_at_once_end_with_the_later_and_her_history():
    shopper, bought, page = shopper_explorer(tiny.Listed(), DATASET).children
    lengths = DATASET.lengths.tolist()
    early = next(n for n, length in enumerate(lengths, start=1) if length != lengths[0] and n > 1)
    bought.observe(lambda change: time.sleep(0.3), "max")
    at_once(partial(setattr, shopper, "value", early), partial(setattr, shopper, "value", 1))
    assert (shopper.value, bought.max, bought.value) == (1, lengths[0], lengths[0] - 1)
    assert DATASET.user_ids[0] in page.value
    drawn = page.value
    bought.value = 1
    assert page.value != drawn, "its slider is still heard"


def test_no_click_is_lost_while_a_picture_is_drawn(monkeypatch):
    panel = history_explorer(Nearby(), DATASET, "user 3")
    buttons = {part.description: part for part in widgets.descendants(panel) if isinstance(part, ipywidgets.Button)}
    view = widgets.view_history
    monkeypatch.setattr(widgets, "view_history", lambda *given: time.sleep(0.3) or view(*given))
    buttons["empty"].click()
    at_once(buttons["add it"].click, buttons["add it"].click)
    assert "After 2 purchases" in panel.children[-1].value
    at_once(buttons["take out the last"].click, buttons["take out the last"].click)
    assert "Nothing is bought yet" in panel.children[-1].value


def test_markup_from_the_data_stays_text_in_the_gate_explorer(planted):
    *_, page = gate_parts(MODEL, DATASET, "item 3")
    assert "&lt;blocks&gt;" in page.value and "<blocks>" not in page.value


def test_a_single_expert_cannot_be_muted():
    _, _, muted, *_ = gate_parts(tiny.tiny_model(num_experts=1), DATASET)
    assert muted.options == (("nobody", ()),)


def test_views_of_gates_are_saved_in_words():
    assert repr(gate_explorer(MODEL, DATASET)) == (
        "[widget: item, has the ID of, mute, shopper; run the notebook to move it]"
    )
    text = repr(view_gates(MODEL, DATASET, 4, top_k=2))
    assert text.startswith("Shelf:") and "Cosine to its former self" in text and "array" not in text


@pytest.mark.alone
def test_a_move_of_the_gates_takes_less_than_200_milliseconds():
    shop = load_dataset(BUNDLED_DATA / "shop")
    features = load_features(shop)
    model = load_checkpoint(BUNDLED_DATA / "checkpoints/shop", shop, features)
    _, id_of, *_, page = gate_parts(model, shop, "T0869", "U0042")
    seconds, characters = cost_of(((id_of, number) for number in range(2, 22)), page)
    assert seconds < 0.2, "though its pictures are seen for the first time"
    assert characters < 200_000


LOGITS = torch.tensor([1.0, 0.0, -1.0, 2.0])


def test_a_draw_is_eq_8_and_its_hard_choice_the_greatest():
    view = view_gumbel(LOGITS, temperature=0.5, noise=2.0, draw=3, num_draws=50)
    noise = gumbel((50, 4), torch.Generator().manual_seed(0))
    exponentials = [math.exp((o + 2 * n) / 0.5) for o, n in zip(LOGITS.tolist(), noise[2].tolist(), strict=True)]
    assert view.soft.tolist() == pytest.approx([e / sum(exponentials) for e in exponentials], rel=1e-4)
    assert view.hard == max(range(4), key=lambda z: exponentials[z])
    hard = [max(range(4), key=lambda z, row=row: LOGITS[z] + 2 * row[z]) for row in noise]
    assert view.drawn.tolist() == pytest.approx([hard.count(z) / 50 for z in range(4)])


def test_temperature_changes_no_throw_and_the_noise_does():
    draws = [view_gumbel(LOGITS, tau).drawn for tau in (0.01, 1, 10)]
    assert all((drawn == draws[0]).all() for drawn in draws)
    assert draws[0] == pytest.approx(LOGITS.softmax(dim=0).numpy(), abs=0.03)
    assert view_gumbel(LOGITS, noise=0.0).drawn.tolist() == [0, 0, 0, 1]
    assert "100% of 2,000 draws choose it" in view_gumbel(LOGITS, noise=0.0).news


def test_dice_can_be_moved_to_every_end():
    temperature, noise, draw, page = (panel := gumbel_explorer(LOGITS)).children
    shown = []
    page.observe(lambda change: shown.append(change.new), "value")
    temperature.value = 0.01
    temperature.value = 10
    noise.value = 3
    draw.value = 50
    noise.value = 0
    assert len(shown) == 5 and "nan" not in page.value and page.value.count('role="img"') == 3
    assert repr(panel) == "[widget: temperature, noise, draw; run the notebook to move it]"


USERS = pd.DataFrame({"journey": ["<tea>", "zoo"] * (tiny.NUM_USERS // 2)})
CODED = {"items": TRUTH, "users": USERS}


def test_a_code_shows_its_members_the_nearest_first_and_their_journeys():
    indices, distances = np.full(tiny.NUM_USERS, 2), np.arange(tiny.NUM_USERS, 0, -1.0)
    indices[[3, 5, 6]] = 1
    view = view_code(DATASET, indices, distances, 1, "text", CODED, top_k=2, latest=3)
    assert view.members.tolist() == [6, 5, 3]
    assert view.heading == "Code 2 of the text: 3 of 24 shoppers chose it; the nearest to it:"
    assert view.journeys.to_dict() == pytest.approx({"zoo": 2 / 3, "<tea>": 1 / 3})
    assert [[card.item_id for card in shelf.cards] for shelf in view.histories] == [
        [DATASET.item_ids[i - 1] for i in DATASET.sequences[user][:-1][-3:]] for user in (6, 5)
    ]
    assert "<tea>" not in view._repr_html_() and "&lt;tea&gt;" in view._repr_html_()
    assert view_code(DATASET, indices, distances, 0).heading == "Code 1 of the ID: 0 of 24 shoppers chose it."


def test_with_louder_codes_rank_and_lists_are_those_of_the_changed_model():
    changed = tiny.tiny_model(**tiny.DEFAULTS).float().eval()
    for codebook in changed.codebooks.values():
        codebook.lambda_q = 3.0
    view = view_injection(MODEL, DATASET, 2, 3.0, top_k=4, num_inference_steps=None)
    history, key = torch.as_tensor(DATASET.sequences[2][:-1]), torch.as_tensor(DATASET.user_keys[2:3])
    target = int(DATASET.sequences[2][-1])
    for rank, shelf, model in zip(view.ranks, (view.shown, view.before), (changed, MODEL), strict=True):
        scores = model.full_sort_predict(history[None, -DATASET.max_length :], key)[0]
        assert rank == int((scores >= scores[target]).sum())
        assert [card.item_id for card in shelf.cards] == [f"item {i}" for i in scores.topk(4).indices.tolist()]
    same = view_injection(MODEL, DATASET, 2, MODEL.config.lambda_q)
    assert same.ranks[0] == same.ranks[1] and "Of the 6 shown, 6 are the same." in same.news


def test_every_code_of_every_modality_can_be_reached_and_dead_ones_are_said_to_be(monkeypatch):
    monkeypatch.setattr("imecd_lite.diagnostics.read_truth", lambda dataset: CODED)
    space, code, gathered, shopper, lambda_q, changed = code_explorer(MODEL, DATASET, user_id="user 3").children
    assert "Shown to user 3 with" in changed.value
    drawn, sizes = [], {}
    changed.observe(lambda change: drawn.append(change.new), "value")
    lambda_q.value = 3.0
    lambda_q.value = 0.0
    assert len(drawn) == 2
    for space.value in ("text", "image", "id"):
        total = 0
        for code.value in range(1, MODEL.config.codebook_size + 1):
            assert f"Code {code.value} of the" in gathered.value and "<tea>" not in gathered.value
            if "0 of 24 shoppers chose it." in gathered.value:
                assert "it is dead" in changed.value
                continue
            total += shopper.max
            shopper.value = shopper.max
            assert "Shown to user" in changed.value
        sizes[space.value] = total
    assert set(sizes.values()) == {tiny.NUM_USERS}, "every shopper has one code"


def test_a_model_without_codebooks_is_refused():
    with pytest.raises(InputError, match="no codebooks"):
        code_explorer(tiny.tiny_model(use_codebooks=False), DATASET)


@pytest.mark.alone
def test_a_move_of_the_codes_takes_less_than_200_milliseconds():
    shop = load_dataset(BUNDLED_DATA / "shop")
    model = load_checkpoint(BUNDLED_DATA / "checkpoints/shop", shop, load_features(shop))
    _, code, gathered, shopper, lambda_q, changed = code_explorer(model, shop, user_id="U0042").children
    moves = [((lambda_q, n / 4), (shopper, n + 2), (code, n + 2)) for n in range(8)]
    seconds, characters = cost_of(itertools.chain(*moves), gathered, changed)
    assert seconds < 0.2, "though its pictures are seen for the first time"
    assert characters < 250_000


TABLES = {name: table.detach() for name, table in MODEL.item_embeddings().items()}


@pytest.mark.parametrize("step", [0, 2, 4])
def test_a_view_of_the_diffusion_shows_whom_x_t_and_the_prediction_are_near(step):
    walked, flat = walk(MODEL, DATASET, 2, 4), flat_map(TABLES["text"][1:])
    view = view_diffusion(DATASET, TABLES, flat, walked, step, "text", top_k=50)
    for shelf, vector in (
        (view.near, walked.samples["text"][step]),
        (view.predicted, walked.predictions["text"][min(step, 3)]),
    ):
        cosines = [float(torch.nn.functional.cosine_similarity(vector, item, dim=0)) for item in TABLES["text"][1:]]
        order = sorted(range(tiny.NUM_ITEMS), key=lambda row: -cosines[row])
        assert [card.item_id for card in shelf.cards] == [f"item {row + 1}" for row in order]
        assert [card.item_id for card in shelf.cards if card.marked] == [f"item {walked.target}"]
    assert view.news.startswith(f"user 2 after {step} of 4 steps, t = {(8, 6, 4, 2, 0)[step]}.")
    assert f"at rank {walked.ranks[step]} of {tiny.NUM_ITEMS} by x_t" in view.news
    assert view.track.data.count("<circle") == step + 1
    assert repr(view).startswith("user 2 after") and "<" not in repr(view)
    assert view.news in view._repr_html_()


def test_every_control_of_the_diffusion_explorer_draws_and_nothing_is_computed_twice(monkeypatch):
    asked = []
    monkeypatch.setattr("imecd_lite.widgets.walk", lambda *given: asked.append(given[2:5]) or walk(*given))
    panel = diffusion_explorer(MODEL, DATASET, "user 1")
    (play, step), (shopper, steps, seed, modality, news, picture) = panel.children[0].children, panel.children[1:7]
    assert (step.value, step.max, play.max, shopper.value, steps.value) == (0, 8, 8, 2, 8)
    for number in (3, 8, 0):
        step.value = number
        assert f"after {number} of 8 steps" in news.value
    assert asked == [(1, 8, 0)], "scrubbing asks for no new walk"
    modality.value = "image"
    assert "by picture" in picture.value and len(asked) == 1
    step.value = 8
    steps.value = 1
    assert (step.value, step.max, play.value, play.max) == (0, 1, 0, 1) and "after 0 of 1 steps" in news.value
    with steps.hold_trait_notifications():  # a browser's messages may come before the slider has followed
        steps.value = 4
        step.max = step.value = 8
        assert "after 4 of 4 steps" in news.value
    steps.value = 1
    step.value = 1
    assert "t = 0" in news.value
    for control in (shopper, seed):
        for number in (control.min, control.max):
            control.value = number
            assert f"user {shopper.value - 1} after 1 of 1" in news.value
    count = len(asked)
    seed.value = 0
    seed.value = 19
    assert len(asked) == count, "walks are kept"
    assert repr(panel) == "[widget: play, steps done, shopper, steps, seed, modality; run the notebook to move it]"


@pytest.mark.alone
def test_a_move_of_the_diffusion_takes_less_than_200_milliseconds():
    shop = load_dataset(BUNDLED_DATA / "shop")
    model = load_checkpoint(BUNDLED_DATA / "checkpoints/shop", shop, load_features(shop))
    panel = diffusion_explorer(model, shop, "U0042")
    step, shopper, page = panel.children[0].children[1], panel.children[1], panel.children[6]
    for control in (step, shopper):
        seconds, characters = cost_of(((control, number) for number in range(2, 22)), page)
        assert seconds < 0.2
        assert characters < 60_000


# Training, live


def watched_run(every: float, **changes):
    model = tiny.tiny_model(**tiny.DEFAULTS | changes).float()
    monitor = TrainingMonitor(model, tiny.NUM_ITEMS, 0.03, every)
    config = TrainConfig(epochs=2, batch_size=16, max_prefixes_per_user=2)
    history = train(model, DATASET, config, on_step=monitor.on_step, on_epoch=monitor.on_epoch)
    return monitor, history


def test_the_monitor_s_curves_are_those_of_the_run():
    monitor, history = watched_run(every=0.0)
    assert len(monitor.steps) == 6 and monitor.steps.index[0] == 1
    assert monitor.epochs["step"].tolist() == [3, 6]
    assert monitor.epochs["valid_ndcg@10"].tolist() == [row["valid_ndcg@10"] for row in history.rows]
    means = monitor.steps.groupby((monitor.steps.index - 1) // 3)["text/cross_entropy"].mean()
    assert means.tolist() == pytest.approx([row["text/cross_entropy"] for row in history.rows], rel=1e-3)
    for shown, kept in zip(monitor.curves.data, monitor.figure().data, strict=True):
        np.testing.assert_array_equal(shown.y, kept.y)
    assert "Step 6: loss" in monitor.news.value and "Epochs done: 2" in monitor.news.value
    assert monitor.figure().layout.meta["alt"] in html.unescape(monitor.words.value)
    assert repr(monitor) == "[live curves of the training: 6 steps, 2 epochs]"


def test_the_monitor_draws_no_more_often_than_it_is_told_and_at_each_epoch():
    monitor, _ = watched_run(every=3600.0)
    drawn = []
    monitor.draw = lambda: drawn.append(len(monitor.step_rows))
    output = LossOutput(torch.ones(()), {})
    for _ in range(3):
        monitor.on_step(output)
    assert drawn == []
    monitor.on_epoch({"valid_ndcg@10": 0.5})
    assert drawn == [9]


def test_watching_changes_nothing():
    watched, _ = watched_run(every=0.0)
    model = tiny.tiny_model(**tiny.DEFAULTS).float()
    train(model, DATASET, TrainConfig(epochs=2, batch_size=16, max_prefixes_per_user=2))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, watched.watched.state_dict()[name]), name


def test_a_model_of_ids_alone_can_be_watched():
    monitor, _ = watched_run(every=0.0, use_text=False, use_image=False, use_codebooks=False)
    assert np.isnan(monitor.curves.data[1].y).all() and np.isfinite(monitor.curves.data[0].y).all()


def test_progress_is_told_from_the_first_step_on():
    assert tell_progress([], []) == "No step yet."
    assert tell_progress([{"loss": 2.0}], []) == "Step 1: loss 2.00."
    told = tell_progress([{"loss": 2.0}], [{"valid_ndcg@10": 0.2}, {"valid_ndcg@10": 0.1}])
    assert told == "Step 1: loss 2.00. Epochs done: 2; validation N@10 0.100, the best 0.200 (epoch 1)."


@pytest.mark.alone
def test_a_picture_of_a_long_run_takes_less_than_200_milliseconds():
    monitor = TrainingMonitor(tiny.tiny_model(), tiny.NUM_ITEMS)
    names = [f"{m}/{t}" for m in ("id", "text", "image") for t in ("cross_entropy", "match", "code_perplexity")]
    monitor.step_rows = [dict.fromkeys([*names, "loss", "gradient/gates"], float(n)) for n in range(600)]
    monitor.epoch_rows = [{"step": 600, "valid_ndcg@10": 0.1}]
    assert np.median([seconds_of(monitor.draw) for _ in range(5)]) < 0.2


GOOD, BAD = ShortRun([0.1, 0.9], np.repeat([1, 2], 20)), ShortRun([0.1, 0.2], np.repeat([8, 30], 20))


def test_an_ablation_says_what_it_can_and_cannot_say():
    told = view_ablation("w/o Text", BAD, GOOD)
    assert told.startswith("w/o Text: validation N@10 0.158; the default: 0.815. Difference -0.658, 95% interval -0.")
    assert "over 40 shoppers. The interval excludes 0" in told and "with this seed" in told
    assert "can't tell the two apart" in view_ablation("w/o Text", GOOD, GOOD)


def test_a_variant_is_trained_once_grows_its_curve_and_is_remembered():
    runs, asked = {"default": GOOD}, []

    def train_variant(name, on_epoch):
        asked.append(name)
        for score in BAD.scores:
            on_epoch({"valid_ndcg@10": score})
            grown.append(list(curves.data[1].y))
        assert chosen.disabled and button.disabled
        return BAD

    grown = []
    chosen, button, news, curves, words = ablation_explorer(runs, train_variant, ["<a>", "b"]).children
    assert "not trained yet" in news.value and "&lt;a&gt;" in news.value and list(curves.data[1].x) == []
    button.click()
    assert asked == ["<a>"] and grown == [[0.1], [0.1, 0.2]] and runs["<a>"] is BAD
    assert "Difference -0." in news.value and button.disabled and not chosen.disabled
    assert curves.data[1].name == "&lt;a&gt;" and list(curves.data[0].y) == GOOD.scores
    button.click()
    assert asked == ["<a>"], "not twice"
    chosen.value = "b"
    assert not button.disabled and "b: not trained yet" in news.value and list(curves.data[1].x) == []
    chosen.value = "<a>"
    assert list(curves.data[1].y) == BAD.scores and "Difference -0." in news.value
    assert "&lt;a&gt;: 0.1" in words.value and "not yet" not in words.value


def test_a_variant_that_fails_leaves_its_controls_usable(caplog):
    def fails(name, on_epoch):
        raise RuntimeError("no memory")

    chosen, button, *_ = ablation_explorer({"default": GOOD}, fails, ["a", "b"], "b").children
    button.click()
    assert "no memory" in caplog.text
    assert not chosen.disabled and not button.disabled and chosen.value == "b"


def test_the_ablation_explorer_is_saved_as_one_line():
    panel = ablation_explorer({"default": GOOD}, None, ["a"])
    assert repr(panel) == "[widget: variant, train it; run the notebook to move it]"


def outcomes(seed: int, best: int, seeds: int = 2) -> list[Outcome]:
    """A made-up system whose ranks begin at ``best``."""
    rng = np.random.default_rng(seed)
    users, items = DATASET.num_users, DATASET.num_items
    tops = [np.stack([rng.permutation(items)[:10] + 1 for _ in range(users)]), *[None] * (seeds - 1)]
    return [Outcome(rng.integers(best, items + 1, users), top, {}, {}) for top in tops]


MADE_UP = {"<b>good</b>": outcomes(0, 1), "middle": outcomes(1, 3, 1), "bad": outcomes(2, 9)}
SOME = {EVERYBODY: np.ones(DATASET.num_users, dtype=bool), "few": np.arange(DATASET.num_users) < 4}


def test_a_comparison_is_of_the_seeds_means_on_its_shoppers_alone():
    view = view_comparison(MADE_UP, SOME["few"], "ndcg@5", "bad", "<b>good</b>")
    ranks = {name: np.stack([seed.ranks[:4] for seed in seeds]) for name, seeds in MADE_UP.items()}
    assert view.means == {name: pytest.approx(user_values(table, "ndcg@5").mean()) for name, table in ranks.items()}
    assert list(view.means.values()) == sorted(view.means.values(), reverse=True)
    low, high = paired_bootstrap(ranks["bad"], ranks["<b>good</b>"], "ndcg@5")
    assert f"N@5 of bad: {view.means['bad']:.3f}, of <b>good</b>" in view.news
    assert f"{low:+.3f} to {high:+.3f} over 4 shoppers" in view.news
    assert sorted(view.users) == [0, 1, 2, 3] and not view.differences[4:].any()
    assert view.differences[view.users].tolist() == sorted(view.differences[:4], reverse=True)
    same = view_comparison(MADE_UP, SOME["few"], "hit@1", "bad", "bad")
    assert "interval +0.000 to +0.000 over 4 shoppers, which holds 0" in same.news


def test_a_case_shows_both_lists_and_frames_what_was_bought():
    view = view_case(MADE_UP, DATASET, 3, "middle", "bad", top_k=6)
    target, bought = int(DATASET.sequences[3][-1]), DATASET.sequences[3][:-1]
    assert list(view.lists) == ["middle", "bad"]
    for name, shelf in view.lists.items():
        top = MADE_UP[name][0].top[3, :6].tolist()
        assert [card.item_id for card in shelf.cards] == [DATASET.item_ids[item - 1] for item in top]
        assert [card.marked for card in shelf.cards] == [item == target for item in top]
        assert [card.note == "she has it" for card in shelf.cards] == [item in bought for item in top]
        assert f"at rank {MADE_UP[name][0].ranks[3]} by {name}" in view.news
    shown = [card.item_id for card in view.bought.cards]
    assert shown == [DATASET.item_ids[item - 1] for item in DATASET.sequences[3][-6:]]
    assert [card.note for card in view.bought.cards] == [""] * (len(shown) - 1) + ["last"]
    assert view.bought.cards[-1].marked
    assert view.news in view._repr_html_() and view.news in repr(view)


def test_every_control_of_the_evaluation_explorer_draws():
    panel = evaluation_explorer(MADE_UP, DATASET, SOME, "<b>good</b>", "bad")
    metric, k, left, right, group, table, case, page = panel.children
    seen = {table.value}
    for control, value in ((metric, "hit"), (k, 1), (k, 50), (left, "middle"), (right, "middle"), (group, "few")):
        control.value = value
        assert table.value not in seen, control.description
        seen.add(table.value)
    assert "over 4 shoppers" in table.value and case.max == 4 and "Case 1 of 4" in page.value
    seen = {page.value}
    for number in (4, 2):
        case.value = number
        assert page.value not in seen and f"Case {number} of 4" in page.value
        seen.add(page.value)
    group.value, left.value = EVERYBODY, "<b>good</b>"
    assert case.max == DATASET.num_users and case.value == 1
    assert "<b>good</b>" not in table.value + page.value, "names are escaped"
    assert repr(panel) == "[widget: metric, K, first, second, shoppers, case; run the notebook to move it]"


@pytest.mark.alone
def test_a_move_of_the_evaluation_takes_less_than_200_milliseconds():
    rng, users = np.random.default_rng(0), 3000
    shop = load_dataset(BUNDLED_DATA / "shop")
    top = rng.integers(1, shop.num_items + 1, (users, 10))
    systems = {f"system {n}": [Outcome(rng.integers(1, 1201, users), top, {}, {}) for _ in range(3)] for n in range(15)}
    panel = evaluation_explorer(systems, shop, {EVERYBODY: np.ones(users, dtype=bool)}, "system 0", "system 1")
    _, k, _, _, _, _, case, page = panel.children
    seconds, characters = cost_of(itertools.product((k, case), range(2, 10)), page)
    assert seconds < 0.2 and characters < 250_000


class Nearby(tiny.Listed):
    """Scores items the higher the nearer their number is to that of the latest purchase."""

    def full_sort_predict(self, item_seq, user_keys, seed=0):
        scores = -(torch.arange(tiny.NUM_ITEMS + 1.0) - item_seq[:, -1:]).abs()
        scores[:, 0] = -torch.inf
        return scores


def test_a_history_of_one_s_own_is_shown_with_what_comes_next_and_how_that_has_moved():
    view = view_history(Nearby(), DATASET, [5, 1], top_k=3)
    assert [card.item_id for card in view.history.cards] == ["item 5", "item 1"]
    assert view.best == [1, 2, 3] and [card.note for card in view.shown.cards] == ["1, bought", "2", "3"]
    assert view.news == "After 2 purchases."
    moved = view_history(Nearby(), DATASET, [5, 1, 3], view.best, top_k=3)
    notes = dict(zip(moved.best, (card.note for card in moved.shown.cards), strict=True))
    assert notes[3] == "1 ↑2, bought" and notes[2] in ("2", "3 ↓1") and notes[4].endswith(" new")
    assert moved.news == "After 3 purchases: 1 of the 3 shown is new since the last move."
    assert view_history(Nearby(), DATASET, [3], moved.best, top_k=3).news.endswith(
        "none of the 3 shown is new since the last move."
    )
    assert "After 3 purchases" in moved._repr_html_() and "After 3 purchases" in repr(moved)


def test_nobody_is_recommended_anything_before_the_first_purchase():
    view = view_history(Nearby(), DATASET, [], [1, 2])
    assert view.best == [] == list(view.shown.cards) and view.news.startswith("Nothing is bought yet")


def test_items_are_found_by_all_words_of_title_brand_and_category():
    shop = load_dataset(BUNDLED_DATA / "shop")
    found = [shop.item_texts()[item - 1] for item in find_items(shop, "TEDDY cuddlemoor")]
    assert found and all("Teddy" in text and "Cuddlemoor" in text for text in found)
    assert find_items(shop, "") == list(range(1, shop.num_items + 1))
    assert find_items(DATASET, "ITEM 13") == [13] and find_items(DATASET, "teddy") == []


def test_every_control_of_the_history_explorer_draws():
    panel = history_explorer(Nearby(), DATASET, "user 3")
    (customer, who), (top, page) = panel.children[0].children, panel.children[1:]
    find, found, product, buttons = top.children[0].children
    add, undo, clear = buttons.children
    card = top.children[1]
    assert (
        customer.value == 4 and who.value == "user 3" and f"After {len(DATASET.sequences[3])} purchases." in page.value
    )
    clear.click()
    assert who.value == "", "it is nobody's history any more"
    assert "Nothing is bought yet" in page.value and undo.disabled and clear.disabled
    find.value = "item 13"
    assert found.value == "1 of 13 products" and product.value == 13 and "item 13" in card.value
    add.click()
    assert "After 1 purchase." in page.value and not undo.disabled
    find.value = "no such thing"
    assert found.value == "0 of 13 products" and product.value is None and add.disabled and card.value == ""
    find.value = ""
    product.value = 2
    add.click()
    assert "After 2 purchases: " in page.value and " new" in page.value
    undo.click()
    assert "After 1 purchase: " in page.value
    for customer.value in (1, DATASET.num_users):
        assert f"After {len(DATASET.sequences[customer.value - 1])} purchases." in page.value
    assert repr(panel) == (
        "[widget: customer, find, product, add it, take out the last, empty; run the notebook to move it]"
    )


def test_a_large_catalogue_is_listed_in_part(monkeypatch):
    monkeypatch.setattr(widgets, "MOST_FOUND", 5)
    _, top, _ = history_explorer(Nearby(), DATASET).children
    assert top.children[0].children[1].value == ("13 of 13 products, of which the first 5 are listed; add a word")
    assert len(top.children[0].children[2].options) == 5


@pytest.mark.alone
def test_a_move_of_the_history_takes_less_than_200_milliseconds():
    shop = load_dataset(BUNDLED_DATA / "shop")
    model = new_model("imecd", IMECDConfig(hidden_size=64, num_id_layers=2), shop, load_features(shop)).eval()
    panel = history_explorer(model, shop)
    customer = panel.children[0].children[0]
    seconds, characters = cost_of(((customer, customer.value + n) for n in range(1, 6)), panel.children[2])
    assert seconds < 0.2 and characters < 250_000
