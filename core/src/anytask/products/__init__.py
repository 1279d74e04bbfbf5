"""Products of rows with one matrix on a CPU, in the fastest way that this machine has for its numbers.

- `panels`: the compiled kernels (`anytask.kernels`), with the matrix in panels of columns.
- `onednn`: torch's operators, with the matrix in oneDNN's own layout. Without compiled kernels, and for numbers that
  the processor multiplies with instructions which the kernels don't know: bfloat16's and AMX.
- `plain`: `F.linear`, where there is neither.

All give the same numbers, those of int8 to the last bit but for how sums are rounded. A product is called with rows
[T, in] and gives [T, out] float32 or bfloat16; its `add` adds that to rows which are there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anytask.products import onednn, panels, plain
from anytask.products.product import ByteProduct, FloatProduct


def float_product(weight: Tensor, activation: str | None = None) -> FloatProduct:
    """Products with weight [out, in], float32 or bfloat16.

    bfloat16 is multiplied in bfloat16 where the processor can, else in float32, to which the panels' numbers are
    widened on the way and those of the other two beforehand.
    """
    if weight.dtype == torch.bfloat16 and onednn.packs_bfloat16():
        return onednn.FloatProduct(weight, activation)
    if panels.fits(weight):
        return panels.FloatProduct(weight, activation)
    weight = weight.float()
    if onednn.packs_float() and bool(weight.sum().isfinite()):  # its ReLU would turn NaN into zero
        return onednn.FloatProduct(weight, activation)
    return plain.FloatProduct(weight, activation)


def byte_product(weight: Tensor, scale: Tensor, zero: int, *, relu: bool = False) -> ByteProduct:
    """Products with weight [out, in] int8 times its channels' scale [out].

    Args:
        weight: from -127 to 127.
        scale: float32.
        zero: the byte of the rows that stands for zero.
        relu: whether negative results become zero.
    """
    if panels.fits_bytes(weight):
        return panels.ByteProduct(weight, scale, zero, relu=relu)
    if onednn.packs_int8():
        return onednn.ByteProduct(weight, scale, zero, relu=relu)
    if panels.fits(weight):
        return panels.WidenedByteProduct(weight, scale, zero, relu=relu)
    return plain.ByteProduct(weight, scale, zero, relu=relu)
