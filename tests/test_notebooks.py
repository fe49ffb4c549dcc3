"""The notebooks as files: executed, clean, small, and readable without a kernel; nbval runs them."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from imecd_lite.checks import RIGHT, TO_DO

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


def test_nbval_compares_some_text_of_it(notebook):
    """The mark does nothing in a cell whose only outputs are pictures and HTML."""
    marked = [cell for cell in code_cells(notebook) if cell.source.startswith("# NBVAL_CHECK_OUTPUT\n")]
    assert marked
    for cell in marked:
        assert any(output.output_type == "stream" or "text/plain" in output.data for output in cell.outputs)


def test_metadata_are_clean(notebook):
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"jupyter", "tags", "collapsed"}
    nbformat.validate(notebook)


def test_no_line_of_code_is_cut_on_a_laptop_s_screen(notebook):
    """A cell of JupyterLab beside its folders, 1280 pixels wide, shows 85 characters."""
    for cell in code_cells(notebook):
        for line in cell.source.splitlines():
            assert len(line) <= 85, line


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


def test_every_figure_has_a_picture_with_a_text(notebook):
    for output in outputs(notebook):
        if "application/vnd.plotly.v1+json" in output.get("data", {}):
            assert "image/png" in output.data, "run `make notebooks`"
        if "image/png" in output.get("data", {}):
            assert output.metadata["image/png"]["alt"]


def test_readme_lists_the_notebook(path):
    assert f"(notebooks/{path.name})" in (path.parents[1] / "README.md").read_text(encoding="utf-8")


def tagged(notebook, tag: str) -> list:
    return [cell for cell in code_cells(notebook) if tag in cell.metadata.get("tags", [])]


def test_exercises_are_unsolved_and_each_has_a_folded_solution(notebook):
    exercises, solutions = tagged(notebook, "exercise"), tagged(notebook, "solution")
    assert len(exercises) == len(solutions)
    for cell in exercises:
        assert cell.outputs[-1].data["text/plain"].startswith(TO_DO)
    for cell in solutions:
        assert cell.metadata.jupyter.source_hidden and cell.metadata.jupyter.outputs_hidden
        assert notebook.cells[notebook.cells.index(cell) - 1] in exercises


def run_cell(source: str, names: dict) -> object:
    """Run a cell that ends in an expression and return that expression's value."""
    *body, last = ast.parse(source).body
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_solutions_satisfy_their_checks(notebook):
    """A solution needs the notebook's first code cell and nothing else."""
    if solutions := tagged(notebook, "solution"):
        names = {}
        run_cell(code_cells(notebook)[0].source, names)
        for cell in solutions:
            verdict = run_cell(cell.source, names)
            assert verdict.state == RIGHT, verdict


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
