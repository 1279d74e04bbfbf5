"""The command line: `anytask COMMAND`. Tables go to standard output; progress, notes and errors to standard error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from anytask.evaluation import Embedder

app = typer.Typer(
    help="INSTRUCTOR embeddings: one embedder, any task.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
out = Console()
err = Console(stderr=True)


class InstructionOption(StrEnum):
    """Which instructions a task is measured with."""

    RIGHT = "right"
    NONE = "none"
    WRONG = "wrong"


class DtypeOption(StrEnum):
    """Precision of the matrix products."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@contextmanager
def plain_errors() -> Iterator[None]:
    """What is wrong with the input is told in a line, without a traceback; the exit status is 1."""
    try:
        yield
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        err.print(f"[bold red]error:[/bold red] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from error


@app.command(epilog="Example: anytask evaluate mini --suite ./suite --task retrieval --task sts --json mini.json")
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
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
    device: Annotated[str | None, typer.Option(help="A torch device, such as cpu or cuda:1.")] = None,
    dtype: Annotated[DtypeOption, typer.Option(help="Precision of the matrix products.")] = DtypeOption.FLOAT32,
    sentence_transformers: Annotated[
        bool,
        typer.Option(
            "--sentence-transformers", help="MODEL is any sentence-transformers model; measure it through that package."
        ),
    ] = False,
) -> None:
    """Measure a model on a suite of tasks: each task, each family's mean, and the mean of those."""
    with plain_errors():
        from anytask.evaluation import evaluate_task, find_tasks, table, write_json

        tasks = find_tasks(suite, task)
        choice = instructions or (InstructionOption.NONE if sentence_transformers else InstructionOption.RIGHT)
        embedder = load_embedder(model, device, dtype, sentence_transformers)
        results = []
        with Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err
        ) as progress:
            bar = progress.add_task("", total=len(tasks))
            for current in tasks:
                progress.update(bar, description=current.name)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", UserWarning)
                    results.append(evaluate_task(embedder, current, choice.value))
                for message in dict.fromkeys(str(warning.message) for warning in caught):
                    err.print(f"[dim]{escape(current.name)}: {escape(message)}[/dim]", soft_wrap=True, highlight=False)
                progress.advance(bar)
        if json is not None:
            about = {"model": model, "instructions": choice.value, "dtype": dtype.value}
            write_json(results, json, **about, anytask=metadata.version("anytask"))
    out.print(table(results, title=f"{escape(model)}, instructions: {choice.value}"))


def load_embedder(model: str, device: str | None, dtype: DtypeOption, sentence_transformers: bool) -> Embedder:
    if sentence_transformers:
        from anytask.evaluation import SentenceTransformerEmbedder

        return SentenceTransformerEmbedder(model, device=device, dtype=dtype.value)
    from anytask.model import Instructor

    return Instructor.from_pretrained(model, device=device, dtype=dtype.value)


@app.command(epilog="Example: anytask info mini")
def info(
    model: Annotated[
        str | None, typer.Argument(help="A bundled model, a checkpoint folder, or a hub id; versions without one.")
    ] = None,
) -> None:
    """Show what a checkpoint is; without one, the versions installed and the devices found."""
    with plain_errors():
        rows = environment_rows() if model is None else checkpoint_rows(model)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        out.print(f"[bold]{name:{width}}[/bold]  {escape(value)}", soft_wrap=True, highlight=False)


def checkpoint_rows(model: str) -> list[tuple[str, str]]:
    from anytask.checkpoint import load_checkpoint
    from anytask.hub import resolve

    folder = resolve(model)
    checkpoint = load_checkpoint(folder)
    shape, dense = checkpoint.encoder.config, checkpoint.head.dense
    weights = [*checkpoint.encoder.parameters(), *checkpoint.head.parameters()]
    stored = sorted({str(weight.dtype).removeprefix("torch.") for weight in weights})
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return [
        ("model", model),
        ("dimension", str(shape.d_model if dense is None else dense.out_features)),
        ("layers", str(shape.num_layers)),
        ("width", f"{shape.d_model}, feed-forward {shape.d_ff} ({shape.feed_forward_proj})"),
        ("heads", f"{shape.num_heads} of {shape.d_kv}"),
        ("vocabulary", f"{shape.vocab_size:,} tokens"),
        ("parameters", f"{sum(weight.numel() for weight in weights):,}"),
        ("stored as", ", ".join(stored)),
        ("max length", f"{checkpoint.max_length} tokens"),
        *((f"prompt, {name}", repr(prompt)) for name, prompt in checkpoint.prompts.items()),
        ("folder", str(folder)),
        ("size on disk", f"{size / 1e6:.1f} MB"),
    ]


def environment_rows() -> list[tuple[str, str]]:
    import platform

    import torch

    from anytask.hub import bundled_models

    required = ("anytask", "torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "numpy")
    optional = ("scikit-learn", "scipy", "sentence-transformers")
    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        *((name, version_of(name)) for name in (*required, *optional)),
        ("devices", ", ".join([f"cpu ({torch.get_num_threads()} threads)", *cuda])),
        ("bundled models", ", ".join(bundled_models()) or "none"),
    ]


def version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
