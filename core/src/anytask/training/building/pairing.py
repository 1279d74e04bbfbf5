"""Positive pairs and hard negatives where a task has none, by the scores of INSTRUCTOR (arXiv 2212.09741, section 2.3).

E is any embedder with unit vectors, x an input, y its output:

- classification: the text with the same label and the highest cos(E(x_i), E(x_j)) is the positive, those with another
  label and the highest cosine are the hard negatives;
- text output: the positive has the highest -cos(E(x_i), E(x_j)) + cos(E(y_i), E(y_j)), the hard negatives the highest
  cos(E(x_i), E(x_j)) - cos(E(y_i), E(y_j)).

The second kind's scores are inner products of joined vectors, [-x_i, y_i] with [x_j, y_j] and [x_i, -y_i] with the
same, so that the exact search in blocks of `anytask.training.nearest` finds both.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from anytask.training.nearest import top_k

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

HELD = 1 << 22
"""Most search results held at a time: a task where many texts are excluded asks for many."""


class Pairing(NamedTuple):
    """A query, its positive and its hard negatives, best first, as places in the task's texts."""

    query: int
    pos: int
    neg: tuple[int, ...]
    score: float
    """The positive's."""


def pair_by_label(
    vectors: Vectors, labels: Sequence[Hashable], negatives: int = 1, queries: Sequence[int] | None = None
) -> list[Pairing]:
    """Pairs of a classification task.

    Args:
        vectors: unit vectors of the texts [n, d]; the texts are distinct.
        labels: of the texts.
        negatives: hard negatives per pair.
        queries: the places that pairs are sought for; all unless given.

    Returns:
        in the queries' order, one for each query whose label another text has; fewer negatives where there aren't
        enough texts of other labels. Of two pairs that mirror each other only the first is there: in a batch, each
        would hold the other's query as a negative.
    """
    labels_of = _numbered(labels)
    chosen = np.arange(len(labels_of)) if queries is None else np.asarray(queries, dtype=np.int64)
    best_pos = np.full(len(chosen), -1, dtype=np.int64)
    scores = np.zeros(len(chosen), dtype=np.float32)
    for label in np.unique(labels_of[chosen]):
        rows, same = np.flatnonzero(labels_of[chosen] == label), np.flatnonzero(labels_of == label)
        found, found_scores = _top_k_outside(vectors[chosen[rows]], vectors[same], chosen[rows], same, 1)
        if found.shape[1]:
            best_pos[rows] = np.where(found[:, 0] >= 0, same[found[:, 0]], -1)
            scores[rows] = found_scores[:, 0]
    neg, _ = _top_k_outside(vectors[chosen], vectors, labels_of[chosen], labels_of, negatives)
    return _pairings(chosen, best_pos, neg, scores)


def pair_by_output(
    inputs: Vectors, outputs: Vectors, same_output: Sequence[Hashable], negatives: int = 1
) -> list[Pairing]:
    """Pairs of a task whose output is text.

    Args:
        inputs, outputs: unit vectors of x and y [n, d]; the inputs are distinct.
        same_output: equal for texts whose outputs are the same, none of which is another's hard negative. A positive
            may have the same output: with another input it is the best there is.
        negatives: hard negatives per pair.

    Returns:
        as of `pair_by_label`. A query's positive is never among its negatives: their scores are each other's
        opposites, so that it is the last of them.
    """
    joined = np.concatenate([inputs, outputs], axis=1)
    wanted = np.concatenate([-inputs, outputs], axis=1)
    themselves, groups = np.arange(len(joined)), _numbered(same_output)
    pos, scores = _top_k_outside(wanted, joined, themselves, themselves, 1)
    if not pos.shape[1]:
        return []
    neg, _ = _top_k_outside(-wanted, joined, groups, groups, negatives)
    return _pairings(themselves, pos[:, 0], neg, scores[:, 0])


def _pairings(queries: Indices, pos: Indices, neg: Indices, scores: Vectors) -> list[Pairing]:
    pairings, taken = [], set()
    for query, positive, hard, score in zip(queries.tolist(), pos.tolist(), neg.tolist(), scores.tolist(), strict=True):
        if positive < 0 or (positive, query) in taken:
            continue
        taken.add((query, positive))
        pairings.append(Pairing(query, positive, tuple(j for j in hard if j >= 0 and j != positive), score))
    return pairings


def _top_k_outside(
    queries: Vectors, corpus: Vectors, query_groups: Indices, corpus_groups: Indices, k: int
) -> tuple[Indices, Vectors]:
    """`top_k` over what isn't in the query's own group, which the corpus has too; places that can't be filled hold -1.

    Exact, because the best k + g hold the best k outside a group of g.
    """
    k = min(k, len(corpus))
    indices = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.zeros((len(queries), k), dtype=np.float32)
    if k == 0:
        return indices, scores
    excluded = np.bincount(corpus_groups)[query_groups]
    # Rounded up to a power of two: queries whose groups have about the same size are searched together.
    ask = k + 2 ** np.ceil(np.log2(excluded)).astype(np.int64)
    for asked in np.unique(ask):
        rows = np.flatnonzero(ask == asked)
        step = max(1, HELD // int(asked))
        for part in (rows[start : start + step] for start in range(0, len(rows), step)):
            found, found_scores = top_k(queries[part], corpus, int(asked))
            outside = corpus_groups[found] != query_groups[part, None]
            # A stable sort brings what is outside to the front and leaves it in order.
            first = np.argsort(~outside, axis=1, kind="stable")[:, :k]
            kept = np.take_along_axis(outside, first, axis=1)
            indices[part] = np.where(kept, np.take_along_axis(found, first, axis=1), -1)
            scores[part] = np.where(kept, np.take_along_axis(found_scores, first, axis=1), 0)
    return indices, scores


def _numbered(keys: Sequence[Hashable]) -> Indices:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
