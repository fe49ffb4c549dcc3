"""The checks of exercises: the right answer passes, the stub is told what to do, each mistake gets its own message."""

import math
import re
from collections import Counter
from itertools import combinations

import numpy as np
import oracles
import pandas as pd
import pytest
import scipy.stats
import tiny
import torch

from imecd_lite.checks import (
    COLUMN_MISTAKES,
    CORE_MISTAKES,
    CROSS_ENTROPY_MISTAKES,
    GATE_MISTAKES,
    GUMBEL_MISTAKES,
    INTERVAL_MISTAKES,
    KEPT_MISTAKES,
    LAMBDAS,
    METRIC_MISTAKES,
    NAMED,
    NEAREST_MISTAKES,
    NOISE_MISTAKES,
    RANK_MISTAKES,
    RIGHT,
    SAMPLING_MISTAKES,
    SCORE_MISTAKES,
    SPLIT_MISTAKES,
    STEP_MISTAKES,
    STOPPING_CASES,
    STOPPING_MISTAKES,
    TO_DO,
    TOTAL_MISTAKES,
    WRONG,
    check_add_noise,
    check_columns,
    check_cross_entropy,
    check_effective,
    check_em,
    check_five_core,
    check_gates,
    check_gumbel_softmax,
    check_interval,
    check_kept,
    check_metrics,
    check_nearest,
    check_perplexity,
    check_pooling,
    check_rank,
    check_sampling,
    check_scores,
    check_snr,
    check_split,
    check_step,
    check_stopping,
    check_suspicion,
    check_total,
    core_with,
    cross_entropy_with,
    gates_with,
    gumbel_softmax_with,
    kept_with,
    made_purchases,
    made_scores,
    made_terms,
    made_vectors,
    metrics_with,
    nearest_with,
    noised_with,
    ranks_with,
    sampling_with,
    scores_with,
    split_with,
    stepped_with,
    stopping_with,
    total_with,
)
from imecd_lite.config import IMECDConfig
from imecd_lite.train import replay

MISLEADING = np.arange(40) < 10


def pool(hidden, mask):
    return (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def nearest(vectors, item, k):
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    others = [other for other in range(1, len(vectors) + 1) if other != item]
    return torch.tensor(sorted(others, key=lambda other: -float(unit[other - 1] @ unit[item - 1]))[:k])


def suspicion(hits: int) -> torch.Tensor:
    """Scores with an AUC of ``hits`` / 10: so many misleading items are above all honest ones, the rest below."""
    scores = torch.arange(40.0)
    scores[:hits] += 100
    return scores


@pytest.mark.parametrize(
    "verdict",
    [check_pooling(pool), check_nearest(nearest), check_suspicion(suspicion(9), MISLEADING)],
    ids=["pooling", "nearest", "suspicion"],
)
def test_the_right_answer_passes(verdict):
    assert verdict.passed and verdict.state == RIGHT
    assert repr(verdict).startswith("✓ Right:")


@pytest.mark.parametrize(
    "verdict",
    [check_pooling(lambda *_: None), check_nearest(lambda *_: None), check_suspicion(None, MISLEADING)],
    ids=["pooling", "nearest", "suspicion"],
)
def test_the_stub_is_told_what_to_do(verdict):
    assert not verdict.passed and verdict.state == TO_DO
    assert repr(verdict).startswith("… Still to do:")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda hidden, mask: hidden.mean(dim=1), "you averaged the padding too"),
        (lambda hidden, mask: (hidden * mask[..., None]).mean(dim=1), "you divided by the length of the batch"),
        (lambda hidden, mask: (hidden * mask[..., None]).sum(dim=1), "that is the sum"),
        (lambda hidden, mask: (hidden * mask[..., None]).sum(dim=1) / mask.sum(), "the tokens of the whole batch"),
        (lambda hidden, mask: hidden[:, 0], "you took the first token"),
        (lambda hidden, mask: pool(hidden, mask) + 1, "the numbers are not"),
        (lambda hidden, mask: hidden.mean(dim=2), r"the shape is \(3, 5\); it should be \(3, 4\)"),
        (lambda hidden, mask: "mean", "this is a str"),
    ],
)
def test_mistakes_of_pooling(wrong, message):
    assert_wrong(check_pooling(wrong), message)


@pytest.mark.parametrize("mistake", NEAREST_MISTAKES)
def test_each_mistake_of_nearest_has_its_message(mistake):
    verdict = check_nearest(lambda vectors, item, k: nearest_with(vectors, item, k, (mistake,)))
    assert verdict.state == WRONG and verdict.message == NEAREST_MISTAKES[mistake]


def test_two_mistakes_are_both_named():
    verdict = check_nearest(lambda vectors, item, k: nearest_with(vectors, item, k, ("dot", "rows")))
    assert "dot products" in verdict.message and "you returned rows" in verdict.message


