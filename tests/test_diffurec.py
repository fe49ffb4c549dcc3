"""DiffuRec against plain loops and diffusers, and what follows from its history being a set but for the last item."""

# B batch, L sequence, D hidden, T steps

import math

import numpy as np
import oracles
import pytest
import test_diffusion
import tiny
import torch

from imecd_lite.baselines import DiffuRec
from imecd_lite.baselines.diffurec import ForwardNoiseSchedule
from imecd_lite.config import IMECDConfig
from imecd_lite.diffusion import NoiseSchedule, make_betas, user_noise

T, D = tiny.CONFIG.num_train_timesteps, tiny.CONFIG.hidden_size
SEED = 4


class WithPositions(DiffuRec):
    POSITIONS = True


def make(kind: type[DiffuRec] = DiffuRec, **changes: object) -> DiffuRec:
    """A float64 model whose every parameter is large enough to matter, in eval mode."""
    torch.manual_seed(0)
    model = kind(tiny.tiny_config(**changes), tiny.NUM_ITEMS).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.item_embedding.weight.data[0] = 0
    return model.eval()


def read(weights: dict, history) -> np.ndarray:
    """X (L, D) of a history, without padding."""
    return np.array(
        [oracles.layer_norm(weights, "input_norm", weights["item_embedding.weight"][item]) for item in history]
    )


def denoise(weights: dict, x_t, t: int, sequence, volumes) -> np.ndarray:
    """x-hat_0 (D,) for what is known of a history (L, D), x_t and t as loud as ``volumes`` (L, D) at each position."""
    time = oracles.timestep_embedding(1000 * (t - 1) / T, D)
    time = oracles.linear(weights, "time_mlp.2", oracles.silu(oracles.linear(weights, "time_mlp.0", time)))
    hidden = np.array([known + volume * (x_t + time) for known, volume in zip(sequence, volumes, strict=True)])
    for layer in range(4):
        hidden = oracles.transformer_block(
            oracles.below(weights, f"blocks.{layer}"), hidden, tiny.CONFIG.num_attention_heads
        )
    return oracles.layer_norm(weights, "output_norm", hidden[-1])


def predict(model: DiffuRec, history: list[int], weights: torch.Tensor | float) -> torch.Tensor:
    """x-hat_0 (D,) of a made-up x_5."""
    item_seq = torch.tensor([history])
    x_t = torch.linspace(-1, 1, D, dtype=torch.float64)[None]
    return model.denoise(
        model.read(item_seq, model.item_embeddings()), item_seq > 0, x_t, torch.tensor([5]), weights
    ).detach()[0]


def test_the_schedule_is_the_one_of_its_code():
    betas = make_betas("truncated_linear", 32)
    assert betas[0].item() == pytest.approx(0.1 / 32 + 0.01) and betas[-1].item() == pytest.approx(20 / 32 + 0.01)
    config = IMECDConfig()
    assert (config.beta_schedule, config.num_train_timesteps, config.noise_scale) == ("truncated_linear", 32, 0.001)


def test_a_reverse_step_is_that_of_diffusers_with_the_larger_variance():
    from diffusers import DDPMScheduler

    schedule = ForwardNoiseSchedule("truncated_linear", 32)
    scheduler = DDPMScheduler(
        num_train_timesteps=32,
        trained_betas=oracles.truncated_linear(32),
        variance_type="fixed_large",
        clip_sample=False,
        prediction_type="sample",
    )
    scheduler.set_timesteps(32)
    pred_original, x_t = test_diffusion.draw(3, D), test_diffusion.draw(3, D, seed=1)
    lesser = NoiseSchedule("truncated_linear", 32)
    for t in range(32, 0, -1):
        noise = test_diffusion.draw(3, D, seed=t)
        generator = torch.Generator().manual_seed(t)
        expected = scheduler.step(pred_original, t - 1, x_t, generator=generator).prev_sample
        stepped = schedule.step(pred_original, x_t, t, t - 1, noise)
        torch.testing.assert_close(stepped, expected, atol=2e-5, rtol=0, msg=f"t = {t}")
        if t == 2:  # nearer to T the two variances are alike
            assert (stepped - lesser.step(pred_original, x_t, t, t - 1, noise)).abs().max() > 1e-3


def test_x_t_has_the_mean_and_the_variance_of_the_forward_process_and_every_step_is_as_likely():
    model, size = make(), 40_000
    pos_items = torch.full((size,), 3)
    table = model.item_embeddings().detach()
    x_t, timesteps = model.corrupt(pos_items, table, torch.Generator().manual_seed(0))
    betas = oracles.truncated_linear(T)
    for t in range(1, T + 1):
        rows = timesteps == t
        assert rows.sum().item() == pytest.approx(size / T, rel=0.06)
        abar = oracles.abar(betas, t)
        rest = x_t[rows] - math.sqrt(abar) * table[3]
        assert rest.mean().item() == pytest.approx(0, abs=0.02)
        assert rest.var().item() == pytest.approx(1 - abar, rel=0.03)
    assert set(timesteps.tolist()) == set(range(1, T + 1))


def test_with_lambda_fixed_all_but_the_last_item_are_a_set():
    model = make()
    first = predict(model, [1, 2, 3, 4], 0.5)
    torch.testing.assert_close(predict(model, [3, 1, 2, 4], 0.5), first)
    assert (predict(model, [1, 2, 4, 3], 0.5) - first).abs().max() > 1e-3
    assert (predict(model, [1, 2, 5, 4], 0.5) - first).abs().max() > 1e-3


