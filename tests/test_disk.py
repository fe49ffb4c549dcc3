"""Full disks, read-only folders, killed processes: a sentence, nothing half-written, and the next run ends as if."""

import contextlib
import errno
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made_data import write_ids, write_shop
from test_cli import SMALL, command, refused

import imecd_lite.files
from imecd_lite.__main__ import main
from imecd_lite.files import read_json, read_tensors

KILLS = 20
KEPT = "; what was finished is kept."


class Disk:
    """A file system in memory, with a size."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path

    def mount(self, options: str) -> None:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "imecd-test", self.path], check=True, capture_output=True
        )

    def resize(self, size: int) -> None:
        self.mount(f"remount,size={size}")


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "disk")
    if not shutil.which("mount"):
        pytest.skip("there is no mount command here")
    try:
        disk.mount("size=1m")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a small disk can't be mounted here: {error.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk.path], check=True)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    return write_shop(tmp_path_factory.mktemp("data") / "shop")


@pytest.fixture(scope="module")
def ids(tmp_path_factory) -> Path:
    return write_ids(tmp_path_factory.mktemp("data") / "ids")


def prepare(shop: Path, output: Path) -> tuple:
    files = ("--interactions", shop / "interactions.csv", "--items", shop / "items.csv")
    return ("prepare", "csv", *files, "--output", output)


def train(ids: Path, output: Path) -> tuple:
    return ("train", "--data", ids, "--output", output, *SMALL)


@pytest.fixture(scope="module")
def trained(ids, tmp_path_factory) -> Path:
    """A run that nothing went wrong in."""
    output = tmp_path_factory.mktemp("trained") / "run"
    assert command(*train(ids, output))[0] == 0
    return output


def result(folder: Path) -> dict[str, object]:
    """What is in the files below a folder; what a clock says is left out."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, content = str(path.relative_to(folder)), path.read_bytes()
        if name == "training_state.safetensors":
            content = {key: tensor.numpy().tobytes() for key, tensor in read_tensors(path)[0].items()}
        elif name == "history.csv":
            content = re.sub(rb",[\d.]+$", b"", content, flags=re.MULTILINE)  # seconds come last
        elif name == "metrics.json":
            content = json.loads(content) | {"seconds": 0}
        found[name] = content
    return found


