"""The recipe of a mixture of tasks: which files make which tasks, and how many records of each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from anytask.training.building.annotation import TaskInstructions, parse_instructions, read_instructions
from anytask.training.building.labelled import LABELLED_FIELDS, PAIRED_FIELDS

Kind = Literal["super-ni", "labelled", "paired"]
FIELDS: dict[str, Mapping[str, str]] = {"super-ni": {}, "labelled": LABELLED_FIELDS, "paired": PAIRED_FIELDS}


@dataclass(frozen=True)
class Source:
    """Files that tasks are made of.

    Args:
        kind: "super-ni" (see `anytask.training.building.superni`; a file may hold several tasks), "labelled" or
            "paired" (see `anytask.training.building.labelled`; a file is a task, named as the file is without its
            suffixes).
        files: glob patterns below the data folder.
        name: the task's, of a "labelled" or "paired" source of one file.
        tasks, exclude: glob patterns of the names of the tasks that are taken, and of those that aren't.
        where: values that are wanted of fields, by dotted path: of a row, or of a Super-NI task (keys in lower case).
        fields: where a row has `text` and `label`, or `query`, `pos` and `neg`, as dotted paths.
        label_pattern: a regular expression for the label within its field (see `read_labelled`).
        instructions: of its tasks; those of an instruction file, by name, go before.
        max_per_task: most records of a task; the recipe's unless given.
    """

    kind: Kind
    files: tuple[str, ...]
    name: str | None = None
    tasks: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    label_pattern: str | None = None
    instructions: TaskInstructions | None = None
    max_per_task: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in FIELDS:
            raise ValueError(f"kind is {self.kind!r}, expected {', '.join(get_args(Kind))}")
        if not self.files:
            raise ValueError("files names no file")
        if self.kind == "super-ni" and self.name is not None:
            raise ValueError("the tasks of a super-ni source have their own names; leave name out")
        if unknown := self.fields.keys() - FIELDS[self.kind].keys():
            known = ", ".join(FIELDS[self.kind]) or "none"
            raise ValueError(f"fields names {', '.join(sorted(unknown))}; a {self.kind} source has {known}")
        if self.label_pattern is not None:
            if self.kind != "labelled":
                raise ValueError(f"a {self.kind} source has no label for label_pattern")
            try:
                re.compile(self.label_pattern)
            except re.error as error:
                raise ValueError(f"label_pattern {self.label_pattern!r} is no regular expression: {error}") from error
        if self.max_per_task is not None and self.max_per_task < 1:
            raise ValueError(f"max_per_task must be at least 1, got {self.max_per_task}")


@dataclass(frozen=True)
class Recipe:
    """A mixture.

    Args:
        sources: in the order of their records.
        seed: of everything that is drawn.
        negatives: most hard negatives of a record.
        max_per_task: most records of a task, so that large tasks don't outweigh the others.
        max_texts: most texts of a task that are embedded and searched for pairs; of more, as many are drawn.
        paraphrase: the share of records whose instructions are reworded.
        instructions: by task name.
    """

    sources: tuple[Source, ...]
    seed: int = 0
    negatives: int = 1
    max_per_task: int = 1000
    max_texts: int = 10_000
    paraphrase: float = 0.0
    instructions: Mapping[str, TaskInstructions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("a recipe needs a source")
        for name, least in (("negatives", 0), ("max_per_task", 1), ("max_texts", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 <= self.paraphrase <= 1:
            raise ValueError(f"paraphrase is a share between 0 and 1, got {self.paraphrase}")


def load_recipe(path: str | Path, data: str | Path) -> Recipe:
    """Read a recipe from a TOML file with the keys of `Recipe` and tables `[[sources]]` with those of `Source`.

    A pattern or a value may stand for a list of one. A source's instruction is `instruction`, for both sides, or
    `query_instruction` and `document_instruction`, each a string or the template's parts, `{text_type = ..., domain =
    ..., objective = ...}`. The recipe's `instructions` are names of files (see `read_instructions`) beside the recipe
    or, if there is none, in the data folder; of two that have the same task the later is taken.

    Raises:
        ValueError: the file isn't a recipe; the message names it and the key.
        OSError: a file can't be read.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML ({error})") from error
    try:
        known = _checked(content, Recipe)
        known["sources"] = tuple(_source(table, number) for number, table in enumerate(content.get("sources", []), 1))
        known["instructions"] = {}
        for name in _strings(content.get("instructions", []), "instructions"):
            beside = path.parent / name
            known["instructions"].update(read_instructions(beside if beside.is_file() else Path(data) / name))
        return Recipe(**known)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _source(table: object, number: int) -> Source:
    where = f"sources[{number}]"
    if not isinstance(table, dict):
        raise ValueError(f"{where} is no table; write [[sources]] above its keys")
    table, keys = dict(table), ("instruction", "query_instruction", "document_instruction")
    given = {key: parse_instructions(table.pop(key), f"{where}: {key}").query for key in keys if key in table}
    try:
        known = _checked(table, Source, without=("instructions",))
        for name in ("files", "tasks", "exclude"):
            if name in known:
                known[name] = _strings(known[name], name)
        known["where"] = {key: _strings(value, f"where.{key}") for key, value in known.get("where", {}).items()}
        for key, value in known.get("fields", {}).items():
            if not isinstance(value, str):
                raise ValueError(f"fields.{key} must be a string, got {value!r}")
        if missing := {"kind", "files"} - known.keys():
            raise ValueError(f"has no {' and no '.join(sorted(missing))}")
        return Source(**known, instructions=_sides(given))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _sides(given: Mapping[str, str]) -> TaskInstructions | None:
    match sorted(given):
        case []:
            return None
        case ["instruction"]:
            return TaskInstructions(given["instruction"], given["instruction"])
        case ["document_instruction", "query_instruction"]:
            return TaskInstructions(given["query_instruction"], given["document_instruction"])
        case names:
            raise ValueError(
                f"has {' and '.join(names)}; give instruction, or query_instruction and document_instruction"
            )


TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "int": (int, "an integer"),
    "int | None": (int, "an integer"),
    "float": ((int, float), "a number"),
    "str | None": (str, "a string"),
    "Kind": (str, "a string"),
    "tuple[Source, ...]": (list, "tables, [[sources]]"),
    "Mapping[str, str]": (dict, "a table"),
    "Mapping[str, tuple[str, ...]]": (dict, "a table"),
}
"""What TOML gives for a field, by its annotation; those that aren't here are read one by one."""


def _checked(table: Mapping[str, Any], kind: type[Recipe | Source], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The table, if all of its keys are of the dataclass and hold values of the right type."""
    types = {part.name: str(part.type) for part in fields(kind) if part.name not in without}
    if unknown := table.keys() - types.keys():
        raise ValueError(f"unknown {', '.join(sorted(unknown))}; expected {', '.join(types)}")
    for name, value in table.items():
        wanted, told = TYPES.get(types[name], (object, ""))
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not object):
            raise ValueError(f"{name} must be {told}, got {value!r}")
    return dict(table)


def _strings(value: object, name: str) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in values):
        raise ValueError(f"{name} must be a string or a list of strings, got {value!r}")
    return tuple(values)
