"""How well a model in training finds the positives of records it isn't trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from anytask.evaluation.embedder import Embedder, embed
from anytask.evaluation.metrics import ndcg_at_10
from anytask.training.medi.records import InstructedText, Record
from anytask.training.nearest import top_k

Vectors = npt.NDArray[np.float32]


class PairRetrieval:
    """Each query's own positives among all positives and hard negatives of the set, its task's or another's.

    Args:
        name: of the figures, "held out" or a file's.
        records: at least two.

    Raises:
        ValueError: fewer than two different documents.
    """

    def __init__(self, name: str, records: Iterable[Record]) -> None:
        self.name = name
        positives: dict[InstructedText, dict[InstructedText, None]] = {}
        documents: dict[InstructedText, int] = {}
        for record in records:
            positives.setdefault(record.query, {})[record.pos] = None
            for document in (record.pos, *record.neg):
                documents.setdefault(document, len(documents))
        if len(documents) < 2:
            raise ValueError(f"{name} holds {len(documents)} different documents; at least two are needed to rank")
        self.queries = list(positives)
        self.documents = list(documents)
        self.gains = [{documents[document]: 1.0 for document in found} for found in positives.values()]

    def __call__(self, embedder: Embedder) -> dict[str, float]:
        """Mean nDCG@10, and the share of queries whose first document is a positive."""
        queries, documents = (embed_instructed(embedder, side) for side in (self.queries, self.documents))
        first, _ = top_k(queries, documents, 1)
        hits = [int(place) in gains for place, gains in zip(first[:, 0], self.gains, strict=True)]
        return {
            f"{self.name} nDCG@10": ndcg_at_10(queries, documents, self.gains),
            f"{self.name} accuracy@1": float(np.mean(hits)),
        }


def embed_instructed(embedder: Embedder, texts: Sequence[InstructedText]) -> Vectors:
    """Unit vectors of `texts`, each with its own instruction, float32 [n, d]."""
    order = sorted(range(len(texts)), key=lambda place: texts[place].instruction)
    parts = [
        embed(embedder, [texts[place].text for place in places], instruction)
        for instruction, group in groupby(order, key=lambda place: texts[place].instruction)
        for places in [list(group)]
    ]
    vectors = np.concatenate(parts)
    restored = np.empty_like(vectors)
    restored[order] = vectors
    return restored
