"""Run notebooks top to bottom in fresh kernels and store their outputs, without widget state; `make notebooks`."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
KEPT_METADATA = ("kernelspec", "language_info")


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
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(NOTEBOOKS.glob("*.ipynb")):
        print(f"Running {Path(name).name}", flush=True)
        execute(Path(name))
