"""DiQDiff against plain loops: a code of the whole history, its move after a step, the walk, the repulsion."""

# B batch, L sequence, D hidden, Z codes, T steps

import math

import numpy as np
import oracles
import pytest
import tiny
import torch
from test_diffurec import SEED, D, T, denoise, make, read

from imecd_lite.baselines import DiQDiff
from imecd_lite.baselines.diqdiff import repulsion
from imecd_lite.checkpoint import MODELS
from imecd_lite.codebooks import gumbel
from imecd_lite.diffusion import user_noise

Z, LENGTH = tiny.CONFIG.codebook_size, tiny.CONFIG.max_length


class HalfHistory(DiQDiff):
    LAMBDA_H = 0.6


def loud(kind: type[DiQDiff] = DiQDiff, **changes: object) -> DiQDiff:
    """A float64 model whose parameters and codes are large enough to matter, in eval mode."""
    model = make(kind, **changes)
    torch.nn.init.normal_(model.codebook.codes)
    return model


def logits_of(weights: dict, known: np.ndarray) -> np.ndarray:
    """(Z,): one linear map of the history (L, D), padded."""
    return oracles.linear(weights, "codebook.selector_in", oracles.padded(known, LENGTH).reshape(-1))


def mixed(weights: dict, known: np.ndarray, code: int, lambda_h: float) -> np.ndarray:
    """lambda_h X + lambda_q s_q, (L, D)."""
    return lambda_h * known + tiny.CONFIG.lambda_q * weights["codebook.codes"][code][-len(known) :]


def cosine_repulsion(vectors, temperature: float = 0.07) -> float:
    total = 0.0
    for i in range(len(vectors)):
        others = [
            math.exp((oracles.cosine(vectors[i], vectors[j]) - 1) / temperature) for j in range(len(vectors)) if j != i
        ]
        total += math.log(1 + sum(others)) / len(vectors)
    return total


