"""Neighbours in a space, by hand on a few vectors."""

import numpy as np
import pytest
import tiny
import torch

from imecd_lite.encoders import Features
from imecd_lite.spaces import draw_map, flat_map, item_spaces, nearest, share_alike

VECTORS = torch.tensor([[1.0, 0.0], [0.9, 0.1], [50.0, 50.0], [0.0, 1.0], [-1.0, -0.1]])


def test_neighbours_go_by_angle_not_by_length_and_leave_the_item_out():
    assert nearest(VECTORS, torch.tensor([1, 4]), 3).tolist() == [[2, 3, 4], [3, 2, 1]]


def test_there_are_never_more_neighbours_than_other_items():
    assert nearest(VECTORS, torch.tensor([5]), 10).shape == (1, 4)


def test_the_vectors_stay_as_they_are():
    before = VECTORS.clone()
    nearest(VECTORS, torch.arange(1, 6), 2)
    assert torch.equal(VECTORS, before)


def test_shares_count_the_wanted_label():
    labels = np.array(["a", "b", "a", "b", "b"])
    shares = share_alike(torch.tensor([[2, 3], [1, 3]]), labels, np.array(["a", "b"]))
    assert shares.tolist() == [0.5, 0.0]


def test_rows_of_the_spaces_are_items_without_padding():
    model, tables = tiny.tiny_model(), tiny.random_features()
    spaces = item_spaces(model, Features(**tables, fingerprint=""))
    assert list(spaces) == ["text", "image", "id"]
    assert torch.equal(spaces["text"], tables["text"]) and torch.equal(spaces["image"], tables["image"])
    assert torch.equal(spaces["id"], model.item_embedding.weight[1:])
    assert not spaces["id"].requires_grad


def test_without_features_there_is_behaviour_alone():
    assert list(item_spaces(tiny.tiny_model(), None)) == ["id"]


def test_a_map_repeats_and_keeps_groups_apart():
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(8)[:2].repeat_interleave(20, dim=0)
    vectors = centres + 0.05 * torch.randn(40, 8, generator=generator)
    first, again = draw_map(vectors), draw_map(vectors)
    assert first.shape == (40, 2) and np.array_equal(first, again)
    own, other = first[:20], first[20:]
    gap = np.linalg.norm(own.mean(axis=0) - other.mean(axis=0))
    assert gap > 2 * max(np.linalg.norm(group - group.mean(axis=0), axis=1).mean() for group in (own, other))


def test_a_flat_map_shows_the_plane_of_greatest_variance_and_places_anything():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(200, 5, generator=generator) * torch.tensor([1.0, 9.0, 1.0, 5.0, 1.0]) + 3
    flat = flat_map(vectors)
    centred = (vectors - vectors.mean(dim=0)).double()
    values, axes = torch.linalg.eigh(centred.T @ centred)
    assert flat.share == pytest.approx(float(values[-2:].sum() / values.sum()), abs=1e-4)
    for number in range(2):
        assert abs(float(flat.axes[:, number].double() @ axes[:, -1 - number])) == pytest.approx(1, abs=1e-4)
        assert flat.axes[:, number].abs().max() == flat.axes[:, number].max(), "the same way up on every machine"
    assert flat.place(vectors.mean(dim=0)[None])[0] == pytest.approx([0, 0], abs=1e-5)
    middle = flat.place((vectors[:1] + vectors[1:2]) / 2)  # linear: half way is half way
    assert middle[0] == pytest.approx(flat.place(vectors[:2]).mean(axis=0), abs=1e-4)
