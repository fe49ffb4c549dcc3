"""Notebook 07 in a real JupyterLab: a model learns from a shop's export, and a history of one's own moves its shelf."""

import pytest
from playwright.sync_api import expect
from reading import alts, row

pytestmark = pytest.mark.browser

TRAINING_SECONDS = 1200  # of two cores that have other things to do as well


def press(explorer, name: str) -> None:
    explorer.get_by_role("button", name=name, exact=True).click()


def find(explorer, words: str) -> None:
    """Type words and leave the field."""
    field = explorer.locator(".widget-text input")
    field.fill(words)
    field.press("Tab")


def test_a_shop_is_trained_on_and_a_history_of_one_s_own_moves_its_recommendations(open_notebook):
    lab = open_notebook("07_your_own_data.ipynb")
    page = lab.page
    lab.start_all()
    monitor = page.locator(".jp-OutputArea .widget-vbox", has_text="loss").first
    expect(monitor).to_contain_text("Epochs done: 1", timeout=TRAINING_SECONDS * 1000)
    monitor.scroll_into_view_if_needed()
    lab.screenshot("07_own_data_training")
    lab.wait_until_finished(TRAINING_SECONDS)
    expect(monitor).to_contain_text("Epochs done: 8")
    expect(page.locator(".jp-OutputArea .js-plotly-plot")).to_have_count(5)  # one of them live
    expect(page.locator(".jp-OutputArea").get_by_text("… Still to do:")).to_have_count(4)
    drawn = lab.image_widths()
    assert len(drawn) > 30 and all(drawn), "a picture is missing"

    explorer = page.locator(".jp-OutputArea .widget-vbox", has=page.get_by_role("button", name="add it"))
    explorer = explorer.first  # the panel; the column of its controls is another box
    explorer.scroll_into_view_if_needed()
    expect(explorer).to_contain_text("C0042")
    expect(explorer).to_contain_text("After 5 purchases.")
    expect(explorer).to_contain_text("241 of 241 products")
    lab.screenshot("07_own_data")

    press(explorer, "empty")
    expect(explorer).to_contain_text("Nothing is bought yet")
    expect(explorer.get_by_role("button", name="empty", exact=True)).to_be_disabled()
    find(explorer, "guitar")
    expect(explorer).not_to_contain_text("241 of 241 products")
    options = explorer.locator("select option").all_inner_texts()
    assert 1 < len(options) < 20 and "TC-" in "".join(options), "one has no name but a department"
    assert all("Guitar" in option for option in options if not option.startswith("TC-"))
    press(explorer, "add it")
    expect(explorer).to_contain_text("After 1 purchase.")
    first = alts(explorer)
    assert len(first) == 1 + 1 + 8 and first[0] == first[1], "the product, the history, and eight to show"
    explorer.locator("select").select_option(index=1)
    page.wait_for_function(
        "before => [...document.querySelectorAll('.widget-vbox img')].some(image => image.alt === before)",
        arg=options[1].replace("\xa0", " "),
    )
    press(explorer, "add it")
    expect(explorer).to_contain_text("After 2 purchases: ")
    lab.screenshot("07_own_data_moved")
    press(explorer, "take out the last")
    expect(explorer).to_contain_text("After 1 purchase: ")
    assert alts(explorer)[-8:] == first[-8:], "the same history, the same shelf"

    find(explorer, "no such thing")
    expect(explorer).to_contain_text("0 of 241 products")
    expect(explorer.get_by_role("button", name="add it", exact=True)).to_be_disabled()
    row(explorer, "customer").locator(".noUi-handle").focus()
    page.keyboard.press("End")
    expect(explorer).to_contain_text("purchases.")
    expect(explorer).not_to_contain_text("After 1 purchase: ")
    assert 8 + 5 <= len(alts(explorer)) <= 8 + 10
    lab.screenshot("07_own_data_customer")
