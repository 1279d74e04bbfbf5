"""Compact forms of vectors: what is lost, and that each vector is treated by itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anytask.precision import quantize

Matrix = npt.NDArray[np.float32]

MATRICES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 40)),
    elements=st.floats(-1, 1, width=32, allow_subnormal=False),
)


@pytest.fixture(scope="module")
def vectors() -> Matrix:
    vectors: Matrix = np.random.default_rng(0).standard_normal((50, 100)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def test_float32_is_left_alone(vectors: Matrix) -> None:
    assert quantize(vectors, "float32") is vectors


def test_int8_keeps_the_cosines(vectors: Matrix) -> None:
    quantized = quantize(vectors, "int8")
    assert quantized.dtype == np.int8
    assert quantized.shape == vectors.shape
    assert (np.abs(quantized.astype(int)).max(axis=1) == 127).all()
    widened = quantized.astype(np.float32)
    widened /= np.linalg.norm(widened, axis=1, keepdims=True)
    np.testing.assert_allclose(widened @ widened.T, vectors @ vectors.T, atol=0.01)


@pytest.mark.filterwarnings("error")
@given(MATRICES)
def test_int8_is_the_nearest_step_of_each_vectors_own_scale(vectors: Matrix) -> None:
    quantized = quantize(vectors, "int8").astype(np.float64)
    step = np.abs(vectors).max(axis=1, keepdims=True).astype(np.float64) / 127
    assert (np.abs(quantized * step - vectors) <= step * 0.501).all()


def test_binary_is_the_signs_eight_to_a_byte(vectors: Matrix) -> None:
    packed = quantize(vectors, "binary")
    assert packed.dtype == np.uint8
    assert packed.shape == (50, 13)  # 100 bits, padded with zeros
    bits = [[byte >> (7 - place) & 1 for byte in row for place in range(8)] for row in packed.tolist()]
    assert np.array_equal(np.array(bits)[:, :100], vectors > 0)
    assert not np.array(bits)[:, 100:].any()


def test_hamming_distance_of_binary_vectors_orders_like_the_angle(vectors: Matrix) -> None:
    bits = np.unpackbits(quantize(vectors, "binary"), axis=1)
    distance = (bits[:1] != bits).sum(axis=1)
    assert distance[0] == 0
    assert np.corrcoef(distance, np.arccos(np.clip(vectors[0] @ vectors.T, -1, 1)))[0, 1] > 0.8


@given(MATRICES, st.sampled_from(["int8", "binary"]))
def test_a_vector_by_itself_is_the_same_as_in_company(vectors: Matrix, precision: str) -> None:
    together = quantize(vectors, precision)  # type: ignore[arg-type]
    alone = [quantize(vectors[row : row + 1], precision)[0] for row in range(len(vectors))]  # type: ignore[arg-type]
    assert np.array_equal(together, np.stack(alone))


@pytest.mark.parametrize(("precision", "width"), [("float32", 20), ("int8", 20), ("binary", 3)])
def test_no_vectors(precision: str, width: int) -> None:
    assert quantize(np.empty((0, 20), np.float32), precision).shape == (0, width)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error")
def test_zero_and_tiny_vectors() -> None:
    tiny = np.finfo(np.float32).smallest_normal
    quantized = quantize(np.array([[0, 0], [tiny, -tiny / 2]], np.float32), "int8")
    assert quantized.tolist() == [[0, 0], [127, -64]]


def test_unknown_precision(vectors: Matrix) -> None:
    with pytest.raises(ValueError, match=r"float32, int8, binary.*'int4'"):
        quantize(vectors, "int4")  # type: ignore[arg-type]
