"""Figures of the notebooks, from arrays. Each comes with its text for those who don't see it: ``DescribedFigure``."""

# I items, N experts, Z codes, n patches, P patch size

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from IPython.display import HTML, display
from PIL import Image
from plotly.subplots import make_subplots

if TYPE_CHECKING:
    from imecd_lite.dataset import Dataset

COLOURS = {"text": "#d55e00", "image": "#009e73", "id": "#0072b2"}
"""One a modality, the same through the series; told apart by the colour-blind too."""
WORDS = {"id": "ID", "text": "text", "image": "picture"}
NAMES = {"text": "By text", "image": "By picture", "id": "By behaviour (ID)"}
ELSE = "all the rest"
MARKS = {
    ELSE: {"color": "#d0d0d0", "symbol": "circle", "size": 4},
    "honest": {"color": "#222222", "symbol": "circle", "size": 7},
    "text misleads": {"color": COLOURS["text"], "symbol": "triangle-up-open", "size": 10, "line_width": 2},
    "picture misleads": {"color": COLOURS["image"], "symbol": "square-open", "size": 8, "line_width": 2},
}
"""How groups of items look on a map: by colour and by shape."""


def token_strip(pieces: Sequence[str]) -> HTML:
    """The pieces that a tokenizer cut a text into, each in a box; a word's leading space is drawn as a dot."""
    style = "border:1px solid currentColor;border-radius:4px;padding:1px 5px;font-family:monospace;white-space:pre"
    boxes = "".join(f'<span style="{style}">{html.escape(piece.replace("Ġ", "·"))}</span>' for piece in pieces)
    return HTML(f'<div style="display:flex;flex-wrap:wrap;gap:4px">{boxes}</div>')


