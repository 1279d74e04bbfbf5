"""The command line: `anytask COMMAND`."""

from __future__ import annotations

import typer

from anytask.cli.embed import embed
from anytask.cli.evaluate import evaluate
from anytask.cli.info import info
from anytask.cli.medi import medi
from anytask.cli.mine import mine
from anytask.cli.train import train

app = typer.Typer(
    help="INSTRUCTOR embeddings: one embedder, any task.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
app.command(epilog="Example: anytask embed passages.jsonl --output passages.parquet --id id --keep title")(embed)
app.command(epilog="Example: anytask evaluate mini --suite ./suite --task retrieval --task sts --json mini.json")(
    evaluate
)
app.command(epilog="Example: anytask info mini")(info)
app.command(epilog="Example: anytask mine medi.jsonl --model mini --output mined.jsonl.zst --bm25")(mine)
app.command(epilog="Example: anytask train pairs.jsonl --model mini --output my-model --steps 500 --batch-size 128")(
    train
)
app.add_typer(medi, name="medi")
