"""What every comparator must do: ignore padding and batch mates, learn with all it has, repeat itself, learn a rule."""

# B batch, L sequence, I items

import dataclasses

import numpy as np
import pytest
import tiny
import torch

from imecd_lite.checkpoint import MODELS, build_model
from imecd_lite.config import TrainConfig
from imecd_lite.dataset import Batch
from imecd_lite.diagnostics import top_and_ranks
from imecd_lite.encoders import Features
from imecd_lite.evaluate import hit, target_ranks, top_items
from imecd_lite.model import Recommender
from imecd_lite.train import make_optimizer, train, training_step

LEARNERS = sorted(set(MODELS) - {"imecd", "popularity"})
each = pytest.mark.parametrize("name", LEARNERS)

SMALL = {**tiny.DEFAULTS, "hidden_size": 32, "num_train_timesteps": 8, "dropout": 0.0, "noise_scale": 0.001}


def build(name: str, dataset=None, **changes: object) -> Recommender:
    table = tiny.random_features()
    features = Features(table["text"], table["image"], "made up")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(name, tiny.tiny_config(**changes), dataset or tiny.tiny_dataset(), features)
    model.fit_statistics(dataset or tiny.tiny_dataset())
    model.on_epoch_start(torch.Generator().manual_seed(0))
    return model


def loud(name: str) -> Recommender:
    """A float64 model whose every parameter is large enough to matter, in eval mode."""
    model = build(name).double()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    model.item_embedding.weight.data[0] = 0
    return model.eval()


def scores(model: Recommender, batch: Batch | None = None, seed: int = 0) -> torch.Tensor:
    return model.predict(batch or tiny.tiny_batch(), seed)


@pytest.mark.parametrize("name", ["imecd", *LEARNERS])
def test_a_step_in_bfloat16_is_nearly_that_in_float32_and_what_is_learnt_stays_float32(name, monkeypatch):
    losses = []
    for precision in ("no", "bf16"):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
        model, generator = build(name, dropout=0.0).train(), torch.Generator().manual_seed(0)
        optimizer, products = make_optimizer(model, TrainConfig()), []
        for layer in model.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.register_forward_hook(lambda *called, dtypes=products: dtypes.append(called[2].dtype))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            steps = [training_step(model, optimizer, tiny.tiny_batch(), generator) for _ in range(2)]
        losses.append([step.total.item() for step in steps])
        told = (*model.state_dict().values(), steps[-1].total, *steps[-1].terms.values())
        floats = [tensor for tensor in told if tensor.is_floating_point()]
        assert {tensor.dtype for tensor in floats} == {torch.float32}
        assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
        assert set(products) <= {torch.float32 if precision == "no" else torch.bfloat16}
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


@pytest.mark.parametrize("name", ["imecd", *LEARNERS])
def test_it_scores_in_half_precision_and_under_autocast_nearly_as_in_full(name):
    model = build(name).eval()
    expected, deviation = scores(model)[:, 1:], scores(model)[:, 1:].std()
    with torch.autocast("cpu", torch.bfloat16):
        found = [scores(model)[:, 1:]]
    found.append(scores(model.bfloat16())[:, 1:].float())
    for half in found:
        assert (half - expected).abs().mean() < 0.1 * deviation


@each
def test_its_first_items_and_ranks_in_one_pass_are_those_of_two_also_from_training_mode(name):
    dataset, model = tiny.tiny_dataset(), build(name, dropout=0.5).train()
    split = dataset.split("test")
    top, ranks = top_and_ranks(model, dataset, split, k=4)
    np.testing.assert_array_equal(ranks, target_ranks(model, dataset, split))
    np.testing.assert_array_equal(top, top_items(model, dataset, split, k=4))
    assert model.training


@each
def test_padding_and_batch_mates_change_no_score(name):
    model = loud(name)
    together = scores(model)
    assert together.shape == (len(tiny.ALL), tiny.NUM_ITEMS + 1)
    torch.testing.assert_close(scores(model, tiny.tiny_batch(length=6)), together)
    for row in tiny.ALL:
        torch.testing.assert_close(scores(model, tiny.tiny_batch([row]))[0], together[row])