def patch_grid(patches: np.ndarray, columns: int, alt: str, scale: int = 5, gap: int = 1) -> HTML:
    """Patches (n, P, P, 3) uint8 in rows of ``columns`` with white gaps.

    Args:
        alt: what to say to those who don't see it.
        scale: screen pixels a pixel.
        gap: pixels between patches.
    """
    step, rows = patches.shape[1] + gap, -(-len(patches) // columns)
    canvas = np.full((rows * step - gap, columns * step - gap, 3), 255, dtype=np.uint8)
    for index, patch in enumerate(patches):
        top, left = index // columns * step, index % columns * step
        canvas[top : top + step - gap, left : left + step - gap] = patch
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return HTML(
        f'<img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{data}" '
        f'style="width:{canvas.shape[1] * scale}px;image-rendering:pixelated">'
    )


def plot_maps(maps: dict[str, np.ndarray], titles: Sequence[str], groups: np.ndarray, alt: str) -> go.Figure:
    """Maps side by side, one a modality; hover for a title.

    Args:
        maps: by modality, (I, 2).
        titles: (I,).
        groups: (I,) keys of ``MARKS``.
        alt: what to say to those who don't see it.
    """
    figure = make_subplots(1, len(maps), subplot_titles=[NAMES[name] for name in maps], horizontal_spacing=0.02)
    hover = np.array([html.escape(title) for title in titles])
    for column, (name, points) in enumerate(maps.items(), start=1):
        figure.layout.annotations[column - 1].font.color = COLOURS[name]
        for group, mark in MARKS.items():
            rows = groups == group
            trace = go.Scatter(
                x=points[rows, 0].round(2),
                y=points[rows, 1].round(2),
                mode="markers",
                marker=mark,
                name=group,
                legendgroup=group,
                showlegend=column == 1,
                text=hover[rows],
                hovertemplate="%{text}<extra></extra>",
            )
            figure.add_trace(trace, 1, column)
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return finish(figure, alt)


def plot_shares(shares: pd.DataFrame, title: str, names: dict[str, str] = NAMES) -> go.Figure:
    """Bars of shares from 0 to 1: a group of bars a row, in it a bar for each modality, the columns of ``shares``.

    Args:
        names: by modality, what its bars stand for.
    """
    figure = go.Figure(
        [
            go.Bar(
                x=list(shares.index),
                y=shares[name].round(3),
                name=names[name],
                marker_color=COLOURS[name],
                text=[f"{share:.0%}" for share in shares[name]],
                textposition="outside",
                cliponaxis=False,
                hovertemplate="%{y:.1%}<extra>" + names[name] + "</extra>",
            )
            for name in shares
        ]
    )
    figure.update_yaxes(range=[0, 1], tickformat=".0%")
    rows = (
        f"{group}: " + ", ".join(f"{names[name]} {share:.0%}" for name, share in row.items())
        for group, row in shares.iterrows()
    )
    return finish(figure, "; ".join(rows), title)


class DescribedFigure(go.Figure):
    """A figure with its text, ``layout.meta["alt"]``, which a notebook shows folded below it: plotly has no place."""

    def _ipython_display_(self) -> None:
        super()._ipython_display_()
        display(HTML(in_words(self.layout.meta["alt"])))


def in_words(alt: str) -> str:
    """HTML: a line that unfolds to the text of a figure."""
    return f"<details><summary>The figure in words</summary>{html.escape(alt)}</details>"


def finish(figure: go.Figure, said: str, title: str = "") -> DescribedFigure:
    """The series' look, as wide as the page, a title, and the text for those who don't see the figure."""
    stop = "" if title.endswith((".", "?", "!", ":", "…")) else "."
    return DescribedFigure(figure).update_layout(
        title=title or None,
        template="plotly_white",
        height=420,
        margin={"l": 40, "r": 20, "t": 50, "b": 40},
        legend={"orientation": "h", "y": -0.1, "itemsizing": "constant"},
        font_size=14,
        meta={"alt": f"{title}{stop} {said}" if title else said},
    )


def cell_texts(heatmap: go.Heatmap, texts: Sequence[Sequence[str]], low: float, high: float) -> go.Scatter:
    """What stands in the cells of a heatmap in Cividis: white on the dark half of its scale, black on the light one.

    Plotly's own choice, white or dark grey, can't be read on the cells in the middle.

    Args:
        texts: by row and column; empty where nothing stands.
        low: the value of the darkest colour.
        high: the value of the lightest colour.
    """
    cells = [
        (x, y, z, text)
        for y, row, words in zip(heatmap.y, heatmap.z, texts, strict=True)
        for x, z, text in zip(heatmap.x, row, words, strict=True)
        if text
    ]
    columns, rows, values, words = zip(*cells, strict=True)
    colours = ["#ffffff" if value < (low + high) / 2 else "#000000" for value in values]
    look = {"mode": "text", "textfont": {"color": colours, "size": 12}, "hoverinfo": "skip", "showlegend": False}
    return go.Scatter(x=columns, y=rows, text=words, cliponaxis=False, **look)


EXPERTS = {"text": "The text's experts", "image": "The picture's experts"}


def plot_routing(means: dict[str, pd.DataFrame], title: str) -> go.Figure:
    """Heatmaps side by side on one scale, one a modality: how much the items of each row listen to each expert.

    Args:
        means: by modality, the mean gate of each group of items: rows groups, columns experts.
    """
    figure = make_subplots(
        1, len(means), subplot_titles=[EXPERTS[name] for name in means], shared_yaxes=True, horizontal_spacing=0.04
    )
    most = max(mean.to_numpy().max() for mean in means.values())
    for column, (name, mean) in enumerate(means.items(), start=1):
        figure.layout.annotations[column - 1].font.color = COLOURS[name]
        trace = go.Heatmap(
            x=[str(expert) for expert in mean.columns],
            y=list(mean.index),
            z=mean.round(3).to_numpy(),
            coloraxis="coloraxis",
            hovertemplate="%{y}, expert %{x}: %{z:.1%}<extra></extra>",
        )
        figure.add_trace(trace, 1, column)
        texts = [[f"{share:.0%}" for share in row] for row in mean.to_numpy()]
        figure.add_trace(cell_texts(trace, texts, 0, most), 1, column)
    figure.update_xaxes(title="expert", type="category", title_standoff=6).update_yaxes(autorange="reversed")
    figure.update_coloraxes(colorscale="Cividis", cmin=0, cmax=most, colorbar={"tickformat": ".0%", "thickness": 14})
    rows = (
        f"{EXPERTS[name]}: "
        + "; ".join(f"{group} most to {row.idxmax()}, {row.max():.0%}" for group, row in mean.iterrows())
        for name, mean in means.items()
    )
    figure = finish(figure, f"{'. '.join(rows)}.", title)
    return figure.update_layout(height=460, margin={"l": 80, "t": 90, "b": 60})


def plot_gains(gains: dict[str, np.ndarray], misled: dict[str, np.ndarray], title: str, axis: str) -> go.Figure:
    """Histograms side by side, one a modality: the gains of items whose text or picture is honest, and of the others.

    Args:
        gains: by modality, (I,).
        misled: by modality, (I,) bool.
        axis: what a gain is.
    """
    figure = make_subplots(
        1, len(gains), subplot_titles=[EXPERTS[name] for name in gains], shared_yaxes=True, horizontal_spacing=0.05
    )
    low, high = min(map(np.min, gains.values())), max(map(np.max, gains.values()))
    edges = np.linspace(low, high, 31)
    said = []
    for column, (name, gain) in enumerate(gains.items(), start=1):
        figure.layout.annotations[column - 1].font.color = COLOURS[name]
        groups = {f"{WORDS[name]} honest": ~misled[name], f"{WORDS[name]} misleads": misled[name]}
        for (label, rows), colour in zip(groups.items(), ("#b0b0b0", COLOURS[name]), strict=True):
            shares = np.histogram(gain[rows], edges)[0] / max(rows.sum(), 1)
            trace = go.Bar(
                x=((edges[:-1] + edges[1:]) / 2).round(3),
                y=shares.round(4),
                width=edges[1] - edges[0],
                name=label,
                marker={"color": colour, "line_width": 0},
                opacity=0.7,
                hovertemplate="%{x:.2f}: %{y:.1%}<extra>" + label + "</extra>",
            )
            figure.add_trace(trace, 1, column)
            said.append(f"{label}: median {np.median(gain[rows]) if rows.any() else np.nan:.2f}")
    figure.update_xaxes(title=axis, title_standoff=6).update_yaxes(tickformat=".0%")
    figure.update_yaxes(title="share of the items", title_standoff=6, col=1)
    figure = finish(figure.update_layout(barmode="overlay"), f"{axis}. {'; '.join(said)}.", title)
    return figure.update_layout(height=460, margin={"t": 90, "b": 60}, legend_y=-0.2)


def gate_bars(gate: np.ndarray, former: np.ndarray, modality: str) -> HTML:
    """A gate (N,) of "text" or "image" as a bar for each expert; a black line marks where it was before, ``former``."""
    lines = "".join(
        '<div style="display:flex;align-items:center;gap:6px;font-size:12px;line-height:1;height:15px">'
        f'<span style="width:54px;text-align:right">expert {n + 1}</span>'
        '<span style="position:relative;flex:1;height:11px;background:#88888833">'
        f'<span style="position:absolute;left:0;top:0;bottom:0;width:{now:.1%};background:{COLOURS[modality]}"></span>'
        f'<span style="position:absolute;left:calc({then:.1%} - 1px);top:-2px;bottom:-2px;width:2px;'
        'background:currentColor"></span></span>'
        f'<span style="width:36px;text-align:right">{now:.0%}</span></div>'
        for n, (now, then) in enumerate(zip(gate, former, strict=True))
    )
    said = ", ".join(
        f"expert {n + 1} {now:.0%}, before {then:.0%}" for n, (now, then) in enumerate(zip(gate, former, strict=True))
    )
    return HTML(
        f'<div role="img" aria-label="The gate of the {WORDS[modality]}: {said}" style="flex:0 0 250px;width:250px">'
        f'<div style="font-weight:600;color:{COLOURS[modality]}">the {WORDS[modality]}’s gate</div>{lines}</div>'
    )


def plot_code_use(histories: dict[str, pd.DataFrame], codebook_size: int, title: str) -> go.Figure:
    """Runs side by side: perplexity (solid) and codes in use (dotted) of each modality, epoch by epoch.

    Args:
        histories: by run, the columns ``epoch``, ``<modality>/code_perplexity`` and ``<modality>/codes_used``.
        codebook_size: Z, the top of the scale.
    """
    figure = make_subplots(
        1, len(histories), subplot_titles=list(histories), shared_yaxes=True, horizontal_spacing=0.05
    )
    kinds = {"code_perplexity": ("perplexity", "solid"), "codes_used": ("codes in use", "dot")}
    said = []
    for column, (run, history) in enumerate(histories.items(), start=1):
        for name in WORDS:
            for field, (word, dash) in kinds.items():
                if f"{name}/{field}" not in history:
                    continue
                values = history[f"{name}/{field}"]
                trace = go.Scatter(
                    x=history["epoch"],
                    y=values.round(2),
                    mode="lines+markers",
                    line={"color": COLOURS[name], "dash": dash, "width": 2},
                    marker_size=5,
                    name=f"{WORDS[name]}, {word}",
                    legendgroup=f"{name}/{field}",
                    showlegend=column == 1,
                )
                figure.add_trace(trace, 1, column)
                said.append(
                    f"{run}, {WORDS[name]}, {word}: {values.iloc[0]:.1f} at first, {values.iloc[-1]:.1f} at last"
                )
    figure.update_xaxes(title="epoch", title_standoff=6).update_yaxes(range=[0, codebook_size * 1.06])
    figure.update_yaxes(title=f"codes, of {codebook_size}", title_standoff=6, col=1)
    figure = finish(figure, f"{'; '.join(said)}.", title)
    return figure.update_layout(height=480, margin={"t": 90, "b": 60}, legend_y=-0.2)


def plot_usage(counts: dict[str, dict[str, np.ndarray]], title: str) -> go.Figure:
    """How many histories each code has, the busiest first: a row a model, a column a modality.

    Args:
        counts: by model and modality, (Z,).
    """
    names = list(next(iter(counts.values())))
    titles = [
        f"{model}, {WORDS[name]}: {(of[name] > 0).sum()} of {len(of[name])} in use"
        for model, of in counts.items()
        for name in names
    ]
    figure = make_subplots(
        len(counts),
        len(names),
        subplot_titles=titles,
        shared_yaxes="rows",
        vertical_spacing=0.16,
        horizontal_spacing=0.04,
    )
    said = []
    for row, of in enumerate(counts.values(), start=1):
        for column, name in enumerate(names, start=1):
            shares = np.sort(of[name])[::-1] / of[name].sum()
            trace = go.Bar(
                x=np.arange(1, len(shares) + 1),
                y=shares.round(4),
                marker_color=COLOURS[name],
                showlegend=False,
                hovertemplate="%{y:.1%}<extra></extra>",
            )
            figure.add_trace(trace, row, column)
            said.append(f"{titles[len(said)]}, the busiest has {shares[0]:.0%}")
    for annotation, name in zip(figure.layout.annotations, names * len(counts), strict=True):
        annotation.font = {"color": COLOURS[name], "size": 13}
    figure.update_yaxes(tickformat=".0%", rangemode="tozero").update_xaxes(showticklabels=False)
    figure.update_xaxes(title="codes, the busiest first", title_standoff=4, row=len(counts))
    figure = finish(figure.update_layout(bargap=0.15), f"{'; '.join(said)}.", title)
    return figure.update_layout(height=520, margin={"t": 100, "b": 50})


def plot_contents(shares: pd.DataFrame, title: str) -> go.Figure:
    """A heatmap of what the codes gather: rows labels, columns codes, put in the order of their favourite label.

    Args:
        shares: from ``code_contents``, each column's sum 1, or 0 where nobody chose the code.
    """
    order = sorted(shares.columns, key=lambda code: (int(shares[code].to_numpy().argmax()), -float(shares[code].max())))
    shares = shares[order]
    figure = go.Figure(
        go.Heatmap(
            x=[str(code) for code in shares.columns],
            y=list(shares.index),
            z=shares.round(3).to_numpy(),
            coloraxis="coloraxis",
            hovertemplate="code %{x}, %{y}: %{z:.0%}<extra></extra>",
        )
    )
    figure.update_xaxes(title="code", type="category", title_standoff=6, tickangle=0).update_yaxes(autorange="reversed")
    figure.update_coloraxes(colorscale="Cividis", cmin=0, cmax=1, colorbar={"tickformat": ".0%", "thickness": 14})
    said = "; ".join(f"code {code} most {shares[code].idxmax()}, {shares[code].max():.0%}" for code in shares.columns)
    figure = finish(figure, f"{said}.", title)
    return figure.update_layout(height=520, margin={"l": 160, "t": 70, "b": 60}).update_yaxes(tickfont_size=12)


def code_bars(
    shares: np.ndarray,
    title: str,
    modality: str,
    chosen: int | None = None,
    marks: np.ndarray | None = None,
    width: int = 400,
) -> HTML:
    """A share (Z,) for each code as a row of upright bars, codes counted from 1.

    Args:
        chosen: the code 0 ... Z - 1 to set off: it is full, the others pale.
        marks: (Z,) shares to mark by a line across each bar.
        width: in pixels.
    """
    marks_html = [""] * len(shares)
    if marks is not None:
        marks_html = [
            f'<span style="position:absolute;left:-1px;right:-1px;bottom:calc({mark:.2%} - 1px);height:2px;'
            'background:currentColor"></span>'
            for mark in marks
        ]
    columns = "".join(
        '<div style="flex:1;min-width:0;text-align:center">'
        '<div style="position:relative;height:110px;background:#88888822">'
        f'<span style="position:absolute;left:0;right:0;bottom:0;height:{share:.2%};background:{COLOURS[modality]};'
        f'opacity:{1 if chosen in (None, code) else 0.35}"></span>{line}</div>'
        f'<div style="font-size:10px;font-weight:{700 if code == chosen else 400}">{code + 1}</div></div>'
        for code, (share, line) in enumerate(zip(shares, marks_html, strict=True))
    )
    best = np.argsort(-np.asarray(shares), kind="stable")[:3]
    said = ", ".join(f"code {code + 1} {shares[code]:.0%}" for code in best)
    return HTML(
        f'<div role="img" aria-label="{html.escape(title, quote=True)}: {said}" style="width:{width}px;max-width:100%">'
        f'<div style="font-weight:600;border-left:5px solid {COLOURS[modality]};padding-left:6px;margin-bottom:4px;'
        'line-height:1.35">'
        f"{html.escape(title)}</div>"
        f'<div style="display:flex;gap:2px">{columns}</div></div>'
    )


def share_bars(shares: pd.Series, title: str, colour: str, width: int = 340) -> HTML:
    """Shares by name as lying bars, in the order given.

    Args:
        colour: of the bars, as CSS.
        width: in pixels.
    """
    lines = "".join(
        '<div style="display:flex;align-items:center;gap:6px;font-size:12px;height:18px">'
        f'<span style="width:130px;text-align:right">{html.escape(str(name))}</span>'
        f'<span style="flex:1;background:#88888822;height:12px"><span style="display:block;height:12px;'
        f'width:{share:.1%};background:{colour}"></span></span>'
        f'<span style="width:36px;text-align:right">{share:.0%}</span></div>'
        for name, share in shares.items()
    )
    said = html.escape(", ".join(f"{name} {share:.0%}" for name, share in shares.items()), quote=True)
    return HTML(
        f'<div role="img" aria-label="{html.escape(title, quote=True)}: {said}" style="width:{width}px;max-width:100%">'
        f'<div style="font-weight:600">{html.escape(title)}</div>{lines}</div>'
    )


def plot_lines(
    lines: pd.DataFrame,
    title: str,
    y: str,
    colours: dict[str, str] | None = None,
    dashes: dict[str, str] | None = None,
    levels: dict[str, float] | None = None,
    **axes: dict,
) -> go.Figure:
    """A line for each column over the index, whose name is the horizontal axis's.

    Args:
        y: name of the vertical axis.
        colours: by column; near black where it says nothing.
        dashes: by column; solid where it says nothing.
        levels: by name, heights to compare with, drawn as thin dotted lines.
        axes: "xaxis" and "yaxis", what else to tell plotly of them, such as ``yaxis={"type": "log"}``.
    """
    figure = go.Figure(
        [
            go.Scatter(
                x=list(lines.index),
                y=[float(f"{value:.4g}") for value in lines[name]],
                mode="lines+markers",
                name=name,
                marker_size=5,
                line={"color": (colours or {}).get(name, "#222222"), "dash": (dashes or {}).get(name, "solid")},
            )
            for name in lines
        ]
    )
    x = lines.index.name
    first, last = lines.index[0], lines.index[-1]
    for name, height in (levels or {}).items():
        look = {"mode": "lines", "line": {"color": "#777777", "dash": "dot", "width": 1.5}}
        figure.add_trace(go.Scatter(x=[first, last], y=[height, height], name=name, **look))
    said = [f"{name}: {lines[name].iloc[0]:.3g} at {x} {first}, {lines[name].iloc[-1]:.3g} at {last}" for name in lines]
    said += [f"{name}: {height:g}" for name, height in (levels or {}).items()]
    figure = finish(figure, f"{y}. {'; '.join(said)}.", title)
    figure.update_xaxes(title=x, title_standoff=6).update_yaxes(title=y, exponentformat="power")
    return figure.update_layout(legend_y=-0.2, margin={"l": 70, "b": 60}, **axes)


def plot_walks(
    points: np.ndarray,
    paths: dict[str, np.ndarray],
    pictures: dict[str, tuple[str, np.ndarray, str]],
    modality: str,
    title: str,
) -> go.Figure:
    """Walks on one map of the catalogue, side by side, each with an item's picture and an arrow to where it stands.

    The pictures stand above the map, on the item's side, where they cover nothing.

    Args:
        points: (I, 2) where the items are.
        paths: by heading, (S + 1, 2); the first place is a circle, the last a square.
        pictures: by heading, what the item is, where it stands (2,) and its picture as a data URL.
    """
    figure = make_subplots(1, len(paths), subplot_titles=list(paths), horizontal_spacing=0.02)
    places = np.vstack([points, *paths.values()])
    (left, bottom), (right, top) = places.min(axis=0), places.max(axis=0)
    width, height = right - left, top - bottom
    for column, (heading, path) in enumerate(paths.items(), start=1):
        items = {"color": "#d0d0d0", "size": 4}
        walked = {"color": COLOURS[modality], "size": [11] + [4] * (len(path) - 2) + [12]}
        walked["symbol"] = ["circle"] + ["circle"] * (len(path) - 2) + ["square"]
        for place, look in (
            (points, {"mode": "markers", "marker": items, "hoverinfo": "skip"}),
            (path, {"mode": "lines+markers", "marker": walked, "line": {"color": COLOURS[modality], "width": 1.5}}),
        ):
            xy = {"x": place[:, 0].round(2), "y": place[:, 1].round(2)}
            figure.add_trace(go.Scatter(showlegend=False, **xy, **look), 1, column)
        name, place, source = pictures[heading]
        side = "left" if place[0] < (left + right) / 2 else "right"
        edge = left if side == "left" else right
        inner = edge + (0.15 if side == "left" else -0.15) * width
        axes = {"xref": f"x{column}", "yref": f"y{column}"}
        size = {"sizex": 0.14 * width, "sizey": 0.24 * height, "xanchor": side, "yanchor": "top"}
        figure.add_layout_image(source=source, layer="above", x=edge, y=top + 0.26 * height, **size, **axes)
        figure.add_annotation(
            **axes,
            **{"axref": f"x{column}", "ayref": f"y{column}", "ax": inner, "ay": top + 0.14 * height},
            **{"x": float(place[0]), "y": float(place[1]), "xanchor": side, "text": html.escape(name)},
            **{"arrowhead": 2, "arrowwidth": 1.5, "arrowcolor": "#222222", "standoff": 7, "font_size": 13},
        )
    figure.update_yaxes(range=[bottom - 0.04 * height, top + 0.28 * height])
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    said = "; ".join(
        f"{heading}, from ({path[0, 0]:.1f}, {path[0, 1]:.1f}) to ({path[-1, 0]:.1f}, {path[-1, 1]:.1f})"
        for heading, path in paths.items()
    )
    where = ", ".join(f"{name} ({place[0]:.1f}, {place[1]:.1f})" for name, place, _ in pictures.values())
    figure = finish(figure, f"{said}. Pictures: {where}.", title)
    return figure.update_layout(height=460, margin={"l": 20, "t": 80, "b": 20})


def draw_walk(
    points: np.ndarray, path: np.ndarray, predicted: np.ndarray, target: np.ndarray, modality: str, alt: str
) -> HTML:
    """A map of items (I, 2): the walk so far (k + 1, 2) ●, the place predicted (2,) ◇, that of the target (2,) ○."""
    width, height, edge = 440, 330, 24
    low, high = points.min(axis=0), points.max(axis=0)
    scale = min((width - 2 * edge) / max(high[0] - low[0], 1e-9), (height - 2 * edge) / max(high[1] - low[1], 1e-9))

    def put(places: np.ndarray) -> np.ndarray:
        offset = np.array([width, height]) / 2
        return offset + (np.atleast_2d(places) - (low + high) / 2) * scale * np.array([1, -1])

    dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in put(points))
    walked = put(path)
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in walked)
    (x, y), (px, py), (tx, ty) = walked[-1], put(predicted)[0], put(target)[0]
    colour = COLOURS[modality]
    return HTML(
        f'<svg role="img" aria-label="{html.escape(alt, quote=True)}" viewBox="0 0 {width} {height}" '
        f'style="width:{width}px;max-width:100%;font-size:13px" fill="none">'
        f'<path d="{dots}" stroke="#8888" stroke-width="4" stroke-linecap="round"/>'
        f'<path d="{line}" stroke="{colour}" stroke-width="2.5"/>'
        f'<circle cx="{tx:.1f}" cy="{ty:.1f}" r="11" stroke="currentColor" stroke-width="2.5"/>'
        f'<path d="M{px:.1f} {py - 8:.1f}l8 8l-8 8l-8 -8z" stroke="{colour}" stroke-width="2.5"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="{colour}"/></svg>'
    )


