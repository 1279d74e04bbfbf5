"""The tasks of the ablation: symmetric and asymmetric ones, each with texts to train on and others held out."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from anytask import Instruction
from anytask.evaluation.embedder import Embedder, embed
from anytask.training.building.labelled import read_labelled, read_pairs
from anytask.training.building.pairing import pair_by_label
from anytask.training.building.task_texts import LabelledTexts, TextPair, TextPairs
from anytask.training.medi.records import InstructedText, Record

WORDS = 24
"""Of each text; the same with and without instructions, so that both see the same."""
TRAINED = 3000
"""Most texts or pairs of a task that are trained on."""
HELD_OUT = 500
"""Of a task, to measure on."""
WORDNET = "wordnet_definitions"
FIELD = "wordnet_definition_field"
FIELD_INSTRUCTION = str(Instruction("definition", "dictionary", "classifying its semantic field"))
SYMMETRIC = ("bible_bbe_asv", "wikisplit", "goemotions", "query_wellformedness", FIELD)
ASYMMETRIC = (
    "boolq_question_passage",
    "medquad",
    "openstax_glossary",
    "openstax_section_paragraph",
    "scitldr_title_abstract",
    WORDNET,
)
MIXTURES = {"both": SYMMETRIC + ASYMMETRIC, "symmetric": SYMMETRIC, "asymmetric": ASYMMETRIC}


@dataclass(frozen=True)
class Task:
    """A task's records and what is held out of it: pairs, or labelled texts."""

    name: str
    records: list[Record]
    pairs: list[Record]
    labelled: LabelledTexts
    instruction: str
    """Of the queries; of all texts where the task is symmetric."""


def read_tasks(data: Path, embedder: Embedder) -> list[Task]:
    """All tasks with their instructions; the same texts are drawn each time.

    Args:
        data: holds `pairs/`, `classification/` and `instructions.json`.
        embedder: pairs the labelled texts, as the paper does.
    """
    instructions = json.loads((data / "instructions.json").read_text("utf-8"))
    instructions[FIELD] = {"query": FIELD_INSTRUCTION, "pos": FIELD_INSTRUCTION}
    return [_read(data, name, instructions[name], embedder) for name in MIXTURES["both"]]


def without_instructions(task: Task) -> Task:
    """The same texts, alone."""
    records, pairs = ([_without(record) for record in side] for side in (task.records, task.pairs))
    return replace(task, records=records, pairs=pairs, instruction="")


def _without(record: Record) -> Record:
    query, pos, *neg = (InstructedText("", side.text) for side in (record.query, record.pos, *record.neg))
    return replace(record, query=query, pos=pos, neg=tuple(neg))


def _read(data: Path, name: str, instruction: Mapping[str, str], embedder: Embedder) -> Task:
    draw = random.Random(name)
    query, pos = instruction["query"], instruction["pos"]
    if (labelled := _labelled(data, name)) is not None:
        cut = LabelledTexts([_cut(text) for text in labelled.texts], labelled.labels).distinct()
        places = draw.sample(range(len(cut)), min(len(cut), TRAINED + HELD_OUT))
        end = len(places) - _held_out(len(places))
        records = _paired(cut.chosen(places[:end]), name, query, embedder)
        return Task(name, records, [], cut.chosen(places[end:]), query)
    pairs = TextPairs([pair._replace(query=_cut(pair.query), pos=_cut(pair.pos)) for pair in _pairs(data, name)])
    found = [
        Record(InstructedText(query, pair.query), InstructedText(pos, pair.pos), (), name)
        for pair in pairs.distinct().pairs
    ]
    draw.shuffle(found)
    held_out = found[: _held_out(len(found))]
    known = {side.text for record in held_out for side in (record.query, record.pos)}
    rest = [record for record in found[len(held_out) :] if not known & {record.query.text, record.pos.text}]
    return Task(name, rest[:TRAINED], held_out, LabelledTexts([], []), query)


def _held_out(count: int) -> int:
    return min(HELD_OUT, count // 5)


def _labelled(data: Path, name: str) -> LabelledTexts | None:
    """The labelled texts of a classification task, None for pairs. WordNet serves two tasks: this one's rows are even,
    the other's odd."""
    if name == FIELD:
        texts = read_labelled(data / "pairs" / f"{WORDNET}.jsonl.gz", {"text": "pos", "label": "meta.lexfile"})
        return texts.chosen(list(range(0, len(texts), 2)))
    path = data / "classification" / f"{name}.jsonl.gz"
    return read_labelled(path) if path.is_file() else None


def _pairs(data: Path, name: str) -> list[TextPair]:
    pairs = read_pairs(data / "pairs" / f"{name}.jsonl.gz").pairs
    return pairs[1::2] if name == WORDNET else pairs


def _paired(texts: LabelledTexts, name: str, instruction: str, embedder: Embedder) -> list[Record]:
    def side(place: int) -> InstructedText:
        return InstructedText(instruction, texts.texts[place])

    return [
        Record(side(pairing.query), side(pairing.pos), tuple(map(side, pairing.neg)), name)
        for pairing in pair_by_label(embed(embedder, texts.texts, None), texts.labels)
    ]


def _cut(text: str) -> str:
    return " ".join(text.split()[:WORDS])
