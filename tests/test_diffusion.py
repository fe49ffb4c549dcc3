"""Noise schedule, denoiser and reverse diffusion against Eq. 11-18 in plain loops and against diffusers."""

# B batch, L sequence, M max_length, D hidden, T steps, S steps taken

import functools

import numpy as np
import oracles
import pytest
import torch

from imecd_lite.diffusion import (
    Denoiser,
    NoiseSchedule,
    TokenDenoiser,
    make_betas,
    sample,
    timestep_embedding,
    user_noise,
)
from imecd_lite.errors import InputError

B, D, T = 5, 8, 32


@functools.cache
def reference_scheduler(num_inference_steps: int = T):
    """diffusers' scheduler with our betas; its timestep t - 1 is our t."""
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(
        num_train_timesteps=T,
        trained_betas=oracles.truncated_linear(T),
        variance_type="fixed_small",
        clip_sample=False,
        prediction_type="sample",
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(num_inference_steps)
    return scheduler


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_denoiser(num_layers: int = 2, noise_scale: float = 1.0, max_length: int = 6) -> Denoiser:
    return randomised(Denoiser(D, max_length, T, num_layers, 2, 0.0, noise_scale))


def random_token_denoiser(num_layers: int = 2, max_length: int = 6) -> TokenDenoiser:
    return randomised(TokenDenoiser(D, max_length, T, num_layers, 2, 0.0))


def randomised(denoiser: torch.nn.Module) -> torch.nn.Module:
    denoiser = denoiser.double()
    torch.manual_seed(0)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return denoiser


denoisers = pytest.mark.parametrize("make", [random_denoiser, random_token_denoiser])


# Schedule, Eq. 11-12


@pytest.mark.parametrize("num_train_timesteps", [1, 2, 8, 21, 32, 1000])
def test_betas_are_the_truncated_linear_schedule(num_train_timesteps):
    betas = make_betas("truncated_linear", num_train_timesteps)
    np.testing.assert_allclose(betas, oracles.truncated_linear(num_train_timesteps), rtol=1e-12)
    assert ((betas > 0) & (betas < 1)).all()


def test_betas_of_the_papers_32_steps_run_from_0_013_to_0_635():
    betas = make_betas("truncated_linear", 32)
    assert betas[0].item() == pytest.approx(0.013125) and betas[-1].item() == pytest.approx(0.635)


def test_linear_betas_are_ddpms_at_1000_steps():
    betas = make_betas("linear", 1000)
    np.testing.assert_allclose(betas, np.linspace(1e-4, 0.02, 1000), rtol=1e-12)


def test_impossible_schedules_are_refused():
    with pytest.raises(ValueError, match="truncated_linear or linear, got 'cosine'"):
        make_betas("cosine", 32)
    with pytest.raises(InputError, match=r"8 steps .* outside \(0, 1\); take more steps\."):
        make_betas("linear", 8)


def test_add_noise_is_eq_11_walked_t_times():
    schedule, x_0, noise = NoiseSchedule("truncated_linear", T), draw(T + 1, D), draw(T + 1, D, seed=1)
    x_t = schedule.add_noise(x_0, noise, torch.arange(T + 1))
    for t in range(T + 1):
        factor, deviation = oracles.forward_marginal(oracles.truncated_linear(T), t)
        np.testing.assert_allclose(x_t[t], factor * x_0[t] + deviation * noise[t], atol=2e-6)
    assert torch.equal(x_t[0], x_0[0])  # t = 0 is clean data


def test_add_noise_is_diffusers_at_every_t():
    schedule, x_0, noise = NoiseSchedule("truncated_linear", T), draw(B, D), draw(B, D, seed=1)
    for t in range(1, T + 1):
        expected = reference_scheduler().add_noise(x_0, noise, torch.full((B,), t - 1))
        torch.testing.assert_close(schedule.add_noise(x_0, noise, torch.full((B,), t)), expected, atol=2e-6, rtol=0)


def test_each_row_is_noised_to_its_own_t():
    schedule, x_0, noise = NoiseSchedule("truncated_linear", T), draw(B, D), draw(B, D, seed=1)
    timesteps = torch.tensor([1, 32, 5, 17, 2])
    together = schedule.add_noise(x_0, noise, timesteps)
    for i, t in enumerate(timesteps):
        torch.testing.assert_close(schedule.add_noise(x_0[i : i + 1], noise[i : i + 1], t[None])[0], together[i])


def test_the_schedule_is_a_buffer_that_is_neither_learnt_nor_saved():
    schedule = NoiseSchedule("truncated_linear", T)
    assert dict(schedule.named_buffers()) and not list(schedule.parameters()) and not schedule.state_dict()
    assert schedule.num_train_timesteps == T


# Reverse steps, Eq. 16-18


def test_step_is_eq_17_and_18_at_every_t():
    schedule, betas = NoiseSchedule("truncated_linear", T), oracles.truncated_linear(T)
    pred_original, x_t, noise = (draw(B, D, seed=seed) for seed in range(3))
    for t in range(1, T + 1):
        expected = oracles.reverse_step(betas, t, pred_original.numpy(), x_t.numpy(), noise.numpy())
        np.testing.assert_allclose(schedule.step(pred_original, x_t, t, t - 1, noise), expected, atol=2e-5)


def check_step_against_diffusers(num_inference_steps: int) -> None:
    schedule, scheduler = NoiseSchedule("truncated_linear", T), reference_scheduler(num_inference_steps)
    pred_original, x_t = draw(B, D), draw(B, D, seed=1)
    stride = T // num_inference_steps
    assert [t + 1 for t in scheduler.timesteps.tolist()] == schedule.inference_timesteps(num_inference_steps)[:-1]
    for t in range(T, 0, -stride):
        generator = torch.Generator().manual_seed(t)
        expected = scheduler.step(pred_original, t - 1, x_t, generator=generator).prev_sample
        noise = draw(B, D, seed=t)
        torch.testing.assert_close(
            schedule.step(pred_original, x_t, t, t - stride, noise), expected, atol=2e-5, rtol=0, msg=f"t = {t}"
        )


def test_step_is_diffusers_at_every_t():
    check_step_against_diffusers(T)


@pytest.mark.parametrize("num_inference_steps", [1, 2, 4, 16])
def test_longer_strides_are_diffusers_too(num_inference_steps):
    check_step_against_diffusers(num_inference_steps)


def test_the_last_step_adds_no_noise_and_returns_the_prediction():
    schedule, pred_original, x_t = NoiseSchedule("truncated_linear", T), draw(B, D), draw(B, D, seed=1)
    for t in (1, 8, T):
        torch.testing.assert_close(schedule.step(pred_original, x_t, t, 0, draw(B, D, seed=2)), pred_original)


def test_steps_from_a_perfect_prediction_keep_the_marginals_of_the_forward_process():
    """Eq. 17-18 are the posterior of Eq. 11: x_t of the true marginal goes to x_{t-1} of the true marginal."""
    schedule, betas, t, x_0 = NoiseSchedule("truncated_linear", T), oracles.truncated_linear(T), 20, 1.5
    original = torch.full((200_000, 1), x_0)
    x_t = schedule.add_noise(original, draw(200_000, 1), torch.full((200_000,), t))
    x_before = schedule.step(original, x_t, t, t - 1, draw(200_000, 1, seed=1))
    factor, deviation = oracles.forward_marginal(betas, t - 1)
    assert x_before.mean().item() == pytest.approx(factor * x_0, abs=0.01)
    assert x_before.std().item() == pytest.approx(deviation, abs=0.01)


def test_inference_timesteps_run_evenly_from_t_to_zero():
    schedule = NoiseSchedule("truncated_linear", T)
    assert schedule.inference_timesteps(T) == list(range(T, -1, -1))
    assert schedule.inference_timesteps(4) == [32, 24, 16, 8, 0]
    assert schedule.inference_timesteps(1) == [32, 0]
    for steps in range(1, T + 1):
        timesteps = schedule.inference_timesteps(steps)
        assert len(timesteps) == steps + 1 and timesteps == sorted(set(timesteps), reverse=True)
    for steps in (0, -1, T + 1):
        with pytest.raises(ValueError, match=rf"from 1 to 32, got {steps}"):
            schedule.inference_timesteps(steps)


# Denoiser, Eq. 13


def test_timestep_embedding_is_cosines_and_sines():
    timesteps = torch.arange(1, T + 1)
    embedding = timestep_embedding(timesteps, D)
    for t in range(1, T + 1):
        np.testing.assert_allclose(embedding[t - 1], oracles.timestep_embedding(t, D), atol=1e-5)
    assert timestep_embedding(timesteps, D + 1).shape == (T, D + 1)
    assert len(torch.unique(embedding, dim=0)) == T


def test_prediction_is_that_of_plain_loops_for_each_history():
    lengths, length = (6, 1, 3, 2, 4), 6
    generator = torch.Generator().manual_seed(1)
    x_t = torch.randn(B, D, generator=generator, dtype=torch.float64)
    sequence = torch.randn(B, length, D, generator=generator, dtype=torch.float64)  # padding holds noise, too
    mask = torch.arange(length) >= length - torch.tensor(lengths)[:, None]
    timesteps = torch.tensor([1, 32, 7, 20, 3])
    for num_layers, noise_scale in ((1, 1.0), (2, 0.001), (2, 1.0)):
        denoiser = random_denoiser(num_layers, noise_scale)
        predictions, weights = denoiser(x_t, timesteps, sequence, mask).detach(), oracles.weights_of(denoiser)
        for i, n in enumerate(lengths):
            history = sequence[i, length - n :].numpy()
            expected = oracles.denoise(
                weights, x_t[i].numpy(), timesteps[i].item(), history, num_layers, 2, noise_scale
            )
            np.testing.assert_allclose(predictions[i], expected, atol=1e-5)


def test_prediction_with_x_t_as_a_token_is_that_of_plain_loops():
    lengths, length = (6, 1, 3, 2, 4), 6
    x_t, sequence = draw(B, D).double(), draw(B, length, D, seed=1).double()
    mask = torch.arange(length) >= length - torch.tensor(lengths)[:, None]
    timesteps = torch.tensor([1, 32, 7, 20, 3])
    for num_layers in (1, 2):
        denoiser = random_token_denoiser(num_layers)
        predictions, weights = denoiser(x_t, timesteps, sequence, mask).detach(), oracles.weights_of(denoiser)
        for i, n in enumerate(lengths):
            history = sequence[i, length - n :].numpy()
            expected = oracles.denoise_token(weights, x_t[i].numpy(), timesteps[i].item(), history, num_layers, 2)
            np.testing.assert_allclose(predictions[i], expected, atol=1e-5)


def test_with_x_t_as_a_token_the_sequence_is_transformed_once_for_all_steps():
    denoiser, sequence, mask = random_token_denoiser(), draw(B, 4, D).double(), torch.ones(B, 4, dtype=torch.bool)
    sizes = []
    for block in denoiser.blocks:
        block.feed_forward.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].shape[1]))
    predict = denoiser.given(sequence, mask)
    for t in (32, 16, 1):
        x_t = draw(B, D, seed=t).double()
        torch.testing.assert_close(
            predict(x_t, torch.full((B,), t)),
            random_token_denoiser()(x_t, torch.full((B,), t), sequence, mask),
        )
    assert sizes == [4] + 3 * [1, 1]


