"""SASRec, the yardstick: causal, aware of order, and with a bias of repeats that does what it says."""

# B batch, L sequence

import pytest
import tiny
import torch

from imecd_lite.baselines import SASRec, SASRecFeatures, SASRecRepeat

MODELS = pytest.mark.parametrize("kind", [SASRec, SASRecFeatures, SASRecRepeat])


def make(kind: type = SASRec, **changes: object) -> SASRec:
    features = tiny.random_features()
    torch.manual_seed(0)
    model = kind(tiny.tiny_config(**changes), tiny.NUM_ITEMS, features["text"], features["image"]).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.item_embedding.weight.data[0] = 0
    return model


def scores(model: SASRec, rows=tiny.ALL, length: int | None = None) -> torch.Tensor:
    batch = tiny.tiny_batch(rows, length)
    return model.full_sort_predict(batch.item_seq, batch.user_keys)


def test_a_state_knows_no_later_item():
    model = make().eval()
    table, history = model.item_embeddings(), torch.tensor([[0, 1, 2, 3, 4]])
    later = torch.tensor([[0, 1, 2, 3, 9]])
    states, others = model.encode(history, table), model.encode(later, table)
    torch.testing.assert_close(states[:, :4], others[:, :4])
    assert (states[:, 4] - others[:, 4]).abs().max() > 1e-3
    assert torch.isfinite(states).all(), "padded rows too"


def test_order_matters():
    model = make().eval()
    table = model.item_embeddings()
    first, second = (model.encode(torch.tensor([history]), table)[0, -1] for history in ([1, 2, 3], [2, 1, 3]))
    assert (first - second).abs().max() > 1e-3


@MODELS
def test_loss_is_the_mean_cross_entropy_of_the_scores(kind):
    model, batch = make(kind), tiny.tiny_batch()
    logits = scores(model)[:, 1:]
    expected = -logits.log_softmax(dim=1)[range(len(tiny.TARGETS)), [target - 1 for target in tiny.TARGETS]].mean()
    output = model.loss(batch, torch.Generator())
    torch.testing.assert_close(output.total, expected)
    assert output.terms == {"id/cross_entropy": output.total}


def test_features_make_a_difference_and_can_be_switched_off():
    model, other = make(SASRecFeatures).eval(), make(SASRecFeatures).eval()
    other.text_features *= 2
    assert not torch.allclose(scores(model), scores(other))
    ids_only = SASRecFeatures(tiny.tiny_config(use_text=False, use_image=False), tiny.NUM_ITEMS)
    assert ids_only.item_embeddings().shape == (tiny.NUM_ITEMS + 1, tiny.CONFIG.hidden_size)


def test_the_repeat_bias_moves_the_items_of_the_history_alone():
    plain, biased = make().eval(), make(SASRecRepeat).eval()
    biased.load_state_dict(plain.state_dict() | {"repeat_bias": torch.tensor(-0.3)})
    difference = scores(biased) - scores(plain)
    for row, history in enumerate(tiny.HISTORIES):
        expected = torch.tensor([-3.0 * (item in history) for item in range(1, tiny.NUM_ITEMS + 1)])
        torch.testing.assert_close(difference[row, 1:], expected.double())
