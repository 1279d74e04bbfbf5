"""Products by the compiled kernels: the matrix lies in panels of columns, which are multiplied one after the other.

With few rows, of one query for instance, the time goes into reading the matrix from memory. The kernels fetch the next
panel while they multiply with this one, which oneDNN doesn't.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anytask import kernels
from anytask.encoder import ACTIVATIONS
from anytask.kernels.structures import PANEL, Matrix
from anytask.products import product
from anytask.products.huge_pages import weights_memory


def fits(weight: Tensor) -> bool:
    """Whether the kernels multiply with a matrix [out, in] in floats."""
    return kernels.available() and len(weight) % PANEL == 0


def fits_bytes(weight: Tensor) -> bool:
    """Whether they multiply with it in bytes, and nothing is faster: AMX, which oneDNN uses, is."""
    faster = torch.cpu._is_amx_tile_supported()
    return kernels.multiplies_bytes() and not faster and len(weight) % PANEL == 0 and weight.shape[1] % 4 == 0


def _panels(weight: Tensor) -> Tensor:
    """[out, in] as [out / PANEL, in, PANEL]."""
    return weights_memory.copied(weight.reshape(-1, PANEL, weight.shape[1]).transpose(1, 2))


def _matrix(panels: Tensor) -> Tensor:
    """The inverse of `_panels`."""
    return panels.transpose(1, 2).flatten(0, 1).clone(memory_format=torch.contiguous_format)


class FloatProduct(product.FloatProduct):
    """See `anytask.products.product.FloatProduct`."""

    matrix: Matrix

    def __init__(self, weight: Tensor, activation: str | None) -> None:
        self._panels = _panels(weight)
        self.matrix = Matrix.of(self._panels)
        self._activation = activation

    def weight(self) -> Tensor:
        return _matrix(self._panels)

    def __call__(self, x: Tensor, factor: Tensor | None) -> Tensor:
        if self._activation is None or self._activation in kernels.ACTIVATIONS:
            return kernels.multiply(x, self.matrix, factor=factor, activation=self._activation)
        return ACTIVATIONS[self._activation](kernels.multiply(x, self.matrix, factor=factor))

    def add(self, x: Tensor, factor: Tensor | None, rows: Tensor) -> None:
        if self._activation is None:
            kernels.multiply(x, self.matrix, factor=factor, add_to=rows)
        else:
            super().add(x, factor, rows)


class ByteProduct(product.ByteProduct):
    """See `anytask.products.product.ByteProduct`."""

    matrix: Matrix

    def __init__(self, weight: Tensor, scale: Tensor, zero: int, *, relu: bool) -> None:
        self._panels = _panels(weight.contiguous().view(torch.int32))
        self._start = weights_memory.copied(weight.sum(1, dtype=torch.int32).mul_(-zero))
        self.scale = weights_memory.copied(scale.float())
        self.matrix = Matrix.of(self._panels, scale=self.scale, start=self._start)
        self._activation = "relu" if relu else None

    def weight(self) -> Tensor:
        return _matrix(self._panels).view(torch.int8)

    def __call__(self, codes: Tensor) -> Tensor:
        return kernels.multiply(codes, self.matrix, activation=self._activation)

    def add(self, codes: Tensor, factor: Tensor, rows: Tensor) -> None:
        kernels.multiply(codes, self.matrix, factor=factor, activation=self._activation, add_to=rows)


class WidenedByteProduct(product.ByteProduct):
    """`ByteProduct` on processors that don't multiply bytes exactly: in floats, to which bytes are widened on the way.

    Sums of their products are exact in float32, or nearly.
    """

    def __init__(self, weight: Tensor, scale: Tensor, zero: int, *, relu: bool) -> None:
        self._panels = _panels(weight)
        self.scale = weights_memory.copied(scale.float())
        self._widened = Matrix.of(self._panels, scale=self.scale)
        self._zero = zero
        self._activation = "relu" if relu else None

    def weight(self) -> Tensor:
        return _matrix(self._panels)

    def __call__(self, codes: Tensor) -> Tensor:
        x = codes.float().sub_(self._zero)
        return kernels.multiply(x, self._widened, activation=self._activation)
