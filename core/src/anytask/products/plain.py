"""Products by `F.linear`, for machines without oneDNN's operators and compiled kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from anytask.encoder import ACTIVATIONS
from anytask.products import product


class FloatProduct(product.FloatProduct):
    """See `anytask.products.product.FloatProduct`."""

    def __init__(self, weight: Tensor, activation: str | None) -> None:
        self._weight = weight.clone()
        self._activation = activation

    def weight(self) -> Tensor:
        return self._weight

    def __call__(self, x: Tensor, factor: Tensor | None) -> Tensor:
        out = F.linear(x if factor is None else x.mul_(factor), self._weight)
        return out if self._activation is None else ACTIVATIONS[self._activation](out)


class ByteProduct(product.ByteProduct):
    """See `anytask.products.product.ByteProduct`. Sums of bytes' products are exact in float32, or nearly."""

    def __init__(self, weight: Tensor, scale: Tensor, zero: int, *, relu: bool) -> None:
        self._weight = weight.float()
        self.scale = scale.float().clone()
        self._zero = zero
        self._relu = relu

    def weight(self) -> Tensor:
        return self._weight.to(torch.int8)

    def __call__(self, codes: Tensor) -> Tensor:
        out = F.linear(codes.float().sub_(self._zero), self._weight).mul_(self.scale)
        return out.relu_() if self._relu else out
