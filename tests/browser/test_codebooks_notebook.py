"""Notebook 03 in a real JupyterLab: dice and codes move, and the page says what the view functions say."""

import re

import pytest
from playwright.sync_api import expect
from reading import alts, row

from imecd_lite import BUNDLED_DATA, load_checkpoint, load_dataset, load_features
from imecd_lite.diagnostics import chosen_codes, distances_to_codes
from imecd_lite.widgets import view_code, view_injection

pytestmark = pytest.mark.browser


def bars(explorer) -> list[str]:
    """The rows of bars as they are read out."""
    return explorer.locator('[role="img"]').evaluate_all("rows => rows.map(row => row.getAttribute('aria-label'))")


def move(explorer, description: str, key: str) -> None:
    row(explorer, description).locator(".noUi-handle").focus()
    explorer.page.keyboard.press(key)


def test_dice_are_thrown_and_codes_are_looked_into(open_notebook):
    lab = open_notebook("03_codebooks.ipynb")
    lab.run_all()
    page = lab.page
    expect(page.locator(".jp-OutputArea .js-plotly-plot")).to_have_count(3)
    expect(page.locator(".jp-OutputArea").get_by_text("… Still to do:")).to_have_count(3)
    drawn = lab.image_widths()
    assert len(drawn) > 40 and all(drawn), "a picture is missing"
    panels = page.locator(".jp-OutputArea .widget-vbox")

    dice = panels.first
    dice.scroll_into_view_if_needed()
    expect(dice).to_contain_text("This draw chooses code")
    lab.screenshot("03_codebooks_dice")
    likely, soft, thrown = bars(dice)
    move(dice, "temperature", "End")
    expect(row(dice, "temperature").locator(".widget-readout")).to_have_text("10.0")
    expect(dice.locator('[role="img"]').nth(1)).not_to_have_attribute("aria-label", soft)
    assert [bars(dice)[0], bars(dice)[2]] == [likely, thrown], "temperature changes neither thoughts nor throws"
    lab.screenshot("03_codebooks_hot")
    move(dice, "noise", "Home")
    expect(dice).to_contain_text("100% of 2,000 draws choose it")
    move(dice, "noise", "End")
    expect(dice).not_to_contain_text("100% of 2,000 draws choose it")
    before = bars(dice)
    move(dice, "draw", "ArrowRight")
    expect(dice.locator('[role="img"]').nth(1)).not_to_have_attribute("aria-label", before[1])
    assert len(bars(dice)) == 3 and bars(dice)[2] == before[2], "another draw of the same dice"

    dataset = load_dataset(BUNDLED_DATA / "shop")
    model = load_checkpoint(BUNDLED_DATA / "checkpoints/shop", dataset, load_features(dataset))
    explorer = panels.nth(1)
    explorer.scroll_into_view_if_needed()
    own = view_injection(model, dataset, dataset.user_ids.index("U0042"), model.config.lambda_q)
    expect(explorer).to_contain_text(own.news)
    pictures = len(alts(explorer))
    lab.screenshot("03_codebooks")
    move(explorer, "lambda_q", "End")
    loud = view_injection(model, dataset, dataset.user_ids.index("U0042"), 3.0)
    expect(explorer).to_contain_text(loud.news)
    assert len(alts(explorer)) == pictures, "nothing piles up"
    lab.screenshot("03_codebooks_loud")
    move(explorer, "lambda_q", "Home")
    expect(explorer).to_contain_text("with λ_q = 0.0;")

    explorer.locator("select").select_option("text")
    indices, sequences = chosen_codes(model, dataset, dataset.split("test"), "text")
    distances = distances_to_codes(model, "text", indices, sequences)
    move(explorer, "code", "Home")
    view = view_code(dataset, indices, distances, 0, "text")
    expect(explorer).to_contain_text(view.heading)
    expect(explorer).to_contain_text(f"Shown to {dataset.user_ids[view.members[0]]} with")
    move(explorer, "shopper", "ArrowRight")
    expect(explorer).to_contain_text(f"Shown to {dataset.user_ids[view.members[1]]} with")
    readout = row(explorer, "shopper").locator(".widget-readout")
    readout.fill(str(len(view.members)))
    readout.press("Enter")
    expect(explorer).to_contain_text(f"Shown to {dataset.user_ids[view.members[-1]]} with")
    move(explorer, "code", "ArrowRight")
    expect(explorer).to_contain_text(re.compile("Code 2 of the text"))
    lab.screenshot("03_codebooks_text")
