"""How fast a model trains and recommends here, beside a naive IMECD and what counting operations promises."""

# B batch, L sequence, D hidden

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from imecd_lite.config import IMECDConfig, TrainConfig
from imecd_lite.dataset import Batch, Dataset, some_users, train_batches
from imecd_lite.diffusion import Predict
from imecd_lite.encoders import Features
from imecd_lite.errors import InputError
from imecd_lite.evaluate import top_items
from imecd_lite.model import IMECD, Recommender
from imecd_lite.recommend import recommend
from imecd_lite.runs import new_model
from imecd_lite.train import make_optimizer, training_step

MATRIX_SIZE = 2048
"""Of the square matrices whose product is this machine's yardstick."""
NUM_STEPS = 3
"""Training steps in a run."""
NUM_USERS = 2048
"""Users recommended to in a run."""


class NaiveIMECD(IMECD):
    """The same model computed as published code does: all histories padded to the longest there may be, and the whole
    sequence transformed anew at each reverse step. Its losses, gradients and scores are those of ``IMECD``."""

    def chunks(
        self, item_seq: torch.Tensor, lengths: np.ndarray | None = None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The whole batch (B, L) as one chunk, padded to ``max_length``."""
        padded = F.pad(item_seq, (self.config.max_length - item_seq.shape[1], 0))
        return [(torch.arange(len(item_seq), device=item_seq.device), padded)]

    def given(self, modality: str, sequence: torch.Tensor, attention_mask: torch.Tensor) -> Predict:
        """As ``IMECD.given``, remembering nothing from call to call."""
        return lambda x_t, timesteps: self.denoisers[modality](x_t, timesteps, sequence, attention_mask)


def made_up(
    num_users: int, num_items: int, length: int, feature_size: int = 768, max_length: int = 50
) -> tuple[Dataset, Features]:
    """Data of any size to measure on: random histories of ``length`` items, and random features of every item.

    Raises:
        InputError: a number is too small to train on, or too large for any machine.
    """
    if num_users < 1 or num_items < 2 or length < 4:
        raise InputError(f"{num_users} users, {num_items} items, {length} each: it takes 1, 2 and 4 at least.")
    if max(num_users, num_items, length) > 10**8:
        raise InputError(f"{num_users} users, {num_items} items, {length} each: it takes 100,000,000 at most.")
    generator = np.random.default_rng(0)
    dataset = Dataset(
        path=Path("made-up"),
        user_ids=[str(user) for user in range(num_users)],
        item_ids=[str(item) for item in range(num_items)],
        sequences=list(generator.integers(1, num_items, (num_users, length), endpoint=True)),
        timestamps=list(np.tile(np.arange(length, dtype=np.float64), (num_users, 1))),
        items=None,
        max_length=max_length,
    )
    text, image = (torch.from_numpy(generator.random((num_items, feature_size), np.float32)) for _ in range(2))
    return dataset, Features(text, image, "made-up")


def count_flops(run: Callable[[], object]) -> int:
    """The floating-point operations of the matrix products in ``run()``, two for each multiplication and addition."""

    def forward(query, key, value, *args, out_shape=None, **options):
        return sdpa_flop_count(query, key, value)

    def backward(grad, query, key, value, *args, out_shape=None, **options):
        return sdpa_backward_flop_count(grad, query, key, value)

    on_cpu = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: forward,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        run()
    return counter.get_total_flops()


def seconds_of(run: Callable[[], object], device: str) -> float:
    """Wall-clock seconds of ``run()``, until the device has done all of it."""
    start = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(device: str) -> int:
    """Bytes: the most that this process has held so far, on a GPU the most that its tensors have."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource  # which Windows has not

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def tasks_of(
    model: Recommender, config: TrainConfig, batches: list[Batch], dataset: Dataset
) -> dict[str, Callable[[], object]]:
    """What is measured: a training step on each of ``batches``; ten items, one draw, for every user of ``dataset``."""
    optimizer = make_optimizer(model, config)
    generator = torch.Generator(batches[0].pos_items.device).manual_seed(0)

    def train() -> None:
        model.train()
        for batch in batches:
            training_step(model, optimizer, batch, generator)

    return {"train": train, "recommend": lambda: top_items(model, dataset, dataset.split("test"))}


def benchmark(
    name: str,
    model_config: IMECDConfig,
    train_config: TrainConfig,
    dataset: Dataset,
    features: Features | None,
    device: str = "cpu",
    runs: int = 3,
    naive: bool = True,
) -> dict[str, float]:
    """Measure an untrained model; what it has learnt would change nothing.

    Args:
        name: the model; only IMECD has a naive variant.
        naive: whether to measure that one, too.
        runs: each figure is the median of so many, after one that is not counted.

    Returns:
        ``train_sequences_per_s``, ``recommend_users_per_s``, ``first_recommendation_ms`` (one user, all loaded),
        ``peak_memory_bytes`` (see ``peak_memory``), ``train_flops_per_sequence``, ``recommend_flops_per_user``,
        ``matmul_flops_per_s`` of this machine and ``matmul_fraction``, the share of it that training reaches. For
        IMECD also ``train_speedup`` and ``recommend_speedup`` over ``NaiveIMECD``, both run in turn on the same
        batches and users, and ``train_speedup_bound`` and ``recommend_speedup_bound``, how many times as many
        operations that one takes.
    """
    torch.set_flush_denormal(True)
    drawn = train_batches(dataset, train_config.batch_size, 0, 1, train_config.max_prefixes_per_user)
    batches = [batch.to(device) for batch in itertools.islice(drawn, NUM_STEPS)]
    few = some_users(dataset, np.random.default_rng(0).permutation(dataset.num_users)[:NUM_USERS])
    model = new_model(name, model_config, dataset, features).to(device)
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError(f"{name} learns nothing that could be timed; benchmark another model.")
    model.fit_statistics(dataset)
    model.on_epoch_start(torch.Generator(device).manual_seed(0))
    tasks = tasks_of(model, train_config, batches, few)
    for run in tasks.values():
        run()
    peak, model = peak_memory(device), model.eval()
    ask = partial(recommend, model, dataset, dataset.user_ids[0], min(10, dataset.num_items))
    first = [seconds_of(ask, device) for _ in range(runs + 1)][1:]
    if naive := naive and isinstance(model, IMECD):
        inputs = (features.text, features.image) if features else ()
        twin = NaiveIMECD(model.config, dataset.num_items, *inputs)
        twin.to(device).load_state_dict(model.state_dict())
        tasks |= {f"naive {task}": run for task, run in tasks_of(twin, train_config, batches, few).items()}
    square = torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device)
    tasks["matmul"] = lambda: square @ square
    flops = {task: count_flops(run) for task, run in tasks.items()}  # and a warm-up
    times = [{task: seconds_of(run, device) for task, run in tasks.items()} for _ in range(runs)]

    def median(value: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(map(value, times))

    sequences, rate = sum(len(batch.pos_items) for batch in batches), flops["matmul"] / median(itemgetter("matmul"))
    report = {
        "train_sequences_per_s": sequences / median(itemgetter("train")),
        "recommend_users_per_s": few.num_users / median(itemgetter("recommend")),
        "first_recommendation_ms": 1000 * statistics.median(first),
        "peak_memory_bytes": peak,
        "train_flops_per_sequence": flops["train"] / sequences,
        "recommend_flops_per_user": flops["recommend"] / few.num_users,
        "matmul_flops_per_s": rate,
        "matmul_fraction": flops["train"] / median(itemgetter("train")) / rate,
    }
    for task in ("train", "recommend") if naive else ():
        report[f"{task}_speedup"] = median(lambda took, task=task: took[f"naive {task}"] / took[task])
        report[f"{task}_speedup_bound"] = flops[f"naive {task}"] / flops[task]
    return report
