"""Training: repeats exactly, resumes exactly, keeps the best epoch, sees nothing of the future."""

# B batch, L sequence, I items, U users

import contextlib
import copy
import csv
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from made_data import write_ids
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeCopyMode, FakeTensorMode

import imecd_lite.files
import imecd_lite.train
from imecd_lite.baselines import Popularity
from imecd_lite.config import TrainConfig
from imecd_lite.dataset import load_dataset, train_batches
from imecd_lite.errors import InputError
from imecd_lite.files import read_tensors
from imecd_lite.model import IMECD, LossOutput, Recommender
from imecd_lite.train import STATE_FILE, History, make_optimizer, replay, train, train_epoch, training_step

EPOCHS = 3
CONFIG = TrainConfig(epochs=EPOCHS, batch_size=16, max_prefixes_per_user=2, patience=EPOCHS, learning_rate=0.01)
STEPS = 3  # of an epoch: 24 users with two prefixes each, in batches of 16


def new_model(**changes: object) -> IMECD:
    """A float32 model with dropout and all three modalities."""
    return tiny.tiny_model(dropout=0.2, **changes).float()


def run(output: Path | None = None, resume: bool = False, model: Recommender | None = None, dataset=None, **changes):
    """Train; returns the model and its history."""
    model = new_model() if model is None else model
    config = dataclasses.replace(CONFIG, **changes)
    history = train(model, tiny.tiny_dataset() if dataset is None else dataset, config, output, resume)
    return model, history


def stop_at(model: IMECD, step: int, stop) -> IMECD:
    """The model with ``stop`` called in the middle of training step ``step``, counted from 0."""
    after_step, count = model.after_step, iter(range(10**6))

    def interrupted(output: LossOutput) -> None:
        if next(count) == step:
            stop()
        after_step(output)

    model.after_step = interrupted
    return model


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def rows_of(history: History) -> list[dict[str, float]]:
    """What must repeat: everything but the time it took."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history.rows]


def assert_same_weights(model: torch.nn.Module, other: torch.nn.Module) -> None:
    weights, others = model.state_dict(), other.state_dict()
    assert set(weights) == set(others)
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []


def assert_same_run(run_: tuple, other: tuple, folder: Path | None = None, other_folder: Path | None = None) -> None:
    """Bitwise the same weights, history, best epoch on disk and state to resume from."""
    assert_same_weights(run_[0], other[0])
    assert rows_of(run_[1]) == rows_of(other[1])
    if folder:
        assert (folder / "model.safetensors").read_bytes() == (other_folder / "model.safetensors").read_bytes()
        state, others = read_tensors(folder / STATE_FILE)[0], read_tensors(other_folder / STATE_FILE)[0]
        assert set(state) == set(others)
        assert [name for name in state if not torch.equal(state[name], others[name])] == []
        assert [row["epoch"] for row in read_history(folder)] == [row["epoch"] for row in run_[1].rows]
        assert not list(folder.glob("*.partial"))


def read_history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[tuple, Path]:
    """A run that nobody interrupted, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return run(folder), folder


def test_each_step_is_shown_with_its_gradients_and_the_epochs_choice_of_codes_is_counted():
    model, seen = new_model(), []

    def watch(output: LossOutput) -> None:
        indices = torch.cat([indices for _, indices in output.chosen["text"]])
        seen.append((output.total.item(), indices, model.item_embedding.weight.grad.abs().sum().item()))

    history = train(model, tiny.tiny_dataset(), dataclasses.replace(CONFIG, epochs=1), on_step=watch)
    assert len(seen) == STEPS and all(math.isfinite(loss) and gradient > 0 for loss, _, gradient in seen)
    counts = torch.cat([indices for _, indices, _ in seen]).bincount()
    shares = (counts[counts > 0] / counts.sum()).double()
    (row,) = history.rows
    assert row["text/codes_used"] == len(shares) > 1
    assert row["text/code_perplexity"] == pytest.approx((-(shares * shares.log()).sum()).exp().item())


def test_without_codebooks_no_choice_is_counted():
    _, history = run(model=new_model(use_codebooks=False), epochs=1)
    assert not [name for name in history.rows[0] if "code" in name]


# Repeats exactly


def test_two_runs_with_one_seed_are_bitwise_the_same(whole):
    torch.manual_seed(12345)  # the state of the global generators is none of training's business
    np.random.seed(12345)
    assert_same_run(run(), whole[0])


def test_another_seed_gives_another_run(whole):
    model, history = run(seed=1)
    assert rows_of(history) != rows_of(whole[0][1])
    assert not torch.equal(model.item_embedding.weight, whole[0][0].item_embedding.weight)


