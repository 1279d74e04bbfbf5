"""How good a model is at the tasks of either kind: at what was held out of the mixture, and on a suite of other tasks.

Each figure is a task's, between 0 and 1; a kind's is the mean over its tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mixture import ASYMMETRIC, SYMMETRIC, Task

from anytask import Instructor
from anytask.evaluation import evaluate
from anytask.evaluation.embedder import Embedder, embed
from anytask.evaluation.metrics import ndcg_at_10
from anytask.evaluation.suite import InstructionChoice
from anytask.training.medi.records import InstructedText
from anytask.training.validation import embed_instructed

Figures = dict[str, float]
KINDS = {"symmetric": SYMMETRIC, "asymmetric": ASYMMETRIC}
FAMILIES = {"symmetric": ("sts", "pairs", "clustering"), "asymmetric": ("retrieval", "rerank")}


def held_out(model: Embedder, tasks: Sequence[Task]) -> Figures:
    """By task: nDCG@10 of the held-out positives, or, of labelled texts, `neighbour_agreement`; and by kind.

    A positive is sought among those of its own task. Among those of all tasks, the documents' instructions would give
    away which are of the query's.
    """
    figures = {task.name: retrieval(model, task) if task.pairs else neighbour_agreement(model, task) for task in tasks}
    return figures | {kind: float(np.mean([figures[name] for name in names])) for kind, names in KINDS.items()}


def retrieval(model: Embedder, task: Task) -> float:
    """Mean nDCG@10 of each held-out query's positives."""
    documents = {document: place for place, document in enumerate(dict.fromkeys(record.pos for record in task.pairs))}
    gains: dict[InstructedText, dict[int, float]] = {}
    for record in task.pairs:
        gains.setdefault(record.query, {})[documents[record.pos]] = 1.0
    queries, vectors = embed_instructed(model, list(gains)), embed_instructed(model, list(documents))
    return ndcg_at_10(queries, vectors, list(gains.values()))


def neighbour_agreement(model: Embedder, task: Task) -> float:
    """Share of the held-out texts whose nearest other one has their label."""
    vectors = embed(model, task.labelled.texts, task.instruction or None)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    labels = np.array(task.labelled.labels)
    return float(np.mean(labels == labels[cosines.argmax(axis=1)]))


def suite(model: Instructor, folder: Path, instructions: InstructionChoice) -> Figures:
    """By task of the suite's symmetric and asymmetric families, and by kind."""
    results = {kind: evaluate(model, folder, [*families], instructions) for kind, families in FAMILIES.items()}
    figures = {result.task: result.score for found in results.values() for result in found}
    return figures | {kind: float(np.mean([result.score for result in found])) for kind, found in results.items()}
