"""Dropout in training. On a CPU torch's spends most of its time in drawing a random number for each value; this one
draws 64 bits for four."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 1 << 16
"""Of a random number; the rate is rounded to one of them."""


def dropout(x: Tensor, rate: float) -> Tensor:
    """`x` with each value zero with probability `rate`, the others scaled so that the mean stays."""
    if not rate:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    out: Tensor = _Dropout.apply(x, rate)  # type: ignore[no-untyped-call]
    return out


def attention_with_dropout(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, rate: float) -> Tensor:
    """Attention without scaling, with dropout of its weights.

    Args:
        q, k, v: [N, H, L, K].
        bias: [H, L, L], added to the products of q and k.

    Returns:
        [N, H, L, K] in q's precision; on a CPU all between is at least float32, as it is in torch's own.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype), dropout_p=rate, scale=1.0)
    dtype = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast("cpu", enabled=False):
        scores = q.to(dtype) @ k.to(dtype).transpose(-1, -2) + bias
        return (dropout(scores.softmax(dim=-1), rate) @ v.to(dtype)).to(q.dtype)


class _Dropout(torch.autograd.Function):
    """Keeps a byte for each value, which says whether it stays."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        dropped = round(rate * LEVELS)
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
        kept = (draws.view(torch.int16)[: x.numel()] >= dropped - LEVELS // 2).view(x.shape)
        ctx.save_for_backward(kept)
        ctx.scale = LEVELS / (LEVELS - dropped)
        return torch.where(kept, x, 0.0).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return torch.where(kept, gradient, 0.0).mul_(ctx.scale), None
