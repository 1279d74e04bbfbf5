"""Kernels in C for a CPU encoder: its matrix products, attention, rows that become bytes, and whole layers of these.

In torch's operators, such a row is read and written six times, the attention of a short text is mostly the price of the
call, the products of one query wait for memory, and calling all these for each layer takes a fifth of its time.

Installing the package compiles the kernels where there is GCC (`building.py`). Without them, as on processors other
than x86-64, the same numbers come from torch: who calls asks `available()` first.

Each kernel takes contiguous tensors, of float32 where nothing else is said, lets other Python threads run, and uses as
many threads as torch's operators would, which are torch's.
"""

from __future__ import annotations

import ctypes
import logging
from ctypes import POINTER, byref, c_float, c_int, c_long, c_void_p
from functools import cache

import torch
from torch import Tensor

from anytask.kernels.building import library
from anytask.kernels.structures import Codes, Layers, Matrix

logger = logging.getLogger(__name__)

LANES = 16
"""Floats that `attend` reads at once, at most."""
ACTIVATIONS: dict[str | None, int] = {None: 0, "relu": 1, "gelu": 2}
"""Those that products compute, GELU to 1e-5, by their numbers in kernels.h."""


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
    codes = (c_long, c_long, Codes, c_void_p, c_void_p)
    kernels.quantise.argtypes = (c_void_p, *codes)
    kernels.quantise_gelu.argtypes = (c_void_p, c_void_p, *codes)
    kernels.quantise_normed.argtypes = (c_void_p, c_void_p, c_float, *codes)
    kernels.multiply.argtypes = (POINTER(Matrix), c_void_p, c_long, c_void_p, c_int, c_int, c_void_p)
    bias, groups = (c_void_p, c_long, c_long), (c_void_p, c_long)
    kernels.attend.argtypes = (c_void_p, c_void_p, *bias, *groups, c_long, c_long, c_void_p)
    kernels.encode.argtypes = (POINTER(Layers), c_void_p, c_long, *bias, *groups)
    return kernels


def available() -> bool:
    """Whether the kernels are compiled for this processor."""
    return _kernels() is not None


def multiplies_bytes() -> bool:
    """Whether `multiply` takes bytes on this processor."""
    return available() and torch.cpu._is_avx512_supported() and torch.cpu._is_vnni_supported()


def _called(name: str, *arguments: object) -> None:
    kernels = _kernels()
    assert kernels is not None, "ask available() first"
    if getattr(kernels, name)(*arguments):
        raise MemoryError(f"not enough memory for the kernel {name}")


def _quantised(name: str, x: Tensor, *others: int | float, codes: Codes) -> tuple[Tensor, Tensor]:
    """What a kernel of rows makes of x [T, d]; `others` are its parameters between x and its shape."""
    out = torch.empty(x.shape, dtype=torch.uint8, device="cpu")
    steps = torch.empty(len(x), 1, dtype=torch.float32, device="cpu")
    _called(name, x.data_ptr(), *others, *x.shape, codes, out.data_ptr(), steps.data_ptr())
    return out, steps


def quantise(x: Tensor, codes: Codes) -> tuple[Tensor, Tensor]:
    """Rows as bytes.

    Args:
        x: [T, d].
        codes: which bytes.

    Returns:
        bytes [T, d], and the step between two of them in each row [T, 1]: the row's largest magnitude over 255 less
        the byte for zero.
    """
    return _quantised("quantise", x, codes=codes)


def quantise_gelu(x: Tensor, factor: Tensor, codes: Codes) -> tuple[Tensor, Tensor]:
    """`quantise` of GELU, to 1e-5, of x [T, d] times each row's factor [T, 1]."""
    return _quantised("quantise_gelu", x, factor.data_ptr(), codes=codes)


def quantise_normed(x: Tensor, gain: Tensor, epsilon: float, codes: Codes) -> tuple[Tensor, Tensor]:
    """`quantise` of T5's layer norm of x [T, d]: over the root mean square, times gain [d]."""
    return _quantised("quantise_normed", x, gain.data_ptr(), epsilon, codes=codes)


def multiply(
    x: Tensor,
    matrix: Matrix,
    *,
    factor: Tensor | None = None,
    activation: str | None = None,
    add_to: Tensor | None = None,
) -> Tensor:
    """Rows times a matrix [out, in].

    Args:
        x: [T, in]: uint8 for a matrix in bytes (ask `multiplies_bytes()` first), else float32.
        factor: of x's rows, [T, 1].
        activation: of the product, a key of `ACTIVATIONS`; none but ReLU for a product that is added.
        add_to: [T, out], to which the product is added in place.

    Returns:
        [T, out], or `add_to`.
    """
    assert x.dtype == (torch.float32 if matrix.start is None else torch.uint8)
    assert x.is_contiguous()
    out = torch.empty(len(x), matrix.width, dtype=torch.float32, device="cpu") if add_to is None else add_to
    factors = None if factor is None else factor.data_ptr()
    to = ACTIVATIONS[activation], add_to is not None, out.data_ptr()
    _called("multiply", byref(matrix), x.data_ptr(), len(x), factors, *to)
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


def encode(layers: Layers, x: Tensor, bias: Tensor, middle: int, groups: Tensor) -> None:
    """All layers, each added in place to x [T, d_model]; the rest as for `attend`."""
    _called(
        "encode",
        *(byref(layers), x.data_ptr(), len(x), bias.data_ptr(), bias.shape[1], middle),
        *(groups.data_ptr(), len(groups)),
    )
