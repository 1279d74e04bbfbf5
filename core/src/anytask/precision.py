"""Compact forms of unit vectors."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Precision = Literal["float32", "int8", "binary"]


def quantize(vectors: npt.NDArray[np.float32], precision: Precision) -> npt.NDArray[Any]:
    """Vectors [n, d] in the asked precision; each one by itself, so the result doesn't depend on its company.

    Args:
        precision: "float32" gives them back; "int8" scales each vector so that its largest value is 127 (cosine
            doesn't see the scale), int8 [n, d]; "binary" keeps the signs, eight to a byte, uint8 [n, ceil(d / 8)],
            to be compared by Hamming distance.

    Raises:
        ValueError: another precision.
    """
    if precision == "float32":
        return vectors
    if precision == "int8":
        peak = np.abs(vectors).max(axis=-1, keepdims=True)
        scaled: npt.NDArray[np.int8] = np.rint(vectors / np.where(peak == 0, 1, peak) * 127).astype(np.int8)
        return scaled
    if precision == "binary":
        bits: npt.NDArray[np.uint8] = np.packbits(vectors > 0, axis=-1)
        return bits
    raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
