"""MEDI from tasks (arXiv 2212.09741, section 2.3): one file of records for a mixture, built task by task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from anytask.evaluation.embedder import Embedder
from anytask.files.whole import write_json
from anytask.files.work_folder import WorkFolder
from anytask.progress import Bar, no_bar
from anytask.training.building.recipe import Recipe
from anytask.training.building.task_records import TaskSummary, task_records
from anytask.training.building.task_sources import data_digest, read_tasks
from anytask.training.medi.record_files import is_array_name, write_records
from anytask.training.medi.records import Record


def build(
    recipe: Recipe,
    data: str | Path,
    output: str | Path,
    embedder: Embedder,
    *,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    bar: Bar = no_bar,
) -> list[TaskSummary]:
    """Build the mixture of a recipe: all records of the first task, then all of the next.

    All files are read once before the first text is embedded, so that what is wrong in them is told at once. One task
    at a time is held in memory. Killed at any time, the same call goes on behind the last finished task, and the output
    has the same bytes; the finished tasks are in the folder `.NAME.work` beside the output.

    Beside the output, `NAME.manifest.json` tells what it was made with, and the tasks with their instructions and
    counts, but none of their texts.

    Args:
        data: the folder that the recipe's files are in.
        output: .json or .jsonl, with .gz or .zst after it to compress.
        embedder: E of the paper's scores, used without an instruction.
        about: what else the result depends on, such as the embedder's name and digest: JSON values by name. They are
            in the manifest, too.
        overwrite: replace an output that is there.
        bar: draws progress.

    Returns:
        a summary for each task.

    Raises:
        ValueError: a file isn't valid, or the work folder is of another recipe, data or embedder; the message says
            what.
        FileExistsError: the output is there and `overwrite` isn't set.
    """
    output = Path(output)
    is_array_name(output)
    with WorkFolder(output, {**_settings(recipe, data), **(about or {})}, overwrite=overwrite) as work:
        with bar("reading", 1) as advance:
            count = sum(1 for _ in read_tasks(recipe, data))
            advance(1)
        with bar("tasks", count) as advance:
            for number, task in enumerate(read_tasks(recipe, data)):
                if not work.has(f"{number}.records"):
                    records, summary = task_records(task, recipe, embedder)
                    work.write(f"{number}.summary", [asdict(summary)])
                    work.write(f"{number}.records", (record.to_json() for record in records))
                advance(1)
        summaries = [TaskSummary(**next(work.read(f"{number}.summary"))) for number in range(count)]
        parts = (work.read(f"{number}.records") for number in range(count))
        write_records((Record.from_json(row) for part in parts for row in part), output)
        write_json(manifest_path(output), _manifest(recipe, summaries, about or {}))
        work.remove()
        return summaries


def manifest_path(output: str | Path) -> Path:
    """Where the manifest of a mixture is: `medi.manifest.json` beside `medi.jsonl.zst`."""
    output = Path(output)
    return output.with_name(f"{output.name.partition('.json')[0]}.manifest.json")


def _settings(recipe: Recipe, data: str | Path) -> dict[str, Any]:
    """What the finished tasks depend on, for the work folder."""
    plain = asdict(recipe)
    long = {name: plain.pop(name) for name in ("sources", "instructions")}
    return {
        **plain,
        **{name: hashlib.sha256(json.dumps(value).encode()).hexdigest() for name, value in long.items()},
        "data": data_digest(recipe, data),
    }


def _manifest(recipe: Recipe, summaries: Sequence[TaskSummary], about: Mapping[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in asdict(recipe).items() if name not in ("sources", "instructions")}
    return {
        "records": sum(summary.records for summary in summaries),
        "hard_negatives": sum(summary.hard_negatives for summary in summaries),
        "tasks_with_records": sum(summary.records > 0 for summary in summaries),
        "options": options,
        **about,
        "versions": {name: metadata.version(name) for name in ("anytask", "numpy", "torch")},
        "tasks": [asdict(summary) for summary in summaries],
    }
