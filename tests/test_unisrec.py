"""UniSRec: its adaptor against plain loops, its scores against torch's layers, and what each part may see."""

# B batch, L sequence, D hidden, F text features, I items, K experts

import math

import numpy as np
import oracles
import pytest
import tiny
import torch
import torch_layers

from imecd_lite.baselines import UniSRec
from imecd_lite.baselines.sequential import drop_items, info_nce
from imecd_lite.baselines.unisrec import WhiteningExperts
from imecd_lite.errors import InputError


def fresh(**changes: object) -> UniSRec:
    torch.manual_seed(0)
    return UniSRec(tiny.tiny_config(**changes), tiny.NUM_ITEMS, tiny.random_features()["text"])


def loud(**changes: object) -> UniSRec:
    model = fresh(**changes).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.item_embedding.weight.data[0] = 0
    return model.eval()


def draws(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What the adaptor draws for the features: noise (I, K), and uniform numbers (I, F)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(tiny.NUM_ITEMS, WhiteningExperts.NUM_EXPERTS, generator=generator)
    return noise.double().numpy(), torch.rand(tiny.NUM_ITEMS, tiny.TEXT_SIZE, generator=generator).double().numpy()


@pytest.mark.parametrize("training", [True, False])
def test_the_adaptor_is_that_of_plain_loops(training):
    adaptor, features = loud().adaptor, tiny.random_features()["text"].double()
    weights, (noise, uniform) = oracles.weights_of(adaptor), draws(seed=3)
    expected = np.zeros((tiny.NUM_ITEMS, tiny.CONFIG.hidden_size))
    for i, f in enumerate(features.numpy()):
        logits = []
        for k in range(8):
            spread = math.log1p(math.exp(f @ weights["gate_noise"][:, k])) + 0.01
            logits.append(f @ weights["gate"][:, k] + training * noise[i, k] * spread)
        dropped = [value / 0.8 if u >= 0.2 else 0.0 for value, u in zip(f, uniform[i], strict=True)] if training else f
        for k, gate in enumerate(oracles.softmax(logits)):
            expected[i] += gate * (weights["weights"][k] @ (dropped - weights["shifts"][k]))
    generator = torch.Generator().manual_seed(3) if training else None
    np.testing.assert_allclose(adaptor(features, generator).detach(), expected, rtol=1e-9)


def test_scores_are_those_of_torch_layers_on_each_history_alone():
    model, batch = loud(), tiny.tiny_batch()
    items = model.adaptor(model.text_features[1:]) + model.item_embedding.weight[1:]  # (I, D)
    scores = model.full_sort_predict(batch.item_seq, batch.user_keys)
    for row, history in enumerate(tiny.HISTORIES):
        hidden = model.input_norm(items[[item - 1 for item in history]] + model.positions[-len(history) :])[None]
        later = torch.nn.Transformer.generate_square_subsequent_mask(len(history), dtype=torch.float64)
        for block in model.blocks:
            hidden = torch_layers.encoder_layer(block)(hidden, src_mask=later)
        expected = torch.cosine_similarity(hidden[0, -1], items, dim=-1) / tiny.CONFIG.temperature
        torch.testing.assert_close(scores[row, 1:], expected)


def test_the_gates_start_flat_and_every_part_of_the_adaptor_learns_but_no_feature():
    model = fresh().train()
    assert not model.adaptor.gate.any() and not model.adaptor.gate_noise.any()
    model.loss(tiny.tiny_batch(), torch.Generator().manual_seed(0)).total.backward()
    for name, parameter in model.adaptor.named_parameters():
        assert (parameter.grad.flatten(1).abs().amax(dim=1) > 0).all(), name
    assert not model.text_features.requires_grad and "text_features" not in model.state_dict()


def test_the_features_are_standardised_as_everywhere():
    table = fresh().text_features
    assert not table[0].any()
    torch.testing.assert_close(table[1:].std(dim=0), torch.ones(tiny.TEXT_SIZE))


def test_a_state_knows_no_later_item():
    model = loud()
    table = model.item_embeddings()
    states, others = (model.encode(torch.tensor([[0, 1, 2, 3, last]]), table) for last in (4, 9))
    torch.testing.assert_close(states[:, :4], others[:, :4])
    assert (states[:, 4] - others[:, 4]).abs().max() > 1e-3


def test_the_length_of_a_candidate_changes_no_score():
    model, batch = loud(), tiny.tiny_batch()
    table = model.item_embeddings()
    users = model.represent(batch.item_seq, table)
    longer = table * torch.linspace(1, 20, len(table), dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        model.compare(users, batch.item_seq, longer), model.compare(users, batch.item_seq, table)
    )


def test_noise_and_dropout_of_the_adaptor_are_for_training_alone():
    model, batch = loud(), tiny.tiny_batch()
    logits = model.full_sort_predict(batch.item_seq, batch.user_keys)[:, 1:]
    expected = torch.nn.functional.cross_entropy(logits, batch.pos_items - 1)
    evaluated, trained = (
        model.train(mode).loss(batch, torch.Generator().manual_seed(0)).terms["id/cross_entropy"]
        for mode in (False, True)
    )
    torch.testing.assert_close(evaluated, expected)
    assert (trained - expected).abs() > 1e-3
    torch.testing.assert_close(model.full_sort_predict(batch.item_seq, batch.user_keys)[:, 1:], logits)


def test_lambda_c_weighs_the_contrast_of_two_views_and_zero_leaves_it_out():
    model, batch = loud(lambda_c=0.3), tiny.tiny_batch()
    output = model.loss(batch, torch.Generator().manual_seed(5))
    table = model.item_embeddings()
    dropped = drop_items(batch.item_seq, torch.Generator().manual_seed(5), model.config.max_length)
    assert (dropped != batch.item_seq).any()
    views = [model.encode(item_seq, table)[:, -1] for item_seq in (batch.item_seq, dropped)]
    contrast = info_nce(*views, batch.pos_items, tiny.CONFIG.temperature)
    torch.testing.assert_close(output.parts["id/contrastive"], contrast)
    torch.testing.assert_close(output.total, output.parts["id/cross_entropy"] + 0.3 * contrast)
    without = loud(lambda_c=0.0).loss(batch, torch.Generator().manual_seed(5))
    torch.testing.assert_close(without.total, output.parts["id/cross_entropy"])
    assert set(without.terms) == {"id/cross_entropy"}


def test_there_is_no_unisrec_without_text():
    text = tiny.random_features()["text"]
    for config, features in ((tiny.CONFIG, None), (tiny.tiny_config(use_text=False), text)):
        with pytest.raises(InputError, match="UniSRec needs text features"):
            UniSRec(config, tiny.NUM_ITEMS, features)
