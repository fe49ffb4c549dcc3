"""Tables II and III and the sweeps as Markdown, beside what the paper reports."""

# U users, S seeds

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from imecd_lite import paper
from imecd_lite.evaluate import bootstrap_interval, relative_gain, user_values

TITLES = {f"{name}@{k}": f"{letter}@{k}" for name, letter in (("hit", "H"), ("ndcg", "N")) for k in (5, 10, 20)}
"""The metrics of the tables, and how they are called there."""
OWN = ("imecd", "imecd-literal")
"""The systems that IMECD is not compared with when the best other one is sought."""


class SystemReport(NamedTuple):
    """A row of Table II."""

    name: str
    title: str
    ranks: np.ndarray  # (S, U)
    trials: int
    num_parameters: int
    seconds: float  # of training, seed 0
    settings: str
    remark: str


def render_table2(systems: Sequence[SystemReport], data: str, protocol: str) -> str:
    """Table II in the paper's form, then system by system, then the paper's own; without an Improve, lacking IMECD."""
    means = {k: [float(user_values(system.ranks, k).mean()) for system in systems] for k in TITLES}
    ours = next((number for number, system in enumerate(systems) if system.name == "imecd"), None)
    others = [number for number, system in enumerate(systems) if system.name not in OWN]
    rows = [[TITLES[metric], *marked(values)] for metric, values in means.items()]
    if ours is not None and others:
        for row, values in zip(rows, means.values(), strict=True):
            best = max(others, key=values.__getitem__)
            improve = f"{values[ours] / values[best] - 1:+.2%} (over {systems[best].title})" if values[best] else ""
            row.append(improve)
    lines = [f"# Table II of the paper, on {data}", "", protocol, ""]
    lines += markdown(["metric", *(system.title for system in systems), "Improve"][: len(rows[0])], rows)
    lines += [
        "",
        "N@10 system by system, with the least and the greatest of the seeds; by how much IMECD is above, with the 95%",
        "interval of a paired bootstrap over users; seeds; trials; parameters; seconds of training, seed 0, whatever",
        "else ran then; the settings that trials vary.",
        "",
    ]
    rows = []
    for number, system in enumerate(systems):
        lead = "" if ours in (None, number) else tell_lead(systems[ours].ranks, system.ranks)
        sizes = [str(len(system.ranks)), str(system.trials), f"{system.num_parameters:,}", f"{system.seconds:.0f}"]
        rows.append([system.title, tell_seeds(system.ranks), lead, *sizes, system.settings])
    sizes = ["seeds", "trials", "parameters", "seconds"]
    lines += markdown(["system", "N@10", "IMECD is above by", *sizes, "settings"], rows)
    lines += ["", *(f"- {system.title}: {system.remark}" for system in systems if system.remark), ""]
    lines += ["## What the paper reports", "", "Other data, splits and code: not to be compared cell by cell.", ""]
    table = paper.TABLE2
    best_other = table.drop(columns=["dataset", "metric", "IMECD"]).max(axis=1)
    rows = [
        [*row[:2], *marked(row[2:]), f"{row[-1] / best - 1:+.2%}"]
        for row, best in zip(table.itertuples(index=False, name=None), best_other, strict=True)
    ]
    return "\n".join([*lines, *markdown([*table.columns, "Improve"], rows), ""])


def render_table3(variants: dict[str, np.ndarray], data: str, protocol: str) -> str:
    """Table III: IMECD, the first of ``variants``, and without one of its parts, ranks (S, U); then the paper's own."""
    full, shown = next(iter(variants.values())), ("hit@5", "hit@10", "ndcg@5", "ndcg@10")
    columns = [marked([float(user_values(table, metric).mean()) for table in variants.values()]) for metric in shown]
    rows = [
        [name, *numbers, "" if table is full else tell_lead(full, table)]
        for (name, table), *numbers in zip(variants.items(), *columns, strict=True)
    ]
    lines = [
        f"# Table III of the paper, on {data}",
        "",
        protocol,
        "The last column: by how much the full model's N@10 is above, with the 95% interval of a paired bootstrap over",
        "users.",
        "",
        *markdown(["variant", *(TITLES[metric] for metric in shown), "the full model is above by"], rows),
        "",
        "## What the paper reports",
        "",
        "Other data: not to be compared cell by cell.",
        "",
        *markdown(list(paper.TABLE3.columns), paper.TABLE3.to_numpy().tolist()),
    ]
    return "\n".join([*lines, ""])


def sweep_points(ranks: dict[tuple[str, object], np.ndarray]) -> pd.DataFrame:
    """What the paper's figures show, H@5 and N@5, by (setting, value), ranks (S, U): mean, 95% interval over users."""
    rows = [
        (setting, value, metric, float(user_values(table, metric).mean()), *bootstrap_interval(table, metric))
        for (setting, value), table in ranks.items()
        for metric in ("hit@5", "ndcg@5")
    ]
    return pd.DataFrame(rows, columns=["setting", "value", "metric", "mean", "low", "high"])


def render_sweep(points: pd.DataFrame, title: str, protocol: str, finding: str) -> str:
    """The numbers of a figure (``sweep_points``), then what the paper finds."""
    rows = [
        [row.setting, row.value, TITLES[row.metric], f"{row.mean:.4f}", f"{row.low:.4f} to {row.high:.4f}"]
        for row in points.itertuples(index=False)
    ]
    table = markdown(["setting", "value", "metric", "mean", "95% interval"], rows)
    return "\n".join([f"# {title}", "", protocol, "", *table, "", f"The paper finds: {finding}", ""])


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows)]


def marked(values: Sequence[float]) -> list[str]:
    """Numbers to four places, the best bold, the second best underlined, as in the paper."""
    best, second = [*sorted(set(values), reverse=True), None][:2]
    marks = {best: "**{:.4f}**", second: "<u>{:.4f}</u>"}
    return [marks.get(value, "{:.4f}").format(value) for value in values]


def tell_lead(ranks: np.ndarray, other: np.ndarray) -> str:
    """By how much the first system's N@10 is above the other's, ranks (S, U), with the interval over users.

    Empty where the other never hits.
    """
    if not user_values(other, "ndcg@10").any():
        return ""
    gain = relative_gain(ranks, other)
    return f"{gain['mean']:+.1%} ({gain['low']:+.1%} to {gain['high']:+.1%})"


def tell_seeds(ranks: np.ndarray) -> str:
    """N@10, ranks (S, U): the mean over seeds, the least and the greatest."""
    means = user_values(ranks, "ndcg@10").mean(axis=1)
    return f"{means.mean():.4f}" + (f" ({means.min():.4f} to {means.max():.4f})" if len(means) > 1 else "")
