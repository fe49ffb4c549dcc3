"""ID-guided experts against Eq. 3-6 in plain loops."""

# I items, D hidden, N experts

import numpy as np
import oracles
import pytest
import torch

from imecd_lite.experts import IDGatedExperts

I, D, N = 6, 8, 3  # noqa: E741


def random_experts() -> IDGatedExperts:
    torch.manual_seed(0)
    experts = IDGatedExperts(D, N).double()
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    return experts


def random_tables() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(2, I, D, generator=generator, dtype=torch.float64))


def test_mixture_and_gates_are_those_of_eq_3_to_6():
    experts, (modality, ids) = random_experts(), random_tables()
    output = experts(modality, ids)
    mixed, gates = oracles.experts(oracles.weights_of(experts), modality.numpy(), ids.numpy())
    np.testing.assert_allclose(output.embeddings.detach(), mixed, rtol=1e-10)
    np.testing.assert_allclose(output.routing_weights.detach(), gates, rtol=1e-10)
    np.testing.assert_allclose(output.router_logits.softmax(-1).detach(), gates, rtol=1e-10)


def test_each_items_gates_sum_to_one():
    experts, (modality, ids) = random_experts(), random_tables()
    weights = experts(modality, ids).routing_weights
    assert weights.shape == (I, N)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(I, dtype=torch.float64))


def test_an_item_is_mixed_without_a_look_at_the_others():
    experts, (modality, ids) = random_experts(), random_tables()
    whole = experts(modality, ids).embeddings
    for i in range(I):
        torch.testing.assert_close(experts(modality[i : i + 1], ids[i : i + 1]).embeddings, whole[i : i + 1])


def test_the_gate_hears_the_id_and_not_the_modality():
    experts, (modality, ids) = random_experts(), random_tables()
    weights = experts(modality, ids).routing_weights
    torch.testing.assert_close(experts(modality.flip(0), ids).routing_weights, weights)
    assert not torch.allclose(experts(modality, ids.flip(0)).routing_weights, weights)


def test_every_expert_is_a_registered_parameter_and_learns():
    experts, (modality, ids) = random_experts(), random_tables()
    assert {name: tuple(p.shape) for name, p in experts.named_parameters()} == {
        "gate.weight": (N, D),
        "gate.bias": (N,),
        "expert_weight": (N, D, D),
        "expert_bias": (N, D),
    }
    assert set(experts.state_dict()) == {name for name, _ in experts.named_parameters()}
    experts(modality, ids).embeddings.square().sum().backward()
    for name, parameter in experts.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).all(), name


def test_the_ids_learn_through_the_gate():
    experts, (modality, ids) = random_experts(), random_tables()
    ids.requires_grad_()
    experts(modality, ids).embeddings.square().sum().backward()
    assert (ids.grad != 0).all()


def test_tables_of_different_shapes_are_refused_by_their_shapes():
    with pytest.raises(ValueError, match=r"\(6, 8\).*\(5, 8\)"):
        random_experts()(torch.zeros(I, D), torch.zeros(I - 1, D))
