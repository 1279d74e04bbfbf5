"""`anytask embed`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from anytask.cli.common import Dtype, err, plain_errors, warnings_told_at_the_end

if TYPE_CHECKING:
    from anytask.corpus import CorpusJob, Summary
    from anytask.corpus import Progress as Done
    from anytask.corpus.work import Loader


class RoleOption(StrEnum):
    """Whose instruction is used where none is given."""

    DOCUMENT = "document"
    QUERY = "query"


class PrecisionOption(StrEnum):
    """Of the vectors that are written."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    BINARY = "binary"


class FormatOption(StrEnum):
    """Of the inputs."""

    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    TEXT = "text"
    LINES = "lines"


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="JSON lines, CSV (both also .gz or .zst), Parquet, text files, folders of these, or - for standard "
            "input.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="OUT.parquet: one file. Any other name: a folder with a Parquet file for each shard."),
    ] = None,
    to_chroma: Annotated[
        str | None,
        typer.Option(metavar="PATH/COLLECTION", help="Load the vectors into this collection of a Chroma database."),
    ] = None,
    model: Annotated[str, typer.Option(help='A bundled model ("mini"), a checkpoint folder, or a hub id.')] = "mini",
    role: Annotated[RoleOption, typer.Option(help="What the texts are.")] = RoleOption.DOCUMENT,
    instruction: Annotated[
        str | None,
        typer.Option(help="[dim]Default: the model's for the role.[/dim] An empty one embeds the texts as they are."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="The field to embed; repeated, they are joined. [dim]Default: text.[/dim]")
    ] = None,
    separator: Annotated[str, typer.Option(help="Between joined fields.")] = " ",
    id: Annotated[
        str | None,
        typer.Option(help="The field with the id. [dim]Default: the row's number, or a text file's path.[/dim]"),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD[:TYPE]", help="Keep this field; TYPE is string, int64, float64 or bool."),
    ] = None,
    keep_text: Annotated[bool, typer.Option("--keep-text", help="Keep the embedded text, as the column text.")] = False,
    format: Annotated[
        FormatOption | None,
        typer.Option(help="Of the inputs. [dim]Default: by their names; standard input is JSON lines.[/dim]"),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad rows out and count them instead of stopping at the first.")
    ] = False,
    precision: Annotated[PrecisionOption, typer.Option(help="Of the vectors.")] = PrecisionOption.FLOAT32,
    calibration: Annotated[
        Path | None, typer.Option(help="Ranges for int8 or binary vectors, a file that Calibration.save wrote.")
    ] = None,
    calibrate: Annotated[int, typer.Option(help="Take the ranges from this many of the first rows.")] = 0,
    truncate_dim: Annotated[int | None, typer.Option(help="Keep this many leading dimensions.")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="A torch device, such as cpu or cuda:1. Several share the work: cuda:0,cuda:1 or cpu,cpu."),
    ] = None,
    dtype: Dtype = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of a text with its instruction.")] = None,
    batch_tokens: Annotated[int | None, typer.Option(help="Most tokens in one step of the model.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")] = None,
    shard_rows: Annotated[int, typer.Option(help="Rows of a shard: what a kill costs at most.")] = 16_384,
    window_rows: Annotated[int, typer.Option(help="Rows in memory, batched by length.")] = 2_048,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that is there.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Compute on a Ray cluster: auto, ray://HOST:10001, or local to start one here."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Actors on the cluster, each with a model.")] = 1,
    worker_cpus: Annotated[float, typer.Option(help="Cores of an actor.")] = 1,
    worker_gpus: Annotated[float, typer.Option(help="GPUs of an actor; 0.5 puts two on one.")] = 0,
) -> None:
    """Embed a corpus of any size to Parquet or Chroma.

    Killed, the same command goes on where it stopped.
    """
    with plain_errors():
        from anytask.corpus import Columns, CorpusJob, embed_corpus
        from anytask.embedder import Embedder
        from anytask.precision import Calibration

        devices = [] if device is None else [name.strip() for name in device.split(",")]
        if ray is not None and len(devices) > 1:
            raise ValueError("--ray takes one --device, that of each actor; how many actors there are is --workers")
        job = CorpusJob(
            inputs,
            Embedder(
                model=model,
                document_instruction=instruction if role is RoleOption.DOCUMENT else None,
                query_instruction=instruction if role is RoleOption.QUERY else None,
                device=devices[0] if devices else None,
                dtype=dtype and dtype.value,
                max_length=max_length,
                batch_tokens=batch_tokens,
                truncate_dim=truncate_dim,
                revision=revision,
            ),
            Columns(
                text=text or ["text"],
                separator=separator,
                id=id,
                keep=dict(map(_field, keep or [])),
                keep_text=keep_text or to_chroma is not None,
            ),
            role=role.value,
            precision=precision.value,
            calibration=None if calibration is None else Calibration.load(calibration),
            calibrate=calibrate,
            format=None if format is None else format.value,
            shard_rows=shard_rows,
            window_rows=window_rows,
            skip_bad=skip_bad,
        )
        if output is None and to_chroma is None:
            raise ValueError("say where the vectors go: --output OUT.parquet, --to-chroma PATH/COLLECTION, or both")
        if ray is not None and (to_chroma is not None or output is None):
            raise ValueError("--ray goes with --output alone; load its output into Chroma afterwards")
        with warnings_told_at_the_end(), bar() as on_progress:
            if ray is not None and output is not None:
                from anytask.corpus.on_ray import Workers, embed_corpus_on_ray

                pool = Workers(workers, worker_cpus, worker_gpus, None if ray == "local" else ray)
                summary = embed_corpus_on_ray(job, output, pool, overwrite=overwrite, on_progress=on_progress)
            else:
                summary = embed_corpus(
                    job,
                    output or Path(to_chroma or ""),
                    overwrite=overwrite,
                    loader=_loader(to_chroma, job),
                    keep=output is not None,
                    devices=devices if len(devices) > 1 else (),
                    on_progress=on_progress,
                )
    report(summary, *(str(target) for target in (output, to_chroma) if target is not None))


