"""Sentences by their sentiment: comments, reviews, and plain statements."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from corpus import sentences_of

from anytask.training.building.json_rows import read_rows

SENTIMENTS = {
    "positive": "admiration amusement approval caring desire excitement gratitude joy love optimism pride relief",
    "negative": "anger annoyance disappointment disapproval disgust embarrassment fear grief nervousness remorse "
    "sadness",
    "ambiguous": "confusion curiosity realization surprise",
    "neutral": "neutral",
}
"""The emotions of GoEmotions by sentiment (Demszky et al., 2020, arXiv 2005.00547, figure 2)."""
PRAISE_FROM_COMPLAINTS = "task927_yelp_negative_to_positive_style_transfer"


def comments(data: Path) -> Iterator[tuple[str, str]]:
    """Comments by the sentiment of their emotion."""
    sentiment = {emotion: name for name, emotions in SENTIMENTS.items() for emotion in emotions.split()}
    for _, row in read_rows(data / "classification" / "goemotions.jsonl.gz"):
        yield row["text"], sentiment[row["label"]]


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
