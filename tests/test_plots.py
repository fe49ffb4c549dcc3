"""Figures of the notebooks: a text for those who don't see them, nothing from the data taken for markup."""

import base64
import io
import math
import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import tiny
from PIL import Image

from imecd_lite import plots
from imecd_lite.diagnostics import MODULES
from imecd_lite.plots import (
    COLOURS,
    MARKS,
    MODULE_LINES,
    SMOOTHING,
    code_bars,
    draw_ranks,
    draw_walk,
    gate_bars,
    patch_grid,
    plot_ceiling,
    plot_code_use,
    plot_contents,
    plot_differences,
    plot_duel,
    plot_gains,
    plot_lengths,
    plot_lines,
    plot_maps,
    plot_routing,
    plot_sampling,
    plot_shares,
    plot_stopping,
    plot_sweeps,
    plot_systems,
    plot_teachers,
    plot_terms,
    plot_training,
    plot_usage,
    plot_walks,
    share_bars,
    system_bars,
    token_strip,
)

MAPS = {name: np.arange(8.0).reshape(4, 2) + shift for shift, name in enumerate(COLOURS)}
GROUPS = np.array(list(MARKS))


def test_maps_draw_every_item_once_in_each_space_and_say_what_they_show():
    figure = plot_maps(MAPS, ["one", "two", "<b>three</b>", "four"], GROUPS, "three maps")
    assert sum(len(trace.x) for trace in figure.data) == 3 * 4
    assert sorted(text for trace in figure.data[:4] for text in trace.text) == [
        *("&lt;b&gt;three&lt;/b&gt;", "four", "one", "two")
    ]
    assert [trace.name for trace in figure.data if trace.showlegend] == list(MARKS)
    assert [title.font.color for title in figure.layout.annotations] == list(COLOURS.values())
    assert figure.layout.meta["alt"] == "three maps"


def test_groups_differ_in_shape_as_well_as_in_colour():
    marked = list(MARKS.values())[1:]
    assert len({mark["symbol"] for mark in marked}) == len({mark["color"] for mark in marked}) == 3


def test_bars_have_their_modality_s_colour_and_their_numbers_can_be_read_out():
    figure = plot_shares(pd.DataFrame({"text": [0.25], "id": [1.0]}, index=["honest"]), "How many?")
    assert [bar.marker.color for bar in figure.data] == [COLOURS["text"], COLOURS["id"]]
    assert [bar.y.tolist() for bar in figure.data] == [[0.25], [1.0]]
    assert figure.layout.meta["alt"] == "How many? honest: By text 25%, By behaviour (ID) 100%"
    renamed = plot_shares(pd.DataFrame({"id": [1.0]}, index=["honest"]), "How many?", {"id": "the gate"})
    assert renamed.data[0].name == "the gate" and renamed.layout.meta["alt"] == "How many? honest: the gate 100%"


def test_patches_stand_in_reading_order_with_a_gap():
    patches = np.stack([np.full((2, 2, 3), shade, dtype=np.uint8) for shade in (0, 50, 100, 150)])
    tag = patch_grid(patches, 2, 'a "grid"').data
    assert 'alt="a &quot;grid&quot;"' in tag
    data = re.search(r"base64,([^\"]+)", tag)[1]
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(data))))[..., 0]
    assert pixels.tolist() == [
        [0, 0, 255, 50, 50],
        [0, 0, 255, 50, 50],
        [255, 255, 255, 255, 255],
        [100, 100, 255, 150, 150],
        [100, 100, 255, 150, 150],
    ]


def test_tokens_show_their_spaces_and_are_no_markup():
    strip = token_strip(["<s>", "ĠToy"]).data
    assert "&lt;s&gt;" in strip and "·Toy" in strip and "<s>" not in strip


def test_heatmaps_share_one_scale_and_say_each_group_s_favourite():
    mean = pd.DataFrame([[0.25, 0.75], [0.6, 0.4]], index=["plush", "games"], columns=[1, 2])
    figure = plot_routing({"text": mean, "image": 1 - mean}, "Who listens?")
    maps, texts = figure.data[::2], figure.data[1::2]
    assert [trace.z.tolist() for trace in maps] == [mean.to_numpy().tolist(), (1 - mean).to_numpy().tolist()]
    assert {trace.coloraxis for trace in maps} == {"coloraxis"} and figure.layout.coloraxis.cmin == 0
    assert figure.layout.coloraxis.cmax == 0.75
    assert texts[0].text == ("25%", "75%", "60%", "40%") and texts[0].x == ("1", "2", "1", "2")
    assert texts[0].textfont.color == ("#ffffff", "#000000", "#000000", "#000000"), "white on dark, black on light"
    assert figure.layout.meta["alt"] == (
        "Who listens? The text's experts: plush most to 2, 75%; games most to 1, 60%. "
        "The picture's experts: plush most to 1, 75%; games most to 2, 60%."
    )


