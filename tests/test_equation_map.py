"""The README's table of equations: every equation is there, and every entry exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| ([\d, ]+) \| .+ \| `([\w.]+)` \| `([\w.]+)` \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))


def find(dotted: str, package: str = "") -> object:
    """What a dotted name stands for, its first part a module."""
    module, *names = dotted.split(".")
    found = importlib.import_module(package + module)
    for name in names:
        found = getattr(found, name)
    return found


def test_every_equation_of_the_paper_is_in_the_table():
    listed = [int(number) for equations, _, _ in ROWS for number in equations.split(",")]
    assert sorted(set(listed)) == list(range(1, 23))


@pytest.mark.parametrize("equations, code, test", ROWS, ids=[f"{eq} {code}" for eq, code, _ in ROWS])
def test_the_code_and_the_test_of_an_equation_exist(equations, code, test):
    assert callable(find(code, "imecd_lite."))
    assert test.split(".")[1].startswith("test_") and callable(find(test))
