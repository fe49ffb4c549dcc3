"""Figures of the notebooks: a text for those who don't see them, nothing from the data taken for markup."""

import base64
import io
import re

import numpy as np
import pandas as pd
from PIL import Image

from imecd_lite.plots import COLOURS, MARKS, patch_grid, plot_maps, plot_shares, token_strip

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