@pytest.mark.parametrize("name", ["imecd", *LEARNERS])
def test_nor_does_padding_change_the_loss(name):
    model = build(name).eval()
    short = [1, 2, 3, 4]  # of seven histories, of up to four items
    losses = [
        model.loss(tiny.tiny_batch(short, length=length), torch.Generator().manual_seed(0)).total.item()
        for length in (4, 6)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@each
def test_nor_after_a_step_of_training(name):
    model = loud(name)
    output = model.loss(tiny.tiny_batch(), torch.Generator().manual_seed(0))
    output.total.backward()
    model.after_step(output)
    together = scores(model)
    for row in tiny.ALL:
        torch.testing.assert_close(scores(model, tiny.tiny_batch([row]))[0], together[row])


@each
def test_the_padding_is_never_recommended_and_all_else_has_a_score(name):
    table = scores(loud(name))
    assert (table[:, 0] == -torch.inf).all() and table[:, 1:].isfinite().all()


@each
def test_another_item_or_another_order_changes_the_scores(name):
    model, batch = loud(name), tiny.tiny_batch([3])
    reordered = [11, 12, 1, 13] if name == "diffurec" else [12, 11, 13, 1]  # it knows the last item from the others
    for changed in ([11, 12, 13, 2], reordered):
        other = dataclasses.replace(batch, item_seq=torch.tensor([changed]))
        assert (scores(model, other) - scores(model, batch))[:, 1:].abs().max() > 1e-4


@each
def test_every_parameter_learns_and_features_are_frozen(name):
    model = loud(name).train()
    model.loss(tiny.tiny_batch(), torch.Generator().manual_seed(0)).total.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name
    assert not any("features" in parameter_name for parameter_name, _ in model.named_parameters())


@each
def test_the_terms_of_the_loss_are_named_by_modality_and_come_with_their_graph(name):
    output = loud(name).loss(tiny.tiny_batch(), torch.Generator().manual_seed(0))
    assert "id/cross_entropy" in output.terms and set(output.terms) == set(output.parts)
    assert all("/" in term for term in output.terms)
    assert all(part.requires_grad for part in output.parts.values())


@each
def test_the_generator_decides_the_loss(name):
    model = loud(name).train()
    losses = [model.loss(tiny.tiny_batch(), torch.Generator().manual_seed(3)).total for _ in range(2)]
    torch.testing.assert_close(*losses, rtol=0, atol=0)


@each
def test_without_time_stamps_only_hm4sr_refuses(name):
    batch, model = tiny.tiny_batch(), loud(name)
    if name == "hm4sr":
        with pytest.raises(ValueError, match="timestamps"):
            model.full_sort_predict(batch.item_seq, batch.user_keys)
    else:
        torch.testing.assert_close(model.full_sort_predict(batch.item_seq, batch.user_keys), scores(model, batch))


@each
def test_the_catalogue_is_embedded_once_for_all_batches(name, monkeypatch):
    model, dataset, calls = loud(name), tiny.tiny_dataset(), []
    embed, split = type(model).item_embeddings, dataset.split("test")
    alone = target_ranks(model, dataset, split, batch_size=1)
    monkeypatch.setattr(type(model), "item_embeddings", lambda self: calls.append(name) or embed(self))
    np.testing.assert_array_equal(target_ranks(model, dataset, split, batch_size=5), alone)
    assert len(split.users) > 5 and len(calls) == 1


@each
def test_the_next_number_is_learnt(name):
    """Each history counts on from a random number: the next item has no exception."""
    sequences = [(np.arange(start, start + 9) % tiny.NUM_ITEMS) + 1 for start in range(tiny.NUM_ITEMS)]
    dataset = tiny.tiny_dataset(sequences)
    model = build(name, dataset, **SMALL)
    train(model, dataset, TrainConfig(epochs=60, batch_size=16, learning_rate=0.003, patience=20))
    assert hit(target_ranks(model, dataset, dataset.split("test")), 1).mean() > 0.95