def draw_ranks(ranks: np.ndarray, predicted: np.ndarray, step: int, num_items: int) -> HTML:
    """The true item's rank by x_t (S + 1,), filled up to ``step``, and by x-hat_0 (S,), open, on a log scale.

    In no modality's colour: a rank is of all of them, Eq. 19.
    """
    width, height, left, bottom = 340, 330, 54, 44
    steps = max(len(predicted), 1)

    def put(step: float, rank: float) -> tuple[float, float]:
        down = np.log(rank) / np.log(max(num_items, 2))
        return left + (width - left - 14) * step / steps, 20 + (height - 20 - bottom) * down

    ticks = [tick for tick in (1, 10, 100, 1000, 10_000, 100_000) if tick <= num_items]
    parts = []
    for tick in ticks:
        _, y = put(0, tick)
        parts.append(f'<path d="M{left} {y:.1f}H{width - 14}" stroke="#8884"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="currentColor">{tick:,}</text>')
    x, _ = put(step, 1)
    parts.append(f'<path d="M{x:.1f} 14V{height - bottom}" stroke="currentColor" stroke-dasharray="3 3"/>')
    for k, rank in enumerate(predicted):
        x, y = put(k, rank)
        parts.append(f'<path d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z" stroke="currentColor" fill="none"/>')
    for k, rank in enumerate(ranks[: step + 1]):
        x, y = put(k, rank)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="currentColor"/>')
    said = f"Rank of the true item after {step} of {len(predicted)} steps: {ranks[step]:,} by x_t, " + (
        f"{predicted[min(step, len(predicted) - 1)]:,} by the prediction."
    )
    return HTML(
        f'<svg role="img" aria-label="{html.escape(said, quote=True)}" viewBox="0 0 {width} {height}" '
        f'style="width:{width}px;max-width:100%;font-size:12px">{"".join(parts)}'
        f'<text x="{left}" y="{height - 26}" text-anchor="middle" fill="currentColor">0</text>'
        f'<text x="{width - 14}" y="{height - 26}" text-anchor="middle" fill="currentColor">{len(predicted)}</text>'
        f'<text x="{(left + width) / 2:.0f}" y="{height - 8}" text-anchor="middle" fill="currentColor">'
        "steps done, and the true item’s rank</text></svg>"
    )


