"""A model's evaluation as a drawing: families by instruction, and how the instruction chooses the neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from development import NONE, RIGHT, WRONG

COLOURS = {RIGHT: "#3b6ea5", NONE: "#9fb8d1", WRONG: "#d08a3e", "all-MiniLM-L6-v2": "#777777"}
GIVEN = {"none": "#bbbbbb", "topic": "#3b6ea5", "sentiment": "#5aa17f", "style": "#d08a3e"}


def draw(report: Mapping[str, Any], path: Path) -> Path | None:
    """Write an SVG of what the report has; None if there is nothing to draw."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    suite = {name: report["suite"][name] for name in (RIGHT, NONE, WRONG) if name in report["suite"]}
    if report["teacher"] is not None:
        suite["all-MiniLM-L6-v2"] = report["teacher"]
    if not suite and report["controlled"] is None:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.2), width_ratios=(2, 1))
    if suite:
        names = [*next(iter(suite.values()))["families"], "mean"]
        heights = {
            name: [100 * found["families"].get(family, found["overall"]) for family in names]
            for name, found in suite.items()
        }
        _bars(left, names, heights, COLOURS)
        left.set_title("development suite by instruction", fontsize=10)
        left.set_ylabel("points")
    if report["controlled"] is not None:
        plain = report["controlled"]["plain"]
        _bars(right, list(plain), {given: [plain[asked][given] for asked in plain] for given in GIVEN}, GIVEN)
        for place, asked in enumerate(plain):
            right.hlines(plain[asked]["chance"], place - 0.4, place + 0.4, color="#333", linewidth=1, linestyle=":")
        right.axhline(85, color="#b33", linewidth=0.8)
        right.set_title("controlled set: neighbour agrees in ..., by instruction\n(dotted: chance)", fontsize=10)
        right.set_ylabel("%")
    figure.suptitle(f"{report['model']}, {report['dtype']}", fontsize=8, color="#555")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
    return path


def _bars(panel: Any, groups: list[str], heights: dict[str, list[float]], colours: Mapping[str, str]) -> None:
    width = 0.8 / len(heights)
    for place, (name, values) in enumerate(heights.items()):
        middles = [group + (place - (len(heights) - 1) / 2) * width for group in range(len(groups))]
        panel.bar(middles, values, width * 0.92, label=name, color=colours[name])
    panel.set_xticks(range(len(groups)), groups, fontsize=8, rotation=20)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_ylim(0, 100)
    panel.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.2))
