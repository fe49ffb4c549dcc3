"""Notebook 01 in a real JupyterLab: figures are drawn, exercises wait, and the explorer shows what it is asked for."""

import pytest
from playwright.sync_api import expect
from reading import alts

pytestmark = pytest.mark.browser


def test_maps_are_drawn_and_the_explorer_walks_through_the_shop(open_notebook):
    lab = open_notebook("01_encoding.ipynb")
    lab.run_all()
    page = lab.page
    expect(page.locator(".jp-OutputArea .js-plotly-plot")).to_have_count(2)
    points = page.locator(".js-plotly-plot").first.evaluate(
        "figure => figure._fullData.reduce((sum, trace) => sum + trace.x.length, 0)"
    )
    assert points == 3 * 1200
    expect(page.locator(".jp-OutputArea").get_by_text("… Still to do:")).to_have_count(3)
    drawn = lab.image_widths()
    assert len(drawn) == 1 + 1 + 3 * 6 + 1 + 3 * 6 and all(drawn), "a picture is missing"
    page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
    lab.screenshot("01_encoding_maps")

    explorer = page.locator(".jp-OutputArea .widget-vbox").first
    explorer.scroll_into_view_if_needed()
    expect(explorer).to_contain_text("Its picture misleads")
    for space in ("By text", "By picture", "By behaviour (ID)"):
        expect(explorer).to_contain_text(space)
    lab.screenshot("01_encoding")

    before = alts(explorer)
    assert len(before) == 1 + 3 * 6
    explorer.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    expect(explorer.locator(".widget-readout")).to_have_text("1093")
    expect(explorer.locator("img").first).not_to_have_attribute("alt", before[0])
    after = alts(explorer)
    assert len(after) == len(before) and after != before, "nothing piles up"

    explorer.locator("select").select_option("text misleads")
    expect(explorer).to_contain_text("Its text misleads: it speaks of")
    expect(explorer.locator(".widget-readout")).to_have_text("1")
    explorer.locator(".noUi-handle").focus()
    page.keyboard.press("End")
    expect(explorer.locator(".widget-readout")).to_have_text("240")
    expect(explorer).to_contain_text("Its text misleads: it speaks of")
    lab.screenshot("01_encoding_text_misleads")
