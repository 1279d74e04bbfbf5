"""What every command uses: the consoles, errors told in a line, options that several take.

Tables go to standard output; progress, notes and errors to standard error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from anytask.evaluation import Embedder
    from anytask.progress import Bar

WARNINGS_SHOWN = 5

out = Console()
err = Console(stderr=True)


class DtypeOption(StrEnum):
    """Precision of the matrix products."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


Device = Annotated[str | None, typer.Option(help="A torch device, such as cpu or cuda:1.")]
Dtype = Annotated[
    DtypeOption | None, typer.Option(help="Precision of the model's matrix products; its own unless given.")
]


@contextmanager
def plain_errors() -> Iterator[None]:
    """What is wrong with the input is told in a line, without a traceback; the exit status is 1."""
    try:
        yield
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        told = ", ".join([str(error), *getattr(error, "__notes__", [])])
        err.print(f"[bold red]error:[/bold red] {escape(told)}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from error


def load_embedder(model: str, device: str | None, dtype: DtypeOption | None, sentence_transformers: bool) -> Embedder:
    if sentence_transformers:
        from anytask.evaluation import SentenceTransformerEmbedder

        if dtype is DtypeOption.INT8:
            raise ValueError("sentence-transformers doesn't compute in int8; give float32, bfloat16 or float16")
        return SentenceTransformerEmbedder(model, device=device, dtype=(dtype or DtypeOption.FLOAT32).value)
    from anytask.model import Instructor

    return Instructor.from_pretrained(model, device=device, dtype=dtype and dtype.value)


def weights_digest(model: str, sentence_transformers: bool) -> str | None:
    """A digest of the model's files; None for a hub id that sentence-transformers resolves."""
    from anytask.files.work_folder import digest
    from anytask.hub import resolve

    if not sentence_transformers:
        return digest(resolve(model))
    return digest(model) if Path(model).is_dir() else None


@contextmanager
def warnings_told_at_the_end() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    messages = list(dict.fromkeys(str(warning.message) for warning in caught))
    for message in messages[:WARNINGS_SHOWN]:
        err.print(f"[dim]{escape(message)}[/dim]", soft_wrap=True, highlight=False)
    if len(messages) > WARNINGS_SHOWN:
        err.print(f"[dim]and {len(messages) - WARNINGS_SHOWN} more such warnings[/dim]", highlight=False)


@contextmanager
def bars() -> Iterator[Bar]:
    """Draws bars under each other; one that was opened inside another goes when it is done."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    display = Progress(*columns, TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn(), console=err)
    with ExitStack() as stack:
        opened = 0

        @contextmanager
        def bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
            nonlocal opened
            if not display.live.is_started:
                stack.enter_context(display)
            row = display.add_task(description, total=total)
            opened += 1
            yield lambda done: display.advance(row, done)
            opened -= 1
            if opened:
                display.remove_task(row)

        yield bar