def test_the_made_vectors_tell_all_mistakes_and_pairs_of_them_apart():
    excluded = ({"dot", "distance"}, {"itself", "farthest"})  # the first hides the second; no item is its farthest
    made = {mistakes for count in range(5) for mistakes in combinations(NEAREST_MISTAKES, count)}
    made = {mistakes for mistakes in made if not any(pair <= set(mistakes) for pair in excluded)}
    answers = {tuple(nearest_with(made_vectors(), 7, 5, mistakes)) for mistakes in made}
    assert len(answers) == len(made)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda vectors, item, k: nearest(vectors, item, k).flip(0), "another order"),
        (lambda vectors, item, k: nearest(vectors, item, k - 1), r"the shape is \(4,\); it should be \(5,\)"),
        (lambda vectors, item, k: torch.cat([nearest(vectors, item, k - 1), torch.tensor([99])]), "of 5 items, 4 are"),
        (
            lambda vectors, item, k: (vectors @ vectors[item]).topk(k).indices,
            "dot .* And .* own .* And .* row `item`; .* And .* rows",
        ),
        (lambda vectors, item, k: (vectors @ vectors[item - 1]).topk(k).values, "those are cosines; return the items"),
    ],
)
def test_other_wrong_neighbours(wrong, message):
    assert_wrong(check_nearest(wrong), message)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (-suspicion(9), "the wrong way round"),
        (suspicion(5), "0.5 is guessing"),
        (suspicion(7), "on the way to 0.8"),
        (suspicion(10), "so much only the planted truth knows"),
        (MISLEADING, "the planted truth itself"),
        (MISLEADING.astype(float), "the planted truth itself"),
        (suspicion(9) / 0, "not finite"),
        (suspicion(9)[:-1], r"the shape is \(39,\); it should be \(40,\)"),
    ],
)
def test_mistakes_of_suspicion(scores, message):
    assert_wrong(check_suspicion(scores, MISLEADING), message)


def test_what_a_learners_function_raises_is_hers_to_see():
    with pytest.raises(ZeroDivisionError):
        check_nearest(lambda *_: 1 / 0)


def assert_wrong(verdict, message):
    assert not verdict.passed and verdict.state == WRONG
    assert re.search(message, verdict.message), verdict


MODEL = tiny.tiny_model(**tiny.DEFAULTS)
GATES = MODEL.route("text").routing_weights.detach()  # (I, N)


def effective(gates):
    return torch.tensor([math.exp(-sum(g * math.log(g) for g in gate)) for gate in gates.tolist()])


def test_the_right_gates_and_their_effective_numbers_pass():
    for modality in ("text", "image"):
        assert check_gates(MODEL.route(modality).routing_weights, MODEL, modality).passed
    assert check_gates(GATES.numpy(), MODEL).passed
    verdict = check_effective(effective(GATES), GATES.numpy())
    assert verdict.passed and f"of {MODEL.config.num_experts} experts" in verdict.message


def test_answers_may_be_lists_reversed_views_or_series():
    assert check_gates([gate.requires_grad_() for gate in GATES.clone()], MODEL).passed
    assert check_gates(GATES.flip(0).numpy()[::-1], MODEL).passed
    assert check_gates([list(gate) for gate in GATES], MODEL).passed
    numbers = effective(GATES).numpy()
    assert check_effective(pd.Series(numbers, index=range(1, len(numbers) + 1)), GATES.numpy()).passed
    assert check_suspicion(suspicion(9).flip(0).numpy()[::-1], MISLEADING).passed


@pytest.mark.parametrize("answer", ["gates", [[1.0], [0.5, 0.5]], {"a": 1}, [None], object(), pd.Series(["a"])])
def test_what_is_no_array_is_named(answer):
    for verdict in (check_gates(answer, MODEL), check_effective(answer, GATES.numpy())):
        assert_wrong(verdict, f"an array is wanted, this is a {type(answer).__name__}")
    assert_wrong(check_cross_entropy(lambda logits, pos_items: answer), "an array is wanted")


def test_an_expert_without_any_weight_counts_for_nothing():
    assert check_effective([1.0, 2.0, 3.0], np.array([[1, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3])).passed


def test_the_stubs_of_the_gates_are_told_what_to_do():
    for verdict in (check_gates(None, MODEL), check_effective(None, GATES.numpy())):
        assert verdict.state == TO_DO


@pytest.mark.parametrize("mistake", GATE_MISTAKES)
def test_each_mistake_of_the_gates_has_its_message(mistake):
    verdict = check_gates(gates_with(MODEL, "text", (mistake,)), MODEL)
    assert verdict.state == WRONG and verdict.message == GATE_MISTAKES[mistake]


def test_two_mistakes_of_the_gates_are_both_named():
    verdict = check_gates(gates_with(MODEL, "text", ("bias", "raw")), MODEL)
    assert "you forgot the bias. And you used the raw ID" in verdict.message


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda gates: torch.cat([gates[:1], gates]), "row 0 of the ID embeddings is the padding"),
        (lambda gates: gates.T, r"the shape is \(3, 13\); it should be \(13, 3\), one gate an item"),
        (lambda gates: 2 * gates, "your first item's sums to 2.000"),
        (lambda gates: gates.flip(0), "each gate sums to 1, but"),
    ],
)
def test_other_wrong_gates(wrong, message):
    assert_wrong(check_gates(wrong(GATES), MODEL), message)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda gates: effective(gates).log(), "that is the entropy; the effective number is exp of it"),
        (lambda gates: effective(gates).log2(), "in bits"),
        (lambda gates: effective(gates).log2().exp(), "one base for both"),
        (lambda gates: 1 / effective(gates), "mind the sign"),
        (lambda gates: -effective(gates).log(), "minus the entropy; turn the sign"),
        (lambda gates: effective(gates).log() / math.log(3), "a share of its greatest value"),
        (lambda gates: 1 / gates.square().sum(dim=1), "another good measure"),
        (lambda gates: effective(gates).mean(), "one number for the whole shop"),
        (lambda gates: gates.sum(dim=0), "you went over the items"),
        (lambda gates: -(gates * gates.log()).mean(dim=0).exp(), "you went over the items"),
        (lambda gates: (-(gates * gates.log()).mean(dim=1)).exp(), "you took the mean over the experts"),
        (lambda gates: effective(gates).log10(), "the entropy to base 10"),
        (lambda gates: effective(gates).log10().exp(), "base 10, but exp to base e"),
        (lambda gates: effective(gates) * torch.nan, "the logarithm of 0"),
        (lambda gates: effective(gates) + 1, "all lie between 1 and 3"),
    ],
)
def test_mistakes_of_effective_numbers(wrong, message):
    assert_wrong(check_effective(wrong(GATES), GATES.numpy()), message)


