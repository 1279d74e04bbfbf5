"""Self-attention of a packed step on a CPU, once for each length of text: by our kernel, or else by torch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from anytask import kernels
from anytask.encoder import LengthGroup, T5Config, relative_position_bucket

KEYS = 16
"""For torch's kernel, the number of keys is rounded up to a multiple of this. It takes as many at once with AVX-512,
and the exponentials of what is left over one by one: 30 keys take twice as long as 32."""


class DistanceBias:
    """T5's relative position bias, which is the same in all layers.

    Args:
        config: the encoder's shape.
        weight: [buckets, H], of each bucket and head.
        longest: length of the longest text.

    Attributes:
        table: [H, 2 * longest - 1 + unused columns], of the distances from 1 - longest to longest - 1.
    """

    def __init__(self, config: T5Config, weight: Tensor, longest: int) -> None:
        distances = torch.arange(1 - longest, longest + kernels.LANES - 1, device="cpu")
        bucket = relative_position_bucket(
            distances, config.relative_attention_num_buckets, config.relative_attention_max_distance
        )
        self.longest = longest
        self.table = F.embedding(bucket, weight).t().contiguous()

    def matrix(self, length: int) -> Tensor:
        """[H, length, length], of each query and key: a window on the table slides along."""
        window = self.table[:, self.longest - length : self.longest + length - 1]
        return window.unfold(1, length, 1).flip(1)


class StepAttention(Protocol):
    def __call__(self, qkv: Tensor, factor: Tensor | None) -> Tensor:
        """The heads' contexts [T, H * K] float32 of queries, keys and values [T, 3 * H * K] times each row's factor."""


class KernelAttention:
    """A step's attention by the compiled kernel."""

    def __init__(self, config: T5Config, groups: Sequence[LengthGroup], bias: DistanceBias) -> None:
        self._bias = bias
        self._inner = config.num_heads * config.d_kv
        self._groups = sizes_of(groups)

    def __call__(self, qkv: Tensor, factor: Tensor | None) -> Tensor:
        qkv = qkv.float()
        contexts = qkv.new_empty(len(qkv), self._inner)
        kernels.attend(qkv, factor, self._bias.table, self._bias.longest - 1, self._groups, contexts)
        return contexts


class TorchAttention:
    """A step's attention by torch's fused kernel.

    The keys and values of a text go on into the rows behind it, up to a multiple of `KEYS`; the bias of those is minus
    infinity, so that their weight is zero.
    """

    def __init__(self, config: T5Config, groups: Sequence[LengthGroup], bias: DistanceBias) -> None:
        heads, width = config.num_heads, config.d_kv
        inner = heads * width
        tokens = sum(group.count * group.length for group in groups)
        rows = bias.table.new_empty(tokens + KEYS - 1, 3 * inner)
        rows[tokens:] = 0
        self._qkv = rows[:tokens]
        self._inner = inner
        self._groups = []
        for group in groups:
            length, keys = group.length, _rounded_up(group.length)
            strides = (length * 3 * inner, width, 3 * inner, 1)
            first = group.start * 3 * inner
            q = rows.as_strided((group.count, heads, length, width), strides, first)
            k = rows.as_strided((group.count, heads, keys, width), strides, first + inner)
            v = rows.as_strided((group.count, heads, keys, width), strides, first + 2 * inner)
            masked = rows.new_empty(1, heads, length, keys)
            masked[..., :length] = bias.matrix(length)
            masked[..., length:] = -torch.inf
            self._groups.append((q, k, v, masked))

    def __call__(self, qkv: Tensor, factor: Tensor | None) -> Tensor:
        if factor is None:
            self._qkv.copy_(qkv)
        else:
            torch.mul(qkv, factor, out=self._qkv)
        contexts = []
        for q, k, v, masked in self._groups:
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=masked, scale=1.0)
            contexts.append(context.transpose(1, 2).reshape(-1, self._inner))
        return contexts[0] if len(contexts) == 1 else torch.cat(contexts)


def step_attention(config: T5Config, groups: Sequence[LengthGroup], bias: DistanceBias) -> StepAttention:
    """The attention of one step of texts, layer after layer; `bias` reaches as far as its longest text."""
    return (KernelAttention if kernels.available() else TorchAttention)(config, groups, bias)


def sizes_of(groups: Sequence[LengthGroup]) -> Tensor:
    """[groups, 2] int64: how many texts lie side by side, and how long each is."""
    return torch.tensor([(group.count, group.length) for group in groups], device="cpu")


def _rounded_up(length: int) -> int:
    return -(-length // KEYS) * KEYS
