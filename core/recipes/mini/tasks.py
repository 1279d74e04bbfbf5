"""The tasks that `mini` learns to tell apart by their instructions."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from corpus import cut, sentences_of

from anytask.training.building.json_rows import read_rows
from anytask.training.building.recipe import load_recipe
from anytask.training.building.task_sources import read_tasks
from anytask.training.building.task_texts import LabelledTexts
from anytask.training.medi.record_files import read_records

MIXTURE = Path(__file__).parents[1] / "medi" / "medi.toml"
MOST_LABELLED = 20_000
"""Most texts of a labelled task."""
SUPER_NI = 0.25
"""Weight of each of the 233 tasks of Super-NaturalInstructions, which together outweigh the others."""
SENTIMENTS = {
    "positive": "admiration amusement approval caring desire excitement gratitude joy love optimism pride relief",
    "negative": "anger annoyance disappointment disapproval disgust embarrassment fear grief nervousness remorse "
    "sadness",
    "ambiguous": "confusion curiosity realization surprise",
    "neutral": "neutral",
}
"""The emotions of GoEmotions by sentiment (Demszky et al., 2020, arXiv 2005.00547, figure 2)."""
PRAISE_FROM_COMPLAINTS = "task927_yelp_negative_to_positive_style_transfer"
RELATION_FORMS = ("Premise: {}\nHypothesis: {}", "sentence 1: {}\nsentence 2: {}", "{} {}")


@dataclass
class Task:
    """A task's texts under its instructions.

    Args:
        instructions: of the two sides; the same for a symmetric task.
        rows: pairs with a hard negative or None, or else labelled texts.
        weight: how often it is drawn, beside its size's square root.
    """

    name: str
    instructions: tuple[str, str]
    pairs: list[tuple[str, str, str | None]] = field(default_factory=list)
    labelled: list[tuple[str, str]] = field(default_factory=list)
    weight: float = 1.0

    @property
    def is_symmetric(self) -> bool:
        return self.instructions[0] == self.instructions[1]


def both(instruction: str) -> tuple[str, str]:
    return instruction, instruction


def read_mini_tasks(data: Path, medi: Path) -> list[Task]:
    """All tasks: those of the MEDI mixture, labelled ones with their labels rather than as pairs, and a few more.

    Args:
        data: the data folder.
        medi: the records that the mixture's recipe makes of it.
    """
    labelled = {task.name: task for task in labelled_tasks(data)}
    pairs: dict[str, Task] = {}
    for record in read_records(medi):
        name = str(record.task_id)
        if name in labelled:
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
    return [*pairs.values(), *labelled.values(), *derived_tasks(data)]


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
        weight = SUPER_NI if task.name.startswith("task") else 1.0
        yield Task(task.name, instructions, labelled=frequent(rows), weight=weight)


def derived_tasks(data: Path) -> Iterator[Task]:
    """Tasks that the data holds beside its own: sentiment, the relation and the likeness of two sentences."""
    sentiment = {emotion: name for name, emotions in SENTIMENTS.items() for emotion in emotions.split()}
    comments = [row for _, row in read_rows(data / "classification" / "goemotions.jsonl.gz")]
    rows = [(row["text"], sentiment[row["label"]]) for row in comments]
    yield Task(
        "goemotions_sentiment", both("Represent the comment for classifying its sentiment: "), labelled=rows, weight=2
    )
    clear = [row for row in rows if row[1] != "ambiguous"]
    yield Task(
        "sentence_sentiment",
        both("Represent the sentence for classifying its sentiment: "),
        labelled=[*clear, *review_sentences(data), *plain_sentences(data)],
        weight=3,
    )
    triplets = [row for _, row in read_rows(data / "pairs" / "snli_dev_test_triplets.jsonl.gz")]
    relations = []
    for number, row in enumerate(triplets):
        form = RELATION_FORMS[number % len(RELATION_FORMS)]
        relations.append((form.format(row["query"], row["pos"]), "entailment"))
        relations += [(form.format(row["query"], negative), "contradiction") for negative in row.get("neg", [])[:1]]
    yield Task(
        "entailment_relation",
        both("Represent the sentence pair for retrieving examples with the same relation: "),
        labelled=relations,
    )
    alike = [(row["query"], row["pos"], (row.get("neg") or [None])[0]) for row in triplets]
    yield Task("sentence_similarity", both("Represent the sentence for measuring semantic similarity: "), alike)
    yield Task(
        "caption_similarity", both("Represent the image caption for retrieving captions of the same scene: "), alike
    )


def review_sentences(data: Path) -> Iterator[tuple[str, str]]:
    """Complaints in reviews, and the praise that the same sentences were turned into."""
    for _, task in read_rows(data / "superni_tasks.jsonl.gz"):
        if task["name"] == PRAISE_FROM_COMPLAINTS:
            for instance in task["instances"]:
                yield instance["input"], "negative"
                yield instance["output"], "positive"


def plain_sentences(data: Path, most: int = 4000) -> Iterator[tuple[str, str]]:
    """Sentences of manuals and textbooks, which praise and blame nothing."""
    rng = random.Random(0)
    passages = [
        row["text"]
        for _, row in read_rows(data / "text" / "plain_english.jsonl.gz")
        if row["domain"] in ("tech", "textbook")
    ]
    for passage in rng.sample(passages, min(most, len(passages))):
        yield rng.choice(sentences_of(passage) or [passage]), "neutral"


def frequent(rows: list[tuple[str, str]], least: int = 4) -> list[tuple[str, str]]:
    """The rows whose label comes at least that often."""
    counts: dict[str, int] = defaultdict(int)
    for _, label in rows:
        counts[label] += 1
    return [row for row in rows if counts[row[1]] >= least]