@denoisers
def test_prediction_listens_to_x_t_to_t_and_to_every_item_and_its_place(make):
    denoiser, mask = make(), torch.ones(1, 4, dtype=torch.bool)
    x_t, sequence = draw(1, D).double(), draw(1, 4, D, seed=1).double()
    base = denoiser(x_t, torch.tensor([3]), sequence, mask)
    changed = {
        "x_t": denoiser(x_t + draw(1, D, seed=2), torch.tensor([3]), sequence, mask),
        "t": denoiser(x_t, torch.tensor([4]), sequence, mask),
        "order": denoiser(x_t, torch.tensor([3]), sequence[:, [1, 0, 2, 3]], mask),
    }
    for k in range(4):
        other = sequence.clone()
        other[0, k, 0] += 1
        changed[f"item {k}"] = denoiser(x_t, torch.tensor([3]), other, mask)
    for name, prediction in changed.items():
        assert (prediction - base).abs().max() > 1e-3, name


@denoisers
def test_extra_left_padding_changes_nothing(make):
    denoiser, x_t, sequence = make(), draw(B, D).double(), draw(B, 3, D, seed=1).double()
    mask, timesteps = torch.ones(B, 3, dtype=torch.bool), torch.arange(1, B + 1)
    padded, padded_mask = (torch.nn.functional.pad(x, (*(0,) * extra, 3, 0)) for x, extra in ((sequence, 2), (mask, 0)))
    torch.testing.assert_close(denoiser(x_t, timesteps, padded, padded_mask), denoiser(x_t, timesteps, sequence, mask))


