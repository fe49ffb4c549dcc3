"""The paper's tables and figures on any dataset: grids of runs by one protocol (sections IV-B to IV-D)."""

# U users, S seeds

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from imecd_lite import paper
from imecd_lite.checkpoint import MODELS, describe, load_checkpoint, refuse_other
from imecd_lite.config import PRESETS, IMECDConfig, TrainConfig
from imecd_lite.dataset import Dataset
from imecd_lite.encoders import Features
from imecd_lite.errors import InputError
from imecd_lite.evaluate import load_ranks, top_items
from imecd_lite.files import read_json, write_atomically, write_rows
from imecd_lite.plots import plot_sweeps
from imecd_lite.reports import TITLES, SystemReport, render_sweep, render_table2, render_table3, sweep_points
from imecd_lite.results import FOLDER, Outcome, load_outcome, load_outcomes, save_outcome, stack_ranks
from imecd_lite.runs import VARIANTS, measure_run, new_model, read_trials, replace_known, train_run, tune

METRICS = tuple(TITLES)
EPOCHS = 60
"""At most, for every system; early stopping ends most runs sooner."""


PROTOCOL = ("hidden_size", "max_length", "max_prefixes_per_user", "batch_size", "epochs", "patience")
"""The settings that all cells of a table have in common."""


class System(NamedTuple):
    """A row of Table II."""

    model: str  # key of MODELS
    title: str
    preset: str = "default"
    varied: tuple[str, ...] | None = None  # what trials vary; the model's own when None

    @property
    def tuned(self) -> tuple[str, ...]:
        """What trials vary."""
        return MODELS[self.model].TUNED if self.varied is None else self.varied


SYSTEMS = {
    "popularity": System("popularity", "Popularity"),
    "gru4rec": System("gru4rec", "GRU4Rec"),
    "sasrec": System("sasrec", "SASRec"),
    "bert4rec": System("bert4rec", "BERT4Rec"),
    "caser": System("caser", "Caser"),
    "diffurec": System("diffurec", "DiffuRec"),
    "diqdiff": System("diqdiff", "DiQDiff"),
    "unisrec": System("unisrec", "UniSRec"),
    "missrec": System("missrec", "MISSRec"),
    "mmmlp": System("mmmlp", "MMMLP"),
    "hm4sr": System("hm4sr", "HM4SR"),
    "sasrec-features": System("sasrec-features", "SASRec with features"),
    "sasrec-repeat": System("sasrec-repeat", "SASRec with the bias of repeats"),
    "imecd-literal": System(
        "imecd", "IMECD to the letter (batch 256)", "literal", ("learning_rate", "dropout", "lambda_q", "lambda_c")
    ),
    "imecd": System("imecd", "IMECD"),
}
"""Table II's eleven, popularity, two that tell what IMECD's lead is made of, and IMECD to the letter; IMECD last."""

SWEEPS = {
    "figure4": {"num_experts": (2, 4, 6, 8, 10)},
    "figure5": {"codebook_size": (8, 16, 24, 32, 40)},
    "figure6": {"lambda_q": (0.1, 0.3, 0.5, 0.7, 0.9), "lambda_c": (0.1, 0.3, 0.5, 0.7, 0.9)},
    "figure7": {"lambda_q": (0.1, 0.3, 0.5, 0.7, 0.9), "lambda_c": (0.1, 0.3, 0.5, 0.7, 0.9)},
}
"""The settings and values of Figures 4 to 7 (section IV-A4)."""

TARGETS = ("table2", "table3", *SWEEPS)
"""What can be reproduced."""

OF_FEATURES = {"use_experts", "use_text", "use_image", "num_experts"}
"""Settings that change nothing on an ids-only dataset."""


