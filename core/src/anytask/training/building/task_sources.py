"""The tasks of a recipe, read from the data folder one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from anytask.files.work_folder import digest
from anytask.training.building.annotation import DEFAULT_LABELLED, DEFAULT_PAIRED, TaskInstructions, annotate
from anytask.training.building.json_rows import matches
from anytask.training.building.labelled import read_labelled, read_pairs
from anytask.training.building.recipe import Recipe, Source
from anytask.training.building.superni import read_superni
from anytask.training.building.task_texts import LabelledTexts, TextOutputs, TextPairs

SUFFIXES = (".jsonl", ".json", ".gz", ".zst")


@dataclass(frozen=True)
class Task:
    """A task before it is paired.

    Args:
        name: the `task_id` of its records.
        file: below the data folder.
        texts: as read.
        max_records: its cap.
    """

    name: str
    file: str
    instructions: TaskInstructions
    texts: LabelledTexts | TextOutputs | TextPairs
    max_records: int


def read_tasks(recipe: Recipe, data: str | Path) -> Iterator[Task]:
    """The recipe's tasks, in the order of its sources, their files by name, and their rows.

    Raises:
        ValueError: a pattern matches no file, a source gives no task, two tasks have the same name, or a file isn't
            of its source's kind.
        OSError: a file can't be read.
    """
    data = Path(data)
    files: dict[str, str] = {}
    for number, source in enumerate(recipe.sources, 1):
        found = 0
        for path in _files(source, data):
            for task in _tasks(source, path, recipe, data):
                if task.name in files:
                    raise ValueError(
                        f"two tasks are called {task.name!r}, from {files[task.name]} and {task.file}; give one "
                        "another name, or leave it out by exclude"
                    )
                files[task.name] = task.file
                found += 1
                yield task
        if not found:
            raise ValueError(f"sources[{number}] ({', '.join(source.files)}) gives no task: no name or field fits")


def data_digest(recipe: Recipe, data: str | Path) -> str:
    """SHA-256 of the names and contents of the files that the recipe reads."""
    paths = sorted({path for source in recipe.sources for path in _files(source, Path(data))})
    return hashlib.sha256(
        "".join(f"{_below(path, Path(data))}\0{digest(path)}\n" for path in paths).encode()
    ).hexdigest()


def _tasks(source: Source, path: Path, recipe: Recipe, data: Path) -> Iterator[Task]:
    cap = source.max_per_task or recipe.max_per_task

    def task(name: str, texts: LabelledTexts | TextOutputs | TextPairs, otherwise: TaskInstructions) -> Task:
        instructions = recipe.instructions.get(name) or source.instructions or otherwise
        return Task(name, _below(path, data), instructions, texts, cap)

    if source.kind == "super-ni":
        for superni in read_superni(path):
            if _wanted(superni.name, source) and matches(superni.about, source.where):
                yield task(superni.name, superni.texts(), annotate(superni))
        return
    name = source.name or _name(path)
    if not _wanted(name, source):
        return
    if source.kind == "labelled":
        yield task(name, read_labelled(path, source.fields, source.where, source.label_pattern), DEFAULT_LABELLED)
    else:
        yield task(name, read_pairs(path, source.fields, source.where), DEFAULT_PAIRED)


def _files(source: Source, data: Path) -> list[Path]:
    if not data.is_dir():
        raise ValueError(f"no data folder at {data}")
    paths: set[Path] = set()
    for pattern in source.files:
        anchor = Path(pattern).anchor
        below = Path(anchor) if anchor else data
        found = [path for path in below.glob(pattern[len(anchor) :]) if path.is_file()]
        if not found:
            raise ValueError(f"no file fits {pattern!r} in {data}")
        paths.update(found)
    return sorted(paths)


def _wanted(name: str, source: Source) -> bool:
    def fits(patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    return fits(source.tasks) and not fits(source.exclude)


def _name(path: Path) -> str:
    while path.suffix in SUFFIXES:
        path = path.with_suffix("")
    return path.name


def _below(path: Path, data: Path) -> str:
    return path.relative_to(data).as_posix() if path.is_relative_to(data) else str(path)
