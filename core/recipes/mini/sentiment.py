"""Texts by their sentiment, from sources of different styles.

Some sources come with labels: comments, reviews, sentences about feelings. A classifier of the teacher's vectors learns
from these, drops those whose label it doubts, and finds the clearest texts of other sources, as many of each sentiment:
so no style stands for a sentiment. Where something says what a text means, that is classified rather than the text: a
term's definition, or what somebody feels in a story's sentence. So sayings are learnt too.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpus import instances, sentences_of
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from anytask.training.building.json_rows import read_rows

POSITIVE, NEGATIVE, NEUTRAL, AMBIGUOUS = "positive", "negative", "neutral", "ambiguous"
EMOTIONS = {
    POSITIVE: "admiration amusement approval caring desire excitement gratitude joy love optimism pride relief",
    NEGATIVE: "anger annoyance disappointment disapproval disgust embarrassment fear grief nervousness remorse sadness",
    AMBIGUOUS: "confusion curiosity realization surprise",
    NEUTRAL: "neutral",
}
"""The emotions of GoEmotions by sentiment (Demszky et al., 2020, arXiv 2005.00547, figure 2)."""
PRAISE_FROM_COMPLAINTS = "task927_yelp_negative_to_positive_style_transfer"
FEELINGS = "task1339_peixian_equity_evaluation_corpus_text_completion"
REVIEWS = (
    "task589_amazonfood_summary_text_generation",
    "task618_amazonreview_summary_text_generation",
    "task1342_amazon_us_reviews_title",
)
EMOTIONS_OF_STORIES = "task293_storycommonsense_emotion_text_generation"
CAUSES_OF_EMOTIONS = "task749_glucose_reverse_cause_emotion_detection"
STORY = re.compile(r"Sentence: (.*?)\s*Character:", re.DOTALL)
CAUSE = re.compile(r"selected sentence: (.*)", re.DOTALL)
FELT = re.compile(r"feel\(s\) (.*)")
TAKE_SIDES = "reviews", "titles", "stories"
"""Sources without neutral texts: what looks neutral to the classifier is praise, complaint or feeling there."""
READ = 16_000
"""Most sentences of an unlabelled source that are classified."""
CLEAREST = 400
"""Texts of a sentiment taken from an unlabelled source."""
MIXED = 12_000
"""Most texts of a sentiment made of two sources."""
SHORTEST_OF = 3
"""Of so many drawn texts the shortest is the one of a mixed text that has the sentiment."""
JOINS = " ", ", ", "; ", " - ", " and "
"""What stands between the two."""
BESIDE = 20
"""Most words of the neutral one of the two."""

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True)
class Judged:
    """A text, its sentiment, the source that it is from and, if only a part of it has the sentiment, that part."""

    text: str
    sentiment: str
    source: str
    part: str | None = None


def comments(data: Path) -> Iterator[Judged]:
    """Comments by the sentiment of their emotion."""
    sentiment = {emotion: name for name, emotions in EMOTIONS.items() for emotion in emotions.split()}
    for _, row in read_rows(data / "classification" / "goemotions.jsonl.gz"):
        yield Judged(row["text"], sentiment[row["label"]], "comments")


def labelled_sentences(data: Path) -> Iterator[Judged]:
    """Complaints in reviews and the praise that they were turned into; sentences that name a feeling."""
    for instance in instances(data, PRAISE_FROM_COMPLAINTS):
        yield Judged(instance["input"], NEGATIVE, "reviews")
        yield Judged(instance["output"], POSITIVE, "reviews")
    for instance in instances(data, FEELINGS):
        yield Judged(instance["output"], POSITIVE if "EMOTION: joy" in instance["input"] else NEGATIVE, "feelings")


def unlabelled_sentences(data: Path) -> dict[str, list[str]]:
    """Sentences of sources that say nothing of their sentiment, `READ` of each at most, in random order."""
    reviews = list(instances(data, *REVIEWS))
    found: dict[str, list[str]] = {
        "reviews": [sentence for review in reviews for sentence in sentences_of(review["input"])],
        "titles": [review["output"] for review in reviews],
        "examples": [row["pos"] for _, row in read_rows(data / "pairs" / "wordnet_examples.jsonl.gz")],
        "prose": [],
        "manuals": [],
        "questions": [],
    }
    rng = random.Random(0)
    passages = [row for _, row in read_rows(data / "text" / "plain_english.jsonl.gz")]
    for row in rng.sample(passages, len(passages)):
        for sentence in sentences_of(row["text"]):
            kind = "manuals" if row["domain"] in ("tech", "textbook", "government") else "prose"
            found["questions" if sentence.endswith("?") else kind].append(sentence)
        if min(len(found[kind]) for kind in ("prose", "manuals", "questions")) > 2 * READ:
            break
    short = {source: [text for text in texts if len(text.split()) <= 40] for source, texts in found.items()}
    return {source: rng.sample(texts, min(READ, len(texts))) for source, texts in short.items()}


def terms(data: Path) -> Iterator[tuple[str, str]]:
    """Words and phrases of one meaning with their definition."""
    for _, row in read_rows(data / "pairs" / "wordnet_definitions.jsonl.gz"):
        yield row["query"], row["pos"]


def stories(data: Path) -> Iterator[tuple[str, str]]:
    """Sentences of stories with what somebody feels there."""
    for instance in instances(data, EMOTIONS_OF_STORIES):
        if (sentence := STORY.search(instance["input"])) and instance["output"] != "None":
            yield sentence[1], instance["output"]
    for instance in instances(data, CAUSES_OF_EMOTIONS):
        if (sentence := CAUSE.search(instance["input"])) and (felt := FELT.search(instance["output"])):
            yield sentence[1].strip(), felt[1]


def judged_sentences(data: Path, embed: Embed) -> list[Judged]:
    """All of them, each once, and mixed ones; ambiguous comments are left out, and those that the classifier labels
    otherwise.

    Args:
        embed: the teacher's unit vectors [n, d] of n texts.
    """
    labelled = [row for row in (*comments(data), *labelled_sentences(data)) if row.sentiment != AMBIGUOUS]
    vectors = embed([row.text for row in labelled])
    classifier = LogisticRegression(C=10.0, max_iter=300, class_weight="balanced")
    predicted = classifier.fit(vectors, [row.sentiment for row in labelled]).predict(vectors)
    found = [row for row, sentiment in zip(labelled, predicted, strict=True) if row.sentiment == sentiment]
    unlabelled = {source: [(text, text) for text in texts] for source, texts in unlabelled_sentences(data).items()}
    unlabelled |= {"terms": list(terms(data)), "stories": list(stories(data))}
    for source, told in unlabelled.items():
        scores = classifier.decision_function(embed([meaning for _, meaning in told]))
        for column, sentiment in enumerate(classifier.classes_):
            if sentiment == NEUTRAL and source in TAKE_SIDES:
                continue
            lead = scores[:, column] - np.delete(scores, column, axis=1).max(axis=1)
            found += [Judged(told[place][0], sentiment, source) for place in np.argsort(-lead)[:CLEAREST]]
    distinct = list({row.text: row for row in found}.values())
    return [*distinct, *mixed(distinct)]


def mixed(judged: Sequence[Judged]) -> Iterator[Judged]:
    """Texts of two sources of which one is neutral, in either order: the other's sentiment is the whole's.

    So a sentiment is found that takes a small part of a text, whatever the rest is about.
    """
    rng = random.Random(1)
    texts: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    beside: dict[str, list[str]] = defaultdict(list)
    for row in judged:
        texts[row.sentiment][row.source].append(row.text)
        if row.sentiment == NEUTRAL and len(row.text.split()) <= BESIDE:
            beside[row.source].append(row.text)
    for sentiment, sources in texts.items():
        for _ in range(MIXED):
            source, other = rng.choice(list(sources)), rng.choice(list(beside))
            if source != other:
                short = min(rng.choices(sources[source], k=SHORTEST_OF), key=len)
                pair = rng.sample([short, rng.choice(beside[other])], 2)
                yield Judged(joined(*pair, rng.choice(JOINS)), sentiment, "mixed", short)


def joined(first: str, second: str, join: str) -> str:
    """Two texts as one; the first keeps its full stop only where a space is between them."""
    return f"{first if join == ' ' else first.rstrip(' .!?')}{join}{second}"
