"""The encoder's linear layers for inference on a CPU: weights in float32, bfloat16 or int8, laid out once.

How a product is computed is `anytask.products`' part; here, rows become what it takes. A layer takes rows x [T, in],
float32, and a positive factor for each row [T, 1], or rows that are to be normed first; it gives values [T, out],
float32 or bfloat16, and again a factor for each row, or None: the result is values times factor. Layers of bytes leave
that multiplication to the caller, who often has it for nothing: attention and another quantisation take it on their
way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anytask.encoder import ACTIVATIONS
from anytask.errors import CheckpointError
from anytask.kernels.structures import Matrix
from anytask.products import byte_product, float_product
from anytask.rms import inverse_rms
from anytask.row_codes import LARGEST, SMALLEST_STEP, RowCodes

Rows = tuple[Tensor, Tensor | None]


class FloatLinear:
    """A layer with a float32 or bfloat16 matrix.

    Args:
        weight: [out, in].
        activation: a key of `ACTIVATIONS` that is applied to the result, or None.
    """

    def __init__(self, weight: Tensor, activation: str | None = None) -> None:
        self.dtype = weight.dtype
        self._product = float_product(weight, activation)

    @property
    def matrix(self) -> Matrix | None:
        """The matrix as the kernels multiply with it, where they do."""
        return self._product.matrix

    def state(self) -> dict[str, Tensor]:
        """The matrix as it was given, as "weight"."""
        return {"weight": self._product.weight().to(self.dtype)}

    def __call__(self, x: Tensor, factor: Tensor | None = None) -> Rows:
        """See the module; `x` may be overwritten. The factor of the result is None."""
        return self._product(x, factor), None

    def normed(self, x: Tensor, gain: Tensor, epsilon: float) -> Rows:
        """The result for T5's layer norm of x [T, in], with its gain [in]."""
        return self(x * gain, inverse_rms(x, epsilon))

    def add(self, x: Tensor, factor: Tensor | None, rows: Tensor) -> None:
        """Add the result for x to rows [T, out] float32; `x` may be overwritten."""
        self._product.add(x, factor, rows)


class Int8Linear:
    """A layer of bytes: the matrix quantised by output channel, the rows as they come (`anytask.row_codes`).

    Args:
        weight: [out, in] int8, from -127 to 127.
        weight_scale: [out] float32; the matrix is weight times its channel's scale.
        activation: as for `FloatLinear`.
        follows: an activation that the rows are to go through first; but ReLU they have gone through already.
    """

    def __init__(
        self, weight: Tensor, weight_scale: Tensor, activation: str | None = None, follows: str | None = None
    ) -> None:
        self._activation = None if activation == "relu" else activation  # ReLU doesn't mind the factor that follows
        self._codes = RowCodes(follows)
        self._product = byte_product(weight, weight_scale, self._codes.zero, relu=activation == "relu")

    @property
    def matrix(self) -> Matrix | None:
        """As for `FloatLinear`."""
        return self._product.matrix

    def state(self) -> dict[str, Tensor]:
        """The matrix and its scales as they were given, as "weight" and "weight_scale"."""
        return {"weight": self._product.weight(), "weight_scale": self._product.scale.clone()}

    def __call__(self, x: Tensor, factor: Tensor | None = None) -> Rows:
        """See the module; `x` may be overwritten."""
        return self._result(*self._codes.activated(x, factor))

    def normed(self, x: Tensor, gain: Tensor, epsilon: float) -> Rows:
        """The result for T5's layer norm of x [T, in], with its gain [in]."""
        return self._result(*self._codes.normed(x, gain, epsilon))

    def add(self, x: Tensor, factor: Tensor | None, rows: Tensor) -> None:
        """Add the result for x to rows [T, out] float32; `x` may be overwritten. For layers without activation."""
        self._product.add(*self._codes.activated(x, factor), rows)

    def _result(self, codes: Tensor, factor: Tensor) -> Rows:
        out = self._product(codes)
        if self._activation is None:
            return out, factor
        return ACTIVATIONS[self._activation](out.mul_(factor)), None


Linear = FloatLinear | Int8Linear
ROWS_AT_ONCE = 32
"""Rows quantised at once. With all, the heap is left full of holes as large as a matrix in float32."""


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [out, in] as int8 [out, in] and the scale of each output channel [out], float32.

    Raises:
        CheckpointError: the matrix holds inf or NaN.
    """
    lowest, highest = torch.aminmax(weight, dim=1)
    scale = torch.maximum(highest, -lowest).float().div_(LARGEST).clamp_min_(SMALLEST_STEP)
    if not torch.isfinite(scale).all():
        raise CheckpointError("the checkpoint's weights hold inf or NaN, which int8 can't; download it again")
    whole = torch.empty(weight.shape, dtype=torch.int8, device="cpu")
    for first in range(0, len(weight), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        whole[rows] = (weight[rows].float() / scale[rows, None]).round_()
    return whole, scale


def dequantised(weight: Tensor, scale: Tensor) -> Tensor:
    """The inverse of `quantised`, up to what was rounded away."""
    return weight.float().mul_(scale[:, None])
