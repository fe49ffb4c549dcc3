"""Notebook 05 in a real JupyterLab: the curves grow while the model learns, and a variant is trained at a click."""

import pytest
from playwright.sync_api import expect

from imecd_lite.runs import VARIANTS

pytestmark = pytest.mark.browser

TRAINING_SECONDS = 1200  # of two cores that have other things to do as well
NEWS = "() => [...document.querySelectorAll('.widget-html-content')].map(html => html.innerText)"
POINTS = "figure => figure._fullData.map(line => Array.from(line.y || []).filter(Number.isFinite).length)"


def points(figure) -> list[int]:
    """How many points each line of a figure has."""
    return figure.evaluate(POINTS)


def test_the_curves_grow_in_place_and_a_variant_can_be_trained(open_notebook):
    lab = open_notebook("05_training.ipynb")
    page = lab.page
    lab.start_all()

    # the live figure, while the model learns
    monitor = page.locator(".jp-OutputArea .widget-vbox", has_text="loss").first
    expect(monitor).to_contain_text("Step", timeout=TRAINING_SECONDS * 1000)
    monitor.scroll_into_view_if_needed()
    live = monitor.locator(".js-plotly-plot")
    expect(live).to_have_count(1)
    expect(monitor).not_to_contain_text("Epochs done")
    early, early_news = points(live), monitor.inner_text()
    page.wait_for_function(
        f"before => ({NEWS})().some(text => text.startsWith('Step') && before.indexOf(text) < 0)",
        arg=early_news,
        timeout=TRAINING_SECONDS * 1000,
    )
    lab.screenshot("05_training_live_early")
    expect(monitor).to_contain_text("Epochs done: 1", timeout=TRAINING_SECONDS * 1000)
    expect(monitor).not_to_contain_text("Epochs done: 6")
    page.wait_for_timeout(500)
    middle = points(live)
    assert len(middle) == len(early) and middle[0] > early[0] and middle[-1] == 1, "N@10 has its first point"
    assert live.count() == 1, "nothing piles up"
    lab.screenshot("05_training_live")

    lab.wait_until_finished(TRAINING_SECONDS)
    expect(monitor).to_contain_text("Epochs done: 6")
    late = points(live)
    assert late[0] > middle[0] and late[-1] == 6
    assert monitor.locator(".js-plotly-plot").count() == 1
    monitor.scroll_into_view_if_needed()
    lab.screenshot("05_training_live_done")
    kept = page.locator(".jp-OutputArea .js-plotly-plot").nth(3)  # terms, teachers, live, kept
    kept.scroll_into_view_if_needed()
    assert points(kept) == late, "the figure that is kept has the same curves"
    expect(page.locator(".jp-OutputArea").get_by_text("… Still to do:")).to_have_count(4)

    # the ablation
    explorer = page.locator(".jp-OutputArea .widget-vbox", has=page.locator("select"))
    explorer.scroll_into_view_if_needed()
    duel, button = explorer.locator(".js-plotly-plot"), explorer.locator("button.widget-button")
    expect(explorer).to_contain_text("without the bias of repeats: validation N@10")
    expect(button).to_be_disabled()
    assert points(duel) == [4, 4]
    options = explorer.locator("select option").all_inner_texts()
    assert [option.replace("\xa0", " ") for option in options] == list(VARIANTS)  # ipywidgets keeps lines whole
    lab.screenshot("05_training_ablation")

    explorer.locator("select").select_option("w/o Text")
    expect(explorer).to_contain_text("w/o Text: not trained yet")
    expect(button).to_be_enabled()
    page.wait_for_timeout(500)
    assert points(duel) == [4, 0]
    button.click()
    expect(explorer).to_contain_text("w/o Text: training")
    expect(explorer.locator("select")).to_be_disabled()
    expect(explorer).to_contain_text("w/o Text: validation N@10", timeout=TRAINING_SECONDS * 1000)
    expect(explorer).to_contain_text("95% interval")
    page.wait_for_timeout(500)
    assert points(duel) == [4, 4] and explorer.locator(".js-plotly-plot").count() == 1
    expect(button).to_be_disabled()
    lab.screenshot("05_training_ablation_trained")

    explorer.locator("select").select_option("without the bias of repeats")
    expect(explorer).to_contain_text("without the bias of repeats: validation N@10")
    expect(button).to_be_disabled()
