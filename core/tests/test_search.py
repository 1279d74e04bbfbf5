"""Exact search among compact vectors, and rescoring."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from anytask.precision import Calibration, Matrix, dequantize, quantize
from anytask.search import QUERY_BLOCK, nearest, rescore

Vectors = tuple[Matrix, Matrix]


def unit(rows: int, seed: int, dimension: int = 60) -> Matrix:
    found = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    """300 queries, each near one of 1,000 documents."""
    documents = unit(1000, 0)
    queries = documents[np.random.default_rng(1).permutation(1000)[:300]] + 0.5 * unit(300, 2)
    return queries / np.linalg.norm(queries, axis=1, keepdims=True), documents


def by_sorting(scores: npt.NDArray[Any], k: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1)


@pytest.mark.parametrize("block", [7, 64, 1000, 5000])
def test_nearest_is_what_sorting_all_scores_finds(vectors: Vectors, block: int) -> None:
    queries, documents = vectors
    assert len(queries) > QUERY_BLOCK
    rows, scores = nearest(queries, documents, 10, block=block)
    expected, expected_scores = by_sorting(queries @ documents.T, 10)
    assert np.array_equal(rows, expected)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    assert (rows.dtype, scores.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize("block", [3, 100])
def test_of_equal_scores_the_first_document_comes_first(block: int) -> None:
    documents = np.tile(np.array([[0.0, -1.0], [1.0, 0.0], [0.0, 1.0]], np.float32), (20, 1))
    rows, scores = nearest(np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32), documents, 25, block=block)
    assert rows[0].tolist() == [*range(1, 60, 3), 0, 2, 3, 5, 6]
    assert scores[0].tolist() == [1.0] * 20 + [0.0] * 5
    assert rows[1].tolist() == [row for row in range(60) if row % 3 != 1][:25]
    assert not scores[1].any()


def test_binary_queries_search_by_hamming_distance(vectors: Vectors) -> None:
    queries, documents = (quantize(side, "binary") for side in vectors)
    distance = np.unpackbits(queries[:, None] ^ documents[None], axis=2).sum(axis=2)
    rows, scores = nearest(queries, documents, 20, block=33)
    expected, distances = by_sorting(-distance.astype(np.int64), 20)
    assert np.array_equal(rows, expected)
    bits = queries.shape[1] * 8
    assert np.array_equal(scores, bits + 2 * distances)


def test_binary_queries_of_odd_dimensions_search_any_precision() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 100)).astype(np.float32)
    bits = quantize(vectors, "binary")
    for documents in (vectors, quantize(vectors, "int8")):
        rows, _ = nearest(bits, documents, 1)
        assert rows[:, 0].tolist() == list(range(40))
        assert np.array_equal(rescore(bits, rows, documents, 1)[0], rows)


def test_float_queries_search_any_precision(vectors: Vectors) -> None:
    queries, documents = vectors
    exact, _ = nearest(queries, documents, 10)
    calibration = Calibration.of(documents)
    kept = {}
    for name, codes, used in (
        ("float16", quantize(documents, "float16"), None),
        ("int8", quantize(documents, "int8"), None),
        ("calibrated int8", quantize(documents, "int8", calibration), calibration),
        ("binary", quantize(documents, "binary"), None),
        ("calibrated binary", quantize(documents, "binary", calibration), calibration),
    ):
        rows, scores = nearest(queries, codes, 10, calibration=used)
        decoded = dequantize(codes, 60, used)
        np.testing.assert_allclose(scores, np.take_along_axis(queries @ decoded.T, rows, axis=1), atol=1e-4)
        kept[name] = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact, strict=True)])
    assert kept["float16"] > 0.99
    assert min(kept["int8"], kept["calibrated int8"]) > 0.95
    assert min(kept["binary"], kept["calibrated binary"]) > 0.3


def test_rescoring_brings_back_what_the_coarse_form_lost(vectors: Vectors) -> None:
    queries, documents = vectors
    exact, exact_scores = nearest(queries, documents, 10)
    coarse, _ = nearest(quantize(queries, "binary"), quantize(documents, "binary"), 400)
    rows, scores = rescore(queries, coarse, documents, 10)

    def recall(found: npt.NDArray[Any]) -> float:
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)]))

    assert recall(coarse[:, :10]) < 0.7 < 0.95 < recall(rows)
    same = rows == exact
    np.testing.assert_allclose(scores[same], exact_scores[same], atol=1e-6)
    everything = np.tile(np.arange(len(documents)), (len(queries), 1))
    assert np.array_equal(rescore(queries, everything, documents, 10)[0], exact)


def test_int8_queries_rescore_like_float_ones(vectors: Vectors) -> None:
    queries, documents = vectors
    calibration = Calibration.of(documents)
    codes = quantize(documents, "int8", calibration)
    coarse, _ = nearest(queries, quantize(documents, "binary"), 100)
    by_float, _ = rescore(queries, coarse, codes, 10, calibration=calibration)
    by_int8, _ = rescore(quantize(queries, "int8"), coarse, codes, 10, calibration=calibration)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(by_float, by_int8, strict=True)]) > 9.5


def test_no_queries(vectors: Vectors) -> None:
    rows, scores = nearest(np.empty((0, 60), np.float32), vectors[1], 3)
    assert rows.shape == scores.shape == (0, 3)


def test_a_memory_map_is_searched(vectors: Vectors, tmp_path: Any) -> None:
    queries, documents = vectors
    np.save(tmp_path / "documents.npy", documents)
    mapped = np.load(tmp_path / "documents.npy", mmap_mode="r")
    assert np.array_equal(nearest(queries, mapped, 5)[0], nearest(queries, documents, 5)[0])


def test_what_does_not_go_together_is_told(vectors: Vectors) -> None:
    queries, documents = vectors
    for k in (0, 1001):
        with pytest.raises(ValueError, match=f"number of documents 1000, got {k}"):
            nearest(queries, documents, k)
    with pytest.raises(ValueError, match="queries have 60 dimensions, documents 30"):
        nearest(queries, documents[:, :30], 1)
    bits = quantize(documents[:, :30], "binary")
    with pytest.raises(ValueError, match="binary codes of 60 dimensions, got 32"):
        nearest(queries, bits, 1)
    with pytest.raises(ValueError, match="binary codes of 60 dimensions, got 32"):
        rescore(queries, np.zeros((300, 5), int), bits, 1)
    with pytest.raises(ValueError, match="binary codes of 60 dimensions, got 32"):
        dequantize(bits, calibration=Calibration.of(documents))
    with pytest.raises(ValueError, match="number of candidates 5, got 6"):
        rescore(queries, np.zeros((300, 5), int), documents, 6)
    with pytest.raises(ValueError, match=r"\[300, c\]"):
        rescore(queries, np.zeros((2, 5), int), documents, 1)
    with pytest.raises(ValueError, match="expected queries"):
        nearest(queries[0], documents, 1)
