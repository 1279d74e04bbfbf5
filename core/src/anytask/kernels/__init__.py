"""Kernels in C for a CPU encoder: its matrix products, its attention, and rows that become bytes.

In torch's operators, such a row is read and written six times, the attention of a short text is mostly the price of the
call, and the products of one query wait for memory.

Installing the package compiles the kernels where there is GCC (`building.py`). Without them, as on processors other
than x86-64, the same numbers come from torch: who calls asks `available()` first.

Each kernel takes contiguous tensors, of float32 where nothing else is said, lets other Python threads run, and uses as
many threads as torch's operators would, which are torch's.
"""

from __future__ import annotations

import ctypes
import logging
from ctypes import c_float, c_int, c_long, c_void_p
from functools import cache

import torch
from torch import Tensor

from anytask.kernels.building import library

logger = logging.getLogger(__name__)

LANES = 16
"""Floats that `attend` reads at once, at most."""
PANEL = 32
"""Columns of a matrix that products take at once; their number must be a multiple."""
ACTIVATIONS: dict[str | None, int] = {None: 0, "relu": 1, "gelu": 2}
"""Those that products compute, GELU to 1e-5, by their numbers in products.c."""


@cache
def _kernels() -> ctypes.CDLL | None:
    if torch.cpu._is_avx512_supported():
        path = library("x86-64-v4")
    elif torch.cpu._is_avx2_supported():
        path = library("x86-64-v3")
    else:
        return None
    if not path.exists():
        return None
    try:
        return bound(ctypes.CDLL(str(path)))
    except OSError as error:
        logger.warning("the compiled kernels can't be used, which costs speed: %s", error)
        return None


def bound(kernels: ctypes.CDLL) -> ctypes.CDLL:
    """The library, with its functions' parameters declared."""
    codes = (c_float, c_float, c_void_p, c_void_p)
    kernels.quantise.argtypes = (c_void_p, c_long, c_long, *codes)
    kernels.quantise_gelu.argtypes = (c_void_p, c_void_p, c_long, c_long, *codes)
    kernels.quantise_normed.argtypes = (c_void_p, c_void_p, c_float, c_long, c_long, *codes)
    finish = (c_void_p, c_void_p, c_int, c_int, c_void_p, c_long)
    kernels.multiply_floats.argtypes = (c_void_p, c_long, c_long, c_void_p, c_int, *finish)
    kernels.multiply_bytes.argtypes = (c_void_p, c_long, c_long, c_void_p, c_void_p, *finish)
    kernels.attend.argtypes = (*(c_void_p,) * 3, c_long, c_long, c_void_p, *(c_long,) * 3, c_void_p)
    return kernels


def available() -> bool:
    """Whether the kernels are compiled for this processor."""
    return _kernels() is not None


def multiplies_bytes() -> bool:
    """Whether `multiply_bytes` runs on this processor."""
    return available() and torch.cpu._is_avx512_supported() and torch.cpu._is_vnni_supported()


def _called(name: str, *arguments: object) -> None:
    kernels = _kernels()
    assert kernels is not None, "ask available() first"
    if getattr(kernels, name)(*arguments):
        raise MemoryError(f"not enough memory for the kernel {name}")


def _quantised(name: str, x: Tensor, *others: int | float, zero: int, smallest_step: float) -> tuple[Tensor, Tensor]:
    """What a kernel of rows makes of x [T, d]; `others` are its parameters between x and its shape."""
    codes = torch.empty(x.shape, dtype=torch.uint8, device="cpu")
    steps = torch.empty(len(x), 1, dtype=torch.float32, device="cpu")
    _called(name, x.data_ptr(), *others, *x.shape, zero, smallest_step, codes.data_ptr(), steps.data_ptr())
    return codes, steps


def quantise(x: Tensor, zero: int, smallest_step: float) -> tuple[Tensor, Tensor]:
    """Rows as bytes.

    Args:
        x: [T, d].
        zero: the byte that stands for zero.
        smallest_step: least distance of two bytes' values.

    Returns:
        bytes [T, d], and the step between two of them in each row [T, 1]: the row's largest magnitude over 255 - zero.
    """
    return _quantised("quantise", x, zero=zero, smallest_step=smallest_step)


