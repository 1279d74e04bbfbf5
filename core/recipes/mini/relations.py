"""Pairs of sentences by their relation: does the second follow from the first, contradict it, or neither?"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from corpus import cut, sentences_of

from anytask.training.building.json_rows import read_rows

ENTAILMENT, NEUTRAL, CONTRADICTION = "entailment", "neutral", "contradiction"
REWRITTEN = re.compile(r"task\d+_snli_([a-z]+)_to_([a-z]+)_text_modification")
TWO_SENTENCES = re.compile(r"Sentence 1:(.*?)Sentence 2:(.*)", re.DOTALL)
RELATION_FORMS = ("Premise: {}\nHypothesis: {}", "sentence 1: {}\nsentence 2: {}", "{} {}")


def pair_text(first: str, second: str, number: int) -> str:
    """Two sentences as one text, in one of the usual forms."""
    return RELATION_FORMS[number % len(RELATION_FORMS)].format(first.strip(), second.strip())


def snli_relations(triplets: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """What follows from a caption, and what contradicts it."""
    for number, row in enumerate(triplets):
        yield pair_text(row["query"], row["pos"], number), ENTAILMENT
        for negative in row.get("neg", [])[:1]:
            yield pair_text(row["query"], negative, number + 1), CONTRADICTION


def rewritten_relations(data: Path) -> Iterator[tuple[str, str]]:
    """Pairs of one relation, and the same with the second sentence rewritten for another."""
    for _, task in read_rows(data / "superni_tasks.jsonl.gz"):
        if found := REWRITTEN.fullmatch(task["name"]):
            for number, instance in enumerate(task["instances"]):
                if sentences := TWO_SENTENCES.fullmatch(instance["input"].strip()):
                    first, second = sentences.groups()
                    yield pair_text(first, second, number), found[1]
                    yield pair_text(first, instance["output"], number + 1), found[2]


def passage_relations(data: Path, most: int = 3000) -> Iterator[tuple[str, str]]:
    """A few sentences of a passage with one of them, which follows, or with the next, which doesn't."""
    rng = random.Random(1)
    passages = [row["text"] for _, row in read_rows(data / "text" / "plain_english.jsonl.gz")]
    for number, passage in enumerate(rng.sample(passages, min(most, len(passages)))):
        sentences = sentences_of(passage)[:4]
        if len(sentences) >= 3:
            *premise, following = sentences
            text = cut(" ".join(premise), 80)
            yield pair_text(text, cut(rng.choice(premise), 30), number), ENTAILMENT
            yield pair_text(text, cut(following, 30), number + 1), NEUTRAL