TERMS = {
    "cross_entropy": "cross-entropy",
    "reconstruction": "reconstruction",
    "contrastive": "contrastive",
    "match": "naming the code",
    "gate": "naming the group",
}
"""The terms of the loss as figures call them; the last two are the default's, not the paper's."""


def plot_terms(parts: pd.DataFrame, title: str) -> go.Figure:
    """What a total is made of: a group of bars for each term, a column of ``parts``; a bar for each modality, a row.

    Args:
        parts: each term times its weight; NaN where a modality lacks a term.
    """
    figure = go.Figure(
        [
            go.Bar(
                x=[TERMS[term] for term in parts],
                y=row.round(4).to_list(),
                name=WORDS[name],
                marker_color=COLOURS[name],
                text=["" if np.isnan(value) else f"{value:.2f}" for value in row],
                textposition="outside",
                cliponaxis=False,
                hovertemplate="%{x}: %{y:.3f}<extra>" + WORDS[name] + "</extra>",
            )
            for name, row in parts.iterrows()
        ]
    )
    figure.update_yaxes(title="term times its weight", rangemode="tozero")
    said = (
        f"{TERMS[term]}: "
        + ", ".join(f"{WORDS[name]} {value:.2f}" for name, value in column.items() if not np.isnan(value))
        for term, column in parts.items()
    )
    figure = finish(figure, f"{'; '.join(said)}.", title)
    return figure.update_layout(margin_l=70)


