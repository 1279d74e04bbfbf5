"""What a set of training records holds, task by task, from one pass over it.

Memory grows with the number of tasks, not of records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tokenizers import Tokenizer

from anytask.training.medi.lengths import Lengths
from anytask.training.medi.records import InstructedText, Record, task_order

SIDES = ("query", "pos", "neg")
INSTRUCTIONS = 100
"""Most instructions of a task and side that are told apart; later ones are counted together."""
INSTRUCTION_CHARACTERS = 1000
"""Longer instructions are cut here before they are told apart."""
CHUNK = 64
"""Records whose texts are tokenized together."""


@dataclass
class InstructionCounts:
    """How often each instruction occurs, for the first `INSTRUCTIONS` ones."""

    counts: dict[str, int] = field(default_factory=dict)
    others: int = 0
    """Texts with an instruction beyond those."""

    def add(self, instruction: str) -> None:
        instruction = instruction[:INSTRUCTION_CHARACTERS]
        if instruction in self.counts or len(self.counts) < INSTRUCTIONS:
            self.counts[instruction] = self.counts.get(instruction, 0) + 1
        else:
            self.others += 1

    def most_common(self) -> list[tuple[str, int]]:
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))


@dataclass
class SideSummary:
    """The queries, the positives or the negatives of a task."""

    characters: Lengths = field(default_factory=Lengths)
    """Of the texts, without their instructions."""
    tokens: Lengths = field(default_factory=Lengths)
    """Of what the encoder reads, instruction and `</s>` included; empty without a tokenizer."""
    instructions: InstructionCounts = field(default_factory=InstructionCounts)
    blank: int = 0

    def add(self, pair: InstructedText, tokens: int | None) -> None:
        self.characters.add(len(pair.text))
        self.instructions.add(pair.instruction)
        self.blank += not pair.text.strip()
        if tokens is not None:
            self.tokens.add(tokens)

    def merge(self, other: SideSummary) -> None:
        """Add the other's figures; its instructions stay with it."""
        self.characters.merge(other.characters)
        self.tokens.merge(other.tokens)
        self.blank += other.blank

    def to_json(self) -> dict[str, Any]:
        return {
            "characters": self.characters.to_json(),
            **({"tokens": self.tokens.to_json()} if self.tokens.count else {}),
            "blank": self.blank,
        }


@dataclass
class TaskSummary:
    """The records of one task, or of all."""

    records: int = 0
    negatives: Lengths = field(default_factory=Lengths)
    """Of each record, how many."""
    sides: dict[str, SideSummary] = field(default_factory=lambda: {side: SideSummary() for side in SIDES})
    same_pair: int = 0
    """Records whose positive has the query's text."""
    false_negatives: int = 0
    """Negatives that have their positive's text."""

    def add(self, record: Record, tokens: Iterator[int] | None) -> None:
        self.records += 1
        self.negatives.add(len(record.neg))
        for side, pair in _texts(record):
            self.sides[side].add(pair, None if tokens is None else next(tokens))
        self.same_pair += record.query.text == record.pos.text
        self.false_negatives += sum(pair.text == record.pos.text for pair in record.neg)

    def merge(self, other: TaskSummary) -> None:
        """Add the other's figures; its instructions stay with it."""
        self.records += other.records
        self.negatives.merge(other.negatives)
        for side in SIDES:
            self.sides[side].merge(other.sides[side])
        self.same_pair += other.same_pair
        self.false_negatives += other.false_negatives

    @property
    def varied(self) -> bool:
        """Whether a side has more instructions than are told apart."""
        return any(side.instructions.others for side in self.sides.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "negatives": self.negatives.to_json(),
            "positive_is_query": self.same_pair,
            "negative_is_positive": self.false_negatives,
            **{side: self.sides[side].to_json() for side in SIDES},
        }


class TokenCounter:
    """Counts what a model reads of texts: tokens of instruction and text, `</s>` included, before any are cut.

    Args:
        tokenizer: the model's.
        max_length: most tokens of a text that the model reads.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(self, pairs: Sequence[InstructedText]) -> list[int]:
        joined = [(pair.instruction + pair.text.strip()).strip() for pair in pairs]
        return [len(encoding) for encoding in self.tokenizer.encode_batch_fast(joined)]


@dataclass
class DataCard:
    """A summary of each task."""

    tasks: dict[str | int, TaskSummary] = field(default_factory=dict)
    max_length: int | None = None
    """Most tokens of a text that the model reads."""
    over_length: int = 0
    """Texts of more tokens."""

    @classmethod
    def of(cls, records: Iterable[Record], count_tokens: TokenCounter | None = None) -> DataCard:
        """Go through the records once.

        Args:
            count_tokens: counts tokens too, which takes much longer.
        """
        card = cls(max_length=None if count_tokens is None else count_tokens.max_length)
        stream = iter(records)
        while chunk := list(islice(stream, CHUNK)):
            card.add(chunk, count_tokens)
        return card

    def add(self, records: Sequence[Record], count_tokens: TokenCounter | None = None) -> None:
        tokens = None
        if count_tokens is not None:
            counts = count_tokens([pair for record in records for _, pair in _texts(record)])
            self.over_length += sum(count > count_tokens.max_length for count in counts)
            tokens = iter(counts)
        for record in records:
            self.tasks.setdefault(record.task_id, TaskSummary()).add(record, tokens)

    def in_order(self) -> list[tuple[str | int, TaskSummary]]:
        """Tasks by their id."""
        return sorted(self.tasks.items(), key=lambda item: task_order(item[0]))

    def total(self) -> TaskSummary:
        """All tasks together, without their instructions."""
        whole = TaskSummary()
        for task in self.tasks.values():
            whole.merge(task)
        return whole

    def notes(self) -> list[str]:
        """What to look at before training on the records."""
        notes = []
        whole = self.total()
        if twice := [task for task in self.tasks if isinstance(task, int) and str(task) in self.tasks]:
            notes.append(f"task ids both as a number and as a string, which are two tasks: {_listed(twice)}")
        if varied := [task for task, summary in self.in_order() if summary.varied]:
            notes.append(
                f"tasks with more than {INSTRUCTIONS} instructions on a side (is a text in an instruction's place?): "
                + _listed(varied)
            )
        blank = sum(side.blank for side in whole.sides.values())
        for count, what in (
            (blank, "blank texts"),
            (whole.same_pair, "positives with the text of their query"),
            (whole.false_negatives, "negatives with the text of their positive"),
            (self.over_length, f"texts of more than {self.max_length} tokens, which the model cuts"),
        ):
            if count:
                notes.append(f"{what}: {count:,}")
        return notes


def _texts(record: Record) -> Iterator[tuple[str, InstructedText]]:
    yield "query", record.query
    yield "pos", record.pos
    for pair in record.neg:
        yield "neg", pair


def _listed(tasks: Sequence[str | int], most: int = 10) -> str:
    return ", ".join(map(repr, tasks[:most])) + (f" and {len(tasks) - most} more" if len(tasks) > most else "")
