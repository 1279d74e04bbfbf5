"""The development suite under every set of instructions: each task's own, none, another family's, paraphrases.

The whole vectors and their first half are measured together, from the same embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from figures import Figures
from paraphrases import COUNT, paraphrase

from anytask import Instructor
from anytask.evaluation import (
    FAMILIES,
    Embedder,
    Instructions,
    Result,
    Task,
    TruncatedEmbedder,
    evaluate_task,
    family_means,
    overall,
)
from anytask.files.work_folder import digest

RIGHT, HALF, NONE, WRONG = "right", "right, half the dimensions", "none", "wrong"
PARAPHRASES = tuple(f"paraphrase {number + 1}" for number in range(COUNT))
SETTINGS = (RIGHT, HALF, NONE, WRONG)
"""What the suite's part measures; the paraphrases are a part of their own."""


class Remembering:
    """An embedder that embeds the same texts with the same instruction once."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._vectors: dict[tuple[str | None, tuple[str, ...]], Any] = {}

    def encode(self, texts: Sequence[str], instruction: str | None = None) -> Any:
        key = (instruction, tuple(texts))
        if key not in self._vectors:
            self._vectors[key] = self.embedder.encode(texts, instruction=instruction)
        return self._vectors[key]


def instructions_of(task: Task, setting: str) -> Instructions:
    if setting in PARAPHRASES:
        right, number = task.instructions("right"), PARAPHRASES.index(setting)
        return Instructions(paraphrase(right.query, number), paraphrase(right.document, number))
    if setting in (RIGHT, HALF):
        return task.instructions("right")
    return task.instructions("none" if setting == NONE else "wrong")


def measure(
    figures: Figures, model: Embedder, tasks: Sequence[Task], settings: Sequence[str], advance: Callable[[int], object]
) -> None:
    """Measure the tasks under the settings; what `figures` has already is left as it is."""
    for setting in settings:
        if setting != HALF:
            for task in tasks:
                remembering = Remembering(model)
                for each in (RIGHT, HALF) if setting == RIGHT and HALF in settings else (setting,):
                    _measure(figures, remembering, model, task, each)
                    advance(1)


def _measure(figures: Figures, remembering: Remembering, model: Embedder, task: Task, setting: str) -> None:
    instructions = instructions_of(task, setting)
    given = _given(task, instructions)
    embedder: Embedder = remembering
    if setting == HALF:
        assert isinstance(model, Instructor)
        given["dimensions"] = model.dimension // 2
        embedder = TruncatedEmbedder(remembering, model.dimension // 2)

    def found() -> dict[str, Any]:
        return {"scores": evaluate_task(embedder, task, instructions).scores}

    figures.measure(f"{setting}/{task.name}", given, found)


def _given(task: Task, instructions: Instructions) -> dict[str, Any]:
    return {"data": digest(task.path), **asdict(instructions)}


def results(figures: Figures, tasks: Sequence[Task], setting: str) -> list[Result] | None:
    """The suite's results under a setting; None unless all its tasks were measured, as they are now."""
    found = []
    for task in tasks:
        figure = figures.measured.get(f"{setting}/{task.name}")
        instructions = instructions_of(task, setting)
        if figure is None or not _given(task, instructions).items() <= figure["given"].items():
            return None
        found.append(
            Result(
                task.name,
                task.family,
                FAMILIES[task.family].measure,
                tuple(figure["found"]["scores"]),
                instructions.query,
                instructions.document,
                figure["seconds"],
            )
        )
    return found


def seed_deviation(found: Sequence[Result]) -> float:
    """Standard deviation of the mean of these results over the seeds; a task in which nothing is drawn stays."""
    seeds = max(len(result.scores) for result in found)
    families = dict.fromkeys(result.family for result in found)
    means = [
        np.mean(
            [
                np.mean([result.scores[seed % len(result.scores)] for result in found if result.family == family])
                for family in families
            ]
        )
        for seed in range(seeds)
    ]
    return float(np.std(means))


def summary(found: Sequence[Result]) -> dict[str, Any]:
    """Means of the families and of those, with the deviations over the seeds."""
    families = family_means(found)
    return {
        "overall": overall(found),
        "overall_seed_deviation": seed_deviation(found),
        "families": families,
        "family_seed_deviations": {
            name: seed_deviation([result for result in found if result.family == name]) for name in families
        },
        "tasks": {result.task: {"score": result.score, "spread": result.spread} for result in found},
        "seconds": sum(result.seconds for result in found),
    }
