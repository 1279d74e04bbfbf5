"""Measure a model against the targets of `mini`; what was measured of the same model before is not measured again.

    python core/recipes/mini/evaluate.py [mini | FOLDER] [--data ../shared/data] [--part suite --part controlled ...]

Parts: `size`; `controlled`, whose neighbours the instruction chooses (controlled.py); `suite`, the development suite
with each task's instructions, with none, with another family's, and with half the dimensions; `teacher`, both by
all-MiniLM-L6-v2 without an instruction; `paraphrases`, the suite with each instruction in five other wordings. Speed is
measured by core/benchmarks/mini_speed.py, whose figures are shown if they are of the same model.

Figures are kept in build/mini/measured/ as soon as they are there; the whole is written to build/mini/evaluation.json,
and drawn beside it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import controlled
import development
from drawing import draw
from figures import Figures
from rich.console import Console
from tables import families_table, listening_table, targets_table
from targets import targets
from teacher import PACKAGE, teacher_folder

from anytask import Instructor
from anytask.checkpoint import load_checkpoint
from anytask.cli.info import version_of
from anytask.evaluation import SentenceTransformerEmbedder, Task, find_tasks
from anytask.files.whole import write_json
from anytask.files.work_folder import digest
from anytask.hub import MODEL_CARD, resolve
from anytask.progress import progress

PARTS = ("size", "controlled", "suite", "teacher", "paraphrases")
SPEED = Path("build/bench/mini-speed.json")


def size(folder: Path) -> dict[str, int]:
    """Parameters, counted once, and bytes of the folder's files."""
    checkpoint = load_checkpoint(folder)
    weights = [*checkpoint.encoder.parameters(), *checkpoint.head.parameters()]
    return {
        "parameters": sum(weight.numel() for weight in weights),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    }


def teacher_figures(folder: Path) -> Figures:
    packages = {name: version_of(name) for name in (PACKAGE, "sentence-transformers")}
    return Figures(folder / "teacher.json", {"packages": packages})


def load_teacher() -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(str(teacher_folder()), device="cpu")


def measure(
    parts: Sequence[str], figures: Figures, teacher: Figures, name: str, model: Instructor, tasks: Sequence[Task]
) -> None:
    """Measure the parts that are not there yet."""
    if "size" in parts:
        figures.measure("size", {}, lambda: size(resolve(name)))
    sentences = controlled.generate()
    if "controlled" in parts:
        figures.measure("controlled", controlled.given(sentences), lambda: controlled.measure(model, sentences))
    if "suite" in parts:
        with progress("suite", len(development.SETTINGS) * len(tasks)) as advance:
            development.measure(figures, model, tasks, development.SETTINGS, advance)
    if "teacher" in parts:
        measure_teacher(teacher, tasks, sentences)
    if "paraphrases" in parts:
        with progress("paraphrases", len(development.PARAPHRASES) * len(tasks)) as advance:
            development.measure(figures, model, tasks, development.PARAPHRASES, advance)


def measure_teacher(kept: Figures, tasks: Sequence[Task], sentences: Sequence[controlled.Sentence]) -> None:
    given = controlled.given(sentences)
    if kept.has("controlled", given) and development.results(kept, tasks, development.NONE) is not None:
        return
    teacher = load_teacher()
    kept.measure("controlled", given, lambda: controlled.measure_without_instruction(teacher, sentences))
    with progress("all-MiniLM-L6-v2", len(tasks)) as advance:
        development.measure(kept, teacher, tasks, [development.NONE], advance)


def report(figures: Figures, teacher: Figures, tasks: Sequence[Task]) -> dict[str, Any]:
    """All figures that are there, as JSON values, with the targets."""
    settings = {
        setting: development.summary(found)
        for setting in (*development.SETTINGS, *development.PARAPHRASES)
        if (found := development.results(figures, tasks, setting)) is not None
    }
    given = controlled.given(controlled.generate())
    reference = development.results(teacher, tasks, development.NONE)
    speed = json.loads(SPEED.read_text("utf-8")) if SPEED.exists() else None
    whole: dict[str, Any] = {
        "size": figures.get("size", {}),
        "suite": settings,
        "teacher": None if reference is None else development.summary(reference),
        "controlled": figures.get("controlled", given),
        "teacher_controlled": teacher.get("controlled", given),
        "speed": speed if speed is not None and speed["digest"] == figures.about["digest"] else None,
    }
    return whole | {"targets": [target.as_json() for target in targets(whole)]}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="mini", help="a bundled model or a checkpoint folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the suite is DATA/dev")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--dtype", help="float32, bfloat16 or int8; by default as the model is stored")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=Path("build/mini/evaluation.json"))
    parser.add_argument("--measured", type=Path, default=Path("build/mini/measured"), help="folder of the kept figures")
    given = parser.parse_args(arguments)
    tasks = find_tasks(given.data / "dev")
    model = Instructor.from_pretrained(given.model, device=given.device, dtype=given.dtype)
    dtype = str(model.dtype).removeprefix("torch.")
    about = {"digest": digest(resolve(given.model), without=[MODEL_CARD]), "dtype": dtype, "device": given.device}
    figures = Figures(given.measured / f"{about['digest'][:16]}-{dtype}-{given.device}.json", about)
    teacher = teacher_figures(given.measured)
    measure(given.part or PARTS, figures, teacher, given.model, model, tasks)
    whole = {
        "model": given.model,
        **about,
        "command": shlex.join([Path(sys.argv[0]).name, *(arguments or sys.argv[1:])]),
    }
    whole |= report(figures, teacher, tasks)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.json, whole)
    console = Console(width=max(Console().width, 110))
    for table in (families_table(whole), listening_table(whole), targets_table(whole)):
        if table is not None:
            console.print(table)
    drawing = draw(whole, given.json.with_suffix(".svg"))
    console.print(f"Written: {given.json}, {drawing}", soft_wrap=True)


if __name__ == "__main__":
    main()
