"""How notebooks are compared, and what SKIP_BROWSER leaves out."""

import os

import pytest

# pictures, figures and HTML differ in ids and last digits between machines; notebooks assert what matters
INCOMPARABLE = ("stderr", "text/html", "image/png", "image/svg+xml", "application/vnd.plotly.v1+json")


def pytest_collection_modifyitems(items):
    """Prepare nbval's cells; skip browser tests when asked to."""
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = 60  # seconds to wait for a message; nbval's 5 is short on a busy machine
            item.parent.skip_compare = tuple({*item.parent.skip_compare, *INCOMPARABLE})
        if item.get_closest_marker("browser") and os.environ.get("SKIP_BROWSER") == "1":
            item.add_marker(pytest.mark.skip(reason="SKIP_BROWSER=1 leaves the browser test out"))
