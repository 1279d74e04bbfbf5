"""`anytask mine`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from anytask.cli.common import (
    Device,
    Dtype,
    bars,
    load_embedder,
    out,
    plain_errors,
    warnings_told_at_the_end,
    weights_digest,
)

if TYPE_CHECKING:
    from anytask.training.mining.negatives import MiningSummary

DEFAULT_RELATIVE_MARGIN = 0.05
"""The best setting of NV-Retriever (arXiv 2407.15831): TopK-PercPos at 95%."""


class SamplingOption(StrEnum):
    """Which of the candidates that passed the filters."""

    TOP = "top"
    RANDOM = "random"


def mine(
    records: Annotated[Path, typer.Argument(help="MEDI records: .json or .jsonl, also .gz or .zst.")],
    output: Annotated[Path, typer.Option(help="Where they go with their negatives: .json or .jsonl, .gz or .zst.")],
    model: Annotated[str, typer.Option(help='A bundled model ("mini"), a checkpoint folder, or a hub id.')] = "mini",
    negatives: Annotated[int, typer.Option(help="Most negatives of a record.")] = 4,
    range_min: Annotated[int, typer.Option(help="Skip this many of the nearest candidates.")] = 0,
    range_max: Annotated[int, typer.Option(help="Look no further than this many of the nearest candidates.")] = 100,
    absolute_margin: Annotated[
        float | None,
        typer.Option("--absolute-margin", "--margin", help="A negative scores this much less than the positive."),
    ] = None,
    relative_margin: Annotated[
        float | None,
        typer.Option(
            help="A negative scores this share of the positive's score less than it. "
            f"[dim]Default: {DEFAULT_RELATIVE_MARGIN}, where no other margin is given.[/dim]"
        ),
    ] = None,
    no_margin: Annotated[bool, typer.Option("--no-margin", help="No margin to the positive's score.")] = False,
    max_score: Annotated[float | None, typer.Option(help="A negative scores no more than this.")] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            help='More candidates, JSON lines: {"text": ...}, optionally "title" and the "task_id" they are of.'
        ),
    ] = None,
    bm25: Annotated[bool, typer.Option("--bm25", help="Candidates by shared words, too, in turns.")] = False,
    sampling: Annotated[
        SamplingOption, typer.Option(help="The best candidates, or random ones within the range.")
    ] = SamplingOption.TOP,
    seed: Annotated[int, typer.Option(help="Of the random sampling.")] = 0,
    keep_existing: Annotated[
        bool, typer.Option("--keep-existing", help="Fill up behind a record's negatives instead of replacing them.")
    ] = False,
    instructions: Annotated[
        bool | None,
        typer.Option(
            "--instructions/--no-instructions",
            help="Embed each text with its record's instruction, or without. "
            "[dim]Default: with; without for --sentence-transformers.[/dim]",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that is there.")] = False,
    device: Device = None,
    dtype: Dtype = None,
    sentence_transformers: Annotated[
        bool, typer.Option("--sentence-transformers", help="MODEL is any sentence-transformers model.")
    ] = False,
) -> None:
    """Give training records hard negatives: each task's texts nearest to a query that aren't its positives.

    Killed, the same command goes on where it stopped.
    """
    with plain_errors():
        from anytask.model import as_device
        from anytask.training.mining.options import MiningOptions
        from anytask.training.mining.run import mine as mine_file

        if no_margin and not (absolute_margin is None and relative_margin is None):
            raise ValueError("--no-margin goes with neither --absolute-margin nor --relative-margin")
        if absolute_margin is None and relative_margin is None and not no_margin:
            relative_margin = DEFAULT_RELATIVE_MARGIN
        options = MiningOptions(
            num_negatives=negatives,
            range_min=range_min,
            range_max=range_max,
            absolute_margin=absolute_margin,
            relative_margin=relative_margin,
            max_score=max_score,
            sampling_strategy=sampling.value,
            bm25=bm25,
            keep_existing=keep_existing,
            seed=seed,
        )
        embedder = load_embedder(model, device, dtype, sentence_transformers)
        with warnings_told_at_the_end(), bars() as bar:
            summaries = mine_file(
                records,
                output,
                embedder,
                options,
                corpus=corpus,
                instructions=not sentence_transformers if instructions is None else instructions,
                device=as_device(device),
                about={
                    "model": model,
                    "weights": weights_digest(model, sentence_transformers),
                    "dtype": dtype and dtype.value,
                },
                overwrite=overwrite,
                bar=bar,
            )
    out.print(_table(summaries, f"{escape(str(output))}, mined with {escape(model)}", negatives))


def _table(summaries: Sequence[MiningSummary], title: str, negatives: int) -> Table:
    view = Table(
        title=title,
        caption=f"fewer: records with fewer than {negatives} negatives; scores: means over the pairs and over the "
        "negatives mined; dropped: candidates that may be positives",
    )
    view.add_column("task", overflow="fold")
    for name in ("records", "negatives", "fewer", "positive score", "negative score", "dropped"):
        view.add_column(name, justify="right")
    for summary in summaries:
        view.add_row(
            escape(str(summary.task_id)),
            *(f"{count:,}" for count in (summary.records, summary.negatives, summary.short)),
            *("" if score is None else f"{score:.3f}" for score in (summary.positive_score, summary.negative_score)),
            f"{summary.filtered:,}",
            end_section=summary is summaries[-1],
        )
    records, found, short, dropped = (
        f"[bold]{sum(getattr(summary, name) for summary in summaries):,}[/bold]"
        for name in ("records", "negatives", "short", "filtered")
    )
    view.add_row("[bold]all tasks[/bold]", records, found, short, "", "", dropped)
    return view
