"""MMMLP: its mixers against plain loops, and each modality with a say."""

# B batch, L sequence, D hidden, I items

import math

import numpy as np
import pytest
import tiny
import torch

from imecd_lite.baselines import MMMLP
from imecd_lite.checkpoint import build_model
from imecd_lite.encoders import Features
from imecd_lite.errors import InputError

FEATURES = Features(*tiny.random_features().values(), "made up")


def make() -> MMMLP:
    torch.manual_seed(0)
    model = build_model("mmmlp", tiny.CONFIG, tiny.tiny_dataset(), FEATURES).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.item_embedding.weight.data[0] = 0
    return model.eval()


def scores(model: MMMLP, histories=tiny.HISTORIES) -> torch.Tensor:
    return model.full_sort_predict(tiny.left_padded(histories), torch.arange(len(histories)))[:, 1:]


def layer_norm(norm: torch.nn.LayerNorm, x: np.ndarray) -> np.ndarray:
    weight, bias = (parameter.detach().numpy() for parameter in (norm.weight, norm.bias))
    return (x - x.mean()) / math.sqrt(x.var() + norm.eps) * weight + bias


def perceptron(first: torch.nn.Linear, second: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    (w, a), (v, b) = ((layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in (first, second))
    return v @ np.array([h * (1 + math.erf(h / math.sqrt(2))) / 2 for h in w @ x + a]) + b


def by_loops(model: MMMLP, history: tuple[int, ...]) -> np.ndarray:
    """The scores of items 1 ... I with the positions of the padding there and empty, one number at a time."""
    length, size = model.config.max_length, model.config.hidden_size
    ids = model.item_embedding.weight.detach().numpy()
    tables = {"id": ids}
    for name in ("text", "image"):
        weight = getattr(model, f"{name}_projection").weight.detach().numpy()
        tables[name] = getattr(model, f"{name}_features").numpy() @ weight.T
    ends = []
    for name, table in tables.items():
        mixer, start = model.mixers[name], length - len(history)
        x = np.zeros((length, size))
        for position, item in enumerate(history, start=start):
            x[position] = layer_norm(model.input_norms[name], table[item])
        for _ in range(4):
            normed = np.zeros((length, size))
            for position in range(start, length):
                normed[position] = layer_norm(mixer.position_norm, x[position])
            for channel in range(size):
                x[:, channel] += perceptron(mixer.positions_in, mixer.positions_out, normed[:, channel])
            for position in range(start, length):
                normed[position] = layer_norm(mixer.channels[0], x[position])
                x[position] += perceptron(mixer.channels[1], mixer.channels[3], normed[position])
        ends.append(x[-1])
    first, linear, last = model.fusion
    joined = layer_norm(first, np.concatenate(ends))
    return ids[1:] @ layer_norm(last, linear.weight.detach().numpy() @ joined + linear.bias.detach().numpy())


def test_scores_are_those_of_plain_loops_with_shared_weights_and_empty_padding():
    model = make()
    together = scores(model)
    for row in (0, 1, 3):
        np.testing.assert_allclose(together[row], by_loops(model, tiny.HISTORIES[row]), rtol=1e-9)


def test_all_four_steps_act(monkeypatch):
    model = make()
    results = []
    for depth in (1, 3, 4):
        monkeypatch.setattr(MMMLP, "DEPTH", depth)
        results.append(scores(model))
    for other in results[:-1]:
        assert (results[-1] - other).abs().max() > 1e-3
    assert len(list(model.mixers["text"].parameters())) == len(list(model.mixers["id"].parameters())) == 12


def test_swapping_items_changes_the_scores():
    model = make()
    assert (scores(model, [(1, 2, 3, 4)]) - scores(model, [(2, 1, 3, 4)])).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["id", "text", "image"])
def test_each_modality_has_a_say_in_what_a_history_is(name):
    model, item_seq, size = make(), tiny.left_padded(tiny.HISTORIES), tiny.CONFIG.hidden_size
    table = model.item_embeddings()
    zeroed, column = table.clone(), size * ("id", "text", "image").index(name)
    zeroed[:, column : column + size] = 0
    difference = model.represent(item_seq, table) - model.represent(item_seq, zeroed)
    assert (difference.abs().amax(dim=1) > 1e-3).all()


def test_an_item_without_the_say_of_its_text_or_image_has_the_same_score_as_a_candidate():
    model = make()
    users, item_seq, table = (
        torch.randn(2, tiny.CONFIG.hidden_size).double(),
        torch.tensor([[1], [2]]),
        model.item_embeddings(),
    )
    expected = users @ model.item_embedding.weight.T
    torch.testing.assert_close(model.compare(users, item_seq, table), expected)


def test_without_text_or_image_it_refuses():
    for features, changes, name in (
        (None, {}, "text"),
        (FEATURES, {"use_text": False}, "text"),
        (FEATURES, {"use_image": False}, "image"),
    ):
        with pytest.raises(InputError, match=f"MMMLP needs {name} features"):
            build_model("mmmlp", tiny.tiny_config(**changes), tiny.tiny_dataset(), features)
