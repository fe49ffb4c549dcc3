"""Two processes that share a batch do what one does with all of it."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from made_data import write_ids
from safetensors.torch import load_file, save_file

from imecd_lite.__main__ import main
from imecd_lite.config import TrainConfig
from imecd_lite.errors import InputError
from imecd_lite.evaluate import target_ranks
from imecd_lite.processes import (
    gather,
    is_main,
    join,
    mean_gradients,
    mixed_precision,
    num_processes,
    own_rows,
    share_codes,
    total,
)
from imecd_lite.train import make_optimizer, training_step

HERE = Path(__file__).parent


def launch(*command: str) -> subprocess.CompletedProcess:
    """Start ``command`` with two processes, on this machine's CPU."""
    launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    places = os.pathsep.join((str(HERE), str(HERE.parent)))
    return subprocess.run(
        [sys.executable, "-m", *launcher, *command],
        env=os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def steps(path: str) -> None:
    """Two training steps, then everybody's rank; what the first process is left with is written to ``path``."""
    model, batch = tiny.tiny_model(**tiny.DEFAULTS | {"code_lifetime": 0, "dropout": 0.0}), tiny.tiny_batch()[:4]
    optimizer, generator, left = make_optimizer(model, TrainConfig()), torch.Generator().manual_seed(3), {}
    for _ in range(2):
        output = training_step(model, optimizer, batch, generator)
        left |= {f"term/{name}": total(value.clone()) / num_processes() for name, value in output.terms.items()}
    dataset = tiny.tiny_dataset()
    left["ranks"] = torch.from_numpy(target_ranks(model, dataset, dataset.split("test"), batch_size=2))
    left["processes"] = torch.tensor(num_processes())
    if is_main():
        save_file(left | model.state_dict(), path)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("steps")
    steps(str(folder / "one"))
    done = launch("-m", "test_processes", str(folder / "two"))
    assert done.returncode == 0, done.stderr
    return [load_file(folder / name) for name in ("one", "two")]


def test_losses_are_those_of_the_joined_batch(both):
    one, two = both
    names = [name for name in one if name.startswith("term/")]
    assert {"term/id/contrastive", "term/text/gate", "term/image/cross_entropy"} <= set(names)
    for name in names:
        torch.testing.assert_close(two[name], one[name], msg=name)


def test_weights_codes_and_groups_end_as_those_of_one_process(both):
    one, two = both
    assert set(one) == set(two) and two.pop("processes") == 2
    for name in two:
        if not name.startswith("term/"):
            torch.testing.assert_close(two[name], one[name], rtol=1e-7, atol=1e-9, msg=name)


def test_the_launcher_says_which_arithmetic():
    command = ("--cpu", "--num_processes", "1", "--mixed_precision", "bf16", "-m", "test_processes", "precision")
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *command],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent)))},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout == "bf16\n", done.stderr
    assert mixed_precision() == "no"


def test_arithmetic_that_is_not_offered_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(InputError, match=r"'fp16' is not offered; launch with --mixed_precision bf16 or no"):
        mixed_precision()


def test_each_user_is_ranked_once(both):
    assert (both[1]["ranks"] >= 1).all() and len(both[1]["ranks"]) == tiny.tiny_dataset().num_users


@pytest.mark.slow
def test_training_from_the_command_line_gives_nearly_the_run_of_one_process(tmp_path):
    """Nearly: what is left over of a batch that can't be shared evenly is left out."""
    data = write_ids(tmp_path / "data")
    command = ("-m", "imecd_lite", "train", "--data", str(data), "--device", "cpu", "--hidden-size", "8")
    command += ("--num-train-timesteps", "8", "--dropout", "0", "--epochs", "2", "--batch-size", "4")
    alone = subprocess.run(
        [sys.executable, *command, "--output", str(tmp_path / "one")], capture_output=True, text=True, cwd=HERE.parent
    )
    shared = launch(*command, "--output", str(tmp_path / "two"))
    assert (alone.returncode, shared.returncode) == (0, 0), alone.stderr + shared.stderr
    assert shared.stdout.count("validation N@10") == 2, "one of them speaks"
    assert "sharing each batch of 4" in shared.stdout
    runs = [pd.read_csv(tmp_path / name / "history.csv") for name in ("one", "two")]
    assert runs[1]["loss"].to_numpy() == pytest.approx(runs[0]["loss"].to_numpy(), rel=0.01)
    assert runs[1]["id/codes_used"].tolist() == runs[0]["id/codes_used"].tolist()
    ranks = [pd.read_csv(tmp_path / name / "ranks_test.csv") for name in ("one", "two")]
    assert ranks[1]["user_id"].tolist() == ranks[0]["user_id"].tolist()


def test_what_shares_no_work_is_refused_to_a_launcher(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["tune", "--data", "shop", "--output", "tuned", "--trials", "1"]) == 2
    assert "only train shares its work; start this without a launcher" in capsys.readouterr().err


def test_a_process_alone_has_all_rows_and_hears_itself():
    rows, layer = torch.randn(5, 2, requires_grad=True), torch.nn.Linear(2, 1)
    assert join() is None and is_main() and own_rows(5) == slice(0, 5)
    assert gather(rows) is rows and total(rows) is rows
    layer(rows).sum().backward()
    before = layer.weight.grad.clone()
    mean_gradients(layer)
    share_codes(rows)
    assert torch.equal(layer.weight.grad, before)


if __name__ == "__main__":
    join()
    if sys.argv[1] == "precision":
        print(mixed_precision())
    else:
        steps(sys.argv[1])
