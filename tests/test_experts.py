"""ID-guided experts against Eq. 3-6 in plain loops."""

# I items, D hidden, N experts

import numpy as np
import oracles
import pytest
import torch

from imecd_lite.experts import GROUPING_STEPS, IDGatedExperts, ItemGroups

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


def clustered(per_group: int = 5, groups: int = N) -> torch.Tensor:
    """(I, D) items around far-apart centres, group after group."""
    centres = 10 * torch.eye(groups, D)
    noise = torch.randn(groups * per_group, D, generator=torch.Generator().manual_seed(2))
    return centres.repeat_interleave(per_group, dim=0) + 0.1 * noise


def formed_groups(items: torch.Tensor) -> ItemGroups:
    groups = ItemGroups(D, N)
    for _ in range(GROUPING_STEPS + 1):
        assert not groups.formed
        groups.update(items)
    assert groups.formed
    return groups


def test_groups_form_when_it_is_time_and_are_those_of_the_items():
    labels = formed_groups(clustered()).nearest(clustered()).reshape(N, -1)
    assert (labels == labels[:, :1]).all() and len(labels[:, 0].unique()) == N


def test_centres_follow_their_items():
    groups, items = formed_groups(clustered()), clustered()
    before, labels = groups.centres.clone(), groups.nearest(items)
    moved = items + 0.5
    gone = labels[0]
    moved[labels == gone] = moved[labels != gone][0]  # one group loses all its items
    groups.update(moved)
    for group in range(N):
        own = moved[groups.nearest(moved) == group]
        expected = before[group] if group == gone else 0.9 * before[group] + 0.1 * own.mean(dim=0)
        torch.testing.assert_close(groups.centres[group], expected)


def test_fewer_items_than_experts_leave_experts_without_a_group():
    items = clustered(per_group=1, groups=2)
    groups = formed_groups(items)
    assert groups.nearest(items).unique().numel() == 2
    groups.update(items)
    assert groups.centres.isinf().all(dim=1).sum() == N - 2


def test_with_many_experts_too_no_item_is_in_a_group_that_was_not_formed():
    items, groups = torch.randn(20, D, generator=torch.Generator().manual_seed(0)), ItemGroups(D, 32)
    groups.centres[:20] = items  # more than 25: their distances are worked out by products of matrices
    assert groups.nearest(items).tolist() == list(range(20))


def test_embeddings_that_are_not_numbers_form_no_groups_and_raise_nothing():
    assert formed_groups(torch.full((6, D), torch.nan)).centres.isinf().all()
