"""The ablation's tables and figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

KINDS = ("symmetric", "asymmetric")
COLOURS = {"with": "#1f6f8b", "without": "#c8963e"}


@dataclass(frozen=True)
class Row:
    """A model, with its figures by task and by kind of task in a file for each measurement ("held out", "suite").

    Args:
        mixture: what it was trained on; "start" for the model before.
        instructions: "with" or "without", in training and in measuring.
    """

    mixture: str
    instructions: str
    seed: int
    folder: Path

    def path(self, measurement: str) -> Path:
        return self.folder / f"{measurement}, {self.instructions} instructions.json"

    def figures(self, measurement: str) -> dict[str, float]:
        found: dict[str, float] = json.loads(self.path(measurement).read_text("utf-8"))
        return found

    def figure(self, measurement: str, name: str) -> float:
        """Of a task, a kind of tasks, or "mean", that of the two kinds."""
        found = self.figures(measurement)
        return float(np.mean([found[kind] for kind in KINDS])) if name == "mean" else found[name]


def write_report(rows: Sequence[Row], measurements: Sequence[str], out: Path) -> str:
    """Write `table.md` and `figure.svg`; gives the tables."""
    text = "\n\n".join([_kinds(rows, measurements), *(_tasks(rows, measurement) for measurement in measurements)])
    (out / "table.md").write_text(text + "\n", "utf-8")
    draw(rows, measurements).savefig(out / "figure.svg", metadata={"Date": None})
    return text


def _kinds(rows: Sequence[Row], measurements: Sequence[str]) -> str:
    columns = [(measurement, name) for measurement in measurements for name in (*KINDS, "mean")]
    lines = [["trained on", "instructions", *(f"{measurement}: {name}" for measurement, name in columns)]]
    for mixture in _mixtures(rows):
        for instructions in COLOURS:
            own = _of(rows, mixture, instructions)
            lines.append([mixture, instructions, *(_spread(row.figure(*column) for row in own) for column in columns)])
        lines.append([mixture, "gain", *(_spread(_gains(rows, mixture, *column), "+") for column in columns)])
    return _markdown(lines)


def _tasks(rows: Sequence[Row], measurement: str) -> str:
    """What instructions add, by task."""
    mixtures = [mixture for mixture in _mixtures(rows) if mixture != "start"]
    names = [name for name in rows[0].figures(measurement) if name not in KINDS]
    lines = [[f"gain, {measurement}", *mixtures]]
    for name in names:
        lines.append([name, *(_spread(_gains(rows, mixture, measurement, name), "+") for mixture in mixtures)])
    return _markdown(lines)


def draw(rows: Sequence[Row], measurements: Sequence[str]) -> Figure:
    """As figure 3 of the paper: mean over both kinds by mixture, a bar with and one without instructions."""
    figure = Figure(figsize=(4.5 * len(measurements), 3.5), layout="constrained")
    mixtures = [mixture for mixture in _mixtures(rows) if mixture != "start"]
    for axes, measurement in zip(figure.subplots(1, len(measurements), squeeze=False)[0], measurements, strict=True):
        for side, (instructions, colour) in enumerate(COLOURS.items()):
            for place, mixture in enumerate(mixtures):
                seeds = [row.figure(measurement, "mean") for row in _of(rows, mixture, instructions)]
                centre = place + 0.4 * (side - 0.5)
                label = f"{instructions} instructions" if place == 0 else None
                axes.bar(centre, np.mean(seeds), width=0.38, color=colour, label=label)
                axes.plot([centre] * len(seeds), seeds, "o", color="black", markersize=3)
            (start,) = _of(rows, "start", instructions)
            axes.axhline(start.figure(measurement, "mean"), color=colour, linestyle="--", linewidth=1)
        values = [row.figure(measurement, "mean") for row in rows]
        axes.set_ylim(min(values) - 0.02, max(values) + 0.02)
        axes.set_xticks(range(len(mixtures)), mixtures)
        axes.set_xlabel("trained on")
        axes.set_title(f"{measurement}: mean of both kinds (dashed: start)", fontsize="medium")
    figure.axes[0].legend(fontsize="small")
    return figure


def _mixtures(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.mixture for row in rows))


def _of(rows: Sequence[Row], mixture: str, instructions: str) -> list[Row]:
    return [row for row in rows if (row.mixture, row.instructions) == (mixture, instructions)]


def _gains(rows: Sequence[Row], mixture: str, measurement: str, name: str) -> list[float]:
    """With instructions less without, seed by seed."""
    pairs = zip(_of(rows, mixture, "with"), _of(rows, mixture, "without"), strict=True)
    return [ours.figure(measurement, name) - theirs.figure(measurement, name) for ours, theirs in pairs]


def _spread(values: Iterable[float], sign: str = "") -> str:
    """Mean and standard deviation."""
    found = list(values)
    spread = f" ± {np.std(found, ddof=1):.3f}" if len(found) > 1 else ""
    return f"{np.mean(found):{sign}.3f}{spread}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([rows[0], "|---" * len(lines[0]) + "|", *rows[1:]])
