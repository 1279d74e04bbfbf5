"""The table of `encode.py` as bars: how many times as fast as sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rivals import DTYPES

if TYPE_CHECKING:
    from encode import Row

COLOURS = ("#3b6ea5", "#5aa17f", "#d08a3e", "#8c6bb1", "#b08fc7", "#d3bfe0", "#888888", "#bbbbbb", "#444444")


def draw(rows: Sequence[Row], rivals: Sequence[str], title: str, path: Path) -> None:
    """Write an SVG: a panel for each number of threads, a group of bars for each workload."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    threads = sorted({row.threads for row in rows})
    workloads = list(dict.fromkeys(row.workload for row in rows))
    figure, panels = plt.subplots(1, len(threads), figsize=(5 * len(threads), 3.6), sharey=True, squeeze=False)
    width = 0.8 / len(rivals)
    for panel, count in zip(panels[0], threads, strict=True):
        for place, (rival, colour) in enumerate(zip(rivals, COLOURS, strict=False)):
            heights = [
                next(r.ratio for r in rows if (r.threads, r.workload, r.rival) == (count, name, rival))
                for name in workloads
            ]
            middles = [group + (place - (len(rivals) - 1) / 2) * width for group in range(len(workloads))]
            bars = panel.bar(
                middles, heights, width * 0.92, label=f"anytask {rival}" if rival in DTYPES else rival, color=colour
            )
            panel.bar_label(bars, fmt="%.1f", fontsize=8 if len(rivals) < 5 else 5, padding=1)
        panel.axhline(1, color="#777", linewidth=0.8)
        panel.set_xticks(range(len(workloads)), workloads)
        panel.set_title("1 thread" if count == 1 else f"{count} threads", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("times sentence-transformers' speed")
    panels[0][0].legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=7, color="#555")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