def test_histograms_of_gains_are_shares_of_each_group():
    gains = {"text": np.array([0.0, 0.1, 0.2, 0.9, 1.0])}
    figure = plot_gains(gains, {"text": gains["text"] > 0.5}, "Nearer?", "gain")
    honest, misled = figure.data
    assert misled.marker.color == COLOURS["text"]
    assert sum(honest.y) == pytest.approx(1, abs=1e-3) and sum(misled.y) == 1
    assert max(x for x, y in zip(honest.x, honest.y, strict=True) if y) < 0.25 < 0.85
    assert min(x for x, y in zip(misled.x, misled.y, strict=True) if y) > 0.85
    assert figure.layout.meta["alt"] == "Nearer? gain. text honest: median 0.10; text misleads: median 0.95."


def test_where_nobody_is_misled_there_is_still_a_histogram():
    figure = plot_gains({"text": np.ones(3)}, {"text": np.zeros(3, dtype=bool)}, "Nearer?", "gain")
    assert sum(figure.data[0].y) == pytest.approx(1, abs=1e-3) and sum(figure.data[1].y) == 0


def test_bars_of_a_gate_can_be_read_out():
    bars = gate_bars(np.array([0.25, 0.75]), np.array([1.0, 0.0]), "image").data
    assert 'aria-label="The gate of the picture: expert 1 25%, before 100%, expert 2 75%, before 0%"' in bars
    assert "width:25.0%" in bars and "calc(100.0% - 1px)" in bars and COLOURS["image"] in bars


def test_code_use_is_drawn_epoch_by_epoch_and_missing_columns_are_left_out():
    history = pd.DataFrame({"epoch": [1, 2], "id/code_perplexity": [24.0, 1.5], "id/codes_used": [24, 3]})
    figure = plot_code_use({"literal": history, "older": history[["epoch"]]}, 24, "Codes")
    assert [trace.y.tolist() for trace in figure.data] == [[24.0, 1.5], [24, 3]]
    assert [trace.line.dash for trace in figure.data] == ["solid", "dot"]
    assert {trace.line.color for trace in figure.data} == {COLOURS["id"]}
    assert figure.layout.meta["alt"] == (
        "Codes. literal, ID, perplexity: 24.0 at first, 1.5 at last; "
        "literal, ID, codes in use: 24.0 at first, 3.0 at last."
    )


def test_usage_is_sorted_and_names_the_codes_in_use():
    figure = plot_usage({"run": {"id": np.array([1, 3, 0]), "text": np.array([0, 8, 0])}}, "Use")
    assert [trace.y.tolist() for trace in figure.data] == [[0.75, 0.25, 0], [1, 0, 0]]
    assert [title.text for title in figure.layout.annotations] == [
        "run, ID: 2 of 3 in use",
        "run, text: 1 of 3 in use",
    ]
    assert figure.layout.meta["alt"].endswith("run, text: 1 of 3 in use, the busiest has 100%.")


def test_contents_stand_in_the_order_of_their_favourites():
    shares = pd.DataFrame({1: [0.2, 0.8], 2: [0.6, 0.4], 3: [0.0, 0.0], 4: [0.9, 0.1]}, index=["zoo", "tea"])
    figure = plot_contents(shares, "Who?")
    assert figure.data[0].x == ("4", "2", "3", "1")
    assert figure.data[0].z.tolist() == [[0.9, 0.6, 0.0, 0.2], [0.1, 0.4, 0.0, 0.8]]
    assert figure.layout.meta["alt"].startswith("Who? code 4 most zoo, 90%; code 2 most zoo, 60%;")


def test_bars_of_codes_and_of_shares_can_be_read_out_and_escape_what_they_are_given():
    bars = code_bars(np.array([0.1, 0.7, 0.2]), "a <b>", "id", chosen=1, marks=np.array([0.5, 0.25, 0.25])).data
    assert 'aria-label="a &lt;b&gt;: code 2 70%, code 3 20%, code 1 10%"' in bars and "<b>" not in bars
    assert bars.count("opacity:1") == 1 and bars.count("opacity:0.35") == 2
    assert "calc(50.00% - 1px)" in bars and "height:70.00%" in bars
    lying = share_bars(pd.Series({'<i>"tea"': 0.25}), "on", COLOURS["text"]).data
    assert "on: &lt;i&gt;&quot;tea&quot; 25%" in lying and "<i>" not in lying and "width:25.0%" in lying