def soft_choice(logits, uniform, temperature):
    noise = -torch.log(-torch.log(uniform))
    exponentials = torch.exp((logits + noise) / temperature)
    return exponentials / exponentials.sum(dim=1, keepdim=True)


def em_step(codes, sequences, indices):
    for z in indices.unique():
        members = sequences[indices == z]
        codes[z] = members.sum(dim=0) / len(members)
    return codes


def shares_of(indices):
    return [float((indices == z).mean()) for z in set(indices.tolist())]


def perplexity(indices, codebook_size):
    return math.exp(-sum(share * math.log(share) for share in shares_of(indices)))


CODEBOOK_CHECKS = [(check_gumbel_softmax, soft_choice), (check_em, em_step), (check_perplexity, perplexity)]


@pytest.mark.parametrize(("check", "answer"), CODEBOOK_CHECKS)
def test_right_answers_about_codes_pass_and_stubs_are_told_what_to_do(check, answer):
    assert check(answer).passed, check(answer)
    assert check(lambda *_: None).state == TO_DO


@pytest.mark.parametrize("mistake", GUMBEL_MISTAKES)
def test_each_mistake_of_the_soft_choice_has_its_message(mistake):
    verdict = check_gumbel_softmax(lambda *given: gumbel_softmax_with(*given, (mistake,)))
    assert verdict.state == WRONG and verdict.message == GUMBEL_MISTAKES[mistake]


def test_two_mistakes_of_the_soft_choice_are_both_named():
    verdict = check_gumbel_softmax(lambda *given: gumbel_softmax_with(*given, ("batch", "times")))
    assert "over the batch" in verdict.message and "And you multiplied" in verdict.message


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda *given: torch.eye(6)[soft_choice(*given).argmax(dim=1)], "the hard choice already"),
        (lambda *given: 2 * soft_choice(*given), "your first history's sums to 2.000"),
        (
            lambda logits, u, tau: ((logits - u.log().log()) / tau).softmax(dim=1),
            "log.u. is negative, .* minus in both",
        ),
        (lambda *given: soft_choice(*given).flip(1), "not those of Eq. 8"),
        (lambda *given: soft_choice(*given).T, r"the shape is \(6, 4\); it should be \(4, 6\)"),
    ],
)
def test_other_wrong_soft_choices(wrong, message):
    assert_wrong(check_gumbel_softmax(wrong), message)


def means_over(codes, sequences, indices, number):
    """The chosen codes' sums over ``number(members)``, the rest 0."""
    moved = torch.zeros_like(codes)
    for z in indices.unique():
        members = sequences[indices == z]
        moved[z] = members.sum(dim=0) / number(members)
    return moved


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda c, s, i: em_step(c, s, i).mean(dim=1), "a code keeps them all"),
        (lambda c, s, i: em_step(c, s, i).mean(dim=1, keepdim=True).expand(4, 3, 2), "each position has a mean"),
        (lambda c, s, i: means_over(c, s, i, len), "^the code that nobody chose has become zero"),
        (lambda c, s, i: torch.stack([s[i == z].mean(dim=0) for z in range(4)]), "^the code .* has become NaN"),
        (lambda c, s, i: means_over(c, s, i, lambda _: 6), "size of the batch; .* And the code that nobody"),
        (lambda c, s, i: means_over(c, s, i, lambda _: 1), "that is the sum of the members"),
        (
            lambda c, s, i: means_over(c, s, i, lambda m: (m != 0).any(dim=2).sum(dim=0)[:, None].clamp(min=1)),
            "you left the padding out",
        ),
        (lambda c, s, i: (em_step(c.clone(), s, i) + c) / 2, "you met the old code half-way"),
        (lambda c, s, i: em_step(c, s, i) + torch.tensor([0, 0, 1, 0])[:, None, None], "yours has moved"),
        (lambda c, s, i: c, "no code has moved"),
        (lambda c, s, i: em_step(c, s, i) + 1, "the numbers are not"),
    ],
)
def test_mistakes_of_em(wrong, message):
    assert_wrong(check_em(wrong), message)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda i, z: math.log(perplexity(i, z)), "that is the entropy; the perplexity is exp of it"),
        (lambda i, z: math.log2(perplexity(i, z)), "in bits"),
        (lambda i, z: math.exp(math.log2(perplexity(i, z))), "one base for both"),
        (lambda i, z: len(set(i.tolist())), "you counted the codes in use"),
        (lambda i, z: z, "the size of the codebook"),
        (lambda i, z: 1 / perplexity(i, z), "mind the sign"),
        (lambda i, z: -math.log(perplexity(i, z)), "turn the sign"),
        (lambda i, z: perplexity(i, z) / z, "a share of the codebook"),
        (lambda i, z: math.prod((n / z) ** (-n / z) for n in np.bincount(i) if n), "not of codes"),
        (lambda i, z: 1 / sum(share**2 for share in shares_of(i)), "another good measure"),
        (lambda i, z: math.log10(perplexity(i, z)), "the entropy to base 10"),
        (lambda i, z: math.exp(math.log10(perplexity(i, z))), "base 10, but exp to base e"),
        (lambda i, z: perplexity(i, z) ** (1 / z), "you took the mean over the codes; an entropy"),
        (lambda i, z: perplexity(i, z) ** (1 / len(set(i.tolist()))), "you took the mean over the codes in use"),
        (lambda i, z: math.nan, "the logarithm of 0"),
        (lambda i, z: 30.0, "that is 30.00; a perplexity lies between 1 and 8"),
        (lambda i, z: 5.75, "that is 5.75, not it. Are your shares"),
        (lambda i, z: np.bincount(i), r"the shape is \(6,\); it should be \(\), one number"),
    ],
)
def test_mistakes_of_perplexity(wrong, message):
    assert_wrong(check_perplexity(wrong), message)


