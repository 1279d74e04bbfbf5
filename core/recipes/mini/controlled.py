"""Sentences of controlled topic, sentiment and style: does the instruction choose the neighbour?

    python core/recipes/mini/controlled.py [--model mini]      # print some sentences, or measure a model

For each sentence its nearest neighbour by cosine is sought, with an instruction that asks for one of the three
attributes: does the neighbour have the sentence's value of the attribute? Candidates that share a template, a verdict,
a subject or a setting with the sentence are left out, so that no shared string leads there.

Two forms: `plain`, among all other candidates, and `hard`, in which the candidates with the asked value differ from the
sentence in both other attributes, while those with another value are all there. A model that doesn't listen can't do
well there: the sentences that agree in what was not asked for are nearer.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from controlled_wording import TEMPLATES, TOPICS, VERDICTS
from rich.console import Console

from anytask.evaluation.embedder import Embedder, embed

Form = Literal["plain", "hard"]

ATTRIBUTES = ("topic", "sentiment", "style")
FORMS: tuple[Form, ...] = ("plain", "hard")
PARTS = ("template", "verdict", "subject", "setting")
PER_CELL = 10
INSTRUCTION = "Represent the sentence for classifying its {}: "
NO_INSTRUCTION = "none"
OTHER_WORDINGS = (
    "Represent the text for classifying its {}: ",
    "Represent the statement for finding others of the same {}: ",
    "Classify the {} of this sentence: ",
    "What is the {} of this? ",
)


@dataclass(frozen=True)
class Sentence:
    """A sentence, the values of its attributes, and the strings it is made of."""

    text: str
    topic: str
    sentiment: str
    style: str
    template: str
    verdict: str
    subject: str
    setting: str


def generate(seed: int = 0) -> list[Sentence]:
    """`PER_CELL` sentences of each topic, sentiment and style (960), in which every list is used evenly."""
    rng = random.Random(seed)
    sentences = []
    for topic, sentiment, style in product(TOPICS, VERDICTS, TEMPLATES):
        lists = (TEMPLATES[style], VERDICTS[sentiment][style], TOPICS[topic]["subject"], TOPICS[topic]["setting"])
        shuffled = [rng.sample(words, len(words)) for words in lists]
        for place in range(PER_CELL):
            parts = [words[place % len(words)] for words in shuffled]
            sentences.append(Sentence(write(*parts), topic, sentiment, style, *parts))
    return sentences


def write(template: str, verdict: str, subject: str, setting: str) -> str:
    words = {"verdict": verdict, "subject": subject, "setting": setting}
    return template.format(**words, **{name.capitalize(): text[0].upper() + text[1:] for name, text in words.items()})


def codes(sentences: Sequence[Sentence], name: str) -> npt.NDArray[np.int64]:
    """A number for each value of an attribute or part, int64 [n]."""
    return np.unique([getattr(sentence, name) for sentence in sentences], return_inverse=True)[1]


def candidates(sentences: Sequence[Sentence], attribute: str, form: Form) -> npt.NDArray[np.bool_]:
    """Which sentences (columns) may be the neighbour of which (rows), bool [n, n]."""

    def same(name: str) -> npt.NDArray[np.bool_]:
        numbers = codes(sentences, name)
        return numbers[:, None] == numbers[None, :]

    allowed = ~np.any([same(part) for part in PARTS], axis=0)
    if form == "hard":
        agrees_elsewhere = np.any([same(name) for name in ATTRIBUTES if name != attribute], axis=0)
        allowed &= ~(same(attribute) & agrees_elsewhere)
    return allowed


def agreement(
    vectors: npt.NDArray[np.float32], sentences: Sequence[Sentence], attribute: str, form: Form = "plain"
) -> float:
    """Per cent of the sentences whose nearest candidate has their value of the attribute.

    Args:
        vectors: unit length, [n, dimension].
        sentences: n.
        attribute: "topic", "sentiment" or "style".
        form: see the module.
    """
    cosines = np.where(candidates(sentences, attribute, form), vectors @ vectors.T, -np.inf)
    values = codes(sentences, attribute)
    return 100 * float(np.mean(values[cosines.argmax(axis=1)] == values))


def chance(sentences: Sequence[Sentence], attribute: str, form: Form) -> float:
    """Per cent that neighbours drawn at random would reach."""
    allowed = candidates(sentences, attribute, form)
    values = codes(sentences, attribute)
    right = allowed & (values[:, None] == values[None, :])
    return 100 * float(np.mean(right.sum(axis=1) / allowed.sum(axis=1)))


def changed(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32], sentences: Sequence[Sentence]) -> float:
    """Per cent of the sentences whose nearest candidate is not the same one under two instructions."""
    allowed = candidates(sentences, "topic", "plain")
    nearest = [np.where(allowed, vectors @ vectors.T, -np.inf).argmax(axis=1) for vectors in (one, other)]
    return 100 * float(np.mean(nearest[0] != nearest[1]))


def given(sentences: Sequence[Sentence]) -> dict[str, Any]:
    """What the figures depend on beside the model."""
    texts = "\n".join(sentence.text for sentence in sentences)
    return {
        "sentences": hashlib.sha256(texts.encode()).hexdigest(),
        "instruction": INSTRUCTION,
        "other_wordings": list(OTHER_WORDINGS),
    }


def measure_without_instruction(embedder: Embedder, sentences: Sequence[Sentence]) -> dict[str, Any]:
    """Agreement by form and attribute of a model that takes no instruction."""
    vectors = embed(embedder, [sentence.text for sentence in sentences], None)
    return {form: {asked: agreement(vectors, sentences, asked, form) for asked in ATTRIBUTES} for form in FORMS}


def measure(embedder: Embedder, sentences: Sequence[Sentence]) -> dict[str, Any]:
    """Agreement by form, attribute asked for and instruction given; and of each other wording of the right one."""
    texts = [sentence.text for sentence in sentences]
    vectors = {NO_INSTRUCTION: embed(embedder, texts, None)}
    vectors |= {name: embed(embedder, texts, INSTRUCTION.format(name)) for name in ATTRIBUTES}
    found: dict[str, Any] = {
        form: {
            asked: {name: agreement(under, sentences, asked, form) for name, under in vectors.items()}
            | {"chance": chance(sentences, asked, form)}
            for asked in ATTRIBUTES
        }
        for form in FORMS
    }
    found["changed"] = changed(vectors["topic"], vectors["sentiment"], sentences)
    found["other_wordings"] = {
        name: {
            wording: _by_form(embed(embedder, texts, wording.format(name)), sentences, name)
            for wording in OTHER_WORDINGS
        }
        for name in ATTRIBUTES
    }
    return found


def _by_form(vectors: npt.NDArray[np.float32], sentences: Sequence[Sentence], attribute: str) -> dict[str, float]:
    return {form: agreement(vectors, sentences, attribute, form) for form in FORMS}


def main() -> None:
    from tables import listening_table

    from anytask import Instructor

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a bundled model or a checkpoint folder; without one, sentences are printed")
    arguments = parser.parse_args()
    sentences = generate()
    console = Console(width=max(Console().width, 110))
    if arguments.model is None:
        for sentence in random.Random(0).sample(sentences, 24):
            console.print(f"[dim]{sentence.topic}, {sentence.sentiment}, {sentence.style}:[/dim] {sentence.text}")
        return
    found = measure(Instructor.from_pretrained(arguments.model, device="cpu"), sentences)
    console.print(listening_table({"model": arguments.model, "controlled": found, "teacher_controlled": None}))


if __name__ == "__main__":
    main()
