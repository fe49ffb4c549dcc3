"""HM4SR: its experts and losses against plain loops, and what it makes of time."""

# B batch, L sequence, D hidden, I items, C nodes of category paths, N experts

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from imecd_lite.baselines import HM4SR
from imecd_lite.baselines.hm4sr import category_labels
from imecd_lite.baselines.sequential import attention_mask, info_nce
from imecd_lite.checkpoint import build_model, load_checkpoint, save_checkpoint
from imecd_lite.config import MODALITIES, TrainConfig
from imecd_lite.dataset import Dataset
from imecd_lite.encoders import Features
from imecd_lite.errors import InputError
from imecd_lite.train import train

FEATURES = Features(*tiny.random_features().values(), "made up")
LONGEST, FIRST = 5_000_000.0, 80_000.0
NOW = 1_735_691_877  # seconds since 1970; float32 would round it to 128
CATEGORIES = ["Toys|Games", "", "Toys", "Books| Games |", "|", "Books"] + ["Toys|Puzzles"] * (tiny.NUM_ITEMS - 6)
LABELS = [{"Toys", "Games"}, set(), {"Toys"}, {"Books", "Games"}, set(), {"Books"}] + [{"Toys", "Puzzles"}] * 7
NODES = ["Books", "Games", "Puzzles", "Toys"]


def dataset(categories: list[str] | None = CATEGORIES, longest: float = LONGEST, first: float = FIRST) -> Dataset:
    """Histories whose first event and whose longest gap are given, but for the two items held out."""
    made = tiny.tiny_dataset()
    times = [first + 1000.0 * np.arange(len(sequence)) for sequence in made.sequences]
    times[3][3:] += longest - 1000
    for held_out in times:
        held_out[-2:] += 9 * longest
    items = None if categories is None else pd.DataFrame({"category": categories})
    return dataclasses.replace(made, timestamps=times, items=items)


def make(data: Dataset | None = None, **changes: object) -> HM4SR:
    """A float64 model in eval mode, all of whose parameters matter."""
    torch.manual_seed(0)
    model = build_model("hm4sr", tiny.tiny_config(**changes), data or dataset(), FEATURES).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.item_embedding.weight.data[0] = 0
    return model.eval()


def times_of(*histories: list[float]) -> torch.Tensor:
    return tiny.left_padded(histories).double()


