"""How notebooks are compared and timed, what runs alone, and what SKIP_BROWSER leaves out."""

import os
import re
from collections import defaultdict

import nbformat
import pytest

# pictures, figures and HTML differ in ids and last digits between machines; notebooks assert what matters
INCOMPARABLE = ("stderr", "text/html", "image/png", "image/svg+xml", "application/vnd.plotly.v1+json")


def pytest_collection_modifyitems(config, items):
    """Prepare nbval's cells and time them; mark what runs alone; skip browser tests when asked to."""
    times = CellTimes()
    config.pluginmanager.register(times)  # a conftest's own hooks hear of no cell outside its folder
    last_cells = {item.parent: item for item in items if hasattr(item, "output_timeout")}
    for notebook, cell in last_cells.items():
        minutes = StatedMinutes.from_parent(notebook, name="stated minutes", times=times)
        items.insert(items.index(cell) + 1, minutes)
    for item in items:
        if item.path.suffix == ".ipynb" or item.get_closest_marker("browser"):
            item.add_marker("alone")
        if hasattr(item, "output_timeout"):
            item.output_timeout = 60  # seconds to wait for a message; nbval's 5 is short on a busy machine
            item.parent.skip_compare = tuple({*item.parent.skip_compare, *INCOMPARABLE})
        if item.get_closest_marker("browser") and os.environ.get("SKIP_BROWSER") == "1":
            item.add_marker(pytest.mark.skip(reason="SKIP_BROWSER=1 leaves the browser test out"))


class CellTimes:
    """A plugin that adds up what each file's items took."""

    def __init__(self):
        self.seconds = defaultdict(float)  # by path from the root

    def pytest_runtest_logreport(self, report):
        """Called by pytest after each phase of each item."""
        self.seconds[report.nodeid.split("::")[0]] += report.duration


class StatedMinutes(pytest.Item):
    """After a notebook's cells: they took less than twice what its opening says."""

    def __init__(self, times: CellTimes, **kwargs):
        super().__init__(**kwargs)
        self.times = times

    def runtest(self):
        """Compare; the factor of two is for a machine that is busy with other things."""
        opening = nbformat.read(self.path, as_version=4).cells[0].source
        minutes = float(re.search(r"\| Run All takes \| under ([\d.]+) minutes? on two cores \|", opening)[1])
        took = self.times.seconds[self.nodeid.split("::")[0]]
        assert 0 < took < 2 * 60 * minutes, f"{self.path.name} took {took:.0f} s and promises {minutes} minutes"

    def reportinfo(self):
        """Where it stands, for pytest's report."""
        return self.path, 0, self.name
