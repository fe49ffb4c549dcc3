"""The notebooks as files: executed, clean, small, and readable without a kernel; nbval runs them."""

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


@pytest.fixture(params=NOTEBOOKS, ids=NAMES)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook) -> list:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_there_are_notebooks_and_the_first_is_the_start():
    assert NAMES[0] == "00_start_here"


def test_every_code_cell_was_run_from_top_to_bottom(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), "run `make notebooks`"


def test_no_output_is_an_error_or_a_warning(notebook):
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.get("text")


def test_metadata_are_clean(notebook):
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"jupyter", "tags", "collapsed"}
    nbformat.validate(notebook)


def test_files_are_small(path):
    assert path.stat().st_size < 3_000_000


def test_no_output_names_a_place_on_this_machine(notebook):
    text = "\n".join(str(output) for output in outputs(notebook))
    assert not re.search(r"(/home/|/root/|/tmp/|[A-Z]:\\\\|/\w+/(\S*/)?(notebooks|imecd_lite|site-packages)/)", text)


def test_every_picture_has_a_text(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert "![](" not in cell.source
    for output in outputs(notebook):
        for tag in re.findall(r"<img [^>]*>", output.get("data", {}).get("text/html", "")):
            assert re.search(r'alt="[^"]+"', tag), tag[:80]


def test_links_to_files_lead_somewhere(path, notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", cell.source):
                if "://" not in target:
                    assert (path.parent / target).exists(), target


def test_opening_says_what_it_takes(notebook):
    opening = notebook.cells[0].source
    for line in ("You will", "You need", "Teaching", "Run All takes"):
        assert f"| {line} |" in opening