class Cell(NamedTuple):
    """One run of a grid: a system, what is changed in its settings, a seed."""

    system: str
    labels: dict[str, object]  # the first columns of its row
    changes: dict[str, object]
    seed: int

    @property
    def name(self) -> str:
        """Of its folder; the same run has the same name in every grid."""
        changes = "".join(f"-{name}-{value}" for name, value in sorted(self.changes.items()))
        return f"{self.system}{changes}-seed-{self.seed}"


@dataclass
class Reproduction:
    """All that the cells have in common. Nothing that ``output`` holds is run again.

    Args:
        dataset, features: what is learnt from.
        output: folder for the tables, what is kept of the runs (``cells/``, see ``results``), the runs with their
            weights (``runs/``, no longer needed when they are finished) and the trials (``tuning/``).
        trials: for each system, on the validation items with seed 0; the first has the published settings, and the
            best one's settings are those of all its cells.
        given: settings of either config that hold for every system.
        device: where to train.
    """

    dataset: Dataset
    features: Features | None
    output: Path
    trials: int = 4
    given: dict[str, object] = field(default_factory=dict)
    device: str = "cpu"
    settled: dict[str, tuple[IMECDConfig, TrainConfig]] = field(default_factory=dict, init=False, repr=False)

    def published(self, system: str) -> tuple[IMECDConfig, TrainConfig]:
        """The settings of a system's first trial. All share size, batches, epochs and early stopping."""
        model, _, preset, _ = SYSTEMS[system]
        values = {**MODELS[model].DEFAULTS, **PRESETS[preset], "batch_size": TrainConfig().batch_size}
        values |= {"epochs": EPOCHS, **self.given}
        try:
            return replace_known(IMECDConfig(), values), replace_known(TrainConfig(), values)
        except InputError as error:
            raise InputError(f"{system}: {error}") from None

    def settle(self, system: str) -> tuple[IMECDConfig, TrainConfig]:
        """The settings of a system's best trial; runs those trials that have not been run.

        Raises:
            InputError: a run of the system is there that was begun otherwise.
        """
        if system not in self.settled:
            configs, model, tuned = self.published(system), SYSTEMS[system].model, SYSTEMS[system].tuned
            first = self.output / FOLDER / f"{system}-seed-0.safetensors"
            if first.exists():  # before any trial is run for nothing
                then = load_outcome(first).config
                values = then["model_config"] | then["train_config"]
                drawn = {name: values[name] for name in tuned}
                refuse_other(first, then, self.description(model, *(replace_known(c, drawn) for c in configs)))
            folder, trials = self.output / "tuning" / system, self.trials if tuned else 1
            search = (model, *configs, self.dataset, self.features, trials, folder, self.device)
            best = tune(*search, tuned=tuned)[0]
            chosen = {name: best[name] for name in tuned}
            self.settled[system] = tuple(replace_known(config, chosen) for config in configs)
        return self.settled[system]

    def plain(self, cell: Cell) -> Cell:
        """The cell without changes to what a system has anyway, so that two grids share a run."""
        if not cell.changes:
            return cell
        values = {name: value for config in self.settle(cell.system) for name, value in vars(config).items()}
        return cell._replace(changes={k: v for k, v in cell.changes.items() if values[k] != v})

    def run(self, cell: Cell) -> None:
        """Train and measure a cell unless that is done; an interrupted one goes on where it stopped.

        Raises:
            InputError: ``output`` holds this run with other settings.
        """
        model, folder, file = SYSTEMS[cell.system].model, self.folder(cell), self.file(cell)
        values = {**self.plain(cell).changes, "seed": cell.seed}
        configs = [replace_known(config, values) for config in self.settle(cell.system)]
        info = self.description(model, *configs)
        if file.exists():
            then = load_outcome(file).config
            if then == info:
                return
            refuse_other(file, then, info)
        if not folder.exists():
            self.adopt_trial(cell.system, info, folder)
        history = train_run(model, *configs, self.dataset, self.features, folder, self.device, resume=True)
        results = measure_run(folder, history, self.dataset, self.features, self.device)
        ranks, top = load_ranks(folder / "ranks_test.csv").loc[self.dataset.user_ids].to_numpy(), None
        if cell.seed == 0:
            trained = load_checkpoint(folder, self.dataset, self.features).to(self.device)
            top = top_items(trained, self.dataset, self.dataset.split("test"))
        save_outcome(file, Outcome(ranks, top, results, info))

    def adopt_trial(self, system: str, info: dict, folder: Path) -> None:
        """Take over the trial that was the very run ``info`` describes, if there is one: seed 0 of a system is."""
        for trial in (self.output / "tuning" / system).glob("trial-*"):
            if read_json(trial / "config.json") == info:
                copy = partial(shutil.copytree, trial, dirs_exist_ok=True)
                write_atomically(folder, copy)

    def description(self, model: str, model_config: IMECDConfig, train_config: TrainConfig) -> dict:
        """What config.json says of a run with these settings."""
        fresh = new_model(model, model_config, self.dataset, self.features)
        return describe(model, fresh, train_config, self.dataset, self.features)

    def folder(self, cell: Cell) -> Path:
        """Where a cell's run lies."""
        return self.output / "runs" / self.plain(cell).name

    def file(self, cell: Cell) -> Path:
        """What is kept of a cell's run."""
        return self.output / FOLDER / f"{self.plain(cell).name}.safetensors"

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell has been run to its end, by the protocol that holds now; what learns nothing has none."""
        if not self.file(cell).exists():
            return False
        then = load_outcome(self.file(cell)).config
        (model, train), values = self.published(cell.system), then["model_config"] | then["train_config"]
        now = vars(model) | vars(train)
        return not SYSTEMS[cell.system].tuned or all(values[name] == now[name] for name in PROTOCOL)

    def refuse_other_data(self) -> None:
        """Raise ``InputError`` where ``output`` keeps a run on other data."""
        now = {"dataset": self.dataset.fingerprint, "features": self.features.fingerprint if self.features else None}
        for file in sorted((self.output / FOLDER).glob("*.safetensors")):
            then = load_outcome(file).config
            refuse_other(file, then, then | now)

    def row(self, cell: Cell) -> dict[str, object]:
        """A finished cell's row: its labels, the seed, the test metrics, num_parameters, seconds of training."""
        results = load_outcome(self.file(cell)).results
        metrics = {name: results["test"]["metrics"][name] for name in METRICS}
        return cell.labels | {"seed": cell.seed} | metrics | {k: results[k] for k in ("num_parameters", "seconds")}

    def trials_of(self, system: str) -> int:
        """How many trials a system was given, by this call or by those before it."""
        return len(read_trials(self.output / "tuning" / system / "trials.csv")) or self.trials

    def tell_settings(self, cell: Cell) -> str:
        """What a finished cell has for the settings that trials vary."""
        config = load_outcome(self.file(cell)).config
        values = config["model_config"] | config["train_config"]
        return ", ".join(f"{name} {values[name]:g}" for name in SYSTEMS[cell.system].tuned)


