"""What every command uses: the consoles, errors told in a line, options that several take.

Tables go to standard output; progress, notes and errors to standard error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from anytask.evaluation import Embedder

out = Console()
err = Console(stderr=True)


class DtypeOption(StrEnum):
    """Precision of the matrix products."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


@contextmanager
def plain_errors() -> Iterator[None]:
    """What is wrong with the input is told in a line, without a traceback; the exit status is 1."""
    try:
        yield
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        err.print(f"[bold red]error:[/bold red] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from error


def load_embedder(model: str, device: str | None, dtype: DtypeOption, sentence_transformers: bool) -> Embedder:
    if sentence_transformers:
        from anytask.evaluation import SentenceTransformerEmbedder

        return SentenceTransformerEmbedder(model, device=device, dtype=dtype.value)
    from anytask.model import Instructor

    return Instructor.from_pretrained(model, device=device, dtype=dtype.value)