def test_training_leaves_the_global_generators_alone():
    torch.manual_seed(0)
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    run(epochs=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_epochs_differ_from_each_other(whole):
    losses = [row["loss"] for row in whole[0][1].rows]
    assert len(set(losses)) == EPOCHS and losses[-1] < losses[0]


def test_a_folder_changes_nothing_about_a_run(whole):
    assert_same_run(run(output=None), whole[0])


# Resumes exactly


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_a_run_stopped_between_epochs_ends_as_one_that_was_not(tmp_path, whole, epoch):
    run(tmp_path, epochs=epoch)
    assert_same_run(run(tmp_path, resume=True), whole[0], tmp_path, whole[1])


def test_so_does_one_with_the_default_settings(tmp_path):
    model, parts = (new_model(**{**tiny.DEFAULTS, "code_lifetime": 2}) for _ in range(2))
    complete = run(tmp_path / "whole", model=model)
    run(tmp_path / "parts", model=parts, epochs=2)
    resumed = run(tmp_path / "parts", resume=True, model=new_model(**{**tiny.DEFAULTS, "code_lifetime": 2}))
    assert_same_run(resumed, complete, tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("step", range(EPOCHS * STEPS))
def test_a_run_interrupted_in_the_middle_of_an_epoch_ends_as_one_that_was_not(tmp_path, whole, step):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, model=stop_at(new_model(), step, raise_interrupt))
    assert_same_run(run(tmp_path, resume=True), whole[0], tmp_path, whole[1])


def test_a_run_interrupted_between_any_two_files_ends_as_one_that_was_not(tmp_path, whole, monkeypatch):
    replace, interrupted = os.replace, 0
    for number in range(100):
        folder, count = tmp_path / str(number), iter(range(100))

        def fail_once(source, target, number=number, count=count):
            if next(count) == number:
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(imecd_lite.files.os, "replace", fail_once)
        try:
            run(folder)
            break
        except KeyboardInterrupt:
            interrupted += 1
        assert_same_run(run(folder, resume=True), whole[0], folder, whole[1])
    assert interrupted >= 2 * EPOCHS, "an epoch writes its state and its history at least"


def test_a_run_interrupted_again_and_again_ends_as_one_that_was_not(tmp_path, whole):
    for step in (STEPS + 1, STEPS - 1, 0, STEPS):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, resume=True, model=stop_at(new_model(), step, raise_interrupt))
    assert_same_run(run(tmp_path, resume=True), whole[0], tmp_path, whole[1])


KILLED_RUN = """
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
import test_train
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
test_train.run(pathlib.Path(sys.argv[2]), model=test_train.stop_at(test_train.new_model(), int(sys.argv[3]), kill))
"""