def report(summary: Summary, *targets: str) -> None:
    """Tell what was done, and what was left out."""
    counts = summary.counts
    shards = "shard" if summary.shards == 1 else "shards"
    resumed = f", {summary.resumed:,} of them by an earlier run" if summary.resumed else ""
    told = [f"{counts.rows:,} texts embedded in {summary.shards:,} {shards}{resumed}: {', '.join(targets)}"]
    if counts.cut:
        told.append(f"{counts.cut:,} were longer than the model takes; only their beginnings are embedded")
    if counts.bad:
        told.append(f"{counts.bad:,} bad rows were left out" + (", such as" if summary.bad else ""))
        told += [f"  {line}" for line in summary.bad]
    for line in told:
        err.print(escape(line), soft_wrap=True, highlight=False)


@contextmanager
def bar() -> Iterator[Callable[[Done], None]]:
    """Draws rows, rows a second and the time left, which is reckoned from the inputs' bytes."""
    columns = (
        TextColumn("embedding"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} texts, {task.fields[rate]:,.1f}/s,"),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=err) as display:
        task = display.add_task("", total=None, rows=0, rate=0.0, start=False)

        def advance(done: Done) -> None:
            if not display.tasks[0].started:
                display.reset(task, total=done.total, completed=done.position)
            seconds = display.tasks[0].elapsed or 0.0
            rate = done.rows / seconds if seconds else 0.0
            display.update(task, completed=done.position, rows=done.rows, rate=rate)

        yield advance


def _field(given: str) -> tuple[str, str | None]:
    name, _, kind = given.partition(":")
    return name, kind or None


def _loader(to_chroma: str | None, job: CorpusJob) -> Loader | None:
    if to_chroma is None:
        return None
    from anytask.corpus.chroma import ChromaLoader

    job.check_inputs()
    return ChromaLoader(to_chroma, job)