def oracle_noise(x_0, noise, t, betas):
    """Eq. 11 walked, row by row."""
    rows = []
    for row, own, step in zip(x_0.tolist(), noise.tolist(), t.tolist(), strict=True):
        factor, deviation = oracles.forward_marginal(betas.tolist(), step)
        rows.append([factor * value + deviation * draw for value, draw in zip(row, own, strict=True)])
    return torch.tensor(rows)


def oracle_step(prediction, x_t, t, noise, abar):
    betas = [1 - float(abar[k] / abar[k - 1]) for k in range(1, len(abar))]
    return torch.tensor(oracles.reverse_step(betas, t, prediction.numpy(), x_t.numpy(), noise.numpy()))


ABAR = torch.cat([torch.ones(1), (1 - torch.linspace(0.05, 0.5, 8)).cumprod(dim=0)])
RATIOS = torch.tensor([0.2 * abar / (1 - abar) for abar in ABAR.double().tolist()[1:]])  # of a variance of 0.2


def test_the_oracles_of_the_diffusion_pass():
    for verdict in (check_add_noise(oracle_noise), check_step(oracle_step), check_snr(RATIOS, ABAR, 0.2)):
        assert verdict.passed, verdict
    assert f"from t = {1 + int((RATIOS < 1).nonzero()[0])} on" in check_snr(RATIOS, ABAR, 0.2).message
    assert "signal to the end" in check_snr(1e6 * RATIOS, ABAR, 2e5).message


def test_the_stubs_of_the_diffusion_are_told_what_to_do():
    for verdict in (check_add_noise(lambda *_: None), check_step(lambda *_: None), check_snr(None, ABAR, 0.2)):
        assert verdict.state == TO_DO


@pytest.mark.parametrize("mistake", NOISE_MISTAKES)
def test_each_mistake_of_noising_has_its_message(mistake):
    verdict = check_add_noise(lambda *given: noised_with(*given, (mistake,)))
    assert verdict.state == WRONG and verdict.message == NOISE_MISTAKES[mistake]


@pytest.mark.parametrize("mistake", STEP_MISTAKES)
def test_each_mistake_of_a_reverse_step_has_its_message(mistake):
    verdict = check_step(lambda *given: stepped_with(*given, (mistake,)))
    assert verdict.state == WRONG and verdict.message == STEP_MISTAKES[mistake]


def test_two_mistakes_of_the_diffusion_are_both_named():
    noised = check_add_noise(lambda *given: noised_with(*given, ("root", "off")))
    assert "square roots" in noised.message and "off by one" in noised.message
    stepped = check_step(lambda *given: stepped_with(*given, ("swap", "mean")))
    assert "swapped" in stepped.message and "adds sigma" in stepped.message


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x_0, noise, t, betas: oracle_noise(x_0, noise, t, betas) + 1, "work out t = 1 by hand"),
        (
            lambda x_0, noise, t, betas: oracle_noise(x_0, noise, t, betas)[0],
            r"the shape is \(6,\); it should be \(6, 6\)",
        ),
        (
            lambda x_0, noise, t, betas: oracle_noise(x_0, noise, t[:1].expand(6), betas),
            "you took t = 1 for the whole batch",
        ),
        (
            lambda x_0, noise, t, betas: oracle_noise(x_0, noise, t[-1:].expand(6), betas),
            "you took t = 9 for the whole",
        ),
        (lambda x_0, noise, t, betas: oracle_noise(x_0, torch.randn(6, 6), t, betas), "draw none of your own"),
        (lambda x_0, noise, t, betas: oracle_noise(x_0, 0 * noise, t, betas), "the noise has no say"),
    ],
)
def test_other_mistakes_of_noising(wrong, message):
    assert_wrong(check_add_noise(wrong), message)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda prediction, *_: prediction, "right at t = 1 alone"),
        (lambda prediction, *_: prediction + 1, "wrong at every t. Check in this order: alpha_t is"),
        (lambda prediction, *_: prediction / 0, "not finite"),
        (
            lambda prediction, x_t, t, noise, abar: (1 - abar[t - 1] / abar[t]).sqrt() * x_t,
            "a root of what is negative",
        ),
    ],
)
def test_other_mistakes_of_a_reverse_step(wrong, message):
    assert_wrong(check_step(wrong), message)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (RATIOS / 0.2, "you forgot the variance"),
        (1 / RATIOS, "the wrong way up"),
        (RATIOS**0.5, "the ratio of the amplitudes"),
        (0.2 * ABAR[1:], "the signal alone"),
        (RATIOS / 0.2**0.5, "x_0's deviation"),
        (10 * RATIOS.log10(), "decibels"),
        (0.2 * ABAR / (1 - ABAR), "one too many"),
        (0.2 * ABAR[:-1] / (1 - ABAR[:-1]), "abar_0 stands first"),
        (RATIOS + 1, "at t = 1 the ratio is"),
    ],
)
def test_mistakes_of_the_signal_to_noise_ratio(wrong, message):
    assert_wrong(check_snr(wrong, ABAR, 0.2), message)


