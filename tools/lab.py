"""Start JupyterLab on the first notebook; `make lab` runs this."""

import argparse
import json
import os
import sys
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
OVERRIDES = Path(sys.prefix) / "share/jupyter/lab/settings/overrides.json"
QUIET = {"@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"}}


def main() -> None:
    """Replace this process by JupyterLab, which prints its URL."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8888)
    options = parser.parse_args()
    OVERRIDES.parent.mkdir(parents=True, exist_ok=True)
    OVERRIDES.write_text(json.dumps(QUIET), encoding="utf-8")  # no question about news on the day of the workshop
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={NOTEBOOKS}",
        "--LabApp.default_url=/lab/tree/00_start_here.ipynb",
        f"--ServerApp.port={options.port}",
        "--LabApp.news_url=None",  # no request leaves the machine
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    if os.environ.get("BROWSER") == "none":
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        print("Running as root, as in a container: JupyterLab is told to allow it.")
        command.append("--allow-root")
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