@denoisers
def test_every_parameter_of_the_denoiser_learns(make):
    denoiser, x_t, sequence = make(), draw(B, D).double(), draw(B, 6, D, seed=1).double()
    target = draw(B, D, seed=2).double()
    prediction = denoiser(x_t, torch.arange(1, B + 1), sequence, torch.ones(B, 6, dtype=torch.bool))
    (prediction * target).sum().backward()
    for name, parameter in denoiser.named_parameters():
        gradient = parameter.grad[D:] if name.endswith("key_value.bias") else parameter.grad  # softmax cancels keys'
        assert (gradient.abs() > 1e-12).all(), name


# Reverse sampling


def test_sample_walks_the_steps_of_eq_18():
    schedule, betas = NoiseSchedule("truncated_linear", T), oracles.truncated_linear(T)
    noise, weight = draw(T + 1, B, D), draw(D, D, seed=1) / D

    def predict(x_t: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x_t @ weight) + timesteps[:, None] / T

    trajectory = sample(predict, schedule, noise)
    assert trajectory.timesteps == list(range(T, -1, -1))
    assert trajectory.samples.shape == (T + 1, B, D) and trajectory.predictions.shape == (T, B, D)
    x = noise[0].double().numpy()
    np.testing.assert_array_equal(trajectory.samples[0], noise[0])
    for k, t in enumerate(range(T, 0, -1)):
        pred_original = np.tanh(x @ weight.double().numpy()) + t / T
        np.testing.assert_allclose(trajectory.predictions[k], pred_original, atol=1e-4)
        x = oracles.reverse_step(betas, t, pred_original, x, noise[k + 1].double().numpy())
        np.testing.assert_allclose(trajectory.samples[k + 1], x, atol=1e-4)
    np.testing.assert_allclose(trajectory.samples[-1], trajectory.predictions[-1], atol=1e-5)


