"""Exact nearest neighbours against a sort of all scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from anytask.training.nearest import top_k

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def by_sorting(queries: Floats, corpus: Floats, k: int) -> tuple[Integers, Floats]:
    scores = queries.astype(np.float64) @ corpus.T.astype(np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1).astype(np.float32)


def small_integers(rows: int, dimension: int, seed: int = 0) -> Floats:
    """Their products are exact in float32, and many are equal."""
    return np.random.default_rng(seed).integers(-2, 3, (rows, dimension)).astype(np.float32)


@pytest.mark.parametrize("block", [1, 7, 64, 4096])
@pytest.mark.parametrize("k", [1, 5, 60, 150, 1000])
def test_ties_go_to_the_lower_index_whatever_the_blocks(block: int, k: int) -> None:
    queries, corpus = small_integers(20, 3), small_integers(150, 3, seed=1)
    indices, scores = top_k(queries, corpus, k, block=block)
    expected_indices, expected_scores = by_sorting(queries, corpus, k)
    assert (indices.dtype, scores.dtype) == (np.int64, np.float32)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(scores, expected_scores)


def test_equal_rows_come_in_their_order() -> None:
    indices, _ = top_k(np.ones((3, 8), np.float32), np.ones((50, 8), np.float32), 20, block=16)
    np.testing.assert_array_equal(indices, np.tile(np.arange(20), (3, 1)))


def test_real_valued_vectors() -> None:
    random = np.random.default_rng(0)
    queries, corpus = (random.standard_normal((rows, 48), dtype=np.float32) for rows in (300, 1100))
    indices, scores = top_k(queries, corpus, 10, block=128)
    expected_indices, expected_scores = by_sorting(queries, corpus, 10)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)


@pytest.mark.parametrize(("n", "m", "k", "width"), [(0, 5, 3, 3), (4, 0, 3, 0), (4, 5, 0, 0), (0, 0, 2, 0)])
def test_nothing_to_search_or_to_find(n: int, m: int, k: int, width: int) -> None:
    indices, scores = top_k(np.ones((n, 2), np.float32), np.ones((m, 2), np.float32), k)
    assert indices.shape == scores.shape == (n, width)


def test_a_memory_map_and_half_precision(tmp_path: Path) -> None:
    queries, corpus = small_integers(9, 4), small_integers(40, 4, seed=1)
    corpus.tofile(tmp_path / "corpus")
    mapped = np.memmap(tmp_path / "corpus", dtype=np.float32, mode="r", shape=corpus.shape)
    expected, _ = by_sorting(queries, corpus, 6)
    np.testing.assert_array_equal(top_k(queries, mapped, 6, block=16)[0], expected)
    np.testing.assert_array_equal(top_k(queries.astype(np.float16), corpus.astype(np.float16), 6)[0], expected)


def test_no_more_than_a_block_of_scores_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    multiply = torch.Tensor.__matmul__

    def recorded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        product = multiply(left, right)
        shapes.append(tuple(product.shape))
        return product

    monkeypatch.setattr(torch.Tensor, "__matmul__", recorded)
    top_k(small_integers(100, 3), small_integers(130, 3), 4, block=32)
    assert len(shapes) == 4 * 5
    assert max(max(shape) for shape in shapes) == 32


@pytest.mark.parametrize(
    ("queries", "corpus", "k", "block", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), 1, 8, "same d"),
        (np.ones(3), np.ones((2, 3)), 1, 8, "same d"),
        (np.ones((2, 3)), np.ones((2, 3)), -1, 8, "k=-1"),
        (np.ones((2, 3)), np.ones((2, 3)), 1, 0, "block=0"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), 1, 8, "not finite"),
        (np.ones((2, 3)), np.array([[1, 1, 1], [1, np.nan, 1]]), 1, 8, "not finite"),
    ],
)
def test_what_cannot_be_searched_is_told(queries: Floats, corpus: Floats, k: int, block: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        top_k(queries, corpus, k, block=block)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same() -> None:
    queries, corpus = small_integers(50, 4), small_integers(400, 4, seed=1)
    indices, scores = top_k(queries, corpus, 30, block=64, device="cuda")
    expected_indices, expected_scores = by_sorting(queries, corpus, 30)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(scores, expected_scores)