def by_loops(generated, tables):
    """Eq. 19."""
    items = range(1, len(tables["id"]))
    return torch.tensor([sum(float(generated[m] @ tables[m][i]) for m in tables) for i in items])


def nll(logits, pos_items):
    """Eq. 20, 21 by loops."""
    losses = []
    for row, item in zip(logits.tolist(), pos_items.tolist(), strict=True):
        losses.append(-math.log(math.exp(row[item - 1]) / sum(map(math.exp, row))))
    return sum(losses) / len(losses)


def eq_22(terms, config):
    total = 0
    for name, value in terms.items():
        factors = {"contrastive": config.lambda_c, "match": config.lambda_match, "gate": config.lambda_gate}
        total += factors.get(name.split("/")[1], 1) * value
    return total


TRAINING_CHECKS = {
    "scores": (check_scores, by_loops),
    "cross-entropy": (check_cross_entropy, nll),
    "total": (check_total, eq_22),
    "stopping": (check_stopping, replay),
}


@pytest.mark.parametrize("name", TRAINING_CHECKS)
def test_training_s_exercises_accept_the_right_answer_and_tell_the_stub_what_to_do(name):
    check, right = TRAINING_CHECKS[name]
    assert check(right).passed, check(right)
    verdict = check(lambda *_: None)
    assert verdict.state == TO_DO and verdict.message


@pytest.mark.parametrize("mistake", SCORE_MISTAKES)
def test_each_mistake_of_the_scores_has_its_message(mistake):
    verdict = check_scores(lambda generated, tables: scores_with(generated, tables, (mistake,)))
    assert verdict.state == WRONG and verdict.message == SCORE_MISTAKES[mistake]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda g, t: scores_with(g, t, ("id", "padding")), "the ID alone; .* And the padding is among"),
        (lambda g, t: scores_with(g, t, ("padding",))[:-1], "you left out the last item, not the padding"),
        (lambda g, t: by_loops(g, t) + 1, "the numbers are not"),
        (lambda g, t: by_loops(g, t)[:3], r"the shape is \(3,\); it should be \(9,\), one score an item"),
        (lambda g, t: sum(g[m] * t[m][1:] for m in t), r"the shape is \(9, 9\)"),
    ],
)
def test_other_wrong_scores(wrong, message):
    assert_wrong(check_scores(wrong), message)


def test_made_scores_tell_all_mistakes_apart():
    answers = {tuple(scores_with(*made_scores(), (m,)).tolist()) for m in SCORE_MISTAKES}
    assert len(answers) == len(SCORE_MISTAKES)


@pytest.mark.parametrize("mistake", CROSS_ENTROPY_MISTAKES)
def test_each_mistake_of_the_cross_entropy_has_its_message(mistake):
    verdict = check_cross_entropy(lambda logits, items: cross_entropy_with(logits, items, (mistake,)))
    assert verdict.state == WRONG and verdict.message == CROSS_ENTROPY_MISTAKES[mistake]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda logits, items: cross_entropy_with(logits, items, ("column", "sign")),
            "mind the sign .* And off by one",
        ),
        (lambda logits, items: logits.logsumexp(dim=1).mean(), "the log of the sum"),
        (lambda logits, items: -logits.gather(1, items[:, None] - 1).mean(), "where is the sum over all"),
        (lambda logits, items: nll(logits, items) / math.log(2), "base 2"),
        (lambda logits, items: -logits.log_softmax(1).gather(1, items[:, None] - 1)[:, 0], "one number for each"),
        (lambda logits, items: nll(logits, items) + 1, "the number is not right"),
        (lambda logits, items: logits, r"the shape is \(4, 6\)"),
        (lambda logits, items: nll(logits, items) / math.log(10), "base 10"),
        (lambda logits, items: -logits.log_softmax(1)[:, items - 1].mean(), "every bought item in every row"),
        (lambda logits, items: -logits.softmax(1).gather(1, items[:, None] - 1).mean().log(), "the mean probability"),
        (lambda logits, items: nll(logits.softmax(1), items), "two softmaxes"),
    ],
)
def test_other_wrong_cross_entropies(wrong, message):
    assert_wrong(check_cross_entropy(wrong), message)


@pytest.mark.parametrize("mistake", TOTAL_MISTAKES)
def test_each_mistake_of_the_total_has_its_message(mistake):
    verdict = check_total(lambda terms, config: total_with(terms, config, (mistake,)))
    assert verdict.state == WRONG and verdict.message == TOTAL_MISTAKES[mistake]


