"""The texts and pairs that `mini` learns from, read from the data folder outside its `dev/`."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from anytask.training.building.json_rows import read_rows

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[A-Z\"'(\[])")
MAX_WORDS = 128
"""Longer texts are cut here: the teacher's quality was trained at 128 word pieces."""


@dataclass(frozen=True)
class Pair:
    """One positive pair of a task, as two texts without their instructions."""

    task: str
    query: str
    pos: str


def cut(text: str, words: int = MAX_WORDS) -> str:
    """The first `words` whitespace-separated words of `text`."""
    return " ".join(text.split()[:words])


def sentences_of(passage: str) -> list[str]:
    """Its sentences of 3 to 80 words."""
    return [s for s in SENTENCE_END.split(" ".join(passage.split())) if 3 <= len(s.split()) <= 80]


def plain_texts(data: Path) -> Iterator[str]:
    """Whole passages."""
    for _, row in read_rows(data / "text" / "plain_english.jsonl.gz"):
        yield row["text"]


def passage_spans(data: Path, rng: random.Random) -> Iterator[str]:
    """Spans of one to five neighbouring sentences, and some whole passages: lengths from a query to a page."""
    for passage in plain_texts(data):
        sentences = sentences_of(passage)
        if not sentences:
            continue
        yield from rng.sample(sentences, min(2, len(sentences)))
        if rng.random() < 0.5:
            start, length = rng.randrange(len(sentences)), rng.randint(2, 5)
            yield cut(" ".join(sentences[start : start + length]))
        if rng.random() < 0.12:
            yield cut(passage)


@cache
def instruction_tasks(data: Path) -> dict[str, list[dict[str, Any]]]:
    """The instances of each Super-NaturalInstructions task, by its name."""
    return {task["name"]: task["instances"] for _, task in read_rows(data / "superni_tasks.jsonl.gz")}


def instances(data: Path, *names: str) -> Iterator[dict[str, Any]]:
    """The instances of the Super-NaturalInstructions tasks of these names, one task after another."""
    for name in names:
        yield from instruction_tasks(data).get(name, ())


def instruction_task_texts(data: Path, rng: random.Random, per_task: int = 150) -> Iterator[str]:
    """Inputs and natural-language outputs of the Super-NaturalInstructions tasks."""
    for rows in instruction_tasks(data).values():
        for instance in rng.sample(rows, min(per_task, len(rows))):
            yield cut(instance["input"], rng.choice((24, 48, 96)))
            output = instance["output"]
            if isinstance(output, list):
                output = output[0] if output else ""
            if len(output.split()) >= 4:
                yield cut(output, 64)


def labelled_texts(data: Path) -> Iterator[str]:
    for path in sorted((data / "classification").glob("*.jsonl.gz")):
        for _, row in read_rows(path):
            yield row["text"]


def read_pairs(data: Path) -> Iterator[Pair]:
    for path in sorted((data / "pairs").glob("*.jsonl.gz")):
        for _, row in read_rows(path):
            query, pos = cut(row["query"]), cut(row["pos"])
            if query and pos and query != pos:
                yield Pair(row["task"], query, pos)


def unique(texts: Iterable[str]) -> list[str]:
    """`texts` in order, each once, blank ones left out."""
    return list(dict.fromkeys(text for text in texts if text.strip()))
