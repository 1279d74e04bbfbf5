"""The tasks that `mini` learns to tell apart by their instructions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from corpus import cut
from questions import OF_FORUMS, OF_PASSAGES, OF_SENTENCES, questions
from relations import (
    ENTAILMENT,
    passage_relations,
    rewritten_relations,
    role_relations,
    shortened_relations,
    snli_relations,
    split_relations,
    story_relations,
)
from sentiment import Embed, comments, judged_sentences

from anytask.instruction import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION
from anytask.training.building.json_rows import read_rows
from anytask.training.building.recipe import load_recipe
from anytask.training.building.task_sources import read_tasks
from anytask.training.building.task_texts import LabelledTexts
from anytask.training.medi.record_files import read_records

MIXTURE = Path(__file__).parents[1] / "medi" / "medi.toml"
QUESTIONS_AND_ANSWERS = re.compile(r" for (?!retrieving (?!its answer)).*\b(answer|question)")
"""Instructions of tasks of pairs that are left out. What they bring together are questions with one answer, a question
and a name, or texts of which one can ask the same. Beside them, whoever says in words of their own that they want an
answer gets no text that holds it.
"""
MOST_LABELLED = 20_000
"""Most texts of a labelled task."""
SUPER_NI = 0.07
"""Weight of each task of Super-NaturalInstructions, which together outweigh the others."""
LABELLED = 0.7
"""Weight of each other labelled task of the mixture: they are many, and searching is to be learnt too."""
QUESTIONS = {
    "question_sentences": (
        (
            "Represent the question for retrieving a sentence that answers it: ",
            "Represent the sentence for retrieval: ",
        ),
        OF_SENTENCES,
    ),
    "question_passages": ((DEFAULT_QUERY_INSTRUCTION, DEFAULT_DOCUMENT_INSTRUCTION), OF_PASSAGES),
    "question_forum_answers": (
        ("Represent the forum question for retrieving answers: ", "Represent the forum answer for retrieval: "),
        OF_FORUMS,
    ),
}
"""Instructions of questions with what they were asked of, and the tasks that have them."""


@dataclass
class Task:
    """A task's texts under its instructions.

    Args:
        instructions: of the two sides; the same for a symmetric task.
        rows: pairs with a hard negative or None, or else labelled texts.
        sources: of each labelled text, if they differ: a batch has texts of all.
        parts: of each labelled text what of it has the label, or None if the whole has; may be left out.
        weight: how often it is drawn, beside its size's square root.
    """

    name: str
    instructions: tuple[str, str]
    pairs: list[tuple[str, str, str | None]] = field(default_factory=list)
    labelled: list[tuple[str, str]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    parts: list[str | None] = field(default_factory=list)
    weight: float = 1.0

    @property
    def is_symmetric(self) -> bool:
        return self.instructions[0] == self.instructions[1]


def both(instruction: str) -> tuple[str, str]:
    return instruction, instruction


def read_mini_tasks(data: Path, medi: Path, embed: Embed) -> list[Task]:
    """All tasks: those of the MEDI mixture, labelled ones with their labels rather than as pairs, and a few more.

    Args:
        data: the data folder.
        medi: the records that the mixture's recipe makes of it.
        embed: the teacher's unit vectors [n, d] of n texts.
    """
    labelled = {task.name: task for task in labelled_tasks(data)}
    pairs: dict[str, Task] = {}
    for record in read_records(medi):
        name = str(record.task_id)
        if name in labelled or QUESTIONS_AND_ANSWERS.search(record.query.instruction):
            continue
        task = pairs.setdefault(
            name,
            Task(
                name,
                (record.query.instruction, record.pos.instruction),
                weight=SUPER_NI if name.startswith("task") else 1,
            ),
        )
        negative = cut(record.neg[0].text) if record.neg else None
        task.pairs.append((cut(record.query.text), cut(record.pos.text), negative))
    return [*pairs.values(), *labelled.values(), *derived_tasks(data, embed)]


def labelled_tasks(data: Path) -> Iterator[Task]:
    """The mixture's tasks of labelled texts, whole."""
    rng = np.random.default_rng(0)
    for task in read_tasks(load_recipe(MIXTURE, data), data):
        if not isinstance(task.texts, LabelledTexts):
            continue
        distinct = task.texts.distinct()
        order = rng.permutation(len(distinct))[:MOST_LABELLED]
        rows = [(cut(distinct.texts[place]), distinct.labels[place]) for place in order]
        instructions = task.instructions.query, task.instructions.pos
        weight = SUPER_NI if task.name.startswith("task") else LABELLED
        yield Task(task.name, instructions, labelled=frequent(rows), weight=weight)


def derived_tasks(data: Path, embed: Embed) -> Iterator[Task]:
    """Tasks that the data holds beside its own: sentiment, the relation and the likeness of two sentences, questions
    and what they were asked of.
    """
    yield Task(
        "goemotions_sentiment",
        both("Represent the comment for classifying its sentiment: "),
        labelled=[(row.text, row.sentiment) for row in comments(data)],
        weight=1,
    )
    judged = judged_sentences(data, embed)
    yield Task(
        "sentence_sentiment",
        both("Represent the sentence for classifying its sentiment: "),
        labelled=[(cut(row.text), row.sentiment) for row in judged],
        sources=[row.source for row in judged],
        parts=[row.part for row in judged],
        weight=8,
    )
    triplets = [row for _, row in read_rows(data / "pairs" / "snli_dev_test_triplets.jsonl.gz")]
    relations = {
        "captions": snli_relations(triplets),
        "rewritten": rewritten_relations(data),
        "passages": passage_relations(data),
        "halves": split_relations(data),
        "shortened": shortened_relations(data),
        "stories": story_relations(data),
        "roles": role_relations(data),
    }
    told = [(text, label, source) for source, rows in relations.items() for text, label in rows]
    sources = [source for _, _, source in told]
    yield Task(
        "sentence_relation",
        both("Represent the sentence pair for retrieving examples with the same relation: "),
        labelled=[(text, label) for text, label, _ in told],
        sources=sources,
        weight=8,
    )
    yield Task(
        "entailment",
        both("Represent the premise and hypothesis for classifying whether the hypothesis follows: "),
        labelled=[(text, "yes" if label == ENTAILMENT else "no") for text, label, _ in told],
        sources=sources,
        weight=2,
    )
    for name, (instructions, asked) in QUESTIONS.items():
        yield Task(name, instructions, list(questions(data, asked)), weight=3)
    alike = [(row["query"], row["pos"], (row.get("neg") or [None])[0]) for row in triplets]
    yield Task("sentence_similarity", both("Represent the sentence for measuring semantic similarity: "), alike)
    yield Task(
        "caption_similarity", both("Represent the image caption for retrieving captions of the same scene: "), alike
    )


def frequent(rows: list[tuple[str, str]], least: int = 4) -> list[tuple[str, str]]:
    """The rows whose label comes at least that often."""
    counts: dict[str, int] = defaultdict(int)
    for _, label in rows:
        counts[label] += 1
    return [row for row in rows if counts[row[1]] >= least]
