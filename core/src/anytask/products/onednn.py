"""Products by oneDNN with a matrix in its own blocked layout, which comes close to the processor's limit.

`F.linear` computes float32 through MKL, which leaves much of an AMD core idle, and lays a bfloat16 matrix out anew in
each call. Called here are the operators that torch's compiler emits for linear layers, whose signatures are the same in
torch 2.6 and 2.13: `mkldnn::_reorder_linear_weight` and `mkldnn::_linear_pointwise` for floats,
`onednn::qlinear_prepack` and `onednn::qlinear_pointwise` for integers.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from anytask.products import product

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


class FloatProduct(product.FloatProduct):
    """See `anytask.products.product.FloatProduct`. Computed in the matrix' precision."""

    def __init__(self, weight: Tensor, activation: str | None) -> None:
        self._dtype = weight.dtype
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR_ROWS)
        self._activation = FUSED[activation]

    def weight(self) -> Tensor:
        weight: Tensor = self._weight.to_dense()
        return weight

    def __call__(self, x: Tensor, factor: Tensor | None) -> Tensor:
        if factor is not None:
            x.mul_(factor)
        name, algorithm = self._activation
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(self._dtype), self._weight, None, name, [], algorithm)
        return out


class ByteProduct(product.ByteProduct):
    """See `anytask.products.product.ByteProduct`."""

    def __init__(self, weight: Tensor, scale: Tensor, zero: int, *, relu: bool) -> None:
        self._weight = torch.ops.onednn.qlinear_prepack(weight, [PACKED_FOR_ROWS, weight.shape[1]])
        self.scale = scale.float().clone()
        self._zero = zero
        self._zeros = torch.zeros(len(weight), dtype=torch.int32, device="cpu")
        self._activation = "relu" if relu else "none"

    def weight(self) -> Tensor:
        weight: Tensor = self._weight.to_dense()
        return weight.t().contiguous()

    def __call__(self, codes: Tensor) -> Tensor:
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, self._zero, self._weight, self.scale, self._zeros,
            None, 1.0, 0, torch.float32, self._activation, [], "",
        )  # fmt: skip
        return out
