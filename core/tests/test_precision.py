"""Compact forms of vectors: what is lost, and that each vector is treated by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anytask.precision import Calibration, dequantize, quantize

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


@pytest.mark.parametrize(("precision", "width"), [("float32", 20), ("float16", 20), ("int8", 20), ("binary", 3)])
def test_no_vectors(precision: str, width: int) -> None:
    assert quantize(np.empty((0, 20), np.float32), precision).shape == (0, width)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error")
def test_zero_and_tiny_vectors() -> None:
    tiny = np.finfo(np.float32).smallest_normal
    quantized = quantize(np.array([[0, 0], [tiny, -tiny / 2]], np.float32), "int8")
    assert quantized.tolist() == [[0, 0], [127, -64]]


def test_unknown_precision(vectors: Matrix) -> None:
    with pytest.raises(ValueError, match=r"float32, float16, int8, binary.*'int4'"):
        quantize(vectors, "int4")  # type: ignore[arg-type]


def test_float16_rounds(vectors: Matrix) -> None:
    rounded = quantize(vectors, "float16")
    assert rounded.dtype == np.float16
    assert np.array_equal(rounded, vectors.astype(np.float16))
    assert dequantize(rounded).dtype == np.float32


@given(MATRICES)
def test_calibrated_int8_is_the_nearest_of_256_steps_over_the_range(vectors: Matrix) -> None:
    calibration = Calibration.of(np.concatenate([vectors, -vectors]))
    codes = quantize(vectors, "int8", calibration)
    assert codes.dtype == np.int8
    decoded = dequantize(codes, calibration=calibration)
    assert (np.abs(decoded - vectors) <= 0.501 * calibration.step + 1e-6).all()


def test_what_lies_outside_the_range_gets_the_code_of_its_end(vectors: Matrix) -> None:
    calibration = Calibration.of(vectors)
    beyond = quantize(np.stack([calibration.upper + 1, calibration.lower - 1]), "int8", calibration)
    assert (beyond[0] == 127).all()
    assert (beyond[1] == -128).all()


def test_calibrated_bits_are_split_in_the_middle(vectors: Matrix) -> None:
    shifted = vectors + np.linspace(-1, 1, vectors.shape[1], dtype=np.float32)
    calibration = Calibration.of(shifted)
    share = np.unpackbits(quantize(shifted, "binary", calibration), axis=1, count=100).mean(axis=0)
    np.testing.assert_allclose(share, 0.5, atol=0.02)
    plain = np.unpackbits(quantize(shifted, "binary"), axis=1, count=100).mean(axis=0)
    assert plain[0] == 0
    assert plain[-1] == 1
    decoded = dequantize(quantize(shifted, "binary", calibration), calibration=calibration)
    assert np.square(decoded - shifted).sum() < np.square(calibration.middle - shifted).sum()


def test_a_dimension_without_range() -> None:
    constant = np.full((3, 2), 0.5, np.float32)
    calibration = Calibration.of(constant)
    codes = quantize(constant, "int8", calibration)
    assert np.array_equal(dequantize(codes, calibration=calibration), constant)


@given(MATRICES, st.sampled_from(["int8", "binary"]))
def test_calibrated_codes_do_not_depend_on_company(vectors: Matrix, precision: str) -> None:
    calibration = Calibration.of(np.concatenate([vectors, vectors / 2]))
    together = quantize(vectors, precision, calibration)  # type: ignore[arg-type]
    for row in range(len(vectors)):
        alone = quantize(vectors[row : row + 1], precision, calibration)  # type: ignore[arg-type]
        assert np.array_equal(together[row], alone[0])


def test_a_saved_calibration_gives_the_same_codes(vectors: Matrix, tmp_path: Path) -> None:
    calibration = Calibration.of(vectors)
    calibration.save(tmp_path / "ranges.json")
    loaded = Calibration.load(tmp_path / "ranges.json")
    for name in ("lower", "upper", "middle", "spread"):
        assert np.array_equal(getattr(loaded, name), getattr(calibration, name)), name
    assert np.array_equal(quantize(vectors, "int8", loaded), quantize(vectors, "int8", calibration))


@pytest.mark.parametrize(
    "content", ["{}", "[1]", "no JSON", '{"lower": [1], "upper": [1], "middle": [1, 2], "spread": 3}']
)
def test_no_calibration_is_told_with_its_path(content: str, tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"ranges\.json: "):
        Calibration.load(path)


def test_what_does_not_go_together_is_told(vectors: Matrix) -> None:
    calibration = Calibration.of(vectors)
    with pytest.raises(ValueError, match="100 dimensions, the vectors have 50"):
        quantize(vectors[:, :50], "int8", calibration)
    with pytest.raises(ValueError, match="not for float16"):
        quantize(vectors, "float16", calibration)
    with pytest.raises(ValueError, match="two or more"):
        Calibration.of(vectors[:1])
    with pytest.raises(ValueError, match="finite"):
        Calibration.of(np.full((2, 2), np.nan))
    with pytest.raises(TypeError, match="int64"):
        dequantize(np.zeros((1, 2), np.int64))


def test_uncalibrated_codes_stand_for_unit_vectors(vectors: Matrix) -> None:
    decoded = dequantize(quantize(vectors, "int8"))
    np.testing.assert_allclose(decoded, vectors, atol=0.005)
    signs = dequantize(quantize(vectors, "binary"), vectors.shape[1])
    assert np.array_equal(signs, np.where(vectors > 0, 1, -1))
