"""A run's loss, learning rate and evaluation figures, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anytask.files.whole import whole_file
from anytask.training.report.metrics_file import STEP, MetricsFile
from anytask.training.report.run_log import EVALUATION, LOG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = "curves.png"
RATE = "learning_rate"
NOT_A_LOSS = frozenset({STEP, RATE, "seconds", "examples", "tokens"})
LINES = 8
"""Most lines in a plot."""
SMOOTHED = 40
"""Rows from which on the loss is also drawn as a mean over a twentieth of them."""

Rows = Sequence[dict[str, float]]


def draw_curves(folder: Path) -> Path:
    """Draw what `RunLog` wrote to `folder`: `curves.png`, which is replaced whole.

    Returns:
        its path.

    Raises:
        ValueError: there is no row of training in the folder.
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f'drawing curves needs matplotlib ({error}); install it with: pip install "anytask[train]"'
        ) from error
    log, evaluation = MetricsFile(folder / LOG).read(), MetricsFile(folder / EVALUATION).read()
    if not log:
        raise ValueError(f"there is nothing to draw: {folder / LOG} has no rows")
    losses = [name for name in _names(log) if name not in NOT_A_LOSS and not name.endswith("_per_second")]
    figures = [name for name in _names(evaluation) if name != STEP]
    panels = [(losses, "training loss", "loss"), ([RATE], "learning rate", "learning rate")]
    panels += [(figures[i : i + LINES], "evaluation", "figure") for i in range(0, len(figures), LINES)]
    figure = Figure(figsize=(8, 3 * len(panels)), layout="constrained")
    all_axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (names, title, unit) in zip(all_axes, panels, strict=True):
        for name in names:
            _draw(axes, evaluation if title == "evaluation" else log, name, marked=title == "evaluation")
        axes.set_title(title)
        axes.set_ylabel(unit)
        axes.grid(alpha=0.3)
        if names not in ([RATE], ["loss"]):
            axes.legend(fontsize="small")
    all_axes[-1].set_xlabel("step")
    path = folder / CURVES
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
    return path


def _names(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _draw(axes: Axes, rows: Rows, name: str, *, marked: bool) -> None:
    points = [(row[STEP], row[name]) for row in rows if name in row]
    if not points:
        return
    steps, values = np.array(points).T
    smoothed = len(points) >= SMOOTHED and not marked and name != RATE
    (line,) = axes.plot(
        steps,
        values,
        label=None if smoothed else name,
        marker="o" if marked or len(points) == 1 else None,
        markersize=3,
        alpha=0.25 if smoothed else 1.0,
    )
    if smoothed:
        window = len(points) // 20
        means = np.convolve(values, np.full(window, 1 / window), mode="valid")
        axes.plot(steps[window - 1 :], means, label=name, color=line.get_color())
