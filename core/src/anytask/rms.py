"""The root mean square that T5's layer norm divides by."""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_rms(x: Tensor, epsilon: float) -> Tensor:
    """One over the root of each row's mean square plus epsilon: [T, 1] of x [T, d]."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