def test_two_mistakes_of_the_total_are_both_named_and_others_are_not_guessed():
    verdict = check_total(lambda terms, config: total_with(terms, config, ("lambda", "paper")))
    assert verdict.message == f"{TOTAL_MISTAKES['lambda']} And {TOTAL_MISTAKES['paper']}"
    assert_wrong(check_total(lambda terms, config: 1.0), "which terms of which modality")


def test_a_term_that_the_id_has_not_is_named_and_another_error_is_hers_to_see():
    verdict = check_total(lambda terms, config: sum(terms[f"{m}/gate"] for m in ("id", "text", "image")))
    assert_wrong(verdict, "the ID has no gate, and so no term id/gate")
    with pytest.raises(KeyError, match="gates"):
        check_total(lambda terms, config: terms["gates"])


def test_the_made_total_is_what_the_model_adds_up():
    model = tiny.tiny_model(**tiny.DEFAULTS | LAMBDAS)
    output = tiny.loss_of(model)
    assert set(made_terms()) == set(output.terms)
    terms = {name: value.item() for name, value in output.terms.items()}
    assert total_with(terms, model.config) == pytest.approx(output.total.item())
    answers = {total_with(made_terms(), IMECDConfig(**LAMBDAS), (mistake,)) for mistake in TOTAL_MISTAKES}
    assert len(answers) == len(TOTAL_MISTAKES)


@pytest.mark.parametrize("mistake", STOPPING_MISTAKES)
def test_each_mistake_of_stopping_has_its_message(mistake):
    verdict = check_stopping(lambda scores, patience: stopping_with(scores, patience, (mistake,)))
    assert verdict.state == WRONG and verdict.message == STOPPING_MISTAKES[mistake]


def test_two_mistakes_of_stopping_are_both_named():
    verdict = check_stopping(lambda scores, patience: stopping_with(scores, patience, ("late", "place")))
    assert "an epoch too late" in verdict.message and "counts from 0" in verdict.message


def test_the_curves_of_the_check_are_stopped_as_training_stops():
    for scores, patience in STOPPING_CASES:
        assert stopping_with(scores, patience) == replay(scores, patience)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda scores, patience: (1, 1), r"epoch 2 is kept and epoch 4 is the last; you say \(1, 1\)"),
        (lambda scores, patience: 3, r"the shape is \(\); it should be \(2,\)"),
    ],
)
def test_other_wrong_stops(wrong, message):
    assert_wrong(check_stopping(wrong), message)


def by_hand(rank, k):
    return (1.0, 1 / math.log2(rank + 1)) if rank <= k else (0.0, 0.0)


def pessimist(scores, target):
    return sum(float(score) >= float(scores[target - 1]) for score in scores)


def mean_rank(rank, num_items, num_negatives):
    """By the definition of the hypergeometric distribution."""
    drawn = scipy.stats.hypergeom(num_items - 1, rank - 1, num_negatives)
    return 1 + sum(count * drawn.pmf(count) for count in range(num_negatives + 1))


def resampled(first, second, rng):
    means = [(first - second)[rng.integers(len(first), size=len(first))].mean() for _ in range(1000)]
    return np.quantile(means, (0.025, 0.975))


EVALUATION_CHECKS = {
    "metrics": (check_metrics, by_hand),
    "rank": (check_rank, pessimist),
    "sampling": (check_sampling, mean_rank),
    "interval": (check_interval, resampled),
}


@pytest.mark.parametrize("name", EVALUATION_CHECKS)
def test_evaluation_s_exercises_accept_the_right_answer_and_tell_the_stub_what_to_do(name):
    check, right = EVALUATION_CHECKS[name]
    assert check(right).passed, check(right)
    verdict = check(lambda *_: None)
    assert verdict.state == TO_DO and verdict.message


def stops_in_the_loop(scores, patience):
    kept = 1
    for epoch in range(2, len(scores) + 1):
        if scores[epoch - 1] > scores[kept - 1]:
            kept = epoch
        elif epoch - kept >= patience:
            return kept, epoch


@pytest.mark.parametrize(
    ("verdict", "case"),
    [
        (check_stopping(stops_in_the_loop), r"for \[0.1, 0.12, 0.14, 0.16\] and patience 1 you return nothing"),
        (check_step(lambda prediction, x_t, t, *_: x_t if t > 1 else None), "for t = 1 you return nothing"),
        (check_metrics(lambda rank, k: (1, 1) if rank <= k else None), "for rank 2 and K = 1 you return nothing"),
        (
            check_rank(lambda s, t: None if len(s) > 6 else 1),
            r"for scores 2.000, 2.000.* and item 2 you return nothing",
        ),
        (check_sampling(lambda rank, *_: 1.0 if rank > 1 else None), "for rank 1 of 1,200 and 99 random items you"),
    ],
)
def test_an_answer_to_some_cases_alone_is_no_stub(verdict, case):
    assert_wrong(verdict, case + ".*; does every way through it end in a `return`?")


def test_two_metrics_may_come_as_arrays_without_a_dimension():
    verdict = check_metrics(answers_in_turn([tuple(map(np.asarray, pair)) for pair in metrics_with().tolist()]))
    assert verdict.passed, verdict


