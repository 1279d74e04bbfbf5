"""The records of one task: its texts paired, drawn to its cap, with its instructions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np
import numpy.typing as npt

from anytask.evaluation.embedder import Embedder, embed
from anytask.training.augmentation import paraphrases
from anytask.training.building.annotation import TaskInstructions
from anytask.training.building.pairing import Pairing, pair_by_label, pair_by_output
from anytask.training.building.recipe import Recipe
from anytask.training.building.task_sources import Task
from anytask.training.building.task_texts import LabelledTexts, TextOutputs, TextPair, TextPairs, text_key
from anytask.training.medi.records import InstructedText, Record

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TaskSummary:
    """What a task gave.

    Args:
        task: its name.
        file: below the data folder.
        pairs: how its positives were found, "same label", "similar output" or "given".
        texts: inputs, or given pairs, that the file has; distinct: of those, the ones that can be paired.
        records, hard_negatives: that were made.
        query_instruction, document_instruction: before any rewording.
    """

    task: str
    file: str
    pairs: str
    texts: int
    distinct: int
    records: int
    hard_negatives: int
    query_instruction: str
    document_instruction: str


def task_records(task: Task, recipe: Recipe, embedder: Embedder) -> tuple[list[Record], TaskSummary]:
    """The records of a task, in the order of its texts.

    Given pairs are drawn by the recipe's seed. Of labelled texts the queries are drawn, from all labels in turn, so
    that a frequent one doesn't take the whole cap. Of text outputs all pairs are made and those with the highest scores
    kept, as in the paper.

    Args:
        embedder: E of the scores.

    Raises:
        ValueError: the embedder returned something else than one finite vector per text.
    """
    draw = random.Random(f"{recipe.seed} {task.name}")
    texts = task.texts.distinct()
    match texts:
        case TextPairs():
            pairs = texts.chosen(_draw(draw, len(texts), task.max_records)).pairs
        case LabelledTexts():
            drawn = texts.chosen(_draw(draw, len(texts), recipe.max_texts))
            pairs = _by_label(drawn, embedder, recipe.negatives, task.max_records, draw)
        case TextOutputs():
            outputs = texts.chosen(_draw(draw, len(texts), recipe.max_texts))
            pairs = _by_output(outputs, embedder, recipe.negatives, task.max_records)
    records = [
        _record(pair, recipe.negatives, _worded(task.instructions, recipe.paraphrase, draw), task.name)
        for pair in pairs
    ]
    return records, TaskSummary(
        task=task.name,
        file=task.file,
        pairs=texts.pairs_by,
        texts=len(task.texts),
        distinct=len(texts),
        records=len(records),
        hard_negatives=sum(len(record.neg) for record in records),
        query_instruction=task.instructions.query,
        document_instruction=task.instructions.pos,
    )


def _by_label(
    texts: LabelledTexts, embedder: Embedder, negatives: int, most: int, draw: random.Random
) -> list[TextPair]:
    queries = _queries_of_all_labels(texts.labels, most, draw)
    if not queries:
        return []
    vectors = embed(embedder, texts.texts, None)
    return _text_pairs(pair_by_label(vectors, texts.labels, negatives, queries), texts.texts)


def _by_output(texts: TextOutputs, embedder: Embedder, negatives: int, most: int) -> list[TextPair]:
    if len(texts) < 2:
        return []
    same_output = [frozenset(map(text_key, outputs)) for outputs in texts.outputs]
    inputs, outputs = embed(embedder, texts.inputs, None), _embed_outputs(embedder, texts.outputs)
    pairings = pair_by_output(inputs, outputs, same_output, negatives)
    best = sorted(pairings, key=lambda pairing: -pairing.score)[:most]
    return _text_pairs(sorted(best), texts.inputs)


def _embed_outputs(embedder: Embedder, outputs: Sequence[tuple[str, ...]]) -> Vectors:
    """E(y) [n, d]: of several accepted outputs, the unit vector in the direction of their mean."""
    vectors = embed(embedder, [output for accepted in outputs for output in accepted], None)
    counts = [len(accepted) for accepted in outputs]
    sums = np.add.reduceat(vectors, np.cumsum([0, *counts[:-1]]), axis=0)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    unit: Vectors = sums / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _queries_of_all_labels(labels: Sequence[str], most: int, draw: random.Random) -> list[int]:
    """Places of texts that share their label with another, from all labels in turn."""
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    shuffled = [draw.sample(of_label, len(of_label)) for of_label in places.values() if len(of_label) > 1]
    draw.shuffle(shuffled)
    in_turn = (place for turn in zip_longest(*shuffled) for place in turn if place is not None)
    return sorted(islice(in_turn, most))


def _text_pairs(pairings: Sequence[Pairing], texts: Sequence[str]) -> list[TextPair]:
    return [TextPair(texts[p.query], texts[p.pos], tuple(texts[place] for place in p.neg)) for p in pairings]


def _record(pair: TextPair, negatives: int, instructions: TaskInstructions, name: str) -> Record:
    return Record(
        query=InstructedText(instructions.query, pair.query),
        pos=InstructedText(instructions.pos, pair.pos),
        neg=tuple(InstructedText(instructions.pos, text) for text in pair.neg[:negatives]),
        task_id=name,
    )


def _worded(instructions: TaskInstructions, share: float, draw: random.Random) -> TaskInstructions:
    """The instructions, by `share` in other words; those of a symmetric task stay equal."""
    if draw.random() >= share:
        return instructions
    query = draw.choice(paraphrases(instructions.query)[1:] or [instructions.query])
    if instructions.pos == instructions.query:
        return TaskInstructions(query, query)
    return TaskInstructions(query, draw.choice(paraphrases(instructions.pos)[1:] or [instructions.pos]))


def _draw(draw: random.Random, count: int, most: int) -> list[int]:
    return sorted(draw.sample(range(count), min(count, most)))