def test_repulsion_is_that_of_plain_loops_and_of_a_softmax_in_which_the_positive_is_the_vector_itself():
    vectors = torch.randn(6, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors[1] = vectors[0] + 0.1  # near one another
    value = repulsion(vectors, 0.07).item()
    assert value == pytest.approx(cosine_repulsion(vectors.numpy())) and value > 0.1
    cosines = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    assert value == pytest.approx(torch.nn.functional.cross_entropy(cosines / 0.07, torch.arange(6)).item())
    assert repulsion(vectors[:1], 0.07).item() == 0


@pytest.mark.parametrize("kind", [DiQDiff, HalfHistory])
def test_the_loss_is_that_of_plain_loops(kind):
    model, batch = loud(kind, lambda_c=0.3), tiny.tiny_batch()
    output = model.loss(batch, torch.Generator().manual_seed(SEED))
    generator, size = torch.Generator().manual_seed(SEED), len(tiny.TARGETS)
    timesteps = torch.randint(1, T + 1, (size,), generator=generator).tolist()
    noise = torch.randn(size, D, generator=generator).double().numpy()
    gumbel_noise = gumbel((size, Z), generator).double().numpy()
    weights, betas = oracles.weights_of(model), oracles.truncated_linear(T)
    items, predictions, codes = weights["item_embedding.weight"], [], []
    for i, (history, target) in enumerate(zip(tiny.HISTORIES, tiny.TARGETS, strict=True)):
        factor, deviation = oracles.forward_marginal(betas, timesteps[i])
        x_t, known = factor * items[target] + deviation * noise[i], read(weights, history)
        codes.append(int(np.argmax(logits_of(weights, known) + gumbel_noise[i])))
        volumes = np.full((len(history), D), tiny.CONFIG.noise_scale)
        predictions.append(
            denoise(weights, x_t, timesteps[i], mixed(weights, known, codes[-1], kind.LAMBDA_H), volumes)
        )
    cross_entropy = oracles.cross_entropy(predictions, items[1:], tiny.TARGETS, tiny.HISTORIES)
    assert output.terms["id/cross_entropy"].item() == pytest.approx(cross_entropy, rel=1e-4)
    assert output.terms["id/contrastive"].item() == pytest.approx(cosine_repulsion(predictions), rel=1e-4)
    assert output.total.item() == pytest.approx(cross_entropy + 0.3 * cosine_repulsion(predictions), rel=1e-4)
    assert len(set(codes)) > 1, "the example must choose several codes to mean anything"


@pytest.mark.parametrize("kind", [DiQDiff, HalfHistory])
def test_the_reverse_walk_is_that_of_plain_loops_with_the_noise_of_the_posterior(kind):
    model = loud(kind)
    weights, betas = oracles.weights_of(model), oracles.truncated_linear(T)
    for history in tiny.HISTORIES[:3]:
        noise = user_noise(torch.tensor([77]), SEED, (T + 1, D))[:, 0].double().numpy()
        known, x = read(weights, history), noise[0]
        known = mixed(weights, known, int(np.argmax(logits_of(weights, known))), kind.LAMBDA_H)
        volumes = np.full((len(history), D), tiny.CONFIG.noise_scale)
        for t in range(T, 0, -1):
            x = oracles.reverse_step(betas, t, denoise(weights, x, t, known, volumes), x, noise[T - t + 1])
        scores = model.full_sort_predict(torch.tensor([history]), torch.tensor([77]), SEED)
        np.testing.assert_allclose(scores[0, 1:], weights["item_embedding.weight"][1:] @ x, rtol=1e-4, atol=1e-4)


def test_the_gradient_reaches_the_selector():
    torch.manual_seed(0)
    model = DiQDiff(tiny.tiny_config(), tiny.NUM_ITEMS)  # as it starts
    model.loss(tiny.tiny_batch(), torch.Generator().manual_seed(0)).total.backward()
    gradient = model.codebook.selector_in.weight.grad
    assert gradient.isfinite().all() and gradient.abs().max() > 1e-6
    assert "codebook.codes" not in dict(model.named_parameters()) and "codebook.codes" in model.state_dict()


def test_without_noise_the_likeliest_code_is_picked_each_time_alone_or_in_company():
    model, batch = loud(), tiny.tiny_batch()
    sequence = model.read(batch.item_seq, model.item_embeddings())
    picked, again = (model.codebook(sequence).indices.tolist() for _ in range(2))
    alone = [model.codebook(row[None]).indices.item() for row in sequence]
    weights = oracles.weights_of(model)
    assert picked == again == alone == [int(np.argmax(logits_of(weights, read(weights, h)))) for h in tiny.HISTORIES]
    assert len(set(picked)) > 1, "the example must choose several codes to mean anything"


def test_a_step_moves_a_code_by_a_tenth_towards_those_who_chose_it_and_leaves_the_others():
    model, batch = loud(), tiny.tiny_batch([0, 1, 2, 5])
    before = model.codebook.codes.clone().numpy()
    output = model.loss(batch, torch.Generator().manual_seed(SEED))
    assert np.array_equal(before, model.codebook.codes.numpy()), "the loss alone moves nothing"
    model.after_step(output)
    weights, members = oracles.weights_of(model), {code: [] for code in range(Z)}
    for sequence, indices in output.chosen["id"]:
        for row, code in zip(sequence.numpy(), indices.tolist(), strict=True):
            members[code].append(oracles.padded(row, LENGTH))
    known = [oracles.padded(read(weights, tiny.HISTORIES[row]), LENGTH) for row in (0, 1, 2, 5)]
    np.testing.assert_allclose(sum(sum(rows) for rows in members.values()), sum(known))
    for code, rows in members.items():
        expected = 0.9 * before[code] + 0.1 * sum(rows) / len(rows) if rows else before[code]
        np.testing.assert_allclose(model.codebook.codes[code], expected)
    assert any(members.values()) and not all(members.values()), "the example must have both kinds"


def test_what_is_published_and_what_is_tuned():
    assert MODELS["diqdiff"].DEFAULTS == {"dropout": 0.1, "codebook_size": 32, "lambda_q": 0.4, "lambda_c": 1.0}
    assert "codebook_size" in MODELS["diqdiff"].TUNED
