"""Pairs of texts by their relation: does the second follow from the first, contradict it, or neither?

Those that people wrote as such are of captions. To make the relation more than a matter of captions, texts of other
sources are paired with what follows from them because it says less of the same, with that changed, which contradicts,
and with what says more or other things, which does neither.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from corpus import cut, instances, instruction_tasks, sentences_of

from anytask.training.building.json_rows import read_rows

ENTAILMENT, NEUTRAL, CONTRADICTION = "entailment", "neutral", "contradiction"
REWRITTEN = re.compile(r"task\d+_snli_([a-z]+)_to_([a-z]+)_text_modification")
TWO_SENTENCES = re.compile(r"Sentence 1:(.*?)Sentence 2:(.*)", re.DOTALL)
HALVES = re.compile(r"(?<= [.!?])\s+")
NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})*")
NUMBER = re.compile(r"\b\d+\b")
VERB = re.compile(r"\b(?:is|are|was|were|can|could|will|would|should|must|has|have|had|did|does|do)\b(?! not)")
SHORTENED = (
    "task111_asset_sentence_simplification",
    "task933_wiki_auto_style_transfer",
    "task934_turk_simplification",
    "task1340_msr_text_compression_compression",
    "task1530_scitail1.1_sentence_generation",
)
EXTENDED = "task955_wiki_auto_style_transfer"
SHORTER = 0.8
"""Most words of a shortened text, as a share of the whole one's: one says what the other doesn't."""
SPOILT_STORIES = "task068_abductivenli_incorrect_answer_generation"
STORY = re.compile(r"Beginning: (.*?) Middle: (.*?) Ending: (.*)", re.DOTALL)
SWAPPED_ROLES = "task1364_hans_answer_generation"
ROLES = re.compile(r"The (\w+) (\w+) the (\w+) ?\.")
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
    for name, rows in instruction_tasks(data).items():
        if found := REWRITTEN.fullmatch(name):
            for number, instance in enumerate(rows):
                if sentences := TWO_SENTENCES.fullmatch(instance["input"].strip()):
                    first, second = sentences.groups()
                    yield pair_text(first, second, number), found[1]
                    yield pair_text(first, instance["output"], number + 1), found[2]


def passage_relations(data: Path, most: int = 2000) -> Iterator[tuple[str, str]]:
    """Two sentences of a passage with one of them, with that one altered, and with the next."""
    rng = random.Random(1)
    rows = [row["text"] for _, row in read_rows(data / "text" / "plain_english.jsonl.gz")]
    passages = [sentences_of(text)[:3] for text in rng.sample(rows, min(most, len(rows)))]
    alter = Alteration([sentence for passage in passages for sentence in passage], rng)
    for number, sentences in enumerate(passages):
        if len(sentences) == 3:
            *premise, following = sentences
            own = cut(rng.choice(premise), 30)
            whole = cut(" ".join(premise), 60)
            yield from _three(whole, own, alter(own), (whole, cut(following, 30)), number)


def split_relations(data: Path, most: int = 4000) -> Iterator[tuple[str, str]]:
    """A sentence that was split in two, with a half of it and with that altered; and one half with the other.

    Halves that say more than the whole are left out.
    """
    rng = random.Random(2)
    rows = [row for _, row in read_rows(data / "pairs" / "wikisplit.jsonl.gz")]
    found = [(row["query"], HALVES.split(row["pos"])) for row in rng.sample(rows, min(most, len(rows)))]
    found = [(whole, halves) for whole, halves in found if len(halves) == 2]
    alter = Alteration([whole for whole, _ in found], rng)
    for number, (whole, halves) in enumerate(found):
        own, other = rng.sample(halves, 2)
        if set(own.split()[1:]) - set(whole.split()):
            continue
        yield from _three(whole, own, alter(own), (other, own), number)


def shortened_relations(data: Path) -> Iterator[tuple[str, str]]:
    """A text with what people made shorter of it and with that altered; and the shorter one with the whole."""
    found = [(each["input"], each["output"]) for each in instances(data, *SHORTENED)]
    found += [(each["output"], each["input"]) for each in instances(data, EXTENDED)]
    found = [(whole, short) for whole, short in found if len(short.split()) <= SHORTER * len(whole.split())]
    alter = Alteration([whole for whole, _ in found], random.Random(3))
    for number, (whole, short) in enumerate(found):
        yield from _three(whole, short, alter(short), (short, whole), number)


def story_relations(data: Path) -> Iterator[tuple[str, str]]:
    """A story with its middle, and with a middle that would spoil it; and what is left of it with the middle."""
    for number, instance in enumerate(instances(data, SPOILT_STORIES)):
        if parts := STORY.fullmatch(instance["input"].strip()):
            beginning, middle, ending = parts.groups()
            whole, rest = " ".join(parts.groups()), f"{beginning} {ending}"
            yield from _three(whole, middle, instance["output"], (rest, middle), number)


def role_relations(data: Path) -> Iterator[tuple[str, str]]:
    """A sentence with who does what to whom in it, and with the two in each other's role, which doesn't follow."""
    for number, instance in enumerate(instances(data, SWAPPED_ROLES)):
        if parts := ROLES.fullmatch(instance["output"].strip()):
            one, does, other = parts.groups()
            whole, swapped = instance["input"], instance["output"]
            if whole.startswith(f"The {other} "):
                yield from _three(whole, f"The {other} {does} the {one} .", None, (whole, swapped), number)


def _three(
    whole: str, part: str, altered: str | None, beside: tuple[str, str], number: int
) -> Iterator[tuple[str, str]]:
    """A whole with a part of it and with that altered, if it could be; and two texts that stand beside each other."""
    yield pair_text(whole, part, number), ENTAILMENT
    if altered is not None:
        yield pair_text(whole, altered, number + 1), CONTRADICTION
    yield pair_text(*beside, number + 2), NEUTRAL


class Alteration:
    """Changes one place of a sentence so that it isn't true where the sentence is: a name, a number or a verb.

    Args:
        sentences: names and numbers are taken from here.
    """

    def __init__(self, sentences: Sequence[str], rng: random.Random) -> None:
        self.rng = rng
        self.pools = {
            pattern: sorted({found for sentence in sentences for found in pattern.findall(sentence)})
            for pattern in (NAME, NUMBER)
        }

    def __call__(self, sentence: str) -> str | None:
        """The changed sentence, or None if there is nothing to change."""
        ways = [pattern for pattern in (NAME, NUMBER, VERB) if pattern.search(sentence)]
        if not ways:
            return None
        pattern = self.rng.choice(ways)
        place = self.rng.choice(list(pattern.finditer(sentence)))
        if pattern is VERB:
            new = f"{place[0]} not"
        else:
            new = self.rng.choice([other for other in self.pools[pattern] if other != place[0]] or ["another"])
        return sentence[: place.start()] + new + sentence[place.end() :]
