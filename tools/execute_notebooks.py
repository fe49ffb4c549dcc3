"""Run notebooks top to bottom in fresh kernels and store their outputs, without widget state; `make notebooks`.

A plotly figure also gets a picture with its text, for code hosts and exports that run no script.
"""

import base64
import json
import sys
from pathlib import Path

import nbformat
import plotly.io
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
KEPT_METADATA = ("kernelspec", "language_info")
PLOTLY = "application/vnd.plotly.v1+json"


def execute(path: Path) -> None:
    """Run one notebook and write it back with clean metadata."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    notebook.metadata = {key: notebook.metadata[key] for key in KEPT_METADATA}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)  # draws nothing without state
            if PLOTLY in output.get("data", {}):
                add_picture(output)
    nbformat.write(notebook, path)


def add_picture(output: nbformat.NotebookNode) -> None:
    """Give the output of a plotly figure a PNG and its alternative text, and take plotly's own script out of it."""
    figure = plotly.io.from_json(json.dumps(output.data[PLOTLY]), skip_invalid=True)  # it holds renderer settings too
    output.data.pop("text/html", None)
    output.data["image/png"] = base64.b64encode(figure.to_image("png", width=800)).decode()
    output.metadata["image/png"] = {"alt": figure.layout.meta["alt"]}


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(NOTEBOOKS.glob("*.ipynb")):
        print(f"Running {Path(name).name}", flush=True)
        execute(Path(name))
