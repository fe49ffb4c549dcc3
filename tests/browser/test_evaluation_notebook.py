"""Notebook 06 in a real JupyterLab: every control of the explorer moves the table, the news or the case."""

import pytest
from playwright.sync_api import expect
from reading import alts, row

from imecd_lite import BUNDLED_DATA, load_dataset
from imecd_lite.diagnostics import read_truth
from imecd_lite.reproduce import kept_systems
from imecd_lite.slices import EVERYBODY, user_slices
from imecd_lite.widgets import view_case, view_comparison

pytestmark = pytest.mark.browser

GROUP = "next item of a new kind"


def choose(explorer, description: str, label: str) -> None:
    """Set the drop-down of ``explorer`` that is labelled ``description``."""
    control = explorer.locator(".widget-dropdown", has=explorer.page.get_by_text(description, exact=True))
    control.locator("select").select_option(label)


def press(explorer, description: str, key: str) -> None:
    row(explorer, description).locator(".noUi-handle").focus()
    explorer.page.keyboard.press(key)


def bars(explorer) -> str:
    return explorer.locator('[role="img"]').first.get_attribute("aria-label")


def test_systems_are_compared_and_the_shoppers_behind_a_difference_are_seen(open_notebook):
    lab = open_notebook("06_evaluation.ipynb")
    lab.run_all()
    page = lab.page
    expect(page.locator(".jp-OutputArea .js-plotly-plot")).to_have_count(9)
    expect(page.locator(".jp-OutputArea").get_by_text("… Still to do:")).to_have_count(4)
    drawn = lab.image_widths()
    assert len(drawn) > 20 and all(drawn), "a picture is missing"

    dataset = load_dataset(BUNDLED_DATA / "shop")
    systems = kept_systems(BUNDLED_DATA / "results/shop")
    slices = user_slices(dataset, dataset.split("test"), read_truth(dataset)["items"])
    explorer = page.locator(".jp-OutputArea .widget-vbox").first
    explorer.scroll_into_view_if_needed()
    expect(explorer).to_contain_text("N@10 of IMECD")
    pictures = len(alts(explorer))
    lab.screenshot("06_evaluation")

    choose(explorer, "second", "SASRec")
    everybody = view_comparison(systems, slices[EVERYBODY], "ndcg@10", "IMECD", "SASRec")
    expect(explorer).to_contain_text(everybody.news)
    press(explorer, "K", "End")
    expect(explorer).to_contain_text("N@50 of IMECD")
    choose(explorer, "metric", "H@K")
    expect(explorer).to_contain_text("H@50 of IMECD")
    press(explorer, "K", "Home")
    expect(explorer).to_contain_text("H@1 of IMECD")
    choose(explorer, "shoppers", GROUP)
    few = view_comparison(systems, slices[GROUP], "hit@1", "IMECD", "SASRec")
    expect(explorer).to_contain_text(few.news)
    *kept, best = bars(explorer).split(", ")
    assert kept == [f"{name} {value:.3f}" for name, value in few.means.items()]
    assert best.startswith("the oracle ")
    choose(explorer, "first", "GRU4Rec")
    expect(explorer).to_contain_text("H@1 of GRU4Rec")

    turned = view_comparison(systems, slices[GROUP], "hit@1", "GRU4Rec", "SASRec")
    press(explorer, "case", "End")
    last = view_case(systems, dataset, int(turned.users[-1]), "GRU4Rec", "SASRec")
    expect(explorer).to_contain_text(last.news)
    press(explorer, "case", "ArrowLeft")
    before = view_case(systems, dataset, int(turned.users[-2]), "GRU4Rec", "SASRec")
    expect(explorer).to_contain_text(before.news)
    press(explorer, "case", "Home")
    expect(explorer).to_contain_text(view_case(systems, dataset, int(turned.users[0]), "GRU4Rec", "SASRec").news)
    assert abs(len(alts(explorer)) - pictures) <= 6, "nothing piles up"
    lab.screenshot("06_evaluation_case")
