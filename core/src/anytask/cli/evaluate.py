"""`anytask evaluate`."""

from __future__ import annotations

import warnings
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from anytask.cli.common import Device, Dtype, err, load_embedder, out, plain_errors


class InstructionOption(StrEnum):
    """Which instructions a task is measured with."""

    RIGHT = "right"
    NONE = "none"
    WRONG = "wrong"


def evaluate(
    model: Annotated[str, typer.Argument(help='A bundled model ("mini"), a checkpoint folder, or a hub id.')],
    suite: Annotated[Path, typer.Option(help="The folder of tasks: sts/, classification/, retrieval/ and so on.")],
    task: Annotated[
        list[str] | None, typer.Option(help="Only this family (sts) or task (sts/stsb.dev); may be repeated.")
    ] = None,
    instructions: Annotated[
        InstructionOption | None,
        typer.Option(
            help="Each task's own instructions (right), none, or another family's (wrong). "
            "[dim]Default: right; none with --sentence-transformers.[/dim]",
        ),
    ] = None,
    truncate_dim: Annotated[
        int | None, typer.Option(min=1, help="Use this many leading dimensions of the vectors only.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Also write the figures to this JSON file, after each task.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    sentence_transformers: Annotated[
        bool,
        typer.Option(
            "--sentence-transformers", help="MODEL is any sentence-transformers model; measure it through that package."
        ),
    ] = False,
) -> None:
    """Measure a model on a suite of tasks: each task, each family's mean, and the mean of those."""
    with plain_errors():
        from anytask.evaluation import TruncatedEmbedder, check_target, evaluate_task, find_tasks, table, write_json

        tasks = find_tasks(suite, task)
        if json is not None:
            check_target(json)
        choice = instructions or (InstructionOption.NONE if sentence_transformers else InstructionOption.RIGHT)
        about = {
            "model": model,
            "instructions": choice.value,
            "dtype": dtype and dtype.value,
            "truncate_dim": truncate_dim,
            "anytask": metadata.version("anytask"),
        }
        embedder = load_embedder(model, device, dtype, sentence_transformers)
        if truncate_dim is not None:
            embedder = TruncatedEmbedder(embedder, truncate_dim)
        results = []
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        try:
            with Progress(*columns, console=err) as progress:
                bar = progress.add_task("", total=len(tasks))
                for place, current in enumerate(tasks, 1):
                    progress.update(bar, description=current.name)
                    with warnings.catch_warnings(record=True) as caught:
                        warnings.simplefilter("always", UserWarning)
                        results.append(evaluate_task(embedder, current, choice.value))
                    for message in dict.fromkeys(str(warning.message) for warning in caught):
                        err.print(
                            f"[dim]{escape(current.name)}: {escape(message)}[/dim]", soft_wrap=True, highlight=False
                        )
                    if json is not None:
                        write_json(results, json, **about, to_come=[task.name for task in tasks[place:]])
                    progress.advance(bar)
        finally:
            if results:
                part = "" if len(results) == len(tasks) else f", {len(results)} of {len(tasks)} tasks"
                out.print(table(results, title=f"{escape(model)}, instructions: {choice.value}{part}"))
