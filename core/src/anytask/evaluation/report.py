"""Results for reading: means by family, a table for the terminal, a JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from rich.table import Table

from anytask.evaluation.suite import Result


def family_means(results: Sequence[Result]) -> dict[str, float]:
    """The mean score of each family's tasks, in the order of the results."""
    families = dict.fromkeys(result.family for result in results)
    return {
        family: float(np.mean([result.score for result in results if result.family == family])) for family in families
    }


def overall(results: Sequence[Result]) -> float:
    """The mean of the family means, so that a family counts once however many tasks it has.

    Raises:
        ValueError: there are no results.
    """
    if not results:
        raise ValueError("there are no results to take a mean of")
    return float(np.mean(list(family_means(results).values())))


def summary(results: Sequence[Result], **about: Any) -> dict[str, Any]:
    """The results as plain data for JSON; `about` (model, instructions, ...) is put in front."""
    return {
        **about,
        "overall": overall(results),
        "families": family_means(results),
        "tasks": [asdict(result) | {"score": result.score, "spread": result.spread} for result in results],
    }


def check_target(path: str | Path) -> None:
    """Raise OSError where `write_json` couldn't write to `path`: before the work rather than after it."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file for the figures")
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=path.parent):
        pass


def write_json(results: Sequence[Result], path: str | Path, **about: Any) -> None:
    """Writes `summary` whole: under a temporary name in the same folder, then renamed."""
    path = Path(path)
    text = json.dumps(summary(results, **about), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def table(results: Sequence[Result], title: str | None = None) -> Table:
    """A rich table: each task, each family's mean, the overall mean. Print it with `rich.print`."""
    view = Table(title=title)
    view.add_column("task", overflow="fold")
    view.add_column("measure")
    view.add_column("score", justify="right")
    view.add_column("± seeds", justify="right")
    view.add_column("seconds", justify="right")
    for family, mean in family_means(results).items():
        members = [result for result in results if result.family == family]
        for result in members:
            spread = "" if result.spread is None else f"{result.spread:.3f}"
            view.add_row(result.task, result.measure, f"{result.score:.4f}", spread, f"{result.seconds:.1f}")
        view.add_row(f"[bold]{family}[/bold]", "", f"[bold]{mean:.4f}[/bold]", "", "", end_section=True)
    view.add_row("[bold]overall, mean of families[/bold]", "", f"[bold]{overall(results):.4f}[/bold]", "", "")
    return view