def plot_teachers(gradients: pd.DataFrame, title: str) -> go.Figure:
    """A heatmap of gradient norms on a log scale: which term of the loss, a row, teaches which module, a column.

    Cells that a term does not reach are empty.
    """
    values = gradients.to_numpy(dtype=float)
    logs = np.log10(values, where=values > 0, out=np.full_like(values, np.nan))
    rows = [TERMS[term] for term in gradients.index]
    texts = [[f"{value:.2g}" if value > 0 else "" for value in row] for row in values]
    trace = go.Heatmap(
        x=list(gradients.columns),
        y=rows,
        z=logs.round(3),
        text=texts,
        colorscale="Cividis",
        colorbar={"title": "gradient", "tickprefix": "10<sup>", "ticksuffix": "</sup>", "dtick": 1, "thickness": 14},
        hovertemplate="%{y} teaches %{x}: %{text}<extra></extra>",
        xgap=2,
        ygap=2,
    )
    figure = go.Figure([trace, cell_texts(trace, texts, np.nanmin(logs), np.nanmax(logs))])
    figure.update_yaxes(autorange="reversed", showgrid=False).update_xaxes(showgrid=False)
    said = (
        f"{name} teaches " + ", ".join(f"{module} {norm:.2g}" for module, norm in row.items() if norm > 0)
        for name, (_, row) in zip(rows, gradients.iterrows(), strict=True)
    )
    figure = finish(figure, f"{'; '.join(said)}.", title)
    return figure.update_layout(margin_l=130)


