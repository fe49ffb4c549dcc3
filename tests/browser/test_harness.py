"""The browser harness itself, on a notebook made here: what it claims to see has to be seen."""

import nbformat
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

CODE = """
import ipywidgets, plotly.graph_objects as go
figure = go.FigureWidget(go.Scatter(y=[1, 2, 3]))
slider = ipywidgets.IntSlider(1, 1, 10, description="factor")
def move(change):
    with figure.batch_update():
        figure.data[0].y = [change.new * y for y in (1, 2, 3)]
        figure.layout.title = f"factor {change.new}"
slider.observe(move, "value")
display(slider, figure)
"""


def write_notebook(path, code):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata=kernel), path)
    return path


def test_a_slider_moves_a_figure(tmp_path, open_notebook):
    lab = open_notebook(write_notebook(tmp_path / "slider.ipynb", CODE))
    lab.run_all()
    figure = lab.page.locator(".js-plotly-plot").first
    line = figure.locator(".scatterlayer .js-line").first
    line.wait_for(state="attached")
    lab.page.locator(".noUi-handle").focus()
    for _ in range(3):
        lab.page.keyboard.press("ArrowRight")
    expect(lab.page.locator(".widget-readout")).to_have_text("4")
    expect(figure.locator(".gtitle")).to_have_text("factor 4")
    assert figure.evaluate("figure => Array.from(figure._fullData[0].y)") == [4, 8, 12]


def test_a_cell_that_raises_fails_the_run(tmp_path, open_notebook):
    lab = open_notebook(write_notebook(tmp_path / "broken.ipynb", "1 / 0"))
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        lab.run_all()
