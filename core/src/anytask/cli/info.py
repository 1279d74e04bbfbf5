"""`anytask info`."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer
from rich.markup import escape

from anytask.cli.common import out, plain_errors


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
    from anytask.configuration import is_int8
    from anytask.hub import needed_files, resolve

    folder = resolve(model)
    checkpoint = load_checkpoint(folder)
    shape, dense = checkpoint.encoder.config, checkpoint.head.dense
    weights = [*checkpoint.encoder.parameters(), *checkpoint.head.parameters()]
    stored = ", ".join(sorted({str(weight.dtype).removeprefix("torch.") for weight in weights}))
    if is_int8(checkpoint.config):
        stored = f"int8 matrices, {checkpoint.config.get('torch_dtype')} embeddings"
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    size = sum((folder / name).stat().st_size for name in needed_files(names))
    return [
        ("model", model),
        ("dimension", str(shape.d_model if dense is None else dense.out_features)),
        ("layers", str(shape.num_layers)),
        ("width", f"{shape.d_model}, feed-forward {shape.d_ff} ({shape.feed_forward_proj})"),
        ("heads", f"{shape.num_heads} of {shape.d_kv}"),
        ("vocabulary", f"{shape.vocab_size:,} tokens"),
        ("parameters", f"{sum(weight.numel() for weight in weights):,}"),
        ("stored as", stored),
        ("max length", f"{checkpoint.max_length} tokens"),
        *((f"prompt, {name}", repr(prompt)) for name, prompt in checkpoint.prompts.items()),
        ("folder", str(folder)),
        ("size on disk", f"{size / 1e6:.1f} MB"),
    ]


def environment_rows() -> list[tuple[str, str]]:
    import platform

    import torch

    from anytask import kernels
    from anytask.hub import bundled_models

    required = ("anytask", "torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "numpy")
    optional = ("scikit-learn", "scipy", "sentence-transformers")
    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        *((name, version_of(name)) for name in (*required, *optional)),
        ("devices", ", ".join([f"cpu ({torch.get_num_threads()} threads)", *cuda])),
        ("CPU kernels", "compiled" if kernels.available() else "not compiled, which costs speed"),
        ("bundled models", ", ".join(bundled_models()) or "none"),
    ]


def version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
