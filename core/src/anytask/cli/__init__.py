"""The command line: `anytask COMMAND`."""

from __future__ import annotations

import typer

from anytask.cli.evaluate import evaluate
from anytask.cli.info import info

app = typer.Typer(
    help="INSTRUCTOR embeddings: one embedder, any task.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
app.command(epilog="Example: anytask evaluate mini --suite ./suite --task retrieval --task sts --json mini.json")(
    evaluate
)
app.command(epilog="Example: anytask info mini")(info)
