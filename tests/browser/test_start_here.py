"""Notebook 00 in a real JupyterLab: pictures soon, and a widget that does what it says."""

import re
import time

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

SECONDS_TO_FIRST_PICTURE = 20


def slider(panel, description: str):
    """The handle and the number of a slider, found by its label."""
    row = panel.locator(".widget-slider", has_text=description)
    return row.locator(".noUi-handle"), row.locator(".widget-readout")


def test_pictures_come_soon_and_the_explorer_walks_through_a_history(open_notebook):
    seconds = []
    while not seconds or (seconds[-1] >= SECONDS_TO_FIRST_PICTURE and len(seconds) < 3):  # others may use the machine
        lab = open_notebook("00_start_here.ipynb")
        start = time.monotonic()
        lab.start_all()
        lab.page.locator(".jp-OutputArea img").first.wait_for(timeout=120_000)
        seconds.append(time.monotonic() - start)
        lab.wait_until_finished()  # a second try is not to run beside the first
    assert min(seconds) < SECONDS_TO_FIRST_PICTURE, f"the first picture took {seconds} s"
    page = lab.page
    drawn = lab.image_widths(".jp-OutputArea img, .jp-MarkdownCell img")
    assert len(drawn) >= 20 and all(drawn), "a picture is missing"
    explorer = page.locator(".jp-OutputArea .widget-vbox").first
    explorer.scroll_into_view_if_needed()
    expect(explorer).to_contain_text("What U0042 bought next (held out for the test)")
    lab.screenshot("00_start_here")

    handle, number = slider(explorer, "bought")
    before = explorer.locator("img").count()
    handle.focus()
    page.keyboard.press("ArrowLeft")
    expect(number).to_have_text("8")
    expect(explorer).to_contain_text("held out for validation")
    expect(explorer.locator("img")).to_have_count(before - 1)
    page.keyboard.press("ArrowLeft")
    expect(explorer).to_contain_text("seen in training")
    page.keyboard.press("End")
    expect(explorer).to_contain_text("nobody knows yet")

    handle, number = slider(explorer, "shopper")
    shown = explorer.locator("img").evaluate_all("images => images.map(i => i.alt)")
    handle.focus()
    page.keyboard.press("ArrowRight")
    expect(number).to_have_text("43")
    expect(explorer).to_contain_text(
        re.compile(r"What U0043 bought next \(held out for the test\) is at rank [\d,]+ of")
    )
    assert explorer.locator("img").evaluate_all("images => images.map(i => i.alt)") != shown
    lab.screenshot("00_start_here_next_shopper")
