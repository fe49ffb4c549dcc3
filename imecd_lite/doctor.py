"""Is this machine fit for a workshop? Everything is checked offline."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from imecd_lite.config import BUNDLED_DATA

CONSTRAINTS = BUNDLED_DATA.parent / "constraints.txt"
SUMS_FILE = BUNDLED_DATA / "SHA256SUMS"
CORE_PACKAGES = (
    *("torch", "numpy", "pandas", "pillow", "safetensors", "tokenizers", "transformers", "scikit-learn", "umap-learn"),
    *("plotly", "jupyterlab", "ipykernel", "ipywidgets", "jupyterlab_widgets", "anywidget", "tqdm"),
)
GIGABYTES_OF_MEMORY = 4


class Check(NamedTuple):
    """One finding."""

    passed: bool
    text: str  # what was found and, where it failed, what to do


def doctor(say: Callable[[str], None] = print) -> int:
    """Say every finding and a verdict; returns the exit status, 1 when something is broken."""
    checks = list(run_checks())
    for check in checks:
        say(f"{'ok     ' if check.passed else 'BROKEN '}{check.text}")
    broken = sum(not check.passed for check in checks)
    say(f"{broken} of {len(checks)} checks failed." if broken else f"All {len(checks)} checks passed: ready to go.")
    return int(broken > 0)


def run_checks() -> Iterator[Check]:
    """All findings, in the order a person would look."""
    version = platform.python_version()
    yield Check(sys.version_info >= (3, 11), f"Python {version} (3.11 or newer)")
    parts = (check_kernel, check_widget_manager, check_bundled_data, check_memory, check_torch)
    for check in (lambda: check_packages(read_pins(CONSTRAINTS)), *parts):
        try:
            found = check()
            yield from [found] if isinstance(found, Check) else found
        except FileNotFoundError as error:
            yield Check(False, f"{error.filename} is missing; run `git checkout data constraints.txt`")
        except (ImportError, OSError) as error:  # OSError: a library of it is broken
            yield Check(False, f"{error}; run `make setup`")


def read_pins(path: Path) -> dict[str, str]:
    """The exact versions that a constraints file asks for, by package."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return dict(line.split("==") for line in lines if line)


def check_packages(pins: dict[str, str]) -> Iterator[Check]:
    """Is each package there, in the pinned version? Build labels such as +cpu don't count."""
    for name in CORE_PACKAGES:
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(False, f"{name} is missing; run `make setup`")
            continue
        passed = found.split("+")[0] == pins[name]
        yield Check(passed, f"{name} {found}" + ("" if passed else f", not {pins[name]}; run `make setup`"))


def check_kernel() -> Check:
    """Do notebooks run in the environment that JupyterLab was started from?"""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        return Check(False, "there is no python3 kernel; run `make setup`")
    kernel = shutil.which(command) or command
    same = Path(kernel).parent == Path(sys.executable).parent or command in ("python", "python3")
    return Check(
        same, f"the python3 kernel runs {'this' if same else 'another'} Python" + _mend(same, "start `make lab`")
    )


def check_widget_manager() -> Check:
    """Has JupyterLab the extension that draws ipywidgets, in the same environment?"""
    folder = Path(sys.prefix) / "share/jupyter/labextensions/@jupyter-widgets/jupyterlab-manager"
    try:
        version = json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"]
    except FileNotFoundError:
        return Check(False, "JupyterLab's widget manager is missing: widgets would show as text; run `make setup`")
    return Check(True, f"JupyterLab's widget manager {version}")


def hash_bundled_data() -> dict[str, str]:
    """The hash of each folder of the bundled data."""
    from imecd_lite.files import tree_hash

    folders = sorted(path for path in BUNDLED_DATA.iterdir() if path.is_dir())
    return {folder.name: tree_hash(folder, skip=("training_state.safetensors",)) for folder in folders}


def check_bundled_data() -> Iterator[Check]:
    """Are shop, encoders and checkpoints byte for byte what was released?"""
    found = hash_bundled_data()
    for line in SUMS_FILE.read_text(encoding="utf-8").splitlines():
        digest, name = line.split()
        passed = found.get(name) == digest
        changed = "was changed; run `git checkout data`, and delete what `git status data` still names"
        yield Check(passed, f"data/{name} {'as released' if passed else changed}")


def check_memory() -> Check:
    """Is there memory enough for a notebook?"""
    import psutil

    gigabytes = psutil.virtual_memory().total / 1e9
    enough = gigabytes >= GIGABYTES_OF_MEMORY
    return Check(enough, f"{gigabytes:.0f} GB of memory" + _mend(enough, f"{GIGABYTES_OF_MEMORY} GB are needed"))


def check_torch() -> Check:
    """Does PyTorch work, and on what?"""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    works = float(torch.ones(2) @ torch.ones(2)) == 2.0
    return Check(works, f"PyTorch computes on {device}, {torch.get_num_threads()} threads")


def _mend(passed: bool, advice: str) -> str:
    return "" if passed else f"; {advice}"
