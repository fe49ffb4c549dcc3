"""Figures of the notebooks: a text for those who don't see them, nothing from the data taken for markup."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from imecd_lite.plots import (
    COLOURS,
    MARKS,
    code_bars,
    draw_ranks,
    draw_walk,
    gate_bars,
    patch_grid,
    plot_code_use,
    plot_contents,
    plot_gains,
    plot_lines,
    plot_maps,
    plot_routing,
    plot_shares,
    plot_usage,
    plot_walks,
    share_bars,
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
    assert [trace.z.tolist() for trace in figure.data] == [mean.to_numpy().tolist(), (1 - mean).to_numpy().tolist()]
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"} and figure.layout.coloraxis.cmin == 0
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
        "Codes literal, ID, perplexity: 24.0 at first, 1.5 at last; "
        "literal, ID, codes in use: 24.0 at first, 3.0 at last."
    )


def test_usage_is_sorted_and_names_the_codes_in_use():
    figure = plot_usage({"run": {"id": np.array([1, 3, 0]), "text": np.array([0, 8, 0])}}, "Use")
    assert [trace.y.tolist() for trace in figure.data] == [[0.75, 0.25, 0], [1, 0, 0]]
    assert [title.text for title in figure.layout.annotations] == [
        "run, ID: 2 of 3 codes in use",
        "run, text: 1 of 3 codes in use",
    ]
    assert figure.layout.meta["alt"].endswith("run, text: 1 of 3 codes in use, the busiest has 100%.")


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
    figure = plot_lines(lines, "Lines", "height", {"one": "#123456"}, {"two": "dot"}, yaxis={"type": "log"})
    assert [list(line.y) for line in figure.data] == [[1, 2], [3, 0.5]]
    assert figure.data[0].line.color == "#123456" and figure.data[1].line.dash == "dot"
    assert figure.layout.yaxis.type == "log" and figure.layout.yaxis.title.text == "height"
    assert figure.layout.meta["alt"] == "Lines height. one: 1 at t 1, 2 at 8; two: 3 at t 1, 0.5 at 8."


def test_walks_begin_with_a_circle_end_with_a_square_and_have_pictures_where_items_stand():
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
    assert [(image.x, image.y, image.source) for image in figure.layout.images] == 2 * [(4, 2, "data:,")]
    assert "&lt;b&gt;" in [note.text for note in figure.layout.annotations]
    assert "in, from (0.0, 0.0) to (2.0, 2.0); out, from (2.0, 2.0)" in figure.layout.meta["alt"]


def test_a_drawn_walk_keeps_the_shape_of_the_map():
    points = np.array([[-1.0, -1], [1, 1], [1, -1]])
    svg = draw_walk(points, np.array([[0.0, 0]]), points[0], points[1], "text", 'a "map"').data
    dots = [tuple(map(int, dot)) for dot in re.findall(r"M(\d+) (\d+)h0", svg)]
    (ax, ay), (bx, by), (cx, cy) = dots
    assert bx - ax == ay - by == cx - ax and cy == ay and bx == cx, "up is up, and both axes have one scale"
    assert 'cx="250.0" cy="180.0" r="7"' in svg and f'cx="{bx:.1f}" cy="{by:.1f}" r="11"' in svg
    assert 'aria-label="a &quot;map&quot;"' in svg and COLOURS["text"] in svg


def test_drawn_ranks_show_what_has_been_walked_and_say_where_it_stands():
    svg = draw_ranks(np.array([900, 30, 2]), np.array([5, 3]), 1, 1200, "id").data
    assert svg.count("<circle") == 2 and svg.count("l5 5l-5 5") == 2
    assert "after 1 of 2 steps: 30 by x_t, 3 by the prediction." in svg
    assert "3 by the prediction" in draw_ranks(np.array([900, 30, 2]), np.array([5, 3]), 2, 1200, "id").data
    assert draw_ranks(np.array([1, 1]), np.array([1]), 0, 1, "id").data
