"""What if: gates, tables and scores of another shop are those of a model that was changed by hand."""

# I items, D hidden, N experts

import copy

import pytest
import tiny
import torch

from imecd_lite.counterfactual import (
    code_controls,
    gate_controls,
    gates_without,
    scores_before_last,
    what_if,
    with_codebooks,
)

DATASET = tiny.tiny_dataset()
MODELS = {"literal": {}, "default": tiny.DEFAULTS}


@pytest.fixture(params=MODELS)
def model(request):
    return tiny.tiny_model(**MODELS[request.param]).eval()


def assert_same(tables, others):
    assert tables.keys() == others.keys()
    for name in tables:
        torch.testing.assert_close(tables[name], others[name])


def test_nothing_changed_is_the_model_as_it_is(model):
    shop = what_if(model)
    assert_same(shop.tables, model.item_embeddings())
    assert_same(shop.gates, {name: model.route(name).routing_weights for name in ("text", "image")})


def test_a_swapped_id_is_an_overwritten_row_and_the_model_stays_as_it_is(model):
    changed = copy.deepcopy(model)
    changed.item_embedding.weight.data[3] = model.item_embedding.weight.data[8]
    weights = model.item_embedding.weight.detach().clone()
    shop = what_if(model, item=3, id_of=8)
    assert_same(shop.tables, changed.item_embeddings())
    torch.testing.assert_close(shop.gates["text"][2], shop.gates["text"][7])
    assert torch.equal(model.item_embedding.weight, weights)


def test_with_its_own_id_an_item_stays_what_it_is(model):
    assert_same(what_if(model, item=5, id_of=5).tables, model.item_embeddings())


def test_a_muted_expert_gets_nothing_and_the_others_share_its_part_by_plain_loops():
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, -1.0, 0.5]])
    gates, whole = gates_without(logits, [1]), logits.softmax(dim=1)
    for item in range(2):
        rest = float(whole[item, 0] + whole[item, 2])
        assert gates[item].tolist() == pytest.approx([float(whole[item, 0]) / rest, 0, float(whole[item, 2]) / rest])


def test_the_others_share_the_part_of_an_expert_that_had_everything():
    assert gates_without(torch.tensor([[0.0, 0.0, 1e4]]), [2]).tolist() == [[0.5, 0.5, 0.0]]


def test_a_mute_expert_has_no_say_in_the_tables(model):
    changed = copy.deepcopy(model)
    for experts in changed.experts.values():
        experts.expert_weight.data[1] = torch.randn_like(experts.expert_weight[1])
        experts.expert_bias.data[1] = 9
    assert_same(what_if(model, muted=[1]).tables, what_if(changed, muted=[1, 1]).tables)


def test_somebody_has_to_speak():
    with pytest.raises(ValueError, match=r"muted = \[0, 1, 2\]"):
        what_if(tiny.tiny_model(), muted=(2, 1, 0))


@pytest.mark.parametrize("change", [{"item": 0}, {"item": 14}, {"id_of": 0}, {"id_of": -1}], ids=str)
def test_an_item_that_is_not_there_is_refused(model, change):
    with pytest.raises(ValueError, match=f"items are 1 to 13, got {next(iter(change.values()))}"):
        what_if(model, **change)


def test_without_experts_there_is_no_gate():
    model = tiny.tiny_model(use_experts=False)
    shop = what_if(model, item=3, id_of=8, muted=[0])
    assert shop.gates == {}
    torch.testing.assert_close(shop.tables["text"], model.item_embeddings()["text"])


def test_scores_are_those_before_the_last_purchase_and_of_the_tables_given(model):
    history = torch.as_tensor(DATASET.sequences[3][:-1])[None, -DATASET.max_length :]
    key = torch.as_tensor(DATASET.user_keys[3:4])
    own = scores_before_last(model, DATASET, 3, model.item_embeddings(), 2)
    torch.testing.assert_close(own, model.full_sort_predict(history, key, num_inference_steps=2)[0])
    changed = copy.deepcopy(model)
    changed.item_embedding.weight.data[3] = model.item_embedding.weight.data[8]
    other = scores_before_last(model, DATASET, 3, what_if(model, 3, 8).tables)
    torch.testing.assert_close(other, changed.full_sort_predict(history, key)[0])
    assert not torch.allclose(other, scores_before_last(model, DATASET, 3, model.item_embeddings()))


def test_controls_are_sums_over_experts_under_each_gate(model):
    versions = gate_controls(model, "text", seed=4)
    before, experts, own = model.project("text"), model.experts["text"], model.route("text")
    deal = torch.randperm(tiny.NUM_ITEMS, generator=torch.Generator().manual_seed(4))
    assert deal.tolist() != list(range(tiny.NUM_ITEMS))
    torch.testing.assert_close(versions["before the experts"], before)
    torch.testing.assert_close(versions["the ID's own gates"], own.embeddings)
    for i in range(tiny.NUM_ITEMS):
        opinions = [
            weight @ before[i] + bias for weight, bias in zip(experts.expert_weight, experts.expert_bias, strict=True)
        ]
        torch.testing.assert_close(versions["a flat gate"][i], sum(opinions) / len(opinions))
        dealt = sum(gate * opinion for gate, opinion in zip(own.routing_weights[deal[i]], opinions, strict=True))
        torch.testing.assert_close(versions["gates dealt out at random"][i], dealt)
        opinions = [
            weight @ before.mean(dim=0) + bias
            for weight, bias in zip(experts.expert_weight, experts.expert_bias, strict=True)
        ]
        unread = sum(gate * opinion for gate, opinion in zip(own.routing_weights[i], opinions, strict=True))
        torch.testing.assert_close(versions["the ID's own gates, nothing to read"][i], unread)


def score(model):
    history = torch.as_tensor(DATASET.sequences[3][:-1])[None, -DATASET.max_length :]
    return model.full_sort_predict(history, torch.as_tensor(DATASET.user_keys[3:4]))[0]


def test_louder_and_other_codes_are_those_of_a_model_changed_by_hand(model):
    changed, before = copy.deepcopy(model), score(model)
    for codebook in changed.codebooks.values():
        codebook.lambda_q = 2.0
        codebook.codes.copy_(codebook.codes.flip(0))
    flipped = {name: codebook.codes.flip(0) for name, codebook in model.codebooks.items()}
    torch.testing.assert_close(score(with_codebooks(model, 2.0, flipped)), score(changed))
    assert not torch.allclose(score(changed), before)
    torch.testing.assert_close(score(model), before)  # it stays as it is
    torch.testing.assert_close(score(with_codebooks(model)), before)
    learning = copy.deepcopy(model).train()
    with_codebooks(learning)
    assert all(module.training for module in learning.modules())


def test_controls_of_codes_are_none_their_mean_the_wrong_ones_and_the_models_own(model):
    controls = code_controls(model)
    silent = copy.deepcopy(model)
    for codebook in silent.codebooks.values():
        codebook.codes.zero_()
    torch.testing.assert_close(score(controls["no code"]), score(silent))
    for name, codebook in model.codebooks.items():
        mean = controls["one code for all, their mean"].codebooks[name].codes
        wrong = controls["a wrong code, the next"].codebooks[name].codes
        for z in range(len(codebook.codes)):
            torch.testing.assert_close(mean[z], sum(codebook.codes) / len(codebook.codes))
            assert torch.equal(wrong[z], codebook.codes[z - 1])
    assert controls["its own code"] is model
