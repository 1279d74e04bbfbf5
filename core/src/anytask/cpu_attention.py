"""Self-attention of a packed step on a CPU: torch's fused kernel, once for each length of text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from anytask.encoder import LengthGroup, T5Config

KEYS = 16
"""The number of keys is rounded up to a multiple of this. torch's kernel takes as many at once with AVX-512, and the
exponentials of what is left over one by one: 30 keys take twice as long as 32."""


class StepAttention:
    """The attention of one step, layer after layer.

    The keys and values of a text go on into the rows behind it, up to a multiple of `KEYS`; the bias of those is minus
    infinity, so that their weight is zero.

    Args:
        groups: the step's texts.
        bias: the relative position bias of all layers, float32 [H, L, L], of the step's longest text.

    Attributes:
        qkv: float32 [T, 3 * H * K], where each layer writes its queries, keys and values before it calls.
    """

    def __init__(self, config: T5Config, groups: Sequence[LengthGroup], bias: Tensor) -> None:
        heads, width = config.num_heads, config.d_kv
        inner = heads * width
        tokens = sum(group.count * group.length for group in groups)
        rows = bias.new_empty(tokens + KEYS - 1, 3 * inner)
        rows[tokens:] = 0
        self.qkv = rows[:tokens]
        self._inner = inner
        self._groups = []
        for group in groups:
            length, keys = group.length, _rounded_up(group.length)
            strides = (length * 3 * inner, width, 3 * inner, 1)
            first = group.start * 3 * inner
            q = rows.as_strided((group.count, heads, length, width), strides, first)
            k = rows.as_strided((group.count, heads, keys, width), strides, first + inner)
            v = rows.as_strided((group.count, heads, keys, width), strides, first + 2 * inner)
            masked = bias.new_empty(1, heads, length, keys)
            masked[..., :length] = bias[:, :length, :length]
            masked[..., length:] = -torch.inf
            self._groups.append((q, k, v, masked))

    def __call__(self) -> Tensor:
        """The heads' contexts [T, H * K]."""
        contexts = []
        for q, k, v, masked in self._groups:
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=masked, scale=1.0)
            contexts.append(context.transpose(1, 2).reshape(-1, self._inner))
        return contexts[0] if len(contexts) == 1 else torch.cat(contexts)


def _rounded_up(length: int) -> int:
    return -(-length // KEYS) * KEYS