def answers_in_turn(values):
    """A function that gives one of ``values`` after the other, whatever it is asked."""
    turn = iter(values)
    return lambda *_: next(turn)


@pytest.mark.parametrize("mistake", METRIC_MISTAKES)
def test_each_mistake_of_the_metrics_has_its_message(mistake):
    verdict = check_metrics(answers_in_turn(metrics_with((mistake,))))
    assert verdict.state == WRONG and verdict.message == METRIC_MISTAKES[mistake]


@pytest.mark.parametrize("mistake", RANK_MISTAKES)
def test_each_mistake_of_the_rank_has_its_message(mistake):
    verdict = check_rank(answers_in_turn(ranks_with((mistake,))))
    assert verdict.state == WRONG and verdict.message == RANK_MISTAKES[mistake]


@pytest.mark.parametrize("mistake", SAMPLING_MISTAKES)
def test_each_mistake_of_sampling_has_its_message(mistake):
    verdict = check_sampling(answers_in_turn(sampling_with((mistake,))))
    assert verdict.state == WRONG and verdict.message == SAMPLING_MISTAKES[mistake]


def test_the_made_cases_tell_two_mistakes_apart():
    verdict = check_metrics(answers_in_turn(metrics_with(("hit", "nature"))))
    assert verdict.message == f"{METRIC_MISTAKES['hit']} And {METRIC_MISTAKES['nature']}"
    verdict = check_rank(answers_in_turn(ranks_with(("ties", "zero"))))
    assert verdict.message == f"{RANK_MISTAKES['ties']} And {RANK_MISTAKES['zero']}"
    verdict = check_sampling(answers_in_turn(sampling_with(("itself", "one"))))
    assert verdict.message == f"{SAMPLING_MISTAKES['itself']} And {SAMPLING_MISTAKES['one']}"


def bootstrap(draw, quantiles=(0.025, 0.975)):
    """An interval whose resampled number is what ``draw(first, second, rng)`` gives."""
    return lambda first, second, rng: np.quantile([draw(first, second, rng) for _ in range(1000)], quantiles)


def drawn(values, rng):
    return values[rng.integers(len(values), size=len(values))]


WRONG_INTERVALS = {
    "unpaired": bootstrap(lambda first, second, rng: drawn(first, rng).mean() - drawn(second, rng).mean()),
    "users": lambda first, second, rng: np.quantile(first - second, (0.025, 0.975)),
    "sign": bootstrap(lambda first, second, rng: drawn(second - first, rng).mean()),
    "first": bootstrap(lambda first, second, rng: drawn(first, rng).mean()),
    "level": bootstrap(lambda first, second, rng: drawn(first - second, rng).mean(), (0.05, 0.95)),
}


@pytest.mark.parametrize("mistake", INTERVAL_MISTAKES)
def test_each_mistake_of_the_interval_has_its_message(mistake):
    verdict = check_interval(WRONG_INTERVALS[mistake])
    assert verdict.state == WRONG and verdict.message == INTERVAL_MISTAKES[mistake]


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (check_metrics(lambda rank, k: (rank <= k, 1 / math.log2(rank))), "at rank 1 you divide by 0"),
        (check_metrics(lambda rank, k: (rank <= k, 1 / torch.log2(torch.tensor(rank)))), "at rank 1 you divide by 0"),
        (
            check_metrics(lambda rank, k: (1.0, 0.0)),
            "for rank 1 and K = 1 it should be 1.000, 1.000; you say 1.000, 0.0",
        ),
        (check_metrics(lambda rank, k: 1.0), r"the shape is \(\); it should be \(2,\), H@K and N@K"),
        (check_rank(lambda s, t: s.argsort(descending=True, stable=True).tolist().index(t - 1) + 1), "a tie counts"),
        (check_rank(lambda scores, target: 5.9), "a rank is a whole number, this is 5.9"),
        (check_rank(lambda scores, target: math.nan), "a rank is a whole number, this is nan"),
        (check_rank(lambda scores, target: math.inf), "a rank is a whole number, this is inf"),
        (check_rank(lambda scores, target: 5), r"for scores 0.300, 0.900.* and item 4 it should be 2, not 5"),
        (
            check_sampling(lambda rank, items, negatives: 7.0),
            "rank 1 of 1,200 and 99 random items it should be 1.00",
        ),
        (check_interval(lambda first, second, rng: resampled(first, second, rng)[::-1]), "the lower end comes first"),
        (
            check_interval(lambda first, second, rng: resampled(first, second, rng) + 1),
            r"you say \+1.0.. to \+1.0..; it should be about",
        ),
        (
            check_interval(lambda first, second, rng: resampled(first, second, np.random.default_rng(0))),
            "whatever chance draws, your ends are the same: .* draw with `rng`",
        ),
    ],
)
def test_other_wrong_evaluations(verdict, message):
    assert_wrong(verdict, message)


def survivors(orders, dropped):
    lost = {line - 2 for source, line in dropped if source == "orders.csv"}
    return [order for place, order in enumerate(orders) if place not in lost]


def core_by_counting(purchases, k):
    while True:
        users, items = [user for user, _ in purchases], [item for _, item in purchases]
        left = [(user, item) for user, item in purchases if users.count(user) >= k and items.count(item) >= k]
        if left == purchases:
            return left
        purchases = left


def split_by_time(items, times):
    *history, valid, test = [item for _, _, item in sorted(zip(times, range(len(items)), items, strict=True))]
    return history, valid, test


