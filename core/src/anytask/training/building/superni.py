"""Tasks of Super-NaturalInstructions (Wang et al., 2022, arXiv 2204.07705) from their public files.

Two forms are read: the published one, a JSON file a task (`{"Definition": [...], "Categories": [...], "Domains": [...],
"Instances": [{"input": ..., "output": [...]}], ...}`, named as the file), and JSON lines with a task a row, their keys
in lower case (`{"name": ..., "definition": ..., "instances": [{"input": ..., "output": ..., "more_outputs": [...]}]}`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anytask.training.building.json_rows import check_text, read_rows
from anytask.training.building.task_texts import LabelledTexts, TextOutputs, text_key

MAX_LABELS = 20
"""Most distinct outputs of a classification task."""
TEXTS_PER_LABEL = 5
"""Fewest instances a distinct output of a classification task has, on average."""


@dataclass(frozen=True)
class SuperNITask:
    """One task.

    Args:
        definition: what is asked for, in words.
        categories, domains, sources: as the task names them ("Question Answering", "Social Media -> Twitter").
        inputs: of the instances.
        outputs: of the instances; all that are accepted, none of the two empty.
        about: all that the file says beside the instances, by keys in lower case with underscores.
    """

    name: str
    definition: str
    categories: tuple[str, ...]
    domains: tuple[str, ...]
    sources: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, ...], ...]
    about: Mapping[str, Any]

    @property
    def is_classification(self) -> bool:
        """Whether the outputs are labels: one for each instance, and at most 20 distinct ones, of 5 instances each on
        average. (The published files don't say.)"""
        accepted = [{text_key(output) for output in outputs} for outputs in self.outputs]
        labels = set().union(*accepted)
        few = len(labels) <= MAX_LABELS and len(accepted) >= TEXTS_PER_LABEL * len(labels)
        return few and all(len(outputs) == 1 for outputs in accepted)

    def texts(self) -> LabelledTexts | TextOutputs:
        """The instances, to be paired by their labels or by their outputs."""
        if self.is_classification:
            return LabelledTexts(list(self.inputs), [text_key(outputs[0]) for outputs in self.outputs])
        return TextOutputs(list(self.inputs), list(self.outputs))

    @classmethod
    def from_json(cls, value: object, name: str | None = None) -> SuperNITask:
        """Read a task of either form; instances without an input or an output are left out.

        Args:
            name: the task's, where the object has none.

        Raises:
            ValueError: the object isn't a task; the message says what is wrong.
        """
        if not isinstance(value, dict):
            raise ValueError(f"expected an object with Definition and Instances, found {type(value).__name__}")
        about = {str(key).lower().replace(" ", "_"): part for key, part in value.items()}
        instances = about.pop("instances", None)
        if not isinstance(instances, list):
            raise ValueError(f"no list of Instances, only {', '.join(map(str, value)) or 'nothing'}")
        name = about.get("name", name)
        if not isinstance(name, str):
            raise ValueError("the task has no name")
        read = [_instance(instance, number) for number, instance in enumerate(instances)]
        kept = [(text, outputs) for text, outputs in read if text.strip() and outputs]
        return cls(
            name=name,
            definition=" ".join(_strings(about, "definition")),
            categories=_strings(about, "categories"),
            domains=_strings(about, "domains"),
            sources=_strings(about, "source"),
            inputs=tuple(text for text, _ in kept),
            outputs=tuple(outputs for _, outputs in kept),
            about=about,
        )


def read_superni(path: str | Path) -> Iterator[SuperNITask]:
    """The tasks of a file: `NAME.json`, one task, or JSON lines (`.jsonl`, also `.gz` or `.zst`), a task a line.

    Raises:
        ValueError: the file isn't one, or a task in it; the message names the file, and the line.
    """
    path = Path(path)
    if path.suffix == ".json":
        try:
            yield SuperNITask.from_json(json.loads(path.read_text("utf-8")), path.stem)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return
    for line, row in read_rows(path):
        try:
            yield SuperNITask.from_json(row)
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from error


def _instance(value: object, number: int) -> tuple[str, tuple[str, ...]]:
    where = f"Instances[{number}]"
    if not isinstance(value, dict) or "input" not in value or "output" not in value:
        raise ValueError(f"{where} is not an object with input and output")
    outputs = value["output"] if isinstance(value["output"], list) else [value["output"]]
    outputs = [*outputs, *(value.get("more_outputs") or [])]
    texts = [check_text(output, f"{where}.output") for output in outputs]
    return check_text(value["input"], f"{where}.input"), tuple(text for text in texts if text.strip())


def _strings(about: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = about.get(key) or []
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise ValueError(f"{key.capitalize()} is neither a string nor a list of strings")
    return tuple(values)