def test_a_run_killed_in_the_middle_of_an_epoch_ends_as_one_that_was_not(tmp_path, whole):
    arguments = [str(Path(__file__).parent), str(tmp_path), str(STEPS + 1)]
    killed = subprocess.run([sys.executable, "-c", KILLED_RUN, *arguments], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(read_history(tmp_path)) == 1
    assert_same_run(run(tmp_path, resume=True), whole[0], tmp_path, whole[1])


def test_resuming_a_finished_run_changes_nothing(tmp_path, whole):
    run(tmp_path)
    assert_same_run(run(tmp_path, resume=True), whole[0], tmp_path, whole[1])


def test_resuming_starts_afresh_where_there_is_nothing_yet(tmp_path, whole):
    assert_same_run(run(tmp_path / "new", resume=True), whole[0], tmp_path / "new", whole[1])


def test_a_finished_run_can_be_given_more_epochs(tmp_path, whole):
    run(tmp_path, epochs=1, patience=1)
    assert_same_run(run(tmp_path, resume=True, epochs=EPOCHS, patience=EPOCHS), whole[0], tmp_path, whole[1])


OTHER_SETTINGS = {"batch_size": 8, "learning_rate": 0.02, "max_prefixes_per_user": None, "seed": 1}
OTHER_SETTINGS |= {"checkpoint_dtype": "float16"}


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_a_run_is_not_resumed_with_other_settings(tmp_path, name):
    run(tmp_path, epochs=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError) as caught:
        run(tmp_path, resume=True, **{name: OTHER_SETTINGS[name]})
    message = str(caught.value)
    assert name in message and repr(getattr(CONFIG, name)) in message and repr(OTHER_SETTINGS[name]) in message
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_run_is_not_resumed_in_other_arithmetic(tmp_path, monkeypatch):
    run(tmp_path, epochs=1)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(InputError, match="was trained with mixed_precision 'no', not 'bf16'"):
        run(tmp_path, resume=True)


def test_every_training_setting_but_the_length_of_the_run_is_held_against_the_run():
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    assert names - set(OTHER_SETTINGS) == {"epochs", "patience"}


@pytest.mark.parametrize("changes", [{"lambda_c": 0.5}, {"hidden_size": 8}, {"use_codebooks": False}], ids=str)
def test_a_run_is_not_resumed_with_another_model(tmp_path, changes):
    run(tmp_path, epochs=1)
    with pytest.raises(InputError, match=next(iter(changes))):
        run(tmp_path, resume=True, model=new_model(**changes))


def test_a_run_is_not_resumed_with_other_features(tmp_path):
    run(tmp_path, epochs=1)
    other = new_model()
    other.text_features += 1
    with pytest.raises(InputError, match=r"was trained with features '\w+', not '\w+'"):
        run(tmp_path, resume=True, model=other)


def test_a_run_is_not_resumed_on_other_data(tmp_path):
    run(tmp_path, epochs=1)
    with pytest.raises(InputError, match="dataset"):
        run(tmp_path, resume=True, dataset=tiny.tiny_dataset(tiny.random_sequences(seed=1)))


def test_a_state_file_that_is_truncated_or_foreign_is_refused(tmp_path):
    run(tmp_path, epochs=1)
    state = tmp_path / STATE_FILE
    whole_state = state.read_bytes()
    for content in (whole_state[:-1], b"something else", (tmp_path / "model.safetensors").read_bytes()):
        state.write_bytes(content)
        with pytest.raises(InputError, match=STATE_FILE) as refused:
            run(tmp_path, resume=True)
        assert "train again" in str(refused.value)
    state.write_bytes(whole_state)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").unlink()
    run(tmp_path, epochs=1, resume=True)
    assert (tmp_path / "model.safetensors").read_bytes() == weights, "its best weights are in the state"


# The best epoch is kept


class Scripted(Recommender):
    """A model whose only weight counts the steps, on a loss that is the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.register_buffer("steps", torch.zeros(()))
        self.fitted = 0

    def fit_statistics(self, dataset) -> None:
        self.fitted += 1

    def loss(self, batch, generator) -> LossOutput:
        assert self.training, "dropout must act"
        loss = self.weight * 0 + len(batch.pos_items)
        return LossOutput(loss, {"size": loss.detach(), "square": loss.detach() ** 2})

    def after_step(self, output) -> None:
        self.steps += 1


def scripted_run(monkeypatch, ranks: list[list[int]], patience: int = 100, output: Path | None = None, done: int = 0):
    """Train a scripted model whose validation ranks in each epoch are given, ``done`` epochs being done already."""
    script = iter(ranks[done:])
    monkeypatch.setattr(imecd_lite.train, "target_ranks", lambda *args, **kwargs: np.array(next(script)))
    model, calls = Scripted(), []
    config = dataclasses.replace(CONFIG, epochs=len(ranks), patience=patience)
    history = train(model, tiny.tiny_dataset(), config, output, resume=done > 0, on_epoch=calls.append)
    assert calls == history.rows[done:] and model.fitted == (done == 0)
    return model, history


def test_training_stops_after_patience_epochs_without_a_better_ndcg_and_keeps_the_best(monkeypatch, tmp_path):
    ranks = [[9], [2], [2], [5], [3], [1], [1]]  # the second is best until patience ends; a tie is not better
    model, history = scripted_run(monkeypatch, ranks, patience=3, output=tmp_path)
    assert len(history.rows) == 5 and history.best_epoch == 2
    assert model.steps == 2 * STEPS and not model.training
    assert read_tensors(tmp_path / "model.safetensors")[0]["steps"] == 2 * STEPS
    state = read_tensors(tmp_path / STATE_FILE)[0]
    assert state["best/steps"] == 2 * STEPS and state["model/steps"] == 5 * STEPS


def test_the_best_epoch_is_returned_without_a_folder_too(monkeypatch):
    model, _ = scripted_run(monkeypatch, [[9], [2], [5]])
    assert model.steps == 2 * STEPS


def test_a_resumed_run_goes_on_from_the_last_epoch_and_still_knows_the_best(monkeypatch, tmp_path):
    ranks = [[1], [5], [6]]
    scripted_run(monkeypatch, ranks[:2], output=tmp_path)
    model, history = scripted_run(monkeypatch, ranks, output=tmp_path, done=2)
    assert history.best_epoch == 1 and model.steps == STEPS
    assert read_tensors(tmp_path / STATE_FILE)[0]["model/steps"] == 3 * STEPS


def test_best_means_ndcg_at_10_and_no_other_metric(monkeypatch):
    _, history = scripted_run(monkeypatch, [[9, 9], [1, 20], [8, 8]])
    assert [row["valid_hit@10"] for row in history.rows] == [1, 0.5, 1]
    assert [row["valid_ndcg@10"] for row in history.rows] == pytest.approx([1 / math.log2(10), 0.5, 1 / math.log2(9)])
    assert history.best_epoch == 2


def test_training_ends_with_its_epochs(monkeypatch):
    _, history = scripted_run(monkeypatch, [[4], [3], [2], [1]], patience=1)
    assert [row["epoch"] for row in history.rows] == [1, 2, 3, 4] and history.best_epoch == 4


def test_history_without_epochs_has_no_best():
    assert History().best_epoch == 0


def test_reported_loss_is_the_mean_over_examples_and_not_over_batches():
    dataset, model = tiny.tiny_dataset(), Scripted()
    config = dataclasses.replace(CONFIG, batch_size=20)
    sizes = [len(batch.pos_items) for batch in train_batches(dataset, 20, 0, 1, config.max_prefixes_per_user)]
    assert len(set(sizes)) > 1, "the last batch must be smaller for the test to mean anything"
    row = train_epoch(model, torch.optim.Adam(model.parameters()), dataset, config, 1, torch.device("cpu"))
    expected = sum(size * size for size in sizes) / sum(sizes)
    assert row["loss"] == row["size"] == pytest.approx(expected)
    assert row["square"] == pytest.approx(sum(size**3 for size in sizes) / sum(sizes))


@pytest.mark.parametrize("steps", [0, 10_000], ids=["before groups", "with groups"])
def test_the_host_never_waits_for_the_device_within_a_step(steps):
    """Fake tensors have no values: whatever asks for one, or for a size that hangs on one, is an error."""
    model, batch = tiny.tiny_model(**tiny.DEFAULTS), next(train_batches(tiny.tiny_dataset(), 8, 0, 1, None))
    fake = FakeTensorMode()
    with FakeCopyMode(fake):
        model, batch = copy.deepcopy(model), copy.deepcopy(batch)
    model.groups.steps = steps
    with fake:
        output = training_step(model, make_optimizer(model, TrainConfig()), batch, torch.Generator())
        assert model.groups.steps == steps + 1
        with pytest.raises(DataDependentOutputException):
            output.total.item()


def test_a_loss_that_is_no_number_ends_training_with_advice_and_spoils_nothing(tmp_path):
    run(tmp_path, epochs=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    model = new_model()
    model.denoisers["id"].register_forward_hook(lambda module, inputs, output: output * float("nan"))
    with pytest.raises(InputError, match=r"loss is nan in epoch 2.*learning_rate"):
        run(tmp_path, resume=True, model=model)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


# What a run writes


def test_a_run_writes_its_best_weights_its_history_and_its_state(whole):
    (model, history), folder = whole
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "history.csv", STATE_FILE}
    weights, _ = read_tensors(folder / "model.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    rows = read_history(folder)
    assert rows == history.rows
    assert {"epoch", "loss", "valid_hit@10", "valid_ndcg@10", "seconds", "id/cross_entropy"} <= set(rows[0])
    assert json.loads(read_tensors(folder / STATE_FILE)[1]["rows"]) == history.rows


def test_half_precision_halves_the_weights_on_disk_and_not_those_in_memory(tmp_path, whole):
    model, _ = run(tmp_path, checkpoint_dtype="float16")
    assert_same_weights(model, whole[0][0])
    size, whole_size = ((folder / "model.safetensors").stat().st_size for folder in (tmp_path, whole[1]))
    assert size < 0.6 * whole_size
    assert all(tensor.dtype == torch.float16 for tensor in read_tensors(tmp_path / "model.safetensors")[0].values())


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(epochs=1)
    assert not list(tmp_path.iterdir())


def test_a_model_without_parameters_is_fitted_once_and_scored(tmp_path):
    dataset = tiny.tiny_dataset()
    model, history = run(tmp_path, model=Popularity(tiny.CONFIG, tiny.NUM_ITEMS))
    assert len(history.rows) == 1 and "loss" not in history.rows[0]
    counts = np.bincount(np.concatenate([sequence[:-2] for sequence in dataset.sequences]), minlength=14)
    assert np.array_equal(model.counts, counts)
    other, again = run(tmp_path, resume=True, model=Popularity(tiny.CONFIG, tiny.NUM_ITEMS))
    assert np.array_equal(other.counts, counts) and again.rows == history.rows


# Nothing of the future

WATCHERS: list[list[str]] = []
"""Each gets the path of every file opened; an audit hook can't be taken away again, so there is one for all."""


def report_opened(event: str, arguments: tuple) -> None:
    if event == "open" and isinstance(arguments[0], str):
        for opened in WATCHERS:
            opened.append(os.path.abspath(arguments[0]))


sys.addaudithook(report_opened)


@contextlib.contextmanager
def watch_opened() -> Iterator[list[str]]:
    opened = []
    WATCHERS.append(opened)
    try:
        yield opened
    finally:
        WATCHERS.remove(opened)


def with_other_future() -> list[np.ndarray]:
    """Histories whose last two items, the held-out ones, are other items."""
    return [np.append(s[:-2], (s[-2:] + 4) % tiny.NUM_ITEMS + 1) for s in tiny.random_sequences()]


def test_every_training_example_is_a_prefix_and_its_next_item_within_the_training_part():
    dataset = tiny.tiny_dataset()
    seen = set()
    for epoch in (1, 2):
        for batch in train_batches(dataset, 7, seed=0, epoch=epoch, max_prefixes_per_user=None):
            for user, item_seq, target in zip(batch.users, batch.item_seq, batch.pos_items, strict=True):
                history, known = item_seq[item_seq > 0].tolist(), dataset.sequences[user][:-2].tolist()
                ends = [e for e in range(1, len(known)) if known[max(e - 6, 0) : e] == history and known[e] == target]
                assert ends, f"user {user}: {history} -> {target} is not within {known}"
                seen.add((user.item(), ends[0]))
    assert {user for user, _ in seen} == set(range(dataset.num_users))


def losses_by_step(dataset) -> list[float]:
    model, losses = new_model(), []
    loss = model.loss

    def recorded(batch, generator):
        output = loss(batch, generator)
        losses.append(output.total.item())
        return output

    model.loss = recorded
    run(model=model, dataset=dataset, max_prefixes_per_user=None)
    return losses


def test_held_out_items_change_no_training_step():
    losses, others = losses_by_step(tiny.tiny_dataset()), losses_by_step(tiny.tiny_dataset(with_other_future()))
    assert np.array_equal(losses, others)


def test_a_training_item_does_change_it():
    sequences = tiny.random_sequences()
    sequences[0][-3] = sequences[0][-3] % tiny.NUM_ITEMS + 1
    assert losses_by_step(tiny.tiny_dataset()) != losses_by_step(tiny.tiny_dataset(sequences))


def test_test_items_change_nothing_about_a_run():
    """Early stopping may look at the validation items; at the test items, nothing may."""
    sequences = [np.append(s[:-1], s[-1] % tiny.NUM_ITEMS + 1) for s in tiny.random_sequences()]
    assert_same_run(run(dataset=tiny.tiny_dataset(sequences)), run())


def test_no_truth_file_is_opened(tmp_path):
    """Whatever else lies in a dataset folder, loading and training open the files of the format and no others."""
    folder = write_ids(tmp_path / "data", num_items=tiny.NUM_ITEMS)
    names = ("truth.csv", "truth.json", "truth_items.csv", "users_truth.csv", "truth/items.csv")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("the answer", encoding="utf-8")
    with watch_opened() as opened:
        dataset = load_dataset(folder, max_length=6)
        run(tmp_path / "run", model=tiny.tiny_model(use_text=False, use_image=False).float(), dataset=dataset, epochs=1)
    within = {Path(path).relative_to(folder).as_posix() for path in opened if Path(path).is_relative_to(folder)}
    assert within == {"interactions.csv"}


@pytest.mark.parametrize(
    ("scores", "patience", "expected"),
    [
        ([0.1, 0.3, 0.2, 0.2, 0.4], 2, (2, 4)),
        ([0.1, 0.3, 0.2, 0.2, 0.4], 3, (5, 5)),
        ([0.3, 0.3, 0.3, 0.3], 2, (1, 3)),
        ([0.1, 0.2, 0.3], 1, (3, 3)),
        ([0.5], 5, (1, 1)),
    ],
)
def test_a_known_curve_is_stopped_where_training_would_have_stopped(scores, patience, expected):
    assert replay(scores, patience) == expected


def test_a_run_and_its_replay_agree():
    _, history = run(epochs=8, patience=1, learning_rate=0.1)
    scores = [row["valid_ndcg@10"] for row in history.rows]
    assert replay([*scores, 9.9], 1) == (history.best_epoch, len(scores)) and len(scores) < 8