OWN_DATA_CHECKS = {
    "kept": (check_kept, survivors),
    "core": (check_five_core, core_by_counting),
    "split": (check_split, split_by_time),
}


@pytest.mark.parametrize("name", OWN_DATA_CHECKS)
def test_own_data_s_exercises_accept_the_right_answer_and_tell_the_stub_what_to_do(name):
    check, right = OWN_DATA_CHECKS[name]
    assert check(right).passed, check(right)
    verdict = check(lambda *_: None)
    assert verdict.state == TO_DO and verdict.message


MADE_UP = [
    *((check_kept, kept_with, KEPT_MISTAKES, mistake) for mistake in KEPT_MISTAKES),
    *((check_five_core, core_with, CORE_MISTAKES, mistake) for mistake in CORE_MISTAKES),
    *((check_split, split_with, SPLIT_MISTAKES, mistake) for mistake in SPLIT_MISTAKES),
]


@pytest.mark.parametrize(
    ("check", "answer", "messages", "mistake"), MADE_UP, ids=[f"{m[1].__name__} {m[3]}" for m in MADE_UP]
)
def test_each_mistake_of_own_data_has_its_message(check, answer, messages, mistake):
    verdict = check(lambda *_: answer((mistake,)))
    assert verdict.state == WRONG and verdict.message == messages[mistake]


def once(purchases, k):
    users, items = [user for user, _ in purchases], [item for _, item in purchases]
    return [(user, item) for user, item in purchases if users.count(user) >= k and items.count(item) >= k]


def users_then_items(purchases, k):
    for side in (0, 1):
        counts = Counter(purchase[side] for purchase in purchases)
        purchases = [purchase for purchase in purchases if counts[purchase[side]] >= k]
    return purchases


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (
            check_kept(lambda orders, dropped: [o for n, o in enumerate(orders) if ("orders.csv", n) not in dropped]),
            "no pl",
        ),
        (check_kept(lambda orders, dropped: survivors(orders, dropped)[::-1]), "another order"),
        (check_kept(lambda orders, dropped: orders), "5 of 8 orders are kept; you keep 8"),
        (check_kept(lambda orders, dropped: 5), "a list of orders is wanted, this is a int"),
        (check_five_core(once), "one pass is not enough"),
        (check_five_core(lambda purchases, k: set(core_by_counting(purchases, k))), "in their order"),
        (check_five_core(lambda purchases, k: purchases), "these are all of them"),
        (check_five_core(lambda purchases, k: []), "nothing is left of yours; do you use the `k`"),
        (check_five_core(lambda purchases, k: core_by_counting(purchases, 5)), "do you use the `k` that is given"),
        (check_five_core(lambda purchases, k: once(once(purchases, k), k)), "one pass is not enough"),
        (check_five_core(users_then_items), "one pass is not enough"),
        (check_five_core(lambda purchases, k: [("X", "1")]), "is no purchase of the list"),
        (check_five_core(lambda purchases, k: purchases[:3]), "17 of 27 purchases are left; you keep 3"),
        (check_five_core(lambda purchases, k: 8), "this is a int"),
        (check_split(lambda items, times: (items[:-2], items[-2], items[-1])), "the order of the file is no order"),
        (check_split(lambda items, times: (list("ABCDE"), "G", "F")), "first in the file comes"),
        (check_split(lambda items, times: "ABC"), "three things|one item each"),
        (check_split(lambda items, times: (items, "A")), "three things are wanted"),
        (check_split(lambda items, times: ("A", "B", "C")), "the history is a list"),
        (check_split(lambda items, times: (["A"], "B", "C")), "it should be A B C E D, then G and F"),
    ],
)
def test_other_wrong_answers_about_own_data(verdict, message):
    assert_wrong(verdict, message)


def test_the_core_of_the_check_needs_more_than_two_rounds():
    purchases, rounds = made_purchases(), 0
    while (left := once(purchases, 2)) != purchases:
        purchases, rounds = left, rounds + 1
    assert rounds > 2 and purchases == core_with()


def test_columns_are_named_right_or_not_yet():
    for right in (NAMED, NAMED | {"brand": "brand"}):
        assert check_columns(right).passed
    for stub in (None, ...):
        assert check_columns(stub).state == TO_DO


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({theirs: ours for ours, theirs in NAMED.items()}, "the wrong way round"),
        (NAMED | {"user_id": "ean", "item_id": "client"}, "you have them swapped"),
        *(({key: NAMED[key] for key in NAMED if key != lost}, COLUMN_MISTAKES[lost][:20]) for lost in COLUMN_MISTAKES),
        ({key: NAMED[key] for key in NAMED if key != "timestamp"}, "nothing is said of `timestamp`"),
        (NAMED | {"timestamp": "price"}, "`timestamp` is 'price' by you"),
        (NAMED | {"price": "price"}, "there is no column 'price' here"),
        (NAMED | {"user": "client"}, "there is no column 'user' here"),
        (NAMED | {"description": "description"}, "no column is a description by another name"),
        (NAMED | {"user_id": ["client"]}, "'user_id' needs the name of one column, in quotes"),
        (NAMED | {"description": "price"}, "no column is a description by another name"),
        ([*NAMED], "a dictionary is wanted, this is a list"),
    ],
)
def test_columns_that_are_named_wrong(columns, message):
    assert_wrong(check_columns(columns), re.escape(message))