def test_positions_are_an_option():
    model = make(WithPositions)
    first, swapped = predict(model, [1, 2, 3, 4], 0.5), predict(model, [3, 1, 2, 4], 0.5)
    assert (first - swapped).abs().max() > 1e-3
    torch.testing.assert_close(predict(model, [0, 0, 1, 2, 3, 4], 0.5), first)
    assert "positions" not in dict(make().named_parameters())


def test_lambda_has_its_mean_as_its_deviation_and_drowns_or_silences_x_t():
    model = make(noise_scale=0.25)
    drawn = model.weights(torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert drawn.mean().item() == pytest.approx(0.25, abs=0.002) and drawn.std().item() == pytest.approx(
        0.25, abs=0.002
    )


def test_the_loss_is_that_of_plain_loops():
    model, batch = make(), tiny.tiny_batch()
    output = model.loss(batch, torch.Generator().manual_seed(SEED))
    generator, size = torch.Generator().manual_seed(SEED), len(tiny.TARGETS)
    timesteps = torch.randint(1, T + 1, (size,), generator=generator).tolist()
    noise = torch.randn(size, D, generator=generator).double().numpy()
    volumes = torch.randn(size, tiny.CONFIG.max_length, D, generator=generator).double().numpy()
    weights, betas = oracles.weights_of(model), oracles.truncated_linear(T)
    items, predictions = weights["item_embedding.weight"], []
    for i, (history, target) in enumerate(zip(tiny.HISTORIES, tiny.TARGETS, strict=True)):
        factor, deviation = oracles.forward_marginal(betas, timesteps[i])
        x_t = factor * items[target] + deviation * noise[i]
        louder = tiny.CONFIG.noise_scale * (1 + volumes[i, -len(history) :])
        predictions.append(denoise(weights, x_t, timesteps[i], read(weights, history), louder))
    expected = oracles.cross_entropy(predictions, items[1:], tiny.TARGETS, tiny.HISTORIES)
    assert output.total.item() == pytest.approx(expected, rel=1e-4)
    assert set(output.terms) == {"id/cross_entropy"}


def walk(weights: dict, history, key: int, steps: list[int], scale: float) -> np.ndarray:
    """The end of the reverse walk of one user, step by step."""
    noise = user_noise(torch.tensor([key]), SEED, (1 + len(history), len(steps) + 1, D))[:, 0].double().numpy()
    betas, x, known = oracles.truncated_linear(T), noise[0, 0], read(weights, history)
    for k, t in enumerate(steps):
        volumes = np.array([scale * (1 + noise[len(history) - place, k]) for place in range(len(history))])
        pred_original = denoise(weights, x, t, known, volumes)
        if t == 1 or len(steps) == 1:
            return pred_original
        x = oracles.reverse_step(betas, t, pred_original, x, 0.0) + math.sqrt(betas[t - 1]) * noise[0, k + 1]


def test_the_reverse_walk_is_that_of_plain_loops():
    model = make()
    weights = oracles.weights_of(model)
    for history in tiny.HISTORIES[:3]:
        for count, steps in ((None, range(T, 0, -1)), (1, [T])):
            scores = model.full_sort_predict(torch.tensor([history]), torch.tensor([77]), SEED, count)
            x_0 = walk(weights, history, 77, list(steps), tiny.CONFIG.noise_scale)
            np.testing.assert_allclose(scores[0, 1:], weights["item_embedding.weight"][1:] @ x_0, rtol=1e-4, atol=1e-4)


def test_scores_depend_on_seed_and_user_and_not_on_what_is_walked_together():
    model, batch = make(), tiny.tiny_batch()
    first = model.predict(batch, seed=1)
    torch.testing.assert_close(model.predict(batch, seed=1), first, rtol=0, atol=0)
    assert (model.predict(batch, seed=2) - first)[:, 1:].abs().max() > 1e-3
    other = model.full_sort_predict(batch.item_seq, batch.user_keys + 1, seed=1)
    assert ((other - first)[:, 1:].abs().amax(dim=1) > 1e-3).all()
    model.PLACES_AT_ONCE = 1
    torch.testing.assert_close(model.predict(batch, seed=1), first)


def test_as_published_x_t_is_hardly_heard():
    model, batch = make(noise_scale=0.001), tiny.tiny_batch()
    top, other = (model.predict(batch, seed)[:, 1:] for seed in (0, 1))
    assert (top.argmax(dim=1) == other.argmax(dim=1)).all() and (top != other).any()


def test_items_are_dropped_in_training_more_than_the_rest_and_dropout_0_is_none():
    assert make(dropout=0.1).item_dropout.p == 0.3 and make(dropout=0.0).item_dropout.p == 0.0
    model, batch = make(dropout=0.1).train(), tiny.tiny_batch()
    table = model.item_embeddings()
    dropped, again = (model.read(batch.item_seq, table) for _ in range(2))
    assert (dropped - again).abs().max() > 1e-3
    model.eval()
    torch.testing.assert_close(model.read(batch.item_seq, table), model.read(batch.item_seq, table), rtol=0, atol=0)


def test_embeddings_start_as_large_as_the_noise():
    torch.manual_seed(0)
    table = DiffuRec(tiny.tiny_config(hidden_size=128), 400).item_embedding.weight
    assert table[1:].std().item() == pytest.approx(1, abs=0.01) and not table[0].any()
