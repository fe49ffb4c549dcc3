"""Notebook 04 in a real JupyterLab: figures are drawn, exercises wait, and a walk is played, paused and scrubbed."""

import re

import pytest
from playwright.sync_api import expect
from reading import alts, row

pytestmark = pytest.mark.browser


def read_out(explorer) -> list[str]:
    """The map and the ranks as they are read out."""
    return explorer.locator('svg[role="img"]').evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")


def test_figures_are_drawn_and_a_walk_is_played_paused_and_scrubbed(open_notebook):
    lab = open_notebook("04_diffusion.ipynb")
    lab.run_all()
    page = lab.page
    expect(page.locator(".jp-OutputArea .js-plotly-plot")).to_have_count(5)
    expect(page.locator(".jp-OutputArea").get_by_text("… Still to do:")).to_have_count(3)
    drawn = lab.image_widths()
    assert len(drawn) > 3 * 8 and all(drawn), "a picture is missing"
    page.locator(".js-plotly-plot").nth(1).scroll_into_view_if_needed()
    lab.screenshot("04_diffusion_walks")

    explorer = page.locator(".jp-OutputArea .widget-vbox").first
    explorer.scroll_into_view_if_needed()
    expect(explorer).to_contain_text("U0042 after 0 of 32 steps, t = 32.")
    lab.screenshot("04_diffusion")
    first, pictures = read_out(explorer), alts(explorer)
    assert len(first) == 2 and len(pictures) == 2 * 4

    buttons = explorer.locator(".jupyter-widgets.widget-play button, .widget-play button")
    buttons.nth(0).click()  # play
    expect(explorer).to_contain_text(re.compile(r"U0042 after [3-9] of 32 steps"))
    buttons.nth(0).click()  # pause
    page.wait_for_timeout(1000)
    paused = read_out(explorer)
    page.wait_for_timeout(1500)
    assert read_out(explorer) == paused != first, "paused"

    step = row(explorer, "steps done")
    step.locator(".noUi-handle").focus()
    page.keyboard.press("End")
    expect(step.locator(".widget-readout")).to_have_text("32")
    expect(explorer).to_contain_text("U0042 after 32 of 32 steps, t = 0.")
    assert len(alts(explorer)) == 2 * 4 and alts(explorer)[:4] != pictures[:4], "nothing piles up"
    assert alts(explorer)[:4] == alts(explorer)[4:], "at the end x_t is what is predicted"
    assert explorer.locator("svg").nth(1).locator("circle").count() == 33
    lab.screenshot("04_diffusion_end")

    modality, steps = explorer.locator("select").nth(1), explorer.locator("select").nth(0)
    modality.select_option("picture")
    expect(explorer).to_contain_text("nearest to x_t by picture")
    expect(explorer.locator("svg").first).to_have_attribute("aria-label", re.compile("Map of the items by picture"))
    modality.select_option("ID")

    before = read_out(explorer)
    row(explorer, "seed").locator(".noUi-handle").focus()
    page.keyboard.press("End")
    expect(row(explorer, "seed").locator(".widget-readout")).to_have_text("19")
    row(explorer, "shopper").locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    expect(explorer).to_contain_text("U0043 after 32 of 32 steps")
    assert read_out(explorer) != before

    steps.select_option("4")
    expect(explorer).to_contain_text("U0043 after 0 of 4 steps, t = 32.")
    expect(step.locator(".widget-readout")).to_have_text("0")
    step.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    expect(explorer).to_contain_text("after 1 of 4 steps, t = 24.")
    lab.screenshot("04_diffusion_moved")