def size_of(folder: Path) -> int:
    """In pages of 4,096 bytes, each file for itself, as a file system in memory counts."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def check_whole(folder: Path) -> None:
    """No file is there in part."""
    for path in folder.rglob("*"):
        assert not (path.is_file() and path.name.endswith(".partial")), path
        if path.suffix == ".safetensors":
            read_tensors(path)
        elif path.suffix == ".json":
            read_json(path)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.95])
def test_a_full_disk_ends_training_in_a_sentence_and_it_resumes_to_the_same_end(ids, trained, disk, share):
    whole = size_of(trained)
    disk.resize(max(int(share * whole), 4096))
    run = disk.path / "run"
    complaint = refused(*train(ids, run))
    assert complaint.startswith(f"imecd_lite train: {run}") and "(No space left on device)" in complaint
    assert complaint.endswith("; make room on that disk and give the command again, with --resume" + KEPT)
    check_whole(disk.path)
    disk.resize(4 * whole)
    status, _, complaint = command(*train(ids, run), "--resume")
    assert status == 0, complaint
    assert result(run) == result(trained)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_full_disk_ends_prepare_in_a_sentence_and_it_ends_as_if_it_had_not(tmp_path, shop, disk, share):
    assert command(*prepare(shop, tmp_path / "whole"))[0] == 0
    whole = size_of(tmp_path / "whole")
    disk.resize(max(int(share * whole), 4096))
    complaint = refused(*prepare(shop, disk.path / "out"))
    sentence = (
        f"imecd_lite prepare csv: The disk of {disk.path / 'out.partial'} is full; free some space and give the same"
    )
    assert complaint.startswith(sentence)
    assert not (disk.path / "out").exists()
    disk.resize(4 * whole)
    status, _, complaint = command(*prepare(shop, disk.path / "out"))
    assert status == 0 and not (disk.path / "out.partial").exists(), complaint
    assert result(disk.path / "out") == result(tmp_path / "whole")


def test_a_full_disk_ends_encode_in_a_sentence_and_spares_the_old_features(tmp_path, shop, disk):
    features = disk.path / "features.safetensors"
    assert command("encode", "--data", shop, "--features", features)[0] == 0
    old, data = features.read_bytes(), shutil.copytree(shop, tmp_path / "shop")
    (data / "items.csv").write_text((data / "items.csv").read_text().replace("Thing 0", "Another"))
    disk.resize(size_of(disk.path) + 4096)
    complaint = refused("encode", "--data", data, "--features", features)
    assert complaint.startswith(f"imecd_lite encode: {features} can't be read or written (No space left on device); ")
    assert [path.name for path in disk.path.iterdir()] == [features.name] and features.read_bytes() == old
    disk.resize(1 << 20)
    assert command("encode", "--data", data, "--features", features)[0] == 0 and features.read_bytes() != old


def test_a_read_only_folder_is_named(ids, shop, disk):
    data, run = shutil.copytree(shop, disk.path / "shop"), disk.path / "run"
    assert command(*train(ids, run))[0] == 0
    before = result(disk.path)
    disk.mount("remount,ro")
    remedy = "(Read-only file system); name a folder that can be written to and give the command again"
    for arguments in (train(ids, disk.path / "new"), prepare(shop, disk.path / "out")):
        complaint = refused(*arguments)
        assert str(disk.path) in complaint and remedy in complaint and complaint.endswith(KEPT)
    assert remedy in refused(*train(ids, run), "--resume")
    assert f"{data / 'features.safetensors'} can't be written" in refused("encode", "--data", data)
    assert command("evaluate", "--data", ids, "--checkpoint", run)[0] == 0
    assert result(disk.path) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_ones_own_is_named(tmp_path, ids):
    (tmp_path / "theirs").mkdir(mode=0o500)
    complaint = refused(*train(ids, tmp_path / "theirs/run"))
    assert "(Permission denied); give yourself the right to it, or name another folder and give" in complaint


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO])
def test_each_fault_of_a_disk_is_one_sentence_that_names_the_file(tmp_path, ids, monkeypatch, number):
    def broken(source, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(imecd_lite.files.os, "replace", broken)
    complaint = refused(*train(ids, tmp_path / "run"))
    config = tmp_path / "run/config.json"
    assert complaint.startswith(f"imecd_lite train: {config} can't be read or written ({os.strerror(number)}); ")
    assert complaint.endswith("give the command again, with --resume" + KEPT) and not list((tmp_path / "run").iterdir())


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, ids):
    (tmp_path / "file").write_text("not a folder")
    assert f"{tmp_path / 'file'}" in refused(*train(ids, tmp_path / "file"))


def test_what_a_killed_run_left_is_in_nobodys_way(tmp_path, ids, trained):
    (tmp_path / "run").mkdir()
    for name in os.listdir(trained):
        (tmp_path / "run" / f"{name}.partial").write_bytes(b"half a fi")
    assert command(*train(ids, tmp_path / "run"))[0] == 0
    assert result(tmp_path / "run") == result(trained)


# --- kill -9

SERVER = multiprocessing.get_context("forkserver")  # its children have imported everything already
VIT = "transformers.models.vit."
ENCODERS = ["transformers.models.roberta.modeling_roberta", VIT + "modeling_vit", VIT + "image_processing_pil_vit"]
SERVER.set_forkserver_preload(["imecd_lite.__main__", "imecd_lite.runs", "imecd_lite.tabular", *ENCODERS])


def run(arguments: list[str]) -> None:
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        status = main(arguments)
    raise SystemExit(status)


def run_for(arguments: tuple, seconds: float | None = None) -> tuple[int, float]:
    """Run a command in a process and kill it after ``seconds``: its exit status, -9 if it was killed, and its time."""
    process, start = SERVER.Process(target=run, args=([str(argument) for argument in arguments],)), time.perf_counter()
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode, time.perf_counter() - start


def check_kills(folder: Path, begin: Callable[[Path], tuple], resume: tuple = ()):
    """Kill a command at random moments and run it again: its result is that of one that was left alone."""
    run_for(begin(folder / "first"))
    status, seconds = run_for(begin(folder / "whole"))
    assert status == 0
    whole, rng, killed = result(folder / "whole"), random.Random(0), 0
    for number in range(KILLS):
        output = folder / str(number)
        arguments = begin(output)
        killed += run_for(arguments, rng.uniform(0, seconds))[0] == -9
        prepared = (output / "prepare.json").exists()  # prepare leaves alone what is there
        status, _ = run_for((*arguments, *resume))
        assert status == (2 if prepared else 0)
        assert result(output) == whole
        assert not (folder / f"{number}.partial").exists()
    assert killed >= KILLS // 4, "most ended before they were killed"


@pytest.mark.slow
def test_prepare_killed_at_any_moment_ends_as_if_it_had_not_been(tmp_path, shop):
    check_kills(tmp_path, lambda output: prepare(shop, output))


@pytest.mark.slow
def test_encode_killed_at_any_moment_ends_as_if_it_had_not_been(tmp_path, shop):
    check_kills(tmp_path, lambda output: ("encode", "--data", shop, "--features", output / "features.safetensors"))


@pytest.mark.slow
def test_train_killed_at_any_moment_ends_as_if_it_had_not_been(tmp_path, ids):
    check_kills(tmp_path, lambda output: train(ids, output), ("--resume",))