def test_lines_have_their_colours_and_can_be_read_out():
    lines = pd.DataFrame({"one": [1.0, 2.0], "two": [3.0, 0.5]}, index=pd.Index([1, 8], name="t"))
    look = {"one": "#123456"}, {"two": "dot"}, {"sea level": 1.0}
    figure = plot_lines(lines, "Lines", "height", *look, yaxis={"type": "log"})
    assert [list(line.y) for line in figure.data] == [[1, 2], [3, 0.5], [1, 1]]
    assert figure.data[2].name == "sea level" and list(figure.data[2].x) == [1, 8]
    assert figure.data[0].line.color == "#123456" and figure.data[1].line.dash == "dot"
    assert figure.layout.yaxis.type == "log" and figure.layout.yaxis.title.text == "height"
    assert figure.layout.meta["alt"] == "Lines. height. one: 1 at t 1, 2 at 8; two: 3 at t 1, 0.5 at 8; sea level: 1."


def test_walks_begin_with_a_circle_end_with_a_square_and_point_from_pictures_to_where_items_stand():
    points, path = np.array([[0.0, 0], [4, 2], [1, 1]]), np.array([[0.0, 0], [1, 1], [2, 2]])
    figure = plot_walks(
        points,
        {"in": path, "out": path[::-1]},
        dict.fromkeys(("in", "out"), ("<b>", points[1], "data:,")),
        "id",
        "Walks",
    )
    assert [list(trace.x) for trace in figure.data[1::2]] == [[0, 1, 2], [2, 1, 0]]
    assert figure.data[1].marker.symbol == ("circle", "circle", "square")
    assert [image.source for image in figure.layout.images] == 2 * ["data:,"]
    for image in figure.layout.images:
        assert image.y - image.sizey >= max(points[:, 1]), "above the map, where it covers nothing"
        assert image.y <= figure.layout.yaxis.range[1] and image.xanchor == "right"
    arrows = [note for note in figure.layout.annotations if note.text == "&lt;b&gt;"]
    assert [(note.x, note.y) for note in arrows] == 2 * [(4, 2)]
    assert "in, from (0.0, 0.0) to (2.0, 2.0); out, from (2.0, 2.0)" in figure.layout.meta["alt"]


def test_a_drawn_walk_keeps_the_shape_of_the_map():
    points = np.array([[-1.0, -1], [1, 1], [1, -1]])
    svg = draw_walk(points, np.array([[0.0, 0]]), points[0], points[1], "text", 'a "map"').data
    dots = [tuple(map(int, dot)) for dot in re.findall(r"M(\d+) (\d+)h0", svg)]
    (ax, ay), (bx, by), (cx, cy) = dots
    assert bx - ax == ay - by == cx - ax and cy == ay and bx == cx, "up is up, and both axes have one scale"
    assert 'cx="220.0" cy="165.0" r="7"' in svg and f'cx="{bx:.1f}" cy="{by:.1f}" r="11"' in svg
    assert 'aria-label="a &quot;map&quot;"' in svg and COLOURS["text"] in svg


def test_drawn_ranks_show_what_has_been_walked_and_say_where_it_stands():
    svg = draw_ranks(np.array([900, 30, 2]), np.array([5, 3]), 1, 1200).data
    assert svg.count("<circle") == 2 and svg.count("l5 5l-5 5") == 2
    assert "after 1 of 2 steps: 30 by x_t, 3 by the prediction." in svg
    assert "3 by the prediction" in draw_ranks(np.array([900, 30, 2]), np.array([5, 3]), 2, 1200).data
    assert draw_ranks(np.array([1, 1]), np.array([1]), 0, 1).data


PARTS = pd.DataFrame({"cross_entropy": [7.5, 8.0], "gate": [np.nan, 0.25]}, index=["id", "text"])


def test_a_loss_is_drawn_by_term_and_modality():
    figure = plot_terms(PARTS, "Made of?")
    assert [bar.marker.color for bar in figure.data] == [COLOURS["id"], COLOURS["text"]]
    assert list(figure.data[0].x) == ["cross-entropy", "naming the group"]
    assert list(figure.data[0].text) == ["7.50", ""], "the ID has no gate"
    assert figure.layout.meta["alt"] == "Made of? cross-entropy: ID 7.50, text 8.00; naming the group: text 0.25."


