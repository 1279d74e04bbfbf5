"""The README.md of a trained model: what it is, how to use it, how it was made and what it reaches."""

from __future__ import annotations

import json
import platform
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from anytask.configuration import dense_shape, encoder_shape, length_limit, module_folders, read_json, read_prompts
from anytask.files.whole import whole_file
from anytask.instruction import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION
from anytask.model import DOCUMENT_PROMPTS, QUERY_PROMPTS
from anytask.training.report.curves import CURVES
from anytask.training.report.metrics_file import STEP

MARK = "<!-- Written by anytask train, and written anew by it; remove this line to keep your own version. -->"
TAGS = ["sentence-transformers", "sentence-similarity", "feature-extraction", "instructor", "t5", "anytask"]
PACKAGES = ("anytask", "torch", "transformers", "tokenizers")
MOST_TASKS = 100
"""Rows of the table of tasks; further ones are summed up."""
PAPER = "[INSTRUCTOR](https://arxiv.org/abs/2212.09741)"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

Row = Mapping[str, Any]


def write_model_card(
    folder: Path,
    *,
    recipe: Mapping[str, Any],
    data: Mapping[str, Any],
    evaluation: Sequence[Row] = (),
    step: int | None = None,
    base_model: str | None = None,
    licence: str | None = None,
    curves: Path | None = None,
) -> Path | None:
    """Write `README.md` into a checkpoint folder; one that somebody else wrote stays as it is.

    Args:
        folder: a checkpoint as `save_checkpoint` writes it; gives sizes and instructions.
        recipe: settings by name; those that are None or empty are left out.
        data: `tasks`, the records of each task by its name; `held_out`, how many records were not trained on;
            `instructions`, by task, those of its queries and its documents. Each may be missing.
        evaluation: rows of `evaluation.csv`.
        step: of the row that this model has; None for the last.
        base_model: a hub id, or a folder, of which only the name is told.
        licence: of the model, such as "apache-2.0".
        curves: a picture, copied beside the card.

    Returns:
        the card's path, None where another is there.
    """
    path = folder / "README.md"
    if path.is_file() and MARK not in path.read_text("utf-8"):
        return None
    figures = _figures(evaluation, step)
    if curves is not None:
        with whole_file(folder / CURVES) as partial:
            shutil.copyfile(curves, partial)
    sections = [
        f"---\n{_front_matter(base_model, licence, [str(row[0]) for row in figures[1:]])}\n---",
        MARK,
        f"# {folder.resolve().name}",
        _description(folder, base_model),
        _usage(folder),
        "## Training",
        _table([("setting", "value"), *_settings(recipe)]),
        *_data(data),
        *(["## Figures", _table(figures)] if figures else []),
        *([f"![Loss, learning rate and evaluation by step]({CURVES})"] if curves is not None else []),
        "Made with "
        + ", ".join([f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in PACKAGES)])
        + ".",
    ]
    with whole_file(path) as partial:
        partial.write_text("\n\n".join(sections) + "\n", "utf-8")
    return path


def _front_matter(base_model: str | None, licence: str | None, metrics: list[str]) -> str:
    from huggingface_hub import ModelCardData

    card = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=list(TAGS),
        base_model=base_model if _on_hub(base_model) else None,
        license=licence,
        metrics=metrics or None,
    )
    return card.to_yaml().strip()


def _on_hub(model: str | None) -> bool:
    """Whether this is a hub id rather than a bundled model's name or a folder."""
    return model is not None and HUB_ID.fullmatch(model) is not None and not Path(model).exists()


