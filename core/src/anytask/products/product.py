"""What a product with a matrix can do, in whatever way it is computed."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from anytask.kernels.structures import Matrix


class FloatProduct(ABC):
    """With a matrix of floats. An activation, a key of `anytask.encoder.ACTIVATIONS`, may go with it."""

    matrix: Matrix | None = None
    """The matrix as the kernels multiply rows of floats with it, where they do."""

    @abstractmethod
    def weight(self) -> Tensor:
        """The matrix [out, in], in a precision that holds all its digits."""

    @abstractmethod
    def __call__(self, x: Tensor, factor: Tensor | None) -> Tensor:
        """With x [T, in] float32 times each row's positive factor [T, 1]; x may be overwritten."""

    def add(self, x: Tensor, factor: Tensor | None, rows: Tensor) -> None:
        """Add the product to rows [T, out] float32."""
        rows.add_(self(x, factor))


class ByteProduct(ABC):
    """With a matrix of int8 and a scale for each of its output channels. ReLU may go with it."""

    matrix: Matrix | None = None
    """The matrix as the kernels multiply rows of bytes with it, where they do."""
    scale: Tensor
    """[out] float32."""

    @abstractmethod
    def weight(self) -> Tensor:
        """The matrix [out, in] int8, without its scales."""

    @abstractmethod
    def __call__(self, codes: Tensor) -> Tensor:
        """With codes [T, in] uint8, the byte for zero taken from each, and the scales."""

    def add(self, codes: Tensor, factor: Tensor, rows: Tensor) -> None:
        """Add the product times each row's factor [T, 1] to rows [T, out] float32."""
        rows.addcmul_(self(codes), factor)
