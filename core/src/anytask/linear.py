"""Matrix products for inference on a CPU: weights laid out once for oneDNN, in float32, bfloat16 or int8.

`F.linear` computes float32 through MKL, which leaves much of an AMD core idle, and lays a bfloat16 weight out anew in
each call. oneDNN with a weight in its own blocked layout comes close to the processor's limit in all three. Called are
the operators that torch's compiler emits for linear layers, whose signatures are the same in torch 2.6 and 2.13:
`mkldnn::_reorder_linear_weight` and `mkldnn::_linear_pointwise` for floats, `onednn::qlinear_prepack` and
`onednn::qlinear_pointwise` for integers. Where torch was built without them, or the processor lacks the instructions,
the same numbers come from `F.linear`; bfloat16 weights are multiplied in float32 there.

A product takes rows x [T, in], float32, and a positive factor for each row [T, 1], or rows that are to be normed first;
it gives values [T, out], float32 or bfloat16, and again a factor for each row, or None: the result is values times
factor. Integer products leave that multiplication to the caller, who often has it for nothing: attention, another
quantisation and a residual sum take it on their way.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from anytask.encoder import ACTIVATIONS
from anytask.errors import CheckpointError
from anytask.rms import inverse_rms
from anytask.row_codes import LARGEST, SMALLEST_STEP, RowCodes

PACKED_FOR_ROWS = 512
"""Rows that oneDNN's layout is chosen for; others, those of a single text too, are as fast with it as with theirs."""
FUSED: dict[str | None, tuple[str, str]] = {
    None: ("none", ""),
    "relu": ("relu", ""),
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "silu": ("swish", ""),
}
"""Activations that oneDNN computes within a product: its name and algorithm for ours."""
Rows = tuple[Tensor, Tensor | None]


@cache
def packs_float() -> bool:
    """Whether torch has oneDNN's float products."""
    return torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@cache
def packs_bfloat16() -> bool:
    """Whether oneDNN multiplies bfloat16 with instructions that the processor has.

    On an x86 processor with AVX-512 alone it converts in each product, and takes three to four times as long as with
    float32.
    """
    if not packs_float() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    is_x86 = torch.cpu._is_avx2_supported()
    return not is_x86 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@cache
def packs_int8() -> bool:
    """Whether oneDNN multiplies bytes exactly on this processor: without VNNI, sums of two products saturate."""
    return packs_float() and hasattr(torch.ops.onednn, "qlinear_pointwise") and torch.cpu._is_vnni_supported()


class FloatLinear:
    """A product with a float32 or bfloat16 matrix, computed in its precision; in float32, which the matrix is held in
    too, where the processor can't multiply bfloat16.

    Args:
        weight: [out, in].
        activation: a key of `ACTIVATIONS` that is applied to the result, or None.
    """

    def __init__(self, weight: Tensor, activation: str | None = None) -> None:
        self.dtype = weight.dtype
        self._activation = activation
        if weight.dtype == torch.bfloat16 and not packs_bfloat16():
            weight = weight.float()
        self._computed = weight.dtype
        self._packed = packs_float() and bool(weight.sum().isfinite())  # oneDNN's ReLU would turn NaN into zero
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR_ROWS) if self._packed else weight.clone()
        )

    def state(self) -> dict[str, Tensor]:
        """The matrix as it was given, as "weight"."""
        return {"weight": (self._weight.to_dense() if self._packed else self._weight).to(self.dtype)}

    def __call__(self, x: Tensor, factor: Tensor | None = None) -> Rows:
        """See the module; `x` is overwritten. The factor of the result is None."""
        if factor is not None:
            x.mul_(factor)
        return self._product(x.to(self._computed)), None

    def normed(self, x: Tensor, gain: Tensor, epsilon: float) -> Rows:
        """The product with T5's layer norm of x [T, in], with its gain [in]."""
        return self(x * gain, inverse_rms(x, epsilon))

    def _product(self, x: Tensor) -> Tensor:
        if self._packed:
            name, algorithm = FUSED[self._activation]
            packed: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, None, name, [], algorithm)
            return packed
        out = F.linear(x, self._weight)
        return out if self._activation is None else ACTIVATIONS[self._activation](out)


class Int8Linear:
    """A product of bytes: the matrix quantised by output channel, the rows as they come (`anytask.row_codes`).

    Args:
        weight: [out, in] int8, from -127 to 127.
        weight_scale: [out] float32; the matrix is weight times its channel's scale.
        activation: as for `FloatLinear`.
        follows: an activation that the rows are to go through first; but ReLU they have gone through already.
    """

    dtype = torch.int8

    def __init__(
        self, weight: Tensor, weight_scale: Tensor, activation: str | None = None, follows: str | None = None
    ) -> None:
        self._scale = weight_scale.float().clone()
        self._activation = activation
        self._codes = RowCodes(follows)
        self._packed = packs_int8()
        self._zeros = torch.zeros(len(weight), dtype=torch.int32, device="cpu")
        if self._packed:
            self._weight = torch.ops.onednn.qlinear_prepack(weight, [PACKED_FOR_ROWS, weight.shape[1]])
        else:
            self._weight = weight.float()  # the sums of products of bytes are exact in float32, or nearly

    def state(self) -> dict[str, Tensor]:
        """The matrix and its scales as they were given, as "weight" and "weight_scale"."""
        weight = self._weight.to_dense().t().contiguous() if self._packed else self._weight.to(torch.int8)
        return {"weight": weight, "weight_scale": self._scale}

    def __call__(self, x: Tensor, factor: Tensor | None = None) -> Rows:
        """See the module; `x` may be overwritten."""
        return self._result(*self._codes.activated(x, factor))

    def normed(self, x: Tensor, gain: Tensor, epsilon: float) -> Rows:
        """The product with T5's layer norm of x [T, in], with its gain [in]."""
        return self._result(*self._codes.normed(x, gain, epsilon))

    def _result(self, codes: Tensor, factor: Tensor) -> Rows:
        fused = self._activation if self._activation == "relu" else None  # the one that doesn't mind the factor
        out = self._product(codes, FUSED[fused][0])
        if self._activation in (None, "relu"):
            return out, factor
        return ACTIVATIONS[self._activation](out.mul_(factor)), None

    def _product(self, codes: Tensor, activation: str) -> Tensor:
        if self._packed:
            out: Tensor = torch.ops.onednn.qlinear_pointwise(
                codes, 1.0, self._codes.zero, self._weight, self._scale, self._zeros,
                None, 1.0, 0, torch.float32, activation, [], "",
            )  # fmt: skip
        else:
            out = F.linear(codes.float().sub_(self._codes.zero), self._weight).mul_(self._scale)
            if activation == "relu":
                out.relu_()
        return out


Linear = FloatLinear | Int8Linear


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [out, in] as int8 [out, in] and the scale of each output channel [out], float32.

    Raises:
        CheckpointError: the matrix holds inf or NaN.
    """
    weight = weight.float()
    scale = weight.abs().amax(1).div_(LARGEST).clamp_min_(SMALLEST_STEP)
    if not torch.isfinite(scale).all():
        raise CheckpointError("the checkpoint's weights hold inf or NaN, which int8 can't; download it again")
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def dequantised(weight: Tensor, scale: Tensor) -> Tensor:
    """The inverse of `quantised`, up to what was rounded away."""
    return weight.float().mul_(scale[:, None])
