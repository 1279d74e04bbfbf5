"""Exact nearest neighbours among compact vectors, block by block, and rescoring of what a coarser form found.

>>> rows, _ = nearest(queries, bits, 100)  # doctest: +SKIP
>>> rows, scores = rescore(queries, rows, codes, 10, calibration=calibration)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from anytask.precision import Calibration, Matrix, dequantize

Rows = npt.NDArray[np.int64]
QUERY_BLOCK = 256
BLOCK = 16_384
"""Documents whose scores are in memory at a time."""
MAX_ROWS = 2**32


def nearest(
    queries: npt.NDArray[Any],
    documents: npt.NDArray[Any],
    k: int,
    *,
    calibration: Calibration | None = None,
    block: int = BLOCK,
) -> tuple[Rows, Matrix]:
    """The k documents of each query with the highest scores; of equal scores the first.

    The score is the dot product of the vectors that queries and documents stand for (see
    `anytask.precision.dequantize`), so queries of float32 may search binary or int8 documents. Where both are binary it
    is their number of equal bits minus that of different ones; bits that fill up the last byte count as equal.

    Args:
        queries: float32, float16, int8 or binary [q, ...]. int8 ones are made without calibration, binary ones with
            that of binary documents, if they have one.
        documents: in any precision [n, ...], may be a memory map.
        calibration: that of the documents.
        block: documents at a time; the result doesn't depend on it but for the last bits of the scores.

    Returns:
        rows of the documents, int64 [q, k], best first, and their scores, float32 [q, k].

    Raises:
        ValueError: k is less than 1 or more than there are documents, or dimensions differ.
    """
    if not 1 <= k <= len(documents):
        raise ValueError(f"k must be from 1 to the number of documents {len(documents)}, got {k}")
    if len(documents) > MAX_ROWS:
        raise ValueError(f"at most {MAX_ROWS} documents, got {len(documents)}; search them in parts")
    wide, calibration = _query_side(queries, documents, calibration)
    if not len(queries):
        return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
    best = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(documents), block):
        decoded = dequantize(documents[start : start + block], wide.shape[1], calibration)
        _check_dimensions(wide, decoded)
        found = [
            _best(_keys(wide[first : first + QUERY_BLOCK] @ decoded.T, start), best[first : first + QUERY_BLOCK], k)
            for first in range(0, len(wide), QUERY_BLOCK)
        ]
        best = np.concatenate(found)
    return _unpack(-np.sort(-best, axis=1))


def rescore(
    queries: npt.NDArray[Any],
    candidates: npt.NDArray[Any],
    documents: npt.NDArray[Any],
    k: int,
    *,
    calibration: Calibration | None = None,
) -> tuple[Rows, Matrix]:
    """The k best of each query's candidates, by the scores of a finer form of the documents.

    Args:
        queries: float32, float16, int8 or binary [q, ...].
        candidates: rows of `documents`, int [q, c], such as `nearest` gave for a coarser form.
        documents: in any precision [n, ...]; only the candidates' rows are read.
        calibration: that of `documents`.

    Returns:
        rows and scores as of `nearest`, [q, k].

    Raises:
        ValueError: k is less than 1 or more than there are candidates, or dimensions differ.
    """
    if candidates.ndim != 2 or len(candidates) != len(queries):
        raise ValueError(f"expected candidates [{len(queries)}, c], one row for each query, got {candidates.shape}")
    if not 1 <= k <= candidates.shape[1]:
        raise ValueError(f"k must be from 1 to the number of candidates {candidates.shape[1]}, got {k}")
    wide, calibration = _query_side(queries, documents, calibration)
    rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for place, (query, mine) in enumerate(zip(wide, candidates, strict=True)):
        decoded = dequantize(documents[mine], len(query), calibration)
        _check_dimensions(query[None], decoded)
        mine_scores = decoded @ query
        order = np.lexsort((mine, -mine_scores))[:k]
        rows[place], scores[place] = mine[order], mine_scores[order]
    return rows, scores


def _query_side(
    queries: npt.NDArray[Any], documents: npt.NDArray[Any], calibration: Calibration | None
) -> tuple[Matrix, Calibration | None]:
    """Queries as float32, and the calibration to read documents with: none where bits are compared with bits."""
    if queries.ndim != 2 or documents.ndim != 2:
        raise ValueError(f"expected queries [q, d] and documents [n, d], got {queries.shape} and {documents.shape}")
    both_binary = queries.dtype == documents.dtype == np.uint8
    bits = documents.shape[1] if queries.dtype == np.uint8 and not both_binary else None
    return dequantize(queries, bits), None if both_binary or documents.dtype.kind == "f" else calibration


def _check_dimensions(queries: Matrix, documents: Matrix) -> None:
    if queries.shape[1] != documents.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions, documents {documents.shape[1]}")


def _keys(scores: Matrix, start: int) -> Rows:
    """Scores and rows in one integer that orders by score, then by row from the last to the first."""
    bits = (scores + np.float32(0)).view(np.int32)  # one zero, not two
    ordered = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
    keys: Rows = (ordered << 32) | (MAX_ROWS - 1 - np.arange(start, start + scores.shape[1]))
    return keys


def _best(keys: Rows, before: Rows, k: int) -> Rows:
    together = np.concatenate([before, keys], axis=1)
    return together if together.shape[1] <= k else np.partition(together, together.shape[1] - k, axis=1)[:, -k:]


def _unpack(keys: Rows) -> tuple[Rows, Matrix]:
    ordered = (keys >> 32).astype(np.int32)
    bits = np.where(ordered < 0, ordered ^ np.int32(0x7FFFFFFF), ordered)
    return MAX_ROWS - 1 - (keys & (MAX_ROWS - 1)), bits.view(np.float32)
