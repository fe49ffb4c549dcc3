"""The benchmark: two ways to compute one model, operations counted by hand, every figure there."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from test_model import chunk_example

from imecd_lite import benchmark as module
from imecd_lite.baselines.missrec import MISSRec
from imecd_lite.benchmark import NaiveIMECD, benchmark, count_flops, made_up, peak_memory
from imecd_lite.config import IMECDConfig, TrainConfig
from imecd_lite.errors import InputError
from imecd_lite.model import IMECD


def twins(**changes: object) -> tuple[IMECD, NaiveIMECD]:
    """One model, to be computed either way."""
    model = tiny.tiny_model(max_length=50, **changes)
    features = tiny.random_features()
    naive = NaiveIMECD(model.config, tiny.NUM_ITEMS, features["text"], features["image"]).double()
    naive.load_state_dict(model.state_dict())
    return model, naive


@pytest.mark.parametrize("changes", [{}, tiny.DEFAULTS], ids=["literal", "default"])
def test_the_naive_variant_has_the_same_losses_gradients_and_codes(changes):
    results, batch = [], chunk_example()[1]
    for model in twins(**changes):
        output = tiny.loss_of(model, batch)
        output.total.backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        model.after_step(output)
        codes = {name: codebook.codes for name, codebook in model.codebooks.items()}
        results.append({"total": output.total.detach(), **output.terms, **gradients, **codes})
        num_chunks = len(output.chosen["id"])
        assert num_chunks == 1 if isinstance(model, NaiveIMECD) else num_chunks > 1, "the example must be cut"
    for name, expected in results[1].items():
        torch.testing.assert_close(results[0][name], expected, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("changes", [{}, tiny.DEFAULTS], ids=["literal", "default"])
def test_the_naive_variant_has_the_same_scores(changes):
    batch = chunk_example()[1]
    scores = [model.eval().predict(batch) for model in twins(**changes)]
    torch.testing.assert_close(*scores, rtol=1e-9, atol=1e-11)


def test_the_naive_variant_transforms_the_whole_sequence_at_each_step_and_the_model_once(monkeypatch):
    positions = []
    block = tiny.tiny_model().denoisers["id"].blocks[0]
    original = type(block).offer
    monkeypatch.setattr(
        type(block), "offer", lambda self, x: positions.append(x.shape[:2].numel()) or original(self, x)
    )
    counted, batch = [], chunk_example()[1]
    for model in twins(**tiny.DEFAULTS):
        positions.clear()
        model.eval().predict(batch)
        counted.append(sum(positions))
    layers, rows, steps = sum(model.config.num_layers.values()), *batch.item_seq.shape[:1], 8
    assert counted[1] == layers * steps * rows * (50 + 1)
    assert counted[0] < layers * (steps * rows + 0.6 * rows * 50)


def test_operations_are_counted_as_by_hand():
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    assert count_flops(lambda: a @ b) == 2 * 3 * 4 * 5
    q, k = torch.randn(2, 1, 3, 8), torch.randn(2, 1, 5, 8)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert count_flops(lambda: attend(q, k, k)) == 2 * (2 * 3 * 5 * 8) * 2
    learnt = [x.requires_grad_() for x in (q, k)]
    assert count_flops(lambda: attend(learnt[0], learnt[1], learnt[1]).sum().backward()) > 2 * 2 * (2 * 3 * 5 * 8) * 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_in_bytes():
    text = Path("/proc/self/status").read_text()
    told = int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    assert 0.9 * told < peak_memory("cpu") < 1.1 * told


def test_where_windows_is_its_own_number_is_asked_for(monkeypatch):
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=12345))
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("psutil.Process", lambda: process)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory("cpu") == 12345


TOYS_SIZE = """
import itertools, json, torch
from imecd_lite.benchmark import made_up, peak_memory
from imecd_lite.config import IMECDConfig, TrainConfig
from imecd_lite.dataset import train_batches
from imecd_lite.runs import new_model
from imecd_lite.train import make_optimizer, training_step
dataset, features = made_up(2048, 49_637, 50)
model, generator = new_model("imecd", IMECDConfig(), dataset, features), torch.Generator().manual_seed(0)
optimizer, losses = make_optimizer(model, TrainConfig()), []
for batch in itertools.islice(train_batches(dataset, 1280, 0, 1, None), 3):
    losses.append(training_step(model.train(), optimizer, batch, generator).total.item())
print(json.dumps({"losses": losses, "bytes": peak_memory("cpu")}))
"""


@pytest.mark.slow
def test_training_at_toys_size_with_the_longest_histories_takes_less_than_8_gigabytes():
    program = subprocess.run([sys.executable, "-c", TOYS_SIZE], capture_output=True, text=True, check=True)
    measured = json.loads(program.stdout)
    assert np.isfinite(measured["losses"]).all() and len(measured["losses"]) == 3
    assert measured["bytes"] < 8e9


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(module, "MATRIX_SIZE", 64)
    monkeypatch.setattr(module, "NUM_USERS", 8)
    return IMECDConfig(hidden_size=16, num_train_timesteps=8, num_id_layers=1)


def test_the_model_has_all_figures(small):
    report = benchmark("imecd", small, TrainConfig(), tiny.tiny_dataset(), None, runs=2)
    assert all(math.isfinite(value) and value > 0 for value in report.values())
    assert report["recommend_speedup_bound"] > report["train_speedup_bound"] > 1
    assert 0 < report["matmul_fraction"] < 1


def test_made_up_data_have_the_size_asked_for_and_train(small):
    dataset, features = made_up(40, 30, 9, feature_size=5)
    assert (dataset.num_users, dataset.num_items, set(map(len, dataset.sequences))) == (40, 30, {9})
    items = np.concatenate(dataset.sequences)
    assert items.min() == 1 and items.max() == 30 and features.text.shape == features.image.shape == (30, 5)
    short = dataclasses.replace(small, max_length=6)
    dataset, features = made_up(40, 30, 9, feature_size=5, max_length=6)
    report = benchmark("imecd", short, TrainConfig(), dataset, features, runs=1, naive=False)
    assert report["train_sequences_per_s"] > 0 and not any("speedup" in name for name in report)


@pytest.mark.parametrize("size", [(0, 5, 5), (5, 1, 5), (5, 5, 3), (5, 10**20, 5)])
def test_data_too_small_to_train_on_or_too_large_are_refused(size):
    with pytest.raises(InputError, match=f"{size[0]} users, {size[1]} items, {size[2]} each"):
        made_up(*size)


def test_another_model_has_no_naive_variant(small):
    report = benchmark("sasrec", small, TrainConfig(), tiny.tiny_dataset(), None, runs=1)
    assert report["recommend_users_per_s"] > 0 and not any("speedup" in name for name in report)
    with pytest.raises(InputError, match="popularity learns nothing that could be timed"):
        benchmark("popularity", small, TrainConfig(), tiny.tiny_dataset(), None, runs=1)


def test_what_a_model_computes_before_each_epoch_is_there_when_it_is_measured(small, monkeypatch):
    clustered, loss = [], MISSRec.loss
    monkeypatch.setattr(
        MISSRec, "loss", lambda self, *inputs: clustered.append(int(self.clusters.max())) or loss(self, *inputs)
    )
    benchmark("missrec", small, TrainConfig(), *made_up(40, 30, 9, feature_size=5), runs=1)
    assert min(clustered) > 0


def test_the_smallest_data_that_are_taken_can_be_measured(small):
    report = benchmark("sasrec", small, TrainConfig(), *made_up(1, 2, 4, feature_size=5), runs=1)
    assert report["recommend_users_per_s"] > 0
