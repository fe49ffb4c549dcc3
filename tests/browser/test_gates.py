"""Notebook 02 in a real JupyterLab: heatmaps are drawn, exercises wait, and a swapped ID moves gate and neighbours."""

import re

import pytest
from playwright.sync_api import expect
from reading import alts, row

pytestmark = pytest.mark.browser


def gates(explorer) -> list[str]:
    """Both gates as they are read out."""
    return explorer.locator('[role="img"]').evaluate_all("bars => bars.map(bar => bar.getAttribute('aria-label'))")


def test_heatmaps_are_drawn_and_the_explorer_swaps_ids_and_mutes_experts(open_notebook):
    lab = open_notebook("02_expert_gates.ipynb")
    lab.run_all()
    page = lab.page
    expect(page.locator(".jp-OutputArea .js-plotly-plot")).to_have_count(3)
    expect(page.locator(".js-plotly-plot").first.locator(".heatmaplayer image")).to_have_count(2)
    expect(page.locator(".jp-OutputArea").get_by_text("… Still to do:")).to_have_count(2)
    drawn = lab.image_widths()
    assert len(drawn) >= 1 + 3 * 6 + 20 + 19 and all(drawn), "a picture is missing"
    page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
    lab.screenshot("02_expert_gates_heatmap")

    explorer = page.locator(".jp-OutputArea .widget-vbox").first
    explorer.scroll_into_view_if_needed()
    expect(explorer).to_contain_text("text 1.00, picture 1.00")
    lab.screenshot("02_expert_gates")
    pictures, read_out = alts(explorer), gates(explorer)
    assert len(pictures) == 1 + 3 * 6 and len(read_out) == 2

    row(explorer, "has the ID of").locator(".noUi-handle").focus()
    page.keyboard.press("Home")
    expect(row(explorer, "has the ID of").locator(".widget-readout")).to_have_text("1")
    expect(explorer).to_contain_text("with the ID of")
    expect(explorer).not_to_contain_text("text 1.00")
    assert all(now != before for now, before in zip(gates(explorer), read_out, strict=True))
    swapped = alts(explorer)
    assert len(swapped) == len(pictures) + 1, "the giver of the ID is shown, and nothing piles up"
    assert swapped[2:8] != pictures[1:7] and swapped[8:14] != pictures[7:13], "its neighbours move"
    lab.screenshot("02_expert_gates_swapped")
    page.set_viewport_size({"width": 1280, "height": 800})
    assert explorer.bounding_box()["height"] <= 720, "it fits a laptop's screen"
    assert explorer.evaluate("box => box.scrollWidth <= box.clientWidth"), "nothing is cut off"
    page.set_viewport_size({"width": 1300, "height": 1600})

    explorer.locator("select").select_option("expert 3")
    for bars in explorer.locator('[role="img"]').all():
        expect(bars).to_have_attribute("aria-label", re.compile(r"expert 3 0%, before"))
    explorer.locator("select").select_option("nobody")

    row(explorer, "item").locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    expect(row(explorer, "has the ID of").locator(".widget-readout")).to_have_text("870")
    expect(explorer).to_contain_text("text 1.00, picture 1.00")
    assert len(alts(explorer)) == len(pictures)

    row(explorer, "shopper").locator(".noUi-handle").focus()
    page.keyboard.press("End")
    expect(explorer).to_contain_text("What U3000 would be shown")
    lab.screenshot("02_expert_gates_moved")