def kept_systems(folder: Path) -> dict[str, list[Outcome]]:
    """The systems of Table II that the grid in ``folder`` has finished, all seeds of each, by title, IMECD last.

    Raises:
        InputError: there is none.
    """
    kept = {s.title: name for name, s in SYSTEMS.items() if any((folder / FOLDER).glob(f"{name}-seed-*.safetensors"))}
    if not kept:
        raise InputError(f"{folder} holds no system of Table II; run `reproduce table2` with --output {folder}.")
    return {title: load_outcomes(folder, name) for title, name in kept.items()}


def kept_variants(folder: Path) -> dict[str, list[Outcome]]:
    """IMECD, first, and Table III's variants from the grid in ``folder``, all seeds of each, by title.

    Raises:
        InputError: one of them has not been run.
    """
    names = {cell.labels["model"]: cell.name.removesuffix("-seed-0") for cell in cells_of("table3", 1, ())}
    return {title: load_outcomes(folder, name) for title, name in names.items()}


def kept_sweep(folder: Path, target: str) -> pd.DataFrame:
    """The points (``reports.sweep_points``) of a figure from the grid in ``folder``, over the seeds that all have.

    Raises:
        InputError: a value of the sweep has not been run.
    """
    ranks = {}
    for cell in cells_of(target, 1, ()):
        name, (setting, value) = cell.name.removesuffix("-seed-0"), cell.labels.values()
        changed = any((folder / FOLDER).glob(f"{name}-seed-*.safetensors"))
        outcomes = load_outcomes(folder, name if changed else cell.system)
        if outcomes[0].config["model_config"][setting] != value:
            raise InputError(f"{folder} holds no run with {setting} {value}; run `reproduce {target}` to its end.")
        ranks[setting, value] = stack_ranks(outcomes)
    seeds = min(map(len, ranks.values()))
    return sweep_points({point: table[:seeds] for point, table in ranks.items()})