def scores(model: HM4SR, item_seq: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    return model.full_sort_predict(item_seq, torch.arange(len(item_seq)), timestamps=times)[:, 1:]


def linear(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    return layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def mixed_by_loops(model: HM4SR, history: tuple[int, ...], times: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Steps 1 to 4 item by item and expert by expert: embeddings (n, 3 D) and time embeddings (n, 2 D)."""
    size, embeddings, embedded_times = model.config.hidden_size, [], []
    experts = zip(
        model.modality_experts.weight.detach().numpy().reshape(4, 3 * size, 3 * size),
        model.modality_experts.bias.detach().numpy().reshape(4, 3 * size),
        strict=True,
    )
    experts, weights = list(experts), model.modality_weights.detach().numpy()
    for number, (item, time) in enumerate(zip(history, times, strict=True)):
        parts = [
            model.item_embedding.weight[item].detach().numpy(),
            linear(model.text_projection, model.text_features[item].numpy()),
            linear(model.image_projection, model.image_features[item].numpy()),
        ]
        parts = [part + model.positions[number - len(history)].detach().numpy() for part in parts]
        offers = [a @ np.concatenate(parts) + bias for a, bias in experts]
        enriched = []
        for m, name in enumerate(MODALITIES):
            gate = softmax(linear(model.modality_gates[name], parts[m]))
            offered = sum(gate[j] * offers[j][m * size : (m + 1) * size] for j in range(4))
            enriched.append(parts[m] + weights[m] * offered)
        gap = min(time - times[number - 1], LONGEST) if number else 0
        interval = model.interval_embedding.weight[math.floor(100 * math.log2(gap + 1))].detach().numpy()
        clock = linear(model.clock, np.array([(time - FIRST) / 86_400]))
        dates = [math.cos(10_000 ** (-k / size) * clock[k]) for k in range(size)]
        z = np.concatenate([interval, dates])
        gate = softmax(linear(model.time_gate, z))
        by_time = sum(gate[j] * model.time_experts[j].detach().numpy() for j in range(4))
        embeddings.append(np.concatenate(enriched) * by_time)
        embedded_times.append(z)
    return np.array(embeddings), np.array(embedded_times)


def test_both_kinds_of_experts_are_those_of_plain_loops():
    model, batch = make(), tiny.tiny_batch()
    embeddings, time = model.mix(batch.item_seq, model.item_embeddings(), batch.timestamps)
    for row, (history, times) in enumerate(zip(tiny.HISTORIES, tiny.TIMES, strict=True)):
        expected, expected_time = mixed_by_loops(model, history, times)
        np.testing.assert_allclose(embeddings[row, -len(history) :].detach(), expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(time[row, -len(history) :].detach(), expected_time, rtol=1e-5, atol=1e-6)


def test_a_score_is_the_sum_of_three_products_with_the_item_as_it_is():
    model, batch = make(), tiny.tiny_batch()
    text, image = model.text_projection(model.text_features), model.image_projection(model.image_features)
    states = model.encode(batch.item_seq, model.item_embeddings(), batch.timestamps)[:, -1].chunk(3, dim=-1)
    tables = (model.item_embedding.weight, text, image)
    expected = sum(state @ table[1:].T for state, table in zip(states, tables, strict=True))
    torch.testing.assert_close(model.predict(batch)[:, 1:], expected)


def test_a_state_knows_neither_later_items_nor_later_times():
    model, table = make(), make().item_embeddings()
    history, times = torch.tensor([[0, 1, 2, 3, 4]]), times_of([0, 100_000, 200_000, 300_000, 400_000])
    later, much_later = torch.tensor([[0, 1, 2, 3, 9]]), times_of([0, 100_000, 200_000, 300_000, 900_000])
    states = model.encode(history, table, times)
    for others in (model.encode(later, table, times), model.encode(history, table, much_later)):
        torch.testing.assert_close(states[:, :4], others[:, :4])
        assert (states[:, 4] - others[:, 4]).abs().max() > 1e-3
    assert states.isfinite().all(), "padded rows too"


# ---- time


def test_a_wider_gap_changes_the_scores_and_so_does_a_later_date():
    model, history = make(), torch.tensor([[1, 2, 3, 4]])
    start = times_of([90_000, 190_000, 290_000, 390_000])
    expected = scores(model, history, start)
    for changed in (times_of([90_000, 190_000, 320_000, 420_000]), start + 86_400):
        assert (scores(model, history, changed) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_seconds_since_1970_are_subtracted_before_they_are_rounded(dtype, kind):
    model = make(dataset(first=NOW - 86_400.0)).to(kind)
    times = torch.tensor([[NOW, NOW + 1, NOW + 1, NOW + 4, NOW + 43_200]]).to(dtype)
    embedded = model.time_embedding(torch.tensor([[1, 2, 3, 4, 5]]), times)[0]
    size, expected = model.config.hidden_size, [0, 100, 0, 200, math.floor(100 * math.log2(43_197))]
    torch.testing.assert_close(embedded[:, :size], model.interval_embedding.weight[expected])
    days = torch.tensor([[86_400.0], [86_401], [86_401], [86_404], [129_600]]) / 86_400
    dates = torch.cos(model.frequencies * model.clock(days.to(kind)))
    torch.testing.assert_close(embedded[:, size:], dates)


def test_mixed_precision_leaves_the_dates_alone():
    model = make(dataset(first=NOW - 3_000 * 86_400.0))
    item_seq, times = torch.tensor([[1, 2, 3]]), torch.tensor([[NOW, NOW + 86_400, NOW + 3 * 86_400]]).double()
    expected = model.time_embedding(item_seq, times)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.time_embedding(item_seq, times), expected)


def test_whole_seconds_give_the_same_scores_as_numbers_with_a_point():
    model, batch = make(), tiny.tiny_batch()
    torch.testing.assert_close(scores(model, batch.item_seq, batch.timestamps.long()), model.predict(batch)[:, 1:])


def test_gaps_longer_than_any_in_training_count_as_the_longest():
    model = make()
    gaps = torch.tensor([0.0, LONGEST - 1, LONGEST, LONGEST + 1, 1e12, -5.0], dtype=torch.float64)
    last = math.floor(100 * math.log2(LONGEST + 1))
    assert model.interval(gaps).tolist() == [0, last, last, last, last, 0]
    assert model.interval_embedding.num_embeddings == last + 1
    far = times_of([NOW, NOW + 1e12])
    assert scores(model, torch.tensor([[1, 2]]), far).isfinite().all()


def test_the_longest_gap_itself_is_in_the_table_where_float32_rounds_it_down():
    gap = next(g for g in (math.ceil(2 ** (m / 100)) - 1 for m in range(2500, 3100)) if float(np.float32(g)) < g)
    model = make(dataset(longest=float(gap)))
    assert model.longest_gap == gap
    assert scores(model, torch.tensor([[1, 2]]), times_of([0, gap])).isfinite().all()
    assert int(model.interval(torch.tensor(gap))) == model.interval_embedding.num_embeddings - 1


def test_items_bought_at_one_time_have_the_interval_of_no_gap():
    model, size = make(), tiny.CONFIG.hidden_size
    embedded = model.time_embedding(torch.tensor([[1, 2, 3]]), times_of([NOW] * 3))[0]
    torch.testing.assert_close(embedded[:, :size], model.interval_embedding.weight[:1].expand(3, -1))
    torch.testing.assert_close(embedded[0], embedded[2])
    assert scores(model, torch.tensor([[1, 2, 3]]), times_of([NOW] * 3)).isfinite().all()


def test_the_first_item_has_no_gap_and_the_times_of_padding_are_not_read():
    model, history, size = make(), torch.tensor([[0, 0, 1, 2]]), tiny.CONFIG.hidden_size
    times = times_of([0, 0, 90_000, 190_000])
    embedded = model.time_embedding(history, times)
    torch.testing.assert_close(embedded[0, 2, :size], model.interval_embedding.weight[0])
    junk = torch.where(history > 0, times, 77_777.0)
    torch.testing.assert_close(scores(model, history, junk), scores(model, history, times))


def test_the_gap_and_the_first_event_are_those_of_the_training_part():
    model = make()
    assert (model.longest_gap, model.first_event) == (LONGEST, FIRST)
    assert build_model("hm4sr", tiny.CONFIG, tiny.tiny_dataset(), FEATURES).interval_embedding.num_embeddings == 101


def test_time_stamps_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"timestamps must be \(1, 2\), like item_seq, got \(1, 3\)"):
        scores(make(), torch.tensor([[1, 2]]), times_of([1, 2, 3]))


# ---- training


def test_every_expert_of_time_is_a_parameter_and_learns():
    model, batch = make(), tiny.tiny_batch()
    before = model.time_experts.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.loss(batch, torch.Generator().manual_seed(0)).total.backward()
    optimizer.step()
    assert model.time_experts.shape == (4, 3 * tiny.CONFIG.hidden_size)
    assert ((model.time_experts - before).abs().amax(dim=1) > 1e-3).all()


def test_the_gate_of_ids_learns_as_soon_as_what_it_weighs_counts():
    torch.manual_seed(0)
    model = build_model("hm4sr", tiny.CONFIG, dataset(), FEATURES)
    assert model.modality_weights.tolist() == [0, 1, 1]
    gates, steps = model.modality_gates, []
    for weight in (0.0, 0.1):
        model.zero_grad()
        model.modality_weights.data[0] = weight
        model.loss(tiny.tiny_batch(), torch.Generator().manual_seed(0)).total.backward()
        steps.append(gates["id"].weight.grad.abs().max())
        assert gates["text"].weight.grad.abs().max() > 0 and model.modality_weights.grad[0] != 0
    assert steps[0] == 0 < steps[1]


def cross_entropy_of_labels(model: HM4SR, histories: tuple[tuple[int, ...], ...]) -> float:
    """The loss for categories, item by item and node by node."""
    head, table, values = model.category_head, model.item_embeddings(), []
    for item in (item for history in histories for item in history):
        labels = LABELS[item - 1]
        if labels:
            chances = torch.sigmoid(head(table[item])).tolist()
            pairs = zip(NODES, chances, strict=True)
            values.append(-sum(math.log(p if node in labels else 1 - p) for node, p in pairs) / len(NODES))
    return sum(values) / len(values)


def test_the_loss_has_all_its_terms():
    """A second computation of each, over the whole batch at once."""
    model, batch, config = make(), tiny.tiny_batch(), tiny.CONFIG
    table, targets = model.item_embeddings(), batch.pos_items
    embeddings, time = model.mix(batch.item_seq, table, batch.timestamps)
    ids, text, image = model.encode(batch.item_seq, table, batch.timestamps)[:, -1].chunk(3, dim=-1)
    draws = torch.rand(len(targets), config.max_length, generator=torch.Generator().manual_seed(3))
    mask = attention_mask(batch.item_seq, causal=True)
    views = model.masked(embeddings, time, batch.item_seq, draws).items()
    views = [model.read(name, part, mask)[:, -1] for name, part in views]
    logits = model.predict(batch)[:, 1:].log_softmax(dim=1)
    expected = {
        "id/cross_entropy": -logits[range(len(targets)), targets - 1].mean(),
        "id/contrastive": info_nce(ids, model.item_embedding.weight[targets], targets, 0.2),
        "text/contrastive": info_nce(text, views[0], targets, 1.0),
        "image/contrastive": info_nce(image, views[1], targets, 1.0),
        "id/categories": torch.tensor(cross_entropy_of_labels(model, tiny.HISTORIES)).double(),
    }
    output = model.loss(batch, torch.Generator().manual_seed(3))
    torch.testing.assert_close(output.terms, {name: value.detach() for name, value in expected.items()})
    weights = {"id/contrastive": config.lambda_c, "text/contrastive": config.lambda_c / 2}
    weights["image/contrastive"] = config.lambda_c / 2
    total = sum(weights.get(name, 1.0) * value for name, value in expected.items())
    torch.testing.assert_close(output.total, total)


@pytest.mark.parametrize(("length", "count"), [(1, 0), (3, 0), (4, 1), (6, 1), (7, 2), (10, 3)])
def test_three_tenths_of_the_items_are_masked_by_their_time(length, count):
    model = make(max_length=12)
    item_seq = tiny.left_padded([tuple(range(1, length + 1))], 12)
    times = torch.where(item_seq > 0, 90_000.0 * torch.arange(12), 0.0).double()
    embeddings, time = model.mix(item_seq, model.item_embeddings(), times)
    draws = torch.rand(1, 12, generator=torch.Generator().manual_seed(0))
    start = 12 - length
    chosen = [start + place for place in sorted(range(length), key=lambda place: -draws[0, start + place])[:count]]
    found = model.masked(embeddings, time, item_seq, draws)
    for m, name in enumerate(("text", "image"), start=1):
        expected = embeddings.chunk(3, dim=-1)[m].clone()
        for place in chosen:
            expected[0, place] = model.stand_ins[name](time[0, place])
        torch.testing.assert_close(found[name], expected)


def test_categories_are_the_nodes_of_the_paths():
    labels = category_labels(dataset())
    assert labels.tolist() == [[node in item for node in NODES] for item in LABELS]


@pytest.mark.parametrize("data", [dataset(None), dataset([""] * tiny.NUM_ITEMS), tiny.tiny_dataset()])
def test_without_categories_their_loss_is_dropped(data):
    model = make(data)
    assert model.category_head is None and category_labels(data) is None
    assert "id/categories" not in model.loss(tiny.tiny_batch(), torch.Generator().manual_seed(0)).terms


def test_items_without_a_column_of_categories_have_none():
    titles = dataclasses.replace(dataset(), items=pd.DataFrame({"title": ["a toy"] * tiny.NUM_ITEMS}))
    assert category_labels(titles) is None


def test_a_batch_without_any_category_has_a_loss_of_zero():
    model, item_seq = make(), torch.tensor([[0, 2], [5, 2]])
    assert model.category_loss(item_seq, model.item_embeddings()).item() == 0


def test_a_trained_model_is_the_same_after_loading(tmp_path):
    data = dataset()
    torch.manual_seed(0)
    model = build_model("hm4sr", tiny.CONFIG, data, FEATURES)
    train(model, data, TrainConfig(epochs=1, batch_size=16))
    save_checkpoint(tmp_path, "hm4sr", model, TrainConfig(), data, FEATURES)
    loaded, batch = load_checkpoint(tmp_path, data, FEATURES), tiny.tiny_batch()
    assert (loaded.longest_gap, loaded.first_event) == (LONGEST, FIRST)
    torch.testing.assert_close(loaded.predict(batch), model.predict(batch), rtol=0, atol=0)


def test_a_checkpoint_is_not_read_with_other_times(tmp_path):
    data = dataset()
    save_checkpoint(tmp_path, "hm4sr", build_model("hm4sr", tiny.CONFIG, data, FEATURES), TrainConfig(), data, FEATURES)
    later = [times + (number == 5) for number, times in enumerate(data.timestamps)]
    with pytest.raises(InputError, match="was trained on data with other time stamps"):
        load_checkpoint(tmp_path, dataclasses.replace(data, timestamps=later), FEATURES)


def test_without_text_or_image_it_refuses():
    for features, changes, name in (
        (None, {}, "text"),
        (FEATURES, {"use_text": False}, "text"),
        (FEATURES, {"use_image": False}, "image"),
    ):
        with pytest.raises(InputError, match=f"HM4SR needs {name} features"):
            build_model("hm4sr", tiny.tiny_config(**changes), dataset(), features)
