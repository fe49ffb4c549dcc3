"""Set-up and its files: they agree with each other, and each failure is one sentence."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import imecd_lite
from imecd_lite.doctor import read_pins

ROOT = Path(__file__).parents[1]


def load_setup():
    spec = importlib.util.spec_from_file_location("project_setup", ROOT / "tools/setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup = load_setup()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_requirement_is_pinned_and_the_pin_satisfies_it():
    pins = {name.lower().replace("_", "-"): version for name, version in read_pins(ROOT / "constraints.txt").items()}
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]:
        requirement = Requirement(text)
        assert requirement.name in pins, f"{text} has no pin in constraints.txt"
        assert requirement.specifier.contains(pins[requirement.name]), text


def test_the_installed_environment_is_the_pinned_one():
    from importlib.metadata import version

    for name, pin in read_pins(ROOT / "constraints.txt").items():
        if name in PROJECT["dependencies"]:
            assert version(name).split("+")[0] == pin, name


def test_a_kernel_starts_without_building_a_grammar():
    """From 4.25 on, jsonschema imports one that takes seconds; plotly imports jsonschema."""
    program = "import sys, imecd_lite.widgets; sys.exit('lark' in sys.modules or 'jsonschema' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_conda_installs_the_same_constrained_set():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert pip == "pip"
    assert packages["pip"] == ["-c constraints.txt", "-e .[test]"]
    assert python.startswith("python" + PROJECT["requires-python"])


def test_an_old_python_is_told_so():
    with pytest.raises(setup.SetupError, match=r"Python 3\.9 is too old: install Python 3\.11"):
        setup.check_python((3, 9, 18))
    setup.check_python((3, 11, 0))


def test_the_script_is_readable_for_an_old_python():
    import ast

    ast.parse((ROOT / "tools/setup.py").read_text(), feature_version=(3, 7))


def test_a_full_disk_is_told_so():
    with pytest.raises(setup.SetupError, match=r"The disk has 1\.5 GB left and the packages need 4 GB"):
        setup.check_disk(1.5e9)
    setup.check_disk(5e9)


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("Retrying ... Failed to establish a new connection: [Errno 111]", "package index can't be reached"),
        (
            "ERROR: Could not find a version that satisfies the requirement a==1 (from versions: none)",
            "can't be reached",
        ),
        (
            "WARNING: x\nERROR: Could not find a version that satisfies the requirement a==1 (from versions: 0.1, 0.2)",
            "There is no a==1 for this Python and this system",
        ),
        ("ERROR: Cannot install a and b", "pip failed: ERROR: Cannot install a and b"),
        ("", "pip failed: no output"),
    ],
)
def test_a_failed_install_is_one_sentence(log, sentence):
    assert sentence in setup.explain(log)
    assert "\n" not in setup.explain(log)


def test_no_network_ends_in_one_sentence(tmp_path):
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    run = subprocess.run(
        [sys.executable, "tools/setup.py"],
        cwd=tmp_path / "clone",
        env=environment | unreachable,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 1
    assert re.fullmatch(r"setup: The package index can't be reached: [^\n]+\n", run.stderr)
    assert not (tmp_path / "clone/.venv/imecd-setup").exists()


def test_ci_calls_the_documented_command():
    assert "make test-all" in (ROOT / ".ci/run").read_text()
    assert "make test-all" in (ROOT / "README.md").read_text()


def test_the_table_of_contents_holds_and_everything_in_it_says_what_it_is():
    for name in imecd_lite.__all__:
        assert getattr(imecd_lite, name).__doc__, name
    assert dir(imecd_lite) == sorted(imecd_lite.__all__)
    with pytest.raises(AttributeError, match="no 'nothing'"):
        _ = imecd_lite.nothing