def test_sample_starts_from_the_same_noise_whatever_the_number_of_steps():
    schedule, noise = NoiseSchedule("truncated_linear", T), draw(T + 1, B, D)
    for steps in (1, 4, T):
        trajectory = sample(lambda x_t, timesteps: 0.5 * x_t, schedule, noise, steps)
        assert torch.equal(trajectory.samples[0], noise[0])
        assert len(trajectory.timesteps) == len(trajectory.samples) == len(trajectory.predictions) + 1 == steps + 1


def test_sample_refuses_too_little_noise_and_impossible_step_counts():
    schedule = NoiseSchedule("truncated_linear", T)
    with pytest.raises(ValueError, match=r"noise must be \(33, B, D\), got \(32, 5, 8\)"):
        sample(lambda x_t, timesteps: x_t, schedule, draw(T, B, D))
    for steps in (0, T + 1):
        with pytest.raises(ValueError, match=f"from 1 to 32, got {steps}"):
            sample(lambda x_t, timesteps: x_t, schedule, draw(T + 2, B, D), steps)


# Noise of a user


def test_a_users_noise_is_a_function_of_user_and_seed():
    keys = torch.tensor([7, 8, -(2**62), 7])
    noise = user_noise(keys, 0, (4, 2, D))
    assert noise.shape == (4, 4, 2, D)
    assert torch.equal(noise[:, 0], noise[:, 3])
    for i, key in enumerate(keys):
        assert torch.equal(user_noise(key[None], 0, (4, 2, D))[:, 0], noise[:, i])
    assert torch.equal(user_noise(keys.flip(0), 0, (4, 2, D)), noise.flip(1))
    others = torch.cat([noise[:, :3], user_noise(keys[:3], 1, (4, 2, D))], dim=1)
    assert len(torch.unique(others)) == others.numel()  # no number twice: users and seeds don't share draws


def test_a_longer_first_axis_continues_a_users_noise():
    keys = torch.tensor([7, 8])
    assert torch.equal(user_noise(keys, 3, (33, 3, D))[:5], user_noise(keys, 3, (5, 3, D)))


def test_user_noise_is_standard_normal():
    noise = user_noise(torch.arange(50), 0, (33, 3, D)).double()
    assert abs(noise.mean().item()) < 0.02 and noise.std().item() == pytest.approx(1, abs=0.02)
    assert abs((noise[1:] * noise[:-1]).mean().item()) < 0.02  # steps
    assert abs((noise[:, 1:] * noise[:, :-1]).mean().item()) < 0.02  # users
    assert abs((noise[:, :, 1:] * noise[:, :, :-1]).mean().item()) < 0.02  # modalities