def available(features: Features | None) -> tuple[str, ...]:
    """The systems that can be had with these features; without any, those that need none."""
    return tuple(k for k, system in SYSTEMS.items() if features is not None or not MODELS[system.model].NEEDS_FEATURES)


def cells_of(target: str, seeds: int, systems: Sequence[str]) -> list[Cell]:
    """The grid of a table or figure; ``systems`` are the rows of Table II, the others have IMECD alone."""
    if target == "table2":
        return [Cell(name, {"model": name}, {}, seed) for name in SYSTEMS if name in systems for seed in range(seeds)]
    if target == "table3":
        variants = {"IMECD": {}, **dict(list(VARIANTS.items())[:5])}  # the first five are the paper's
        return [Cell("imecd", {"model": k}, v, seed) for k, v in variants.items() for seed in range(seeds)]
    return [
        Cell("imecd", {"setting": setting, "value": value}, {setting: value}, seed)
        for setting, values in SWEEPS[target].items()
        for value in values
        for seed in range(seeds)
    ]


def reproduce(
    target: str,
    reproduction: Reproduction,
    seeds: int = 3,
    systems: Sequence[str] = tuple(SYSTEMS),
    on_cell: Callable[[int, int, Cell, dict[str, object]], None] | None = None,
) -> Path:
    """Run the grid of a table or figure, or what is left of it, and write the result.

    ``<target>.csv`` has a row for each finished cell and is up to date after each. In the end come ``<target>.md``,
    beside the paper's numbers, and for figures ``<target>.html``.

    Args:
        target: one of ``TARGETS``.
        seeds: how many, from 0.
        systems: rows of Table II to run; others that ``output`` has, by the same protocol, are in the table, too.
        on_cell: called after each cell with its number, how many there are, the cell and its row.

    Returns:
        The file that shows the result.

    Raises:
        InputError: ``target`` or a system is unknown, ``seeds`` or the trials are not positive, what ``target`` varies
            has no effect on this dataset, or a run was begun otherwise or on other data.
    """
    for name, known in ((target, TARGETS), *((system, SYSTEMS) for system in systems)):
        if name not in known:
            raise InputError(f"There is no {name!r} to reproduce; there are {', '.join(known)}.")
    for name, number in (("seeds", seeds), ("trials", reproduction.trials)):
        if number < 1:
            raise InputError(f"{name} is {number}; it must be a whole number of at least 1.")
    reproduction.refuse_other_data()
    output, needless = reproduction.output, set() if reproduction.features else OF_FEATURES

    def grid(systems: Sequence[str]) -> list[Cell]:
        return [cell for cell in cells_of(target, seeds, systems) if not needless & set(cell.changes)]

    cells = grid(systems)
    if not cells:
        raise InputError(f"What {target} varies has no effect on an ids-only dataset; choose another.")
    for system in dict.fromkeys(cell.system for cell in cells):  # before hours of work on those before it
        if system not in available(reproduction.features):
            raise InputError(f"{system} needs texts and pictures, and this dataset has ids alone; leave it out.")
        reproduction.published(system)
    for number, cell in enumerate(cells, start=1):
        reproduction.run(cell)
        finished = [one for one in grid(tuple(SYSTEMS)) if reproduction.is_done(one)]
        write_rows(output / f"{target}.csv", [reproduction.row(one) for one in finished])
        if on_cell:
            on_cell(number, len(cells), cell, reproduction.row(cell))
    shown = write_sweep if target in SWEEPS else write_table
    return shown(target, reproduction, finished)


