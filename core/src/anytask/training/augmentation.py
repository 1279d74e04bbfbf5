"""Other wordings of instructions, and texts with words left out: a model that has seen them depends on neither."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import product

import numpy as np

from anytask.instruction import Instruction
from anytask.training.medi.records import InstructedText

OPENINGS = ("Represent", "Encode", "Embed")
ENDINGS = (": ", "; Input: ")
"""The template's, and the one of MEDI as released."""
RELEASED_ENDING = re.compile(r"\s*;\s*Input\s*:\s*$", re.I)
BEYOND_THE_TEMPLATE = re.compile(r"[:;\n]|[.?!](?:\s|$)")
"""What the parts of an instruction of one clause don't hold; with it, more than the template's parts is said."""
SYNONYMS = (
    (("retrieving", "retrieve"), ("finding", "find"), ("searching for", "search for")),
    (("clustering", "cluster"), ("grouping", "group")),
    (("classifying", "classify"), ("categorizing", "categorize")),
    (("detecting", "detect"), ("recognizing", "recognize"), ("identifying", "identify")),
    (("measuring", "measure"), ("judging", "judge"), ("assessing", "assess")),
    (("comparing", "compare"), ("matching", "match")),
    (("answering", "answer"),),
)
"""Words that objectives begin with, as gerund and infinitive; those of a row say the same."""
SYNONYMS_ALONE = (
    ("retrieval", "search"),
    ("clustering", "grouping"),
    ("classification", "categorization"),
    ("duplicate detection", "finding duplicates"),
    ("question answering", "answering questions"),
    ("semantic similarity", "measuring semantic similarity", "comparing meanings"),
)
"""Whole objectives; those of a row say the same."""


def paraphrases(instruction: str) -> list[str]:
    """Rewordings of an instruction that follows the template, in a fixed order, the given string first.

    They differ in the opening verb, the article, synonyms and grammar of the objective, the ending and the case. An
    instruction that says more than the template, or other things, comes back alone.

    >>> wordings = paraphrases("Represent the question for retrieving supporting documents: ")
    >>> "Encode a question to find supporting documents: " in wordings
    True
    """
    return list(_paraphrases(instruction))


def word_dropout(text: str, probability: float, rng: np.random.Generator) -> str:
    """Leave out each word (what stands between white space) with this probability, but never the last one left.

    A text of one word, or of a script without spaces, stays as it is.
    """
    words = re.findall(r"\s*\S+", text)
    if len(words) < 2:
        return text
    kept = rng.random(len(words)) >= probability
    if kept.all():
        return text
    if not kept.any():
        kept[rng.integers(len(words))] = True
    return "".join(word for word, keep in zip(words, kept, strict=True) if keep).lstrip()


@dataclass(frozen=True)
class Augmentation:
    """Varies instructed texts; what comes out depends on the generator alone.

    Args:
        instruction_paraphrase: probability that an instruction is reworded.
        word_dropout: probability with which each word of a text is left out.
        instruction_dropout: probability that the instruction is left out.

    Raises:
        ValueError: a probability outside 0 to 1; the message names it.
    """

    instruction_paraphrase: float = 0.0
    word_dropout: float = 0.0
    instruction_dropout: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= (value := getattr(self, field.name)) <= 1:
                raise ValueError(f"{field.name} must be a probability from 0 to 1, got {value}")

    def __call__(self, instructed: InstructedText, rng: np.random.Generator) -> InstructedText:
        return self.together([instructed], rng)[0]

    def together(self, sides: Sequence[InstructedText], rng: np.random.Generator) -> list[InstructedText]:
        """Vary the texts of one record: all lose their instruction or none, equal instructions get the same wording."""
        dropped = rng.random() < self.instruction_dropout
        reworded = rng.random() < self.instruction_paraphrase
        wording = rng.random()
        varied = []
        for instruction, text in sides:
            others = _paraphrases(instruction)[1:] if reworded else ()
            chosen = others[int(wording * len(others))] if others else instruction
            kept = word_dropout(text, self.word_dropout, rng) if self.word_dropout else text
            varied.append(InstructedText("" if dropped else chosen, kept))
        return varied


@lru_cache(maxsize=4096)
def _paraphrases(instruction: str) -> tuple[str, ...]:
    try:
        parts = Instruction.parse(RELEASED_ENDING.sub(":", instruction))
    except ValueError:
        return (instruction,)
    subject = parts.text_type if parts.domain is None else f"{parts.domain} {parts.text_type}"
    if BEYOND_THE_TEMPLATE.search(f"{subject} {parts.objective or ''}"):
        return (instruction,)
    wordings = [
        f"{opening} {article} {subject}{objective}{ending}"
        for opening, article, objective, ending in product(
            OPENINGS, _determiners(subject), _objectives(parts.objective), ENDINGS
        )
    ]
    return tuple(dict.fromkeys([instruction, *wordings, *map(str.lower, wordings)]))


def _objectives(objective: str | None) -> list[str]:
    """Ways to say what for, with a space in front; as it is said first."""
    if objective is None:
        return [""]
    said = [f" for {objective}"]
    for row in SYNONYMS_ALONE:
        if objective.lower() in row:
            said += [f" for {other}" for other in row]
    for row_of_verbs in SYNONYMS:
        for gerund, _ in row_of_verbs:
            if rest := _after(gerund, objective):
                said += [wording for other in row_of_verbs for wording in _with_verb(other, rest)]
    return list(dict.fromkeys(said))


def _after(beginning: str, objective: str) -> str:
    """What follows the words `beginning` in the objective; nothing where it begins otherwise."""
    start, rest = objective[: len(beginning) + 1], objective[len(beginning) + 1 :]
    return rest if start.lower() == f"{beginning} " else ""


def _with_verb(verb: tuple[str, str], rest: str) -> Iterator[str]:
    gerund, infinitive = verb
    yield f" for {gerund} {rest}"
    yield f" to {infinitive} {rest}"


def _determiners(subject: str) -> tuple[str, ...]:
    """What may stand before the subject. `an` is for vowels, but not the sounds of university, user, European, one."""
    head = subject.split(" of ")[0].lower()
    if re.search(r"[^suoi]s$", head):
        return ("the", "these")
    return ("the", "an" if re.match(r"(?!uni|us[aeiu]|eu|one\b)[aeiou]", subject, re.I) else "a", "this")
