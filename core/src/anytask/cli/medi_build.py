"""`anytask medi build`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from anytask.cli.common import (
    Device,
    Dtype,
    bars,
    err,
    load_embedder,
    out,
    plain_errors,
    warnings_told_at_the_end,
    weights_digest,
)

if TYPE_CHECKING:
    from anytask.training.building.recipe import Kind, Recipe
    from anytask.training.building.task_records import TaskSummary

NAMES_SHOWN = 10


def build(
    output: Annotated[Path, typer.Option(help="Where the records go: .json or .jsonl, .gz or .zst.")],
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (.toml); without one, name files below.")] = None,
    data: Annotated[Path, typer.Option(help="The folder that the files are in.")] = Path(),
    kind: Annotated[
        list[str] | None, typer.Option(help="Of a recipe only the sources of this kind: super-ni, labelled or paired.")
    ] = None,
    super_ni: Annotated[
        list[str] | None,
        typer.Option(help="Super-NaturalInstructions tasks: .json, one a file, or .jsonl, one a line; a glob pattern."),
    ] = None,
    labelled: Annotated[
        list[str] | None, typer.Option(help='JSON lines of {"text": ..., "label": ...}; a glob pattern.')
    ] = None,
    paired: Annotated[
        list[str] | None, typer.Option(help='JSON lines of {"query": ..., "pos": ..., "neg": [...]}; a glob pattern.')
    ] = None,
    query_instruction: Annotated[
        str | None,
        typer.Option(
            help="Of these files' tasks, and of pairs the queries'. [dim]Default: the template's for each task.[/dim]"
        ),
    ] = None,
    document_instruction: Annotated[
        str | None, typer.Option(help="Of the other side of pairs; the query's unless given.")
    ] = None,
    instructions: Annotated[
        Path | None,
        typer.Option(help='JSON file of instructions by task: {"NAME": {"query": ..., "pos": ...}}; they go before.'),
    ] = None,
    negatives: Annotated[
        int | None, typer.Option(help="Most hard negatives of a record. [dim]Default: 1.[/dim]")
    ] = None,
    max_per_task: Annotated[int | None, typer.Option(help="Most records of a task. [dim]Default: 1000.[/dim]")] = None,
    paraphrase: Annotated[
        float | None, typer.Option(help="Share of records with reworded instructions. [dim]Default: 0.[/dim]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything drawn. [dim]Default: 0.[/dim]")] = None,
    embedder: Annotated[
        str, typer.Option(help='What finds the pairs: a bundled model ("mini"), a checkpoint folder, or a hub id.')
    ] = "mini",
    sentence_transformers: Annotated[
        bool, typer.Option("--sentence-transformers", help="The embedder is any sentence-transformers model.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that is there.")] = False,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Make training records of tasks that have no pairs, and of pairs, by a recipe or of the files named.

    Texts with the same label, or with similar outputs, become pairs with hard negatives (Su et al., 2022, section 2.3).
    Killed, the same command goes on where it stopped. Beside the output, a manifest lists the tasks.
    """
    with plain_errors():
        from anytask.training.building.annotation import read_instructions
        from anytask.training.building.build import build as build_file
        from anytask.training.building.build import manifest_path
        from anytask.training.building.recipe import load_recipe

        patterns: dict[Kind, list[str] | None] = {"super-ni": super_ni, "labelled": labelled, "paired": paired}
        if (recipe is None) == (not any(patterns.values())):
            raise ValueError("give a recipe, or files by --super-ni, --labelled or --paired")
        if recipe is None and kind:
            raise ValueError("--kind chooses among a recipe's sources; files are named by their kind")
        if recipe is None:
            mixture = _recipe_of_files(patterns, query_instruction, document_instruction)
        elif query_instruction is None and document_instruction is None:
            mixture = load_recipe(recipe, data)
        else:
            raise ValueError("a recipe has its own instructions; reword them by name, with --instructions")
        if kind:
            mixture = _of_kinds(mixture, kind)
        given: dict[str, Any] = {
            "negatives": negatives,
            "max_per_task": max_per_task,
            "paraphrase": paraphrase,
            "seed": seed,
        }
        mixture = replace(mixture, **{name: value for name, value in given.items() if value is not None})
        if instructions is not None:
            mixture = replace(mixture, instructions={**mixture.instructions, **read_instructions(instructions)})
        model = load_embedder(embedder, device, dtype, sentence_transformers)
        about = {
            "embedder": embedder,
            "weights": weights_digest(embedder, sentence_transformers),
            "dtype": dtype and dtype.value,
        }
        with warnings_told_at_the_end(), bars() as bar:
            summaries = build_file(mixture, data, output, model, about=about, overwrite=overwrite, bar=bar)
    out.print(_table(summaries, f"{escape(output.name)}, built with {escape(embedder)}"))
    out.print(f"manifest: {manifest_path(output)}", markup=False, soft_wrap=True, highlight=False)
    if empty := [summary.task for summary in summaries if not summary.records]:
        _tell(f"no pairs in {len(empty)} of {len(summaries)} tasks", empty)
    if cut := [summary for summary in summaries if summary.pairs == "given" and summary.records < summary.distinct]:
        taken = [f"{summary.task} ({summary.records:,} of {summary.distinct:,})" for summary in cut]
        _tell("pairs were left out; a higher max_per_task of their source, else --max-per-task, takes them", taken)


def _tell(what: str, names: Sequence[str]) -> None:
    shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
    err.print(f"{what}: {shown}", markup=False, soft_wrap=True, highlight=False)


def _of_kinds(recipe: Recipe, kinds: Sequence[str]) -> Recipe:
    there = {source.kind for source in recipe.sources}
    if missing := [kind for kind in kinds if kind not in there]:
        raise ValueError(f"the recipe has no source of kind {missing[0]!r}; it has {', '.join(sorted(there))}")
    return replace(recipe, sources=tuple(source for source in recipe.sources if source.kind in kinds))


def _recipe_of_files(
    patterns: dict[Kind, list[str] | None], query_instruction: str | None, document_instruction: str | None
) -> Recipe:
    from anytask.training.building.annotation import TaskInstructions
    from anytask.training.building.recipe import Recipe, Source

    if query_instruction is None and document_instruction is not None:
        raise ValueError("--document-instruction goes with --query-instruction")
    sources = []
    for kind, files in patterns.items():
        if files:
            sides = None
            if query_instruction is not None:
                other = document_instruction if kind == "paired" else None
                sides = TaskInstructions(query_instruction, query_instruction if other is None else other)
            sources.append(Source(kind, tuple(files), instructions=sides))
    return Recipe(tuple(sources))


def _table(summaries: Sequence[TaskSummary], title: str) -> Table:
    view = Table(title=title)
    for name in ("pairs", "tasks", "with records", "texts", "records", "hard negatives"):
        view.add_column(name, justify="left" if name == "pairs" else "right")
    kinds = list(dict.fromkeys(summary.pairs for summary in summaries))
    for kind in (*kinds, None):
        of_kind = [summary for summary in summaries if kind in (None, summary.pairs)]
        counts = (
            len(of_kind),
            sum(summary.records > 0 for summary in of_kind),
            *(sum(getattr(summary, name) for summary in of_kind) for name in ("texts", "records", "hard_negatives")),
        )
        view.add_row(kind or "all", *(f"{count:,}" for count in counts), end_section=kind == kinds[-1])
    return view