SMOOTHING = 10  # steps
MODULE_LINES = {
    "ID embeddings": {"color": COLOURS["id"]},
    "projections": {"color": "#e69f00"},
    "gates": {"color": "#cc79a7"},
    "experts": {"color": "#7a3b69", "dash": "dash"},
    "code selectors": {"color": "#56b4e9", "dash": "dot"},
    "denoisers": {"color": "#222222"},
    "repeat bias": {"color": "#999999", "dash": "dashdot"},
}
NORM_TICKS = [digit * 10.0**power for power in range(-4, 4) for digit in (1, 2, 5)]
PANELS = {
    "cross_entropy": "Cross-entropy",
    "reconstruction": "Reconstruction",
    "contrastive": "Contrastive, before λ<sub>c</sub>",
    "match": "Naming the code",
    "gate": "Naming the group of the ID",
    "code_perplexity": "Codes in use (perplexity)",
}


def training_curves(steps: pd.DataFrame, epochs: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
    """(x, y) of each line of ``plot_training``, in its order: what a live figure has to be given anew."""
    smooth, numbers, nothing = smoothed(steps), np.arange(1, len(steps) + 1), np.full(len(steps), np.nan)
    names = [f"{name}/{term}" for term in PANELS for name in WORDS] + [f"gradient/{name}" for name in MODULE_LINES]
    curves = [(numbers, smooth[name].to_numpy().round(5) if name in smooth else nothing) for name in names]
    scores = [epochs[name].to_numpy() if len(epochs) else np.array([]) for name in ("step", "valid_ndcg@10")]
    return [*curves, (scores[0], scores[1].round(4))]


def smoothed(steps: pd.DataFrame) -> pd.DataFrame:
    """Each value the mean of the latest ten."""
    return steps.rolling(SMOOTHING, min_periods=1).mean()


def plot_training(
    steps: pd.DataFrame, epochs: pd.DataFrame, num_items: int | None = None, baseline: float | None = None
) -> go.Figure:
    """All that there is to see of a training run, each line the mean of the latest ten steps.

    The lines are always the same ones, in one order, so that a live figure can take over their numbers.

    Args:
        steps: a row for each training step, from 1, its columns those of ``diagnostics.step_numbers``; may be empty.
        epochs: a row for each epoch with "step", its last, and "valid_ndcg@10"; may be empty.
        num_items: I; guessing among them is marked.
        baseline: the validation N@10 of popularity, marked as well.
    """
    titles = [*PANELS.values(), "Gradient norm of each module", "Validation N@10"]
    layout = [[{}, {}, {}], [{}, {}, {}], [{"colspan": 2}, None, {}]]
    figure = make_subplots(3, 3, specs=layout, subplot_titles=titles, horizontal_spacing=0.07, vertical_spacing=0.12)
    curves = iter(training_curves(steps, epochs))

    def line(row: int, place: int, **look: object) -> None:
        x, y = next(curves)
        figure.add_trace(go.Scatter(x=x, y=y, **{"mode": "lines"} | look), row, place)

    for number in range(len(PANELS)):
        for name in WORDS:
            look = {"name": WORDS[name], "legendgroup": name, "line": {"color": COLOURS[name], "width": 2}}
            line(number // 3 + 1, number % 3 + 1, showlegend=number == 0, **look)
    for module, look in MODULE_LINES.items():
        line(3, 1, name=module, line=look | {"width": 2}, legend="legend2")
    line(
        *(3, 3),
        mode="lines+markers",
        line={"color": "#222222", "width": 2},
        showlegend=False,
        hovertemplate="after step %{x}: N@10 %{y:.3f}<extra></extra>",
    )
    grey = {"line": {"dash": "dot", "color": "#777777"}, "annotation_font_size": 11, "annotation_font_color": "#555555"}
    if num_items:
        figure.add_hline(math.log(num_items), row=1, col=1, annotation_text="guessing", **grey)
    if baseline is not None:
        figure.add_hline(baseline, row=3, col=3, annotation_text="popularity", **grey)
    figure.update_xaxes(rangemode="tozero", matches="x")
    ticks = {"tickvals": NORM_TICKS, "ticktext": [f"{norm:g}" for norm in NORM_TICKS]}
    figure.update_yaxes(type="log", row=3, col=1, **ticks)
    figure.update_yaxes(rangemode="tozero", row=2, col=2)  # "naming the group", at first a loss of 0
    figure.update_xaxes(title="training step", title_standoff=4, row=3).update_yaxes(rangemode="tozero", row=3, col=3)
    figure = finish(figure, tell_training(smoothed(steps), epochs))
    for title in figure.layout.annotations[: len(titles)]:
        title.font.size = 13
    return figure.update_layout(
        height=720,
        font_size=12,
        margin={"l": 45, "t": 60, "b": 90},
        legend={"y": 1.09, "x": 0, "yanchor": "bottom"},
        legend2={"orientation": "h", "y": -0.09, "x": 0, "yanchor": "top", "font": {"size": 11}},
        uirevision="training",  # a reader's zoom outlives the next step
    )


def tell_training(smooth: pd.DataFrame, epochs: pd.DataFrame) -> str:
    """The curves of ``plot_training`` in words: where each begins and where it is."""
    said = [f"Training curves after {len(smooth)} steps and {len(epochs)} epochs."]
    if len(smooth):
        for term, panel in PANELS.items():
            columns = [(WORDS[name], f"{name}/{term}") for name in WORDS if f"{name}/{term}" in smooth]
            moves = ", ".join(f"{word} {smooth[c].iloc[0]:.2f} to {smooth[c].iloc[-1]:.2f}" for word, c in columns)
            said.append(f"{panel.split(',')[0]}: {moves}." if moves else "")
    if len(epochs):
        said.append("Validation N@10: " + ", ".join(f"{score:.3f}" for score in epochs["valid_ndcg@10"]) + ".")
    return " ".join(part for part in said if part)


def plot_stopping(scores: Sequence[float], patience: int, kept: int, last: int, title: str) -> go.Figure:
    """A validation curve under early stopping: the epoch that is kept, the wait for a better one, what it spares.

    Args:
        scores: N@10 after each epoch.
        patience: epochs without a better one that end the run.
        kept: the epoch whose weights are kept, from 1.
        last: the last epoch that is run.
    """
    epochs = list(range(1, len(scores) + 1))
    look = {"mode": "lines+markers", "hovertemplate": "epoch %{x}: N@10 %{y:.4f}<extra></extra>"}
    figure = go.Figure(
        [
            go.Scatter(
                x=epochs[last - 1 :],
                y=scores[last - 1 :],
                name="spared",
                line_color="#b0b0b0",
                showlegend=last < len(scores),
                **look,
            ),
            go.Scatter(
                x=epochs[:last], y=scores[:last], name=f"with patience {patience}", line_color="#222222", **look
            ),
            go.Scatter(
                x=[kept],
                y=[scores[kept - 1]],
                mode="markers",
                name=f"kept: epoch {kept}",
                marker={"symbol": "star", "size": 18, "color": "#e69f00", "line": {"width": 1, "color": "#222222"}},
            ),
        ]
    )
    if last > kept:
        figure.add_vrect(kept, last, fillcolor="#e69f00", opacity=0.15, line_width=0)
        word = "epoch" if last == kept + 1 else "epochs"
        text = f"{last - kept} {word} without a better one"
        figure.add_annotation(x=(kept + last) / 2, y=1, yref="paper", yanchor="bottom", text=text, showarrow=False)
    figure.update_xaxes(title="epoch", dtick=1).update_yaxes(title="validation N@10")
    said = f"With patience {patience}, epoch {kept} is kept and epoch {last} is the last of {len(scores)}: "
    figure = finish(figure, said + ", ".join(f"{score:.3f}" for score in scores) + ".", title)
    return figure.update_layout(margin={"l": 70, "t": 80}, legend_y=-0.2)


def interval_bars(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, object]:
    """Plotly's error bars from ``low`` to ``high``, (n,) each, round the values."""
    sides = {"array": (high - values).round(4), "arrayminus": (values - low).round(4)}
    return {"type": "data", "symmetric": False, "thickness": 2, **sides}


def plot_systems(systems: dict[str, tuple[float, float, float]], title: str, axis: str) -> go.Figure:
    """A dot with its interval for each system, one below the other.

    Args:
        systems: by name, (value, low, high).
        axis: what the values are.
    """
    names, values = list(systems), np.array(list(systems.values()))  # (n, 3)
    trace = go.Scatter(
        x=values[:, 0].round(4),
        y=[html.escape(name) for name in names],
        mode="markers+text",
        marker={"size": 11, "color": "#222222"},
        text=[f"{value:.3f}" for value in values[:, 0]],
        textposition="top center",
        error_x=interval_bars(*values.T),
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    figure = go.Figure(trace).update_xaxes(title=axis, rangemode="tozero")
    figure.update_yaxes(range=[len(names) - 0.5, -0.7], automargin=True)  # the first on top, room for its number
    said = (f"{name} {value:.3f} ({low:.3f} to {high:.3f})" for name, (value, low, high) in systems.items())
    figure = finish(figure, f"{axis}: {'; '.join(said)}.", title)
    return figure.update_layout(height=max(320, 110 + 36 * len(names)))


def plot_differences(differences: dict[str, tuple[float, float, float]], title: str, axis: str) -> go.Figure:
    """A dot with its interval for each difference, one below the other, and a line at 0; hollow where it holds 0.

    Args:
        differences: by name, (value, low, high).
        axis: what the values are.
    """
    names, values = list(differences), np.array(list(differences.values()))  # (n, 3)
    holds = (values[:, 1] <= 0) & (values[:, 2] >= 0)
    trace = go.Scatter(
        x=values[:, 0].round(4),
        y=[html.escape(name) for name in names],
        mode="markers",
        marker={"size": 11, "color": "#222222", "symbol": ["circle-open" if one else "circle" for one in holds]},
        error_x=interval_bars(*values.T),
        hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
    )
    figure = go.Figure(trace).update_xaxes(title=axis, title_standoff=6).add_vline(0, line={"dash": "dot", "width": 1})
    figure.update_yaxes(range=[len(names) - 0.5, -0.5], automargin=True, tickfont_size=13)
    said = (f"{name} {value:+.3f} ({low:+.3f} to {high:+.3f})" for name, (value, low, high) in differences.items())
    figure = finish(figure, f"{axis}: {'; '.join(said)}.", title)
    return figure.update_layout(height=140 + 30 * len(names), margin_b=60)


def plot_ceiling(values: pd.DataFrame, title: str, axis: str) -> go.Figure:
    """For each group, a row, a bar as long as the best that is possible and in it one of what a system reaches.

    Args:
        values: the first column is the ceiling, the second the system; any others are marked on the bars.
        axis: what the values are.
    """
    ceiling, system, *others = values.columns
    groups = [html.escape(group) for group in values.index]
    reached = values[system] / values[ceiling]
    figure = go.Figure()
    for name, colour, width in ((ceiling, "#d0d0d0", 0.7), (system, "#222222", 0.35)):
        figure.add_bar(
            x=values[name].round(4), y=groups, orientation="h", width=width, marker_color=colour, name=html.escape(name)
        )
    for name in others:
        mark = {"symbol": "line-ns", "size": 16, "line": {"color": "#cc79a7", "width": 3}}
        figure.add_scatter(x=values[name].round(4), y=groups, mode="markers", marker=mark, name=html.escape(name))
    figure.update_traces(hovertemplate="%{fullData.name}, %{y}: %{x:.3f}<extra></extra>")
    beside = {"mode": "text", "text": [f" {share:.0%}" for share in reached], "textposition": "middle right"}
    figure.add_scatter(x=values[ceiling].round(4), y=groups, **beside, showlegend=False, hoverinfo="skip")
    figure.update_xaxes(title=axis, title_standoff=6, range=[0, 1.12 * values[ceiling].max()])
    figure.update_yaxes(range=[len(groups) - 0.5, -0.5], automargin=True, tickfont_size=13)
    figure.update_layout(barmode="overlay")
    rows = zip(values.index, values.to_numpy(), reached, strict=True)
    said = (
        f"{group} {', '.join(f'{name} {value:.3f}' for name, value in zip(values, row, strict=True))} ({share:.0%})"
        for group, row, share in rows
    )
    figure = finish(figure, f"{axis}: {'; '.join(said)}.", title)
    legend = {"y": 1, "yanchor": "bottom", "x": 1, "xanchor": "right"}  # above, as the axis has its name below
    return figure.update_layout(height=170 + 30 * len(groups), margin_b=60, legend=legend)


def plot_lengths(dataset: Dataset, title: str) -> go.Figure:
    """Bars: how many customers have bought so many things, and how many products were bought so many times."""
    sides = {
        "purchases of a customer": ("customers", dataset.lengths),
        "purchases of a product": ("products", np.bincount(dataset.flat)[1:]),
    }
    figure, said = make_subplots(1, 2, horizontal_spacing=0.12), []
    for column, (name, (counted, numbers)) in enumerate(sides.items(), start=1):
        most = np.bincount(numbers)
        bars = go.Bar(x=np.arange(len(most)), y=most, marker_color="#222222", showlegend=False)
        figure.add_trace(bars.update(hovertemplate=f"%{{y}} {counted}: %{{x}}<extra></extra>"), 1, column)
        figure.update_xaxes(title=name, title_standoff=6, col=column).update_yaxes(title=counted, col=column)
        said.append(f"{name}: {numbers.min()} to {numbers.max()}, the median is {np.median(numbers):.0f}")
    figure = finish(figure.update_layout(bargap=0.05), f"{'; '.join(said)}.", title)
    return figure.update_layout(margin={"l": 60, "b": 60})


LINES = ("#222222", "#e69f00", "#56b4e9", "#cc79a7", "#7a3b69", "#999999")
"""Colours of systems, none of them a modality's; with the markers below told apart by everybody."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")


def plot_sampling(curves: dict[str, Sequence[float]], counts: Sequence[int], title: str, axis: str) -> go.Figure:
    """A metric of a few systems, at most six, by how many random items the true one is ranked against.

    Args:
        curves: by system, a value for each of ``counts``.
        counts: of random items, ascending.
        axis: what the values are.
    """
    figure = go.Figure(
        [
            go.Scatter(
                x=list(counts),
                y=np.round(curve, 4),
                mode="lines+markers",
                name=html.escape(name),
                line={"color": colour, "width": 2},
                marker={"symbol": symbol, "size": 9},
                hovertemplate="%{x}: %{y:.3f}<extra>" + html.escape(name) + "</extra>",
            )
            for (name, curve), colour, symbol in zip(curves.items(), LINES, SYMBOLS, strict=False)
        ]
    )
    figure.update_xaxes(title="random items beside the true one", type="log", tickvals=list(counts), title_standoff=6)
    figure.update_yaxes(title=axis, rangemode="tozero")
    said = (f"{name}: {', '.join(f'{value:.3f}' for value in curve)}" for name, curve in curves.items())
    heard = f"{axis} against {', '.join(f'{count:,}' for count in counts)} items. {'; '.join(said)}."
    figure = finish(figure, heard, title)
    return figure.update_layout(margin={"l": 70, "b": 60}, legend_y=-0.25)


def system_bars(values: dict[str, float], marked: Sequence[str]) -> HTML:
    """A bar for each system, one below the other, 1 as wide as there is room; those ``marked`` stand out.

    Args:
        values: by system, from 0 to 1.
        marked: the systems that are compared; the others are pale.
    """
    lines = "".join(
        f'<div style="display:flex;align-items:center;gap:8px;height:19px;font-size:13px;'
        f'{"font-weight:600" if name in marked else "opacity:.7"}">'
        f'<span style="width:210px;text-align:right">{html.escape(name)}</span>'
        '<span style="flex:1;height:12px;background:#88888822">'
        f'<span style="display:block;height:12px;width:{value:.1%};'
        f"background:{'currentColor' if name == marked[0] else '#cc79a7' if name in marked else '#999999'};"
        'outline:1px solid #88888866"></span></span>'
        f'<span style="width:48px;font-variant-numeric:tabular-nums">{value:.3f}</span></div>'
        for name, value in values.items()
    )
    said = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    return HTML(f'<div role="img" aria-label="{html.escape(said, quote=True)}" style="max-width:720px">{lines}</div>')


def plot_duel(scores: dict[str, Sequence[float]], title: str) -> go.Figure:
    """Validation N@10 after each epoch of two runs, by name; the first is drawn solid, the second dashed."""
    figure = go.Figure(
        [
            go.Scatter(
                x=list(range(1, len(curve) + 1)),
                y=np.round(curve, 4),
                mode="lines+markers",
                name=html.escape(name),
                line={"color": colour, "dash": dash, "width": 3},
                marker_size=9,
                hovertemplate="epoch %{x}: N@10 %{y:.3f}<extra></extra>",
            )
            for (name, curve), (colour, dash) in zip(
                scores.items(), (("#222222", "solid"), ("#cc79a7", "dash")), strict=False
            )
        ]
    )
    figure.update_xaxes(title="epoch", dtick=1).update_yaxes(title="validation N@10", rangemode="tozero")
    said = (f"{name}: {', '.join(f'{score:.3f}' for score in curve) or 'not yet'}" for name, curve in scores.items())
    figure = finish(figure, f"{'; '.join(said)}.", title)
    return figure.update_layout(height=360, margin={"l": 70}, showlegend=True, legend_y=-0.25)


SETTINGS = {
    "num_experts": "experts N",
    "codebook_size": "codes Z",
    "lambda_q": "λ<sub>q</sub>",
    "lambda_c": "λ<sub>c</sub>",
}


def plot_sweeps(points: pd.DataFrame, title: str) -> DescribedFigure:
    """How metrics depend on settings: a column of panels a setting, a row a metric, bars the interval over users.

    Args:
        points: "setting" (a key of ``SETTINGS``), "value", "metric", such as "hit@5", "mean", "low" and "high".
    """
    settings, metrics = (list(dict.fromkeys(points[column])) for column in ("setting", "metric"))
    figure = make_subplots(
        len(metrics), len(settings), shared_xaxes="columns", shared_yaxes="rows", vertical_spacing=0.1
    )
    said = []
    for (setting, metric), line in points.groupby(["setting", "metric"], sort=False):
        place = {"row": metrics.index(metric) + 1, "col": settings.index(setting) + 1}
        trace = go.Scatter(
            x=[f"{value:g}" for value in line["value"]],
            y=line["mean"].round(4),
            error_y=interval_bars(*(line[column].to_numpy() for column in ("mean", "low", "high"))),
            mode="lines+markers",
            line_color="#222222",
            marker_size=9,
            hovertemplate="%{x}: %{y:.4f}<extra></extra>",
        )
        figure.add_trace(trace, **place)
        label = metric.replace("hit", "H").replace("ndcg", "N")
        if place["col"] == 1:
            figure.update_yaxes(title=label, **place)
        if place["row"] == len(metrics):
            figure.update_xaxes(title=SETTINGS[setting], title_standoff=4, **place)
        told = ", ".join(f"{mean:.3f} at {value:g}" for value, mean in zip(line["value"], line["mean"], strict=True))
        said.append(f"{label} by {setting}: {told}")
    figure.update_xaxes(type="category")
    figure = finish(figure, f"{'; '.join(said)}.", title)
    return figure.update_layout(height=520, margin={"l": 70, "t": 60, "b": 60}, showlegend=False)
