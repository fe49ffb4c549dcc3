"""The README's table of equations: every equation is there, and every function, section and test exists."""

import importlib
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| ([\d, ]+) \| .+ \| `([\w.]+)` \| \[\d\d\]\((.+)\) \*(.+)\* \| `([\w.]+)` \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))


def find(dotted: str, package: str = "") -> object:
    """What a dotted name stands for, its first part a module."""
    module, *names = dotted.split(".")
    found = importlib.import_module(package + module)
    for name in names:
        found = getattr(found, name)
    return found


def test_every_equation_of_the_paper_is_in_the_table():
    listed = [int(number) for equations, *_ in ROWS for number in equations.split(",")]
    assert sorted(set(listed)) == list(range(1, 23))


@pytest.mark.parametrize("equations, code, notebook, section, test", ROWS, ids=[f"{row[0]} {row[1]}" for row in ROWS])
def test_the_code_the_section_and_the_test_of_an_equation_exist(equations, code, notebook, section, test):
    assert callable(find(code, "imecd_lite."))
    assert test.split(".")[1].startswith("test_") and callable(find(test))
    cells = nbformat.read(ROOT / notebook, as_version=4).cells
    (start,) = [i for i, cell in enumerate(cells) if f"## {section}" in cell.source.split("\n")]
    assert cells[start + 1].cell_type == "code"  # the equation stands beside the code that computes it