def grouped_ranks(reproduction: Reproduction, cells: Sequence[Cell]) -> dict[tuple, np.ndarray]:
    """By the labels of the cells, in their order: the ranks of all seeds, (S, U)."""
    groups: dict[tuple, list[np.ndarray]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell.labels.values()), []).append(load_outcome(reproduction.file(cell)).ranks)
    return {labels: np.stack(ranks) for labels, ranks in groups.items()}


def write_table(target: str, reproduction: Reproduction, cells: Sequence[Cell]) -> Path:
    """Table II or III as Markdown; returns the file."""
    ranks = {name: table for (name,), table in grouped_ranks(reproduction, cells).items()}
    protocol = tell_protocol(reproduction, cells)
    if target == "table2":
        rows = [
            SystemReport(
                name=name,
                title=SYSTEMS[name].title,
                ranks=table,
                trials=reproduction.trials_of(name) if SYSTEMS[name].tuned else 0,
                num_parameters=first["num_parameters"],
                seconds=first["seconds"],
                settings=reproduction.tell_settings(cell),
                remark=MODELS[SYSTEMS[name].model].REMARK,
            )
            for name, table in ranks.items()
            for cell in [next(cell for cell in cells if cell.system == name)]
            for first in [reproduction.row(cell)]
        ]
        text = render_table2(rows, reproduction.dataset.path.name, protocol)
    else:
        text = render_table3(ranks, reproduction.dataset.path.name, protocol)
    return write_text(reproduction.output / f"{target}.md", text)


def write_sweep(target: str, reproduction: Reproduction, cells: Sequence[Cell]) -> Path:
    """A figure as a page of its own, and as a table in Markdown; returns the page."""
    points = sweep_points(grouped_ranks(reproduction, cells))
    title = f"{target.capitalize()} of the paper, on {reproduction.dataset.path.name}."
    page, figure = reproduction.output / f"{target}.html", plot_sweeps(points, title)
    write_atomically(page, lambda temporary: figure.write_html(temporary, include_plotlyjs=True))
    text = render_sweep(points, title, tell_protocol(reproduction, cells), paper.FIGURES[target])
    write_text(reproduction.output / f"{target}.md", text)
    return page


def write_text(path: Path, text: str) -> Path:
    """Write a text, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def tell_protocol(reproduction: Reproduction, cells: Sequence[Cell]) -> str:
    """How the cells were run, in two sentences."""
    dataset, (model, train) = reproduction.dataset, reproduction.published("imecd")
    seeds = Counter(tuple(cell.labels.values()) for cell in cells).values()
    trials = [reproduction.trials_of(cell.system) for cell in cells if SYSTEMS[cell.system].tuned] or [0]
    return (
        f"{dataset.num_users:,} users, {dataset.num_items:,} items; full-catalogue ranking of each user's last item; "
        f"{span(seeds, 'seed')}; at most {train.epochs} epochs, stopped after {train.patience} without a "
        f"better validation N@10; {span(trials, 'validation trial')} for each system, the first with its "
        f"published settings. All from scratch, by one trainer, on the same batches, hidden size {model.hidden_size}."
    )


def span(numbers: Collection[int], what: str) -> str:
    """How many there are of ``what``, as "3 seeds" or, where it differs, "1 to 3 seeds"."""
    least, most = min(numbers), max(numbers)
    return f"{least} to {most} {what}s" if least < most else f"{most} {what}{'s' * (most != 1)}"
