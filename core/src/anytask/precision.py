"""Compact forms of unit vectors, each made by itself: no code depends on the company its vector came in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from anytask.files.whole import write_json

Precision = Literal["float32", "float16", "int8", "binary"]
Matrix = npt.NDArray[np.float32]

CODES = 256
"""Values of an int8 code."""
BITS = 8
"""Binary codes in a byte."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Where the vectors of a corpus lie, dimension by dimension, for int8 and binary codes that are laid over it.

    Without one, an int8 code has the scale of its own vector, and a binary code is split at zero.

    Attributes:
        lower, upper: the range that int8 codes cover, float32 [d]; what lies outside gets the code of its end.
        middle: the median, where binary codes are split, float32 [d].
        spread: the mean distance from `middle`, float32 [d].
    """

    lower: Matrix
    upper: Matrix
    middle: Matrix
    spread: Matrix

    @classmethod
    def of(cls, vectors: npt.ArrayLike) -> Self:
        """The ranges of sample vectors [n, d]: a few thousand documents of the corpus, embedded as it will be.

        Raises:
            ValueError: fewer than two vectors, or values that aren't finite.
        """
        sample = np.asarray(vectors, np.float32)
        if sample.ndim != 2 or len(sample) < 2:
            raise ValueError(f"a calibration needs vectors [n, d], two or more; got shape {list(sample.shape)}")
        if not np.isfinite(sample).all():
            raise ValueError("a calibration needs finite vectors")
        middle = np.median(sample, axis=0).astype(np.float32)
        return cls(sample.min(axis=0), sample.max(axis=0), middle, np.abs(sample - middle).mean(axis=0))

    @property
    def dimension(self) -> int:
        return len(self.lower)

    @property
    def step(self) -> Matrix:
        """Width of an int8 code's share of the range, float32 [d]."""
        width = (self.upper - self.lower) / np.float32(CODES - 1)
        return np.where(width > 0, width, np.float32(1))

    def to_json(self) -> dict[str, list[float]]:
        return {name: value.tolist() for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            ValueError: something else.
        """
        try:
            arrays = {name: np.asarray(content[name], np.float32) for name in cls.__annotations__}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no calibration: expected {', '.join(cls.__annotations__)}, all [d] numbers") from error
        if len({array.shape for array in arrays.values()}) != 1 or arrays["lower"].ndim != 1:
            raise ValueError("no calibration: its arrays differ in length")
        return cls(**arrays)

    def save(self, path: str | Path) -> None:
        """Write a JSON file, whole or not at all."""
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        try:
            return cls.from_json(json.loads(Path(path).read_text("utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def quantize(vectors: Matrix, precision: Precision, calibration: Calibration | None = None) -> npt.NDArray[Any]:
    """Vectors [n, d] in the asked precision; each one by itself, so the result doesn't depend on its company.

    Args:
        precision: "float32" gives them back, "float16" rounds; "int8" scales each vector so that its largest value is
            127 (cosine doesn't see the scale), or lays 256 steps over the calibrated range of each dimension, int8
            [n, d]; "binary" keeps whether a value lies above zero, or above the calibrated middle of its dimension,
            eight to a byte, uint8 [n, ceil(d / 8)].
        calibration: for int8 and binary.

    Raises:
        ValueError: another precision, a calibration of another dimension, or one that the precision doesn't take.
    """
    if calibration is not None:
        _check(calibration, precision, vectors.shape[-1])
    if precision == "float32":
        return vectors
    if precision == "float16":
        return vectors.astype(np.float16)
    if precision == "int8":
        if calibration is not None:
            steps = np.rint((vectors - calibration.lower) / calibration.step) + np.iinfo(np.int8).min
            laid: npt.NDArray[np.int8] = np.clip(steps, np.iinfo(np.int8).min, np.iinfo(np.int8).max).astype(np.int8)
            return laid
        peak = np.abs(vectors).max(axis=-1, keepdims=True)
        scaled: npt.NDArray[np.int8] = np.rint(vectors / np.where(peak == 0, 1, peak) * 127).astype(np.int8)
        return scaled
    if precision == "binary":
        bits: npt.NDArray[np.uint8] = np.packbits(vectors > (0 if calibration is None else calibration.middle), axis=-1)
        return bits
    raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")


def dequantize(codes: npt.NDArray[Any], dimension: int | None = None, calibration: Calibration | None = None) -> Matrix:
    """The vectors that codes [n, ...] stand for, float32 [n, d].

    Args:
        codes: what `quantize` gave: float32, float16, int8 or, of binary precision, uint8.
        dimension: d of binary codes; None takes all their bits.
        calibration: that of `quantize`.

    Raises:
        TypeError: codes of another type. ValueError: codes of other dimensions than `dimension` or the calibration.
    """
    if codes.dtype in (np.float32, np.float16):
        return codes.astype(np.float32, copy=False)
    if codes.dtype == np.int8:
        if calibration is None:
            wide = codes.astype(np.float32)
            length: Matrix = np.linalg.norm(wide, axis=-1, keepdims=True)
            return (wide / np.maximum(length, np.finfo(np.float32).tiny)).astype(np.float32, copy=False)
        _check(calibration, "int8", codes.shape[-1])
        return (codes.astype(np.float32) - np.iinfo(np.int8).min) * calibration.step + calibration.lower
    if codes.dtype == np.uint8:
        count = dimension if calibration is None else calibration.dimension
        if count is not None and codes.shape[-1] != math.ceil(count / BITS):
            raise ValueError(f"expected binary codes of {count} dimensions, got {codes.shape[-1] * BITS}")
        sides: Matrix = np.unpackbits(codes, axis=-1, count=count).astype(np.float32)
        sides *= 2
        sides -= 1
        return sides if calibration is None else sides * calibration.spread + calibration.middle
    raise TypeError(f"expected codes of float32, float16, int8 or uint8 (binary), got {codes.dtype}")


def _check(calibration: Calibration, precision: str, dimension: int) -> None:
    if precision not in ("int8", "binary"):
        raise ValueError(f"a calibration is for int8 and binary, not for {precision}")
    if calibration.dimension != dimension:
        raise ValueError(f"the calibration is of {calibration.dimension} dimensions, the vectors have {dimension}")
