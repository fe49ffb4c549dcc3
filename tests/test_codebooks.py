"""Sequence codebooks against Eq. 7-10 in plain loops."""

# B batch, L sequence, M max_length, D hidden, Z codes

import numpy as np
import oracles
import pytest
import torch

from imecd_lite.codebooks import SequenceCodebook, gumbel

M, D, Z = 5, 4, 6
LENGTHS = (5, 3, 1, 4, 2, 5, 3, 4)
LAMBDA_Q, TEMPERATURE = 0.7, 0.1


def random_codebook(seed: int = 0, **options: object) -> SequenceCodebook:
    torch.manual_seed(seed)
    codebook = SequenceCodebook(Z, M, D, 7, LAMBDA_Q, TEMPERATURE, **options).double()
    codebook.selector_out.weight.data *= 3  # so that several codes are chosen
    return codebook


def random_histories(lengths: tuple[int, ...] = LENGTHS, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, D, generator=generator, dtype=torch.float64) for length in lengths]


def stack(histories: list[torch.Tensor], length: int) -> torch.Tensor:
    """(B, length, D), zeros on the left."""
    return torch.stack([torch.nn.functional.pad(h, (0, 0, length - len(h), 0)) for h in histories])


def random_noise(seed: int = 2) -> torch.Tensor:
    return gumbel((len(LENGTHS), Z), torch.Generator().manual_seed(seed)).double()


def test_logits_are_those_of_eq_7():
    codebook, histories = random_codebook(), random_histories()
    logits = codebook.select(stack(histories, M)).detach()
    weights = oracles.weights_of(codebook)
    for i, history in enumerate(histories):
        np.testing.assert_allclose(logits[i], oracles.selector_logits(weights, history.numpy()), rtol=1e-9)


def check_quantised(noise: torch.Tensor | None) -> None:
    codebook, histories = random_codebook(), random_histories()
    output = codebook(stack(histories, M), noise)
    weights, chosen = oracles.weights_of(codebook), []
    for i, history in enumerate(histories):
        draw = None if noise is None else noise[i].numpy()
        quantised, index = oracles.quantise(weights, history.numpy(), LAMBDA_Q, TEMPERATURE, draw)
        chosen.append(index)
        np.testing.assert_allclose(output.sequence[i, M - len(history) :].detach(), quantised, rtol=1e-9)
    assert output.indices.tolist() == chosen
    assert len(set(chosen)) >= 3, "the example must choose several codes to mean anything"


def test_training_adds_lambda_q_times_the_code_that_gumbel_noise_chose():
    check_quantised(random_noise())


def test_inference_adds_lambda_q_times_the_likeliest_code():
    check_quantised(None)


def test_gumbel_noise_can_change_the_choice():
    codebook, sequence = random_codebook(), stack(random_histories(), M)
    assert codebook(sequence).indices.tolist() != codebook(sequence, random_noise()).indices.tolist()


