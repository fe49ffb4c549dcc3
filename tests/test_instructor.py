"""The instructor's guide: its minutes are the notebooks' own, its days add up."""

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
GUIDE = (NOTEBOOKS / "INSTRUCTOR.md").read_text(encoding="utf-8")
MINUTES = re.findall(r"^\| \[.+\]\((\w+\.ipynb)\) \| (\d+) \| (\d*) ?\|", GUIDE, re.MULTILINE)
DAYS = re.findall(r"^## .+ \((\d+) hours (\d+) minutes\)\n\n((?:\|.+\n)+)", GUIDE, re.MULTILINE)


def test_every_notebook_is_in_the_guide():
    assert [name for name, _, _ in MINUTES] == sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name, teaching, exercises", MINUTES, ids=[name for name, _, _ in MINUTES])
def test_its_minutes_are_those_of_the_notebook(name, teaching, exercises):
    opening = nbformat.read(NOTEBOOKS / name, as_version=4).cells[0].source
    assert re.search(rf"^\| Teaching \| {teaching} minutes \|$", opening, re.MULTILINE)
    if exercises:
        assert re.search(rf"^\| Exercises \| {exercises} minutes", opening, re.MULTILINE)


@pytest.mark.parametrize("hours, minutes, table", DAYS, ids=["half a day", "a full day"])
def test_each_part_of_a_day_starts_when_the_one_before_ends(hours, minutes, table):
    clock = 0
    for hour, minute, length in re.findall(r"^\| (\d):(\d\d) \| (\d+) \|", table, re.MULTILINE):
        assert clock == 60 * int(hour) + int(minute)
        clock += int(length)
    assert clock == 60 * int(hours) + int(minutes)


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#\s]+)\)", GUIDE):
        assert (NOTEBOOKS / target).exists(), target
