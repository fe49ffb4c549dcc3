"""A real JupyterLab and a real Chromium for the notebooks.

``open_notebook(path)`` gives a ``LabPage``: run it, move its widgets, read the page. Whatever happens, a test fails
when the page logged an error or sent a request off this machine.
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from chromium import get_chromium
from playwright.sync_api import Page, expect, sync_playwright

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SETTINGS = {
    "apputils-extension/notification": '{"checkForUpdates": false, "fetchNews": "false"}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',
}
# The page's own "idle" mark says idle before there is a kernel: ask the application.
KERNEL_READY = """() => {
  const panel = window.jupyterapp?.shell.currentWidget, context = panel?.sessionContext;
  const kernel = context?.session?.kernel;
  return !!(panel?.content?.widgets?.length && context.isReady
    && kernel?.connectionStatus === 'connected' && kernel.status === 'idle');
}"""
CODE_CELLS = """window.jupyterapp.shell.currentWidget.content.widgets.filter(
  cell => cell.model.type === 'code' && cell.model.sharedModel.getSource().trim())"""
CELL_ERRORS = f"""() => {CODE_CELLS}.flatMap(cell => cell.model.outputs.toJSON()
  .filter(output => output.output_type === 'error').map(output => output.ename + ': ' + output.evalue))"""
# finished: every cell has run, or one raised and the rest never will
FINISHED = f"""() => {{
  const cells = {CODE_CELLS};
  const raised = cell => cell.model.outputs.toJSON().some(output => output.output_type === 'error');
  return cells.some(raised)
    || cells.every(cell => cell.model.executionCount != null && cell.model.executionState !== 'running');
}}"""


expect.set_options(timeout=60_000)  # a busy machine is slow, not broken


class LabPage:
    """A notebook open in JupyterLab."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def run_all(self, timeout: float = 300) -> None:
        """Run all cells, wait for the last, and fail if one raised. ``timeout`` in seconds."""
        self.start_all()
        self.wait_until_finished(timeout)

    def start_all(self) -> None:
        """Run all cells of a notebook without outputs, and don't wait for them."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
        self.page.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def wait_until_finished(self, timeout: float = 300) -> None:
        """Wait for the last cell and fail if one raised."""
        self.page.wait_for_function(FINISHED, timeout=timeout * 1000)
        errors = self.page.evaluate(CELL_ERRORS)
        assert not errors, f"a cell raised {errors[0]}"
        counts = self.page.evaluate(f"() => {CODE_CELLS}.map(cell => cell.model.executionCount)")
        assert counts == list(range(1, len(counts) + 1)), f"cells ran as {counts}"

    def image_widths(self, selector: str = ".jp-OutputArea img[alt]") -> list[int]:
        """The widths of all pictures that ``selector`` finds, once they are loaded; 0 for one that is broken."""
        images = f"[...document.querySelectorAll('{selector}')]"
        self.page.wait_for_function(f"() => {images}.every(image => image.complete)")
        return self.page.evaluate(f"() => {images}.map(image => image.naturalWidth)")

    def screenshot(self, name: str) -> None:
        """Keep a picture of the page in the folder that IMECD_SCREENSHOTS names, if it does."""
        if folder := os.environ.get("IMECD_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A JupyterLab on a copy of the notebooks: (address of a path in a workspace, that of the API, port, folder)."""
    work = tmp_path_factory.mktemp("lab")
    root = work / "notebooks"
    shutil.copytree(NOTEBOOKS, root)
    for name, text in SETTINGS.items():
        file = work / "settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={root}",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.extension_manager=readonly",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    log = work / "lab.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **{name: str(work / folder) for name, folder in folders.items()}},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        api = f"http://127.0.0.1:{port}/api/{{}}?token={token}"
        wait_for_server(api.format("status"), process, log)
        yield f"http://127.0.0.1:{port}/lab/workspaces/{{}}/tree/{{}}?token={token}", api, port, root
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_server(url: str, process: subprocess.Popen, log: Path, timeout: float = 60) -> None:
    """Return once the server answers; fail with its log when it does not."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")  # while Playwright is there, an event loop runs in this thread
def chromium():
    """A headless Chromium."""
    path = get_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_notebook(lab, chromium):
    """Open a notebook by its path below ``notebooks/`` (or copy a file in and open that): ``LabPage``."""
    address, api, port, root = lab
    outside, errors, pages = [], [], []
    local = re.compile(rf"(http|ws)://127\.0\.0\.1:{port}/|data:|blob:|about:")

    def open_(path: str | Path) -> LabPage:
        if isinstance(path, Path):
            shutil.copy(path, root / path.name)
            path = path.name
        page = chromium.new_page(viewport={"width": 1300, "height": 1600})
        page.set_default_timeout(60_000)
        page.on("request", lambda request: local.match(request.url) or outside.append(request.url[:150]))
        page.on("console", lambda message: message.type == "error" and errors.append(message.text[:300]))
        page.on("pageerror", lambda error: errors.append(str(error)[:300]))
        page.goto(address.format(secrets.token_hex(4), path))  # a fresh workspace: no tabs of the page before
        page.wait_for_function(KERNEL_READY, timeout=120_000)
        pages.append(page)
        return LabPage(page)

    yield open_
    for page in pages:
        page.close()
    for kernel in json.load(urllib.request.urlopen(api.format("kernels"))):  # a busy one would go on
        stop = urllib.request.Request(api.format(f"kernels/{kernel['id']}"), method="DELETE")
        urllib.request.urlopen(stop).close()
    assert not outside, f"requests left this machine: {outside}"
    assert not errors, f"the page logged errors: {errors}"