def test_a_module_that_is_not_reached_is_an_empty_cell():
    table = pd.DataFrame({"gates": [10.0, 0.5], "experts": [0.01, 0.0]}, index=["cross_entropy", "gate"])
    figure = plot_teachers(table, "Who?")
    np.testing.assert_allclose(figure.data[0].z, [[1, -2], [math.log10(0.5), np.nan]], atol=1e-3)
    assert figure.data[0].text[1][1] == ""
    assert figure.layout.meta["alt"] == (
        "Who? cross-entropy teaches gates 10, experts 0.01; naming the group teaches gates 0.5."
    )


def made_steps(count: int) -> pd.DataFrame:
    steps = pd.DataFrame({"id/cross_entropy": np.arange(count, 0.0, -1), "gradient/gates": 1.0})
    return steps.set_index(np.arange(1, count + 1))


EPOCHS = pd.DataFrame({"step": [12, 24], "valid_ndcg@10": [0.1, 0.2]})


def test_every_module_has_a_line_of_its_own():
    assert list(MODULE_LINES) == list(MODULES.values())
    assert len({(look["color"], look.get("dash")) for look in MODULE_LINES.values()}) == len(MODULE_LINES)


def test_curves_of_training_are_running_means_and_the_same_lines_at_any_time():
    empty, full = plot_training(pd.DataFrame(), pd.DataFrame()), plot_training(made_steps(24), EPOCHS, 1200, 0.03)
    assert [line.name for line in empty.data] == [line.name for line in full.data]
    line = full.data[0]
    assert line.line.color == COLOURS["id"] and list(line.x) == list(range(1, 25))
    values = made_steps(24)["id/cross_entropy"].to_list()
    means = [np.mean(values[max(0, n - SMOOTHING) : n]) for n in range(1, 25)]
    np.testing.assert_allclose(line.y, means, atol=1e-5)
    assert np.isnan(full.data[1].y).all(), "a modality that is not there"
    gates = next(line for line in full.data if line.name == "gates")
    assert set(gates.y) == {1.0} and gates.legend == "legend2"
    assert list(full.data[-1].x) == [12, 24] and list(full.data[-1].y) == [0.1, 0.2]
    assert [shape.y0 for shape in full.layout.shapes] == [pytest.approx(math.log(1200)), 0.03]
    assert full.layout.meta["alt"] == (
        "Training curves after 24 steps and 2 epochs. Cross-entropy: ID 24.00 to 5.50. Validation N@10: 0.100, 0.200."
    )
    assert empty.layout.meta["alt"] == "Training curves after 0 steps and 0 epochs."


def test_a_stopped_run_shows_what_is_kept_and_what_is_spared():
    figure = plot_stopping([0.1, 0.3, 0.2, 0.25, 0.4], 2, 2, 4, "Stop?")
    spared, run, kept = figure.data
    assert (list(spared.x), list(run.x), list(kept.x)) == ([4, 5], [1, 2, 3, 4], [2])
    assert figure.layout.annotations[0].text == "2 epochs without a better one"
    assert figure.layout.meta["alt"].startswith("Stop? With patience 2, epoch 2 is kept and epoch 4 is the last of 5")


def test_a_run_that_was_not_stopped_has_no_wait():
    figure = plot_stopping([0.1, 0.2], 2, 2, 2, "Stop?")
    assert not figure.layout.shapes and not figure.layout.annotations


def test_systems_have_their_intervals_and_their_names_are_no_markup():
    figure = plot_systems({"<b>ours</b>": (0.3, 0.28, 0.33)}, "Good?", "N@10")
    (dots,) = figure.data
    assert list(dots.y) == ["&lt;b&gt;ours&lt;/b&gt;"]
    assert list(dots.error_x.array) == [0.03] and list(dots.error_x.arrayminus) == [0.02]
    assert figure.layout.meta["alt"] == "Good? N@10: <b>ours</b> 0.300 (0.280 to 0.330)."


def test_differences_have_a_line_at_zero_and_those_that_hold_it_are_hollow():
    figure = plot_differences({"<b>a</b>": (0.02, 0.01, 0.03), "b": (-0.01, -0.02, 0.0)}, "Better?", "N@10")
    (dots,) = figure.data
    assert list(dots.marker.symbol) == ["circle", "circle-open"] and list(dots.y) == ["&lt;b&gt;a&lt;/b&gt;", "b"]
    assert figure.layout.shapes[0].x0 == figure.layout.shapes[0].x1 == 0
    assert figure.layout.meta["alt"] == "Better? N@10: <b>a</b> +0.020 (+0.010 to +0.030); b -0.010 (-0.020 to +0.000)."