def _description(folder: Path, base_model: str | None) -> str:
    modules = module_folders(folder)
    config = read_json(modules["Transformer"] / "config.json")
    shape = encoder_shape(config, folder)
    dimension = dense_shape(modules["Dense"] / "config.json", shape.d_model)[0] if "Dense" in modules else shape.d_model
    dense = f", dense {shape.d_model} to {dimension}" if "Dense" in modules else ""
    weights = {path for module in modules.values() for path in module.glob("*.safetensors")}
    size = sum(path.stat().st_size for path in weights) / 1e6
    origin = ""
    if base_model is not None:
        name = f"[{base_model}](https://huggingface.co/{base_model})" if _on_hub(base_model) else Path(base_model).name
        origin = f" It was trained from {name}."
    rows = [
        ("", ""),
        (
            "architecture",
            f"T5 encoder, {shape.num_layers} layers, {shape.num_heads} heads of {shape.d_kv}, width {shape.d_model}, "
            f"feed-forward {shape.d_ff} ({shape.feed_forward_proj}); mean without the instruction{dense}; unit length",
        ),
        ("dimension", dimension),
        ("longest text", f"{length_limit(folder, modules['Transformer'])} tokens with the instruction"),
        ("weights", f"{config.get('torch_dtype', 'float32')}, {size:,.1f} MB"),
    ]
    return f"An {PAPER}: it embeds a text together with an instruction that says what for.{origin}\n\n{_table(rows)}"


def _usage(folder: Path) -> str:
    prompts = read_prompts(folder / "config_sentence_transformers.json")
    query, document = (
        json.dumps(next((prompts[name] for name in names if name in prompts), default), ensure_ascii=False)
        for names, default in (
            (QUERY_PROMPTS, DEFAULT_QUERY_INSTRUCTION),
            (DOCUMENT_PROMPTS, DEFAULT_DOCUMENT_INSTRUCTION),
        )
    )
    name = json.dumps(folder.resolve().name, ensure_ascii=False)
    return f"""## Use

```python
from anytask import Instructor

model = Instructor.from_pretrained({name})
queries = model.encode(["a question"], instruction={query})
documents = model.encode(["a document", "another one"], instruction={document})
print(model.similarity(queries, documents))
```

The same in sentence-transformers:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({name})
queries = model.encode(["a question"], prompt={query})
documents = model.encode(["a document", "another one"], prompt={document})
print(model.similarity(queries, documents))
```"""


def _settings(recipe: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in recipe.items():
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        if value is not None and value != "":
            yield name, str(value)


def _data(data: Mapping[str, Any]) -> list[str]:
    tasks: Mapping[str, int] = data.get("tasks", {})
    if not tasks:
        return []
    instructions: Mapping[str, tuple[str, str]] = data.get("instructions", {})
    largest = sorted(tasks, key=lambda task: (-tasks[task], task))
    total = f"{sum(tasks.values()):,} records of {len(tasks):,} task{'s' if len(tasks) > 1 else ''}"
    held_out = f"; {data['held_out']:,} more were held out for evaluation" if data.get("held_out") else ""
    header = ("query instruction", "document instruction") if instructions else ()
    rows: list[tuple[object, ...]] = [("task", "records", *header)]
    rows += [(task, f"{tasks[task]:,}", *map(_code, instructions.get(task, ()))) for task in largest[:MOST_TASKS]]
    if rest := largest[MOST_TASKS:]:
        rows.append((f"{len(rest):,} smaller tasks", f"{sum(tasks[task] for task in rest):,}"))
    return ["## Data", f"{total}{held_out}.", _table(rows)]


def _figures(evaluation: Sequence[Row], step: int | None) -> list[tuple[object, ...]]:
    """The table's rows: each figure before training, where that was measured, and of this model."""
    by_step = {int(row[STEP]): row for row in evaluation}
    if not by_step:
        return []
    own = max(by_step) if step is None else step
    shown = {f"step {own:,}": by_step[own]}
    if 0 in by_step and own:
        shown = {"before training": by_step[0], **shown}
    names = [name for name in by_step[own] if name != STEP]
    return [("figure", *shown), *((name, *(_number(row.get(name)) for row in shown.values())) for name in names)]


def _number(value: Any) -> str:
    return "" if value in (None, "") else f"{float(value):.4g}"


def _code(text: str) -> str:
    return f"`{text}`" if text and "`" not in text else text


def _table(rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table whose first row is the header; short rows are filled up."""
    header, *body = [[_cell(value) for value in row] for row in rows]
    lines = [header, ["---"] * len(header), *(row + [""] * (len(header) - len(row)) for row in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
