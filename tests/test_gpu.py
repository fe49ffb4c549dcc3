"""On a CUDA device: a CPU's scores, no waiting within a step, and an epoch at the size of the paper's Toys in time."""

import pytest
import tiny
import torch

from imecd_lite.benchmark import made_up, seconds_of
from imecd_lite.checkpoint import MODELS, build_model
from imecd_lite.config import IMECDConfig, TrainConfig
from imecd_lite.encoders import Features
from imecd_lite.runs import new_model
from imecd_lite.train import make_optimizer, train_epoch, training_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

DEVICE = "cuda"


@pytest.mark.parametrize("name", sorted(MODELS))
def test_scores_are_those_of_a_cpu(name):
    table, dataset, batch = tiny.random_features(), tiny.tiny_dataset(), tiny.tiny_batch()
    model = build_model(name, tiny.CONFIG, dataset, Features(table["text"], table["image"], "made up"))
    model.fit_statistics(dataset)
    model.on_epoch_start(torch.Generator().manual_seed(0))
    expected = model.eval().predict(batch)
    scores = model.to(DEVICE).predict(batch.to(DEVICE)).cpu()
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("settings", [tiny.DEFAULTS, tiny.LITERAL], ids=["default", "literal"])
def test_the_host_never_waits_for_the_device_within_a_step(settings):
    model, batch = tiny.tiny_model(**settings).float().to(DEVICE), tiny.tiny_batch().to(DEVICE)
    optimizer, generator = make_optimizer(model, TrainConfig()), torch.Generator(DEVICE).manual_seed(0)
    training_step(model, optimizer, batch, generator)  # the first one sets up the libraries
    torch.cuda.set_sync_debug_mode("error")
    try:
        output = training_step(model, optimizer, batch, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert output.total.isfinite()


@pytest.mark.slow
@pytest.mark.alone
def test_an_epoch_at_the_size_of_the_papers_toys_takes_less_than_twenty_seconds(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    dataset, features = made_up(147_356, 49_637, 9)  # users, items (Table I); histories as long as theirs on average
    config = TrainConfig(batch_size=1280)  # IV-A4
    model = new_model("imecd", IMECDConfig(), dataset, features).to(DEVICE)
    optimizer = make_optimizer(model, config)

    def epoch(number: int) -> float:
        run = (model, optimizer, dataset, config, number, torch.device(DEVICE))
        return seconds_of(lambda: train_epoch(*run), DEVICE)

    assert min(epoch(1), epoch(2)) < 20