def quantise_gelu(x: Tensor, factor: Tensor, zero: int, smallest_step: float) -> tuple[Tensor, Tensor]:
    """`quantise` of GELU, to 1e-5, of x [T, d] times each row's factor [T, 1]."""
    return _quantised("quantise_gelu", x, factor.data_ptr(), zero=zero, smallest_step=smallest_step)


def quantise_normed(x: Tensor, gain: Tensor, epsilon: float, zero: int, smallest_step: float) -> tuple[Tensor, Tensor]:
    """`quantise` of T5's layer norm of x [T, d]: over the root mean square, times gain [d]."""
    return _quantised("quantise_normed", x, gain.data_ptr(), epsilon, zero=zero, smallest_step=smallest_step)


def multiply_floats(
    x: Tensor,
    panels: Tensor,
    *,
    scale: Tensor | None = None,
    factor: Tensor | None = None,
    activation: str | None = None,
    add_to: Tensor | None = None,
) -> Tensor:
    """Rows times a matrix [out, in].

    Args:
        x: [T, in].
        panels: the matrix as [out / PANEL, in, PANEL]: float32, or bfloat16 or int8, which become float32 on the way.
        scale: of the matrix' rows, [out] float32.
        factor: of x's rows, [T, 1].
        activation: of the product, a key of `ACTIVATIONS`; none but ReLU for a product that is added.
        add_to: [T, out], to which the product is added in place.

    Returns:
        [T, out], or `add_to`.
    """
    assert x.dtype == torch.float32
    return _multiplied("multiply_floats", x, panels, panels.element_size(), scale, factor, activation, add_to)


def multiply_bytes(
    codes: Tensor,
    panels: Tensor,
    start: Tensor,
    scale: Tensor,
    *,
    factor: Tensor | None = None,
    activation: str | None = None,
    add_to: Tensor | None = None,
) -> Tensor:
    """`multiply_floats` of bytes; ask `multiplies_bytes()` first.

    Args:
        codes: [T, in] uint8.
        panels: the matrix as [out / PANEL, in / 4, PANEL] int32, each four of its bytes beside each other.
        start: what the sums of products start from, [out] int32.
        scale, factor, activation, add_to: as there.
    """
    assert codes.dtype == torch.uint8
    return _multiplied("multiply_bytes", codes, panels, start.data_ptr(), scale, factor, activation, add_to)


def _multiplied(
    name: str,
    rows: Tensor,
    panels: Tensor,
    other: int,
    scale: Tensor | None,
    factor: Tensor | None,
    activation: str | None,
    add_to: Tensor | None,
) -> Tensor:
    """What a kernel of products makes of rows; `other` is its parameter behind the panels."""
    assert rows.is_contiguous()
    out = torch.empty(len(rows), len(panels) * PANEL, dtype=torch.float32, device="cpu") if add_to is None else add_to
    scales, factors = (None if tensor is None else tensor.data_ptr() for tensor in (scale, factor))
    _called(
        name,
        *(rows.data_ptr(), *rows.shape, panels.data_ptr(), other, scales, factors),
        *(ACTIVATIONS[activation], add_to is not None, out.data_ptr(), out.shape[1]),
    )
    return out


def attend(x: Tensor, factor: Tensor | None, bias: Tensor, middle: int, groups: Tensor, out: Tensor) -> None:
    """Self-attention, unscaled.

    Args:
        x: [T, 3 * H * K], each row's queries, keys and values.
        factor: [T, 1], what each row is to be multiplied by, or None.
        bias: [H, at least middle + the longest text's length + LANES - 1], by the key's distance from the query.
        middle: the column of distance 0.
        groups: int64 [groups, 2], how many texts lie side by side and how long each is.
        out: [T, H * K], the contexts.
    """
    heads = len(bias)
    _called(
        "attend",
        *(x.data_ptr(), None if factor is None else factor.data_ptr(), bias.data_ptr(), bias.shape[1], middle),
        *(groups.data_ptr(), len(groups), heads, out.shape[1] // heads, out.data_ptr()),
    )