def test_selector_gets_the_gradient_of_the_gumbel_softmax():
    codebook, histories, noise = random_codebook(), random_histories(), random_noise()
    sequence = stack(histories, M)
    upstream = torch.randn(sequence.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    output = codebook(sequence, noise)
    assert output.sequence.requires_grad, "the selector must learn"
    output.logits.retain_grad()
    (output.sequence * upstream).sum().backward()
    codes = codebook.codes.numpy()
    for i in range(len(histories)):
        expected = oracles.straight_through_gradient(
            LAMBDA_Q * upstream[i].numpy(), output.logits[i].detach().numpy(), noise[i].numpy(), TEMPERATURE, codes
        )
        np.testing.assert_allclose(output.logits.grad[i], expected, rtol=1e-7, atol=1e-10)
    for name, parameter in codebook.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name


def test_sequence_itself_gets_the_identitys_gradient_and_lambda_q_does_not_scale_it():
    codebook = random_codebook()
    for parameter in codebook.parameters():
        torch.nn.init.zeros_(parameter)  # a selector that does not listen: what is left is Eq. 9's own path
    sequence = stack(random_histories(), M).requires_grad_()
    codebook(sequence, random_noise()).sequence.sum().backward()
    torch.testing.assert_close(sequence.grad, torch.ones_like(sequence))


def test_a_batch_trimmed_to_its_longest_gives_the_same_as_one_padded_to_the_whole():
    codebook, noise = random_codebook(), random_noise()[:3]
    histories = random_histories((3, 1, 2))
    for draw in (None, noise):
        trimmed, whole = codebook(stack(histories, 3), draw), codebook(stack(histories, M), draw)
        torch.testing.assert_close(trimmed.logits, whole.logits)
        torch.testing.assert_close(trimmed.sequence, whole.sequence[:, -3:])
        assert trimmed.indices.tolist() == whole.indices.tolist()


def em_example() -> tuple[SequenceCodebook, list[torch.Tensor], list[int]]:
    """A codebook, histories and the code each chose; codes 1 and 4 are nobody's."""
    return random_codebook(), random_histories(), [0, 2, 2, 0, 5, 5, 5, 3]


def test_em_moves_each_chosen_code_to_the_mean_of_its_padded_sequences():
    codebook, histories, indices = em_example()
    expected = oracles.em(codebook.codes.numpy(), [h.numpy() for h in histories], indices)
    codebook.em_update([(stack(histories, M), torch.tensor(indices))])
    np.testing.assert_allclose(codebook.codes, expected, rtol=1e-12)


def test_em_sees_one_batch_however_it_is_cut_into_chunks():
    codebook, histories, indices = em_example()
    expected = oracles.em(codebook.codes.numpy(), [h.numpy() for h in histories], indices)
    rows = [[2, 4], [1, 6], [0, 3, 5, 7]]
    codebook.em_update(
        [
            (stack([histories[r] for r in part], longest), torch.tensor([indices[r] for r in part]))
            for part, longest in zip(rows, (2, 3, 5), strict=True)
        ]
    )
    np.testing.assert_allclose(codebook.codes, expected, rtol=1e-12)


def test_codes_nobody_chose_keep_their_value():
    codebook, histories, indices = em_example()
    before = codebook.codes.clone()
    codebook.em_update([(stack(histories, M), torch.tensor(indices))])
    assert torch.equal(codebook.codes[[1, 4]], before[[1, 4]])
    assert not torch.isclose(codebook.codes[[0, 2, 3, 5]], before[[0, 2, 3, 5]]).any()


def test_with_decay_a_code_goes_only_part_of_the_way():
    codebook, histories, indices = em_example()
    before, expected = (
        codebook.codes.clone(),
        oracles.em(codebook.codes.numpy(), [h.numpy() for h in histories], indices),
    )
    codebook.code_decay = 0.75
    codebook.em_update([(stack(histories, M), torch.tensor(indices))])
    np.testing.assert_allclose(codebook.codes, 0.75 * before.numpy() + 0.25 * expected, rtol=1e-12)


def test_a_code_that_nobody_chose_for_a_lifetime_starts_afresh_from_a_sequence_of_the_batch():
    codebook, (_, histories, indices) = random_codebook(code_lifetime=3), em_example()
    before = codebook.codes.clone()
    batch = [(stack(histories[:4], M), torch.tensor(indices[:4])), (stack(histories[4:], M), torch.tensor(indices[4:]))]
    for _ in range(2):
        codebook.em_update(batch)
    assert torch.equal(codebook.codes[[1, 4]], before[[1, 4]])
    assert codebook.idle.tolist() == [0, 2, 0, 0, 2, 0]
    codebook.em_update(batch)
    assert torch.equal(codebook.codes[1], stack(histories, M)[0])
    assert torch.equal(codebook.codes[4], stack(histories, M)[4])
    assert codebook.idle.tolist() == [0] * Z


def test_nearest_is_the_code_with_the_least_squared_distance_with_the_padding_as_zeros():
    codebook, histories = random_codebook(), random_histories((3, 1, 2, 3, 3, 2, 1, 3))
    codebook.codes.normal_(generator=torch.Generator().manual_seed(3)).mul_(torch.linspace(0.1, 2, M)[:, None].flip(0))
    padded = stack(histories, M)
    distances = [[((row - code) ** 2).sum().item() for code in codebook.codes] for row in padded]
    assert codebook.nearest(stack(histories, 3)).tolist() == [int(np.argmin(row)) for row in distances]


def test_nearest_is_the_same_where_products_are_made_in_bfloat16():
    codebook = random_codebook().float()
    codebook.codes.normal_(100.0, 0.1, generator=torch.Generator().manual_seed(3))
    sequence = codebook.codes + 0.01
    with torch.autocast("cpu", torch.bfloat16):
        assert codebook.nearest(sequence).tolist() == list(range(Z))


def test_codes_are_a_saved_buffer_and_no_parameter():
    codebook = random_codebook()
    assert {name for name, _ in codebook.named_parameters()} == {
        f"{layer}.{kind}" for layer in ("selector_in", "selector_out") for kind in ("weight", "bias")
    }
    assert "codes" in codebook.state_dict() and codebook.codes.shape == (Z, M, D)
    codebook(stack(random_histories(), M), random_noise()).sequence.sum().backward()
    assert codebook.codes.grad is None


def test_forward_leaves_the_codes_alone():
    codebook, sequence = random_codebook(), stack(random_histories(), M)
    before = codebook.codes.clone()
    codebook(sequence, random_noise())
    codebook(sequence)
    assert torch.equal(codebook.codes, before)


def test_inference_is_a_function_of_the_sequence_alone():
    codebook, sequence = random_codebook(), stack(random_histories(), M)
    together = codebook(sequence)
    assert torch.equal(codebook(sequence).sequence, together.sequence)
    for i in range(len(sequence)):
        alone = codebook(sequence[i : i + 1])
        torch.testing.assert_close(alone.sequence[0], together.sequence[i])


def test_gumbel_noise_is_standard_gumbel_and_the_generators():
    noise = gumbel((20_000,), torch.Generator().manual_seed(0))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.03)  # Euler's constant
    assert noise.std().item() == pytest.approx(np.pi / 6**0.5, abs=0.03)
    assert (noise < 0).double().mean().item() == pytest.approx(np.exp(-1), abs=0.01)
    assert torch.equal(noise, gumbel((20_000,), torch.Generator().manual_seed(0)))
    assert not torch.equal(noise, gumbel((20_000,), torch.Generator().manual_seed(1)))


def test_choices_under_gumbel_noise_follow_the_softmax_of_the_logits():
    noise = gumbel((20_000, 3), torch.Generator().manual_seed(0))
    logits = torch.tensor([0.0, 1.0, 2.0])
    shares = torch.bincount((logits + noise).argmax(dim=1), minlength=3) / len(noise)
    torch.testing.assert_close(shares, logits.softmax(0), atol=0.012, rtol=0)
