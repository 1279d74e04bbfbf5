"""`anytask medi`: files of training records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from anytask.cli.common import err, out, plain_errors
from anytask.cli.medi_build import build

if TYPE_CHECKING:
    from anytask.training.medi.data_card import TokenCounter

medi = typer.Typer(
    help="Training records (MEDI's form): check, convert, describe.", no_args_is_help=True, rich_markup_mode="rich"
)
medi.command(epilog="Example: anytask medi build medi.toml --data ./data --output medi.jsonl.zst")(build)
Files = Annotated[list[Path], typer.Argument(help="Records: a JSON array or JSON lines, plain, .gz or .zst.")]


@medi.command(epilog="Example: anytask medi validate medi.json more.jsonl.gz")
def validate(
    files: Files,
    max_errors: Annotated[int, typer.Option(min=1, help="Stop reading a file after this many errors.")] = 20,
) -> None:
    """Check every record; errors are told with the record's number and field, and the exit status is 1."""
    with plain_errors(), reading(files) as advance:
        results = [check(path, max_errors, advance) for path in files]
    for result in results:
        if result is not None:
            out.print(escape(result), soft_wrap=True, highlight=False)
    if None in results:
        raise typer.Exit(1)


@medi.command(epilog="Example: anytask medi convert medi.json medi.jsonl.zst")
def convert(
    source: Annotated[Path, typer.Argument(help="Records: a JSON array or JSON lines, plain, .gz or .zst.")],
    target: Annotated[
        Path, typer.Argument(help="Its name says the form: .json (array) or .jsonl, with .gz or .zst to compress.")
    ],
) -> None:
    """Write records in another form; keys other than query, pos, neg and task_id are not kept."""
    with plain_errors():
        from anytask.training.medi.record_files import read_records, write_records

        with reading([source]) as advance:
            count = write_records(read_records(source, advance), target)
    out.print(f"{count:,} records written to {escape(str(target))}", soft_wrap=True, highlight=False)


@medi.command(epilog="Example: anytask medi card medi.json --output medi.md --model mini")
def card(
    files: Files,
    output: Annotated[
        Path | None,
        typer.Option(help="Also save it: NAME.md and NAME.card.json, or a folder for data.md and data.card.json."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help='Count the tokens of this model: "mini", a checkpoint folder, or a hub id.')
    ] = None,
) -> None:
    """Show what records hold: tasks, sizes, lengths, instructions."""
    with plain_errors():
        from anytask.training.medi.data_card import DataCard
        from anytask.training.medi.data_card_report import card_files, save, tables
        from anytask.training.medi.record_files import read_many

        if output is not None:
            card_files(output)
        counter = None if model is None else token_counter(model)
        with reading(files) as advance:
            found = DataCard.of(read_many(files, advance), counter)
        saved = () if output is None else save(found, output, [str(path) for path in files])
    for table in tables(found):
        out.print(table)
    for note in found.notes():
        out.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True, highlight=False)
    for path in saved:
        err.print(f"saved {escape(str(path))}", soft_wrap=True, highlight=False)


def check(path: Path, max_errors: int, advance: Callable[[int], None]) -> str | None:
    """Tell a file's errors, or return what it holds."""
    from anytask.training.medi.record_files import scan_records
    from anytask.training.medi.records import RecordError

    tasks: set[str | int] = set()
    records = errors = 0
    for record in scan_records(path, advance):
        if not isinstance(record, RecordError):
            tasks.add(record.task_id)
            records += 1
            continue
        errors += 1
        err.print(f"[bold red]error:[/bold red] {escape(str(record))}", soft_wrap=True, highlight=False)
        if errors == max_errors:
            err.print(f"{escape(str(path))}: stopped after {errors} errors", soft_wrap=True, highlight=False)
            break
    return None if errors else f"{path}: valid, {records:,} records of {len(tasks):,} tasks"


@contextmanager
def reading(files: Sequence[Path]) -> Iterator[Callable[[int], None]]:
    """A progress bar over the bytes of files; yields a function that advances it."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    total = sum(path.stat().st_size for path in files)
    columns = (
        TextColumn("reading"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


def token_counter(model: str) -> TokenCounter:
    from anytask.checkpoint import read_tokenizer
    from anytask.configuration import length_limit, module_folders
    from anytask.hub import resolve
    from anytask.training.medi.data_card import TokenCounter

    folder = resolve(model)
    transformer = module_folders(folder)["Transformer"]
    return TokenCounter(read_tokenizer(transformer), length_limit(folder, transformer))