def test_what_is_reached_is_a_bar_inside_the_one_of_what_is_possible():
    values = pd.DataFrame({"oracle": [0.5, 0.2], "<b>ours</b>": [0.4, 0.05], "theirs": [0.3, 0.1]}, ["<i>all", "new"])
    figure = plot_ceiling(values, "What is left?", "N@10")
    ceiling, system, marked, beside = figure.data
    assert (ceiling.x > system.x).all() and ceiling.width > system.width and figure.layout.barmode == "overlay"
    assert list(marked.x) == [0.3, 0.1] and list(beside.text) == [" 80%", " 25%"]
    assert list(system.y) == ["&lt;i&gt;all", "new"] and "<b>" not in system.name
    assert figure.layout.meta["alt"] == (
        "What is left? N@10: <i>all oracle 0.500, <b>ours</b> 0.400, theirs 0.300 (80%); "
        "new oracle 0.200, <b>ours</b> 0.050, theirs 0.100 (25%)."
    )


def test_sampling_curves_are_told_apart_by_colour_and_shape():
    curves = {f"system {n}": [0.1 * n, 0.05 * n] for n in range(6)}
    figure = plot_sampling(curves, [99, 1199], "Who?", "H@10")
    assert len({line.line.color for line in figure.data}) == len({line.marker.symbol for line in figure.data}) == 6
    assert not {line.line.color for line in figure.data} & set(COLOURS.values())
    assert figure.layout.meta["alt"].startswith("Who? H@10 against 99, 1,199 items. system 0: 0.000, 0.000; system 1:")


def test_bars_of_systems_escape_names_and_are_as_long_as_their_values():
    said = system_bars({"<i>": 0.5, "b": 0.25, "c": 0.0}, ("<i>", "b")).data
    assert "<i>" not in said and 'aria-label="&lt;i&gt; 0.500, b 0.250, c 0.000"' in said
    assert [part.split("%")[0] for part in said.split("width:")[1:] if "%" in part[:7]] == ["50.0", "25.0", "0.0"]


def test_lengths_are_counted_for_customers_and_for_products():
    dataset = tiny.tiny_dataset([np.array([1, 2, 2]), np.array([1, 3, 13]), np.array([1, 2, 3, 4, 5])])
    figure = plot_lengths(dataset, "How many?")
    customers, products = figure.data
    assert list(customers.y) == [0, 0, 0, 2, 0, 1]
    assert list(products.y) == [7, 3, 1, 2]  # of thirteen products seven were never bought, two three times
    assert figure.layout.meta["alt"] == (
        "How many? purchases of a customer: 3 to 5, the median is 3; purchases of a product: 0 to 3, the median is 0."
    )


def test_a_duel_has_two_curves_told_apart_without_colour():
    figure = plot_duel({"default": [0.1, 0.2], "w/o Text": []}, "Who?")
    assert [line.line.dash for line in figure.data] == ["solid", "dash"]
    assert [list(line.x) for line in figure.data] == [[1, 2], []]
    assert figure.layout.meta["alt"] == "Who? default: 0.100, 0.200; w/o Text: not yet."


def test_a_notebook_shows_a_figure_and_below_it_its_text_escaped(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "display", shown.append)
    monkeypatch.setattr(go.Figure, "_ipython_display_", lambda figure: shown.append(figure))
    figure = plot_duel({"default": [0.1], "w/o <Text>": []}, "Who?")
    figure._ipython_display_()
    assert shown[0] is figure
    assert (
        "<summary>The figure in words</summary>Who? default: 0.100; w/o &lt;Text&gt;: not yet.</details>"
        in shown[1].data
    )


def test_a_sweep_has_a_panel_for_each_setting_and_metric_with_intervals():
    rows = [("lambda_q", 0.1, "hit@5", 0.2, 0.18, 0.23), ("lambda_q", 0.3, "hit@5", 0.3, 0.28, 0.33)]
    rows += [
        (setting, 0.5, metric, 0.1, 0.1, 0.1) for setting, metric in (("lambda_q", "ndcg@5"), ("lambda_c", "hit@5"))
    ]
    points = pd.DataFrame(rows, columns=["setting", "value", "metric", "mean", "low", "high"])
    figure = plot_sweeps(points, "How much?")
    assert [(line.xaxis, line.yaxis) for line in figure.data] == [("x", "y"), ("x3", "y3"), ("x2", "y2")]
    line = figure.data[0]
    assert list(line.x) == ["0.1", "0.3"] and list(line.y) == [0.2, 0.3]
    assert list(line.error_y.array) == [0.03, 0.03] and list(line.error_y.arrayminus) == [0.02, 0.02]
    assert figure.layout.meta["alt"].startswith(
        "How much? H@5 by lambda_q: 0.200 at 0.1, 0.300 at 0.3; N@5 by lambda_q"
    )
