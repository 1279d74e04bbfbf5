"""The T5 encoder as a padding-free forward pass.

The texts of a batch are packed: their tokens follow one another in one [tokens, d_model] matrix and go through the
linear layers together, without a padding row. Only attention needs to know where a text begins; it runs once per
group of texts of equal length, so it needs no mask either, only the relative position bias.

Names follow the T5 paper (Raffel et al., 2020, arXiv 1910.10683, section 2.1) and its published checkpoints. Shapes
use T for the tokens of the batch, N for the texts of a group, L for their length, H for heads, K for the head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from anytask.dropout import attention_with_dropout
from anytask.dropout import dropout as dropped


def gelu_new(x: Tensor) -> Tensor:
    """GELU in its tanh approximation, which T5 v1.1 uses."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": gelu_new,
    "silu": F.silu,
}


@dataclass(frozen=True)
class T5Config:
    """The encoder's shape, under the names of a published `config.json`."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    feed_forward_proj: str = "relu"
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward layer has T5 v1.1's second, gating matrix."""
        return self.feed_forward_proj.startswith("gated-")

    @property
    def activation(self) -> str:
        """Key into `ACTIVATIONS`. Published `gated-gelu` means the tanh approximation, as in T5 v1.1."""
        name = self.feed_forward_proj.removeprefix("gated-")
        return "gelu_new" if self.feed_forward_proj == "gated-gelu" else name


@dataclass(frozen=True)
class LengthGroup:
    """`count` texts of `length` tokens each, packed from row `start` on."""

    start: int
    count: int
    length: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.count * self.length)


def rows_of(x: Tensor, groups: Sequence[LengthGroup]) -> tuple[Tensor, ...]:
    """Each group's rows of [T, ...], as views. Their gradients come together in one copy, those of slices wouldn't."""
    rows: tuple[Tensor, ...] = torch.split(x, [group.count * group.length for group in groups])
    return rows


def relative_position_bucket(relative_position: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """T5's bidirectional bucket of each key-minus-query distance (any shape, integer; same shape out).

    Half of the buckets serve each direction; half of those hold one distance each, the rest grow logarithmically up
    to `max_distance`, beyond which all distances share the last bucket.
    """
    per_direction = num_buckets // 2
    exact = per_direction // 2
    distance = relative_position.abs()
    scale = (per_direction - exact) / math.log(max_distance / exact)
    logarithmic = exact + (torch.log(distance.clamp(min=1).float() / exact) * scale).long()
    bucket = torch.where(distance < exact, distance, logarithmic.clamp(max=per_direction - 1))
    return bucket + per_direction * (relative_position > 0)


class RMSNorm(nn.Module):
    """T5's layer norm: no mean, no bias, computed in float32 whatever the model's precision."""

    def __init__(self, d_model: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class SelfAttention(nn.Module):
    """Multi-head self-attention without the 1/sqrt(K) scaling, q, k and v as one matrix."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.num_heads, self.d_kv = config.num_heads, config.d_kv
        inner = config.num_heads * config.d_kv
        self.qkv = nn.Linear(config.d_model, 3 * inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)

    def forward(
        self, x: Tensor, biases: Sequence[Tensor], groups: Sequence[LengthGroup], dropout: float = 0.0
    ) -> Tensor:
        """x [T, d_model] and each group's bias [H, L, L] to [T, d_model]; `dropout` is of the attention weights."""
        qkv = self.qkv(x).view(-1, 3, self.num_heads, self.d_kv)
        contexts = []
        for group, bias, rows in zip(groups, biases, rows_of(qkv, groups), strict=True):
            shape = (group.count, group.length, 3, self.num_heads, self.d_kv)
            q, k, v = rows.view(shape).permute(2, 0, 3, 1, 4)  # [N, H, L, K] each
            if dropout:
                context = attention_with_dropout(q, k, v, bias, dropout)
            else:
                context = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype), scale=1.0)
            contexts.append(context.transpose(1, 2).reshape(-1, self.num_heads * self.d_kv))
        out: Tensor = self.o(torch.cat(contexts))
        return out


class FeedForward(nn.Module):
    """T5's feed-forward layer; gated (v1.1): act(wi_0 x) * (wi_1 x), both in one matrix."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.is_gated = config.is_gated
        self.activation = ACTIVATIONS[config.activation]
        self.wi = nn.Linear(config.d_model, config.d_ff * (2 if config.is_gated else 1), bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor, dropout: float = 0.0) -> Tensor:
        """[T, d_model] to [T, d_model]; `dropout` is of the activations."""
        hidden = self.wi(x)
        if self.is_gated:
            gate, linear = hidden.chunk(2, dim=-1)
            hidden = self.activation(gate) * linear
        else:
            hidden = self.activation(hidden)
        return self._project(dropped(hidden, dropout))

    def _project(self, hidden: Tensor) -> Tensor:
        """`wo`, in float32 where float16 is asked for: T5's overflows there."""
        device = hidden.device.type
        out: Tensor
        if not torch.is_autocast_enabled(device):
            out = self.wo(hidden.to(self.wo.weight.dtype))
        elif torch.get_autocast_dtype(device) != torch.float16:
            out = self.wo(hidden)
        else:
            with torch.autocast(device, enabled=False):
                out = self.wo(hidden.float())
        return out


class Block(nn.Module):
    """One pre-norm layer: self-attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.attention = SelfAttention(config)
        self.feed_forward_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, biases: Sequence[Tensor], groups: Sequence[LengthGroup], dropout: float) -> Tensor:
        """x [T, d_model] float32 to the same; sub-layers compute in the precision of their weights."""
        dtype = self.attention.qkv.weight.dtype
        attended = self.attention(self.attention_norm(x).to(dtype), biases, groups, dropout)
        x = x + dropped(attended, dropout)
        fed = self.feed_forward(self.feed_forward_norm(x).to(dtype), dropout)
        return x + dropped(fed, dropout)


def _uninitialised_embedding(rows: int, columns: int) -> nn.Embedding:
    """An embedding to be filled: nn.Embedding's own initialisation on the meta device loads all of torch.compile."""
    weight = torch.empty(rows, columns)
    embedding: nn.Embedding = nn.Embedding.from_pretrained(weight, freeze=False)  # type: ignore[no-untyped-call]
    return embedding


class T5Encoder(nn.Module):
    """T5's encoder over packed tokens. The residual stream and the norms are float32 in every lower precision.

    Args:
        config: the shape.
        dropout: in training, of embeddings, attention weights, activations and the layers' outputs, as in T5.
    """

    gradient_checkpointing = False
    """Whether training keeps only the layers' inputs and computes the rest again in the backward pass."""

    def __init__(self, config: T5Config, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.embed_tokens = _uninitialised_embedding(config.vocab_size, config.d_model)
        self.relative_attention_bias = _uninitialised_embedding(config.relative_attention_num_buckets, config.num_heads)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self._inference_bias: Tensor | None = None

    def to_precision(self, dtype: torch.dtype) -> T5Encoder:
        """Convert the matrices to `dtype`; norms, position bias and, in float16, `wo` (it overflows) stay float32."""
        self.float()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)
        self.embed_tokens.to(dtype)
        if dtype == torch.float16:
            for module in self.modules():
                if isinstance(module, FeedForward):
                    module.wo.float()
        return self

    def position_bias(self, length: int) -> Tensor:
        """The first layer's relative position bias for all layers, [H, length', length'] with length' >= length.

        The bias depends on the distance alone, so the corner of a longer text's bias is a shorter text's: without
        gradients one matrix, grown in powers of two, serves every length and every batch; in training, where the
        weights move between batches, it is computed for each.
        """
        if torch.is_grad_enabled() or self.training:
            return self._compute_position_bias(length)
        bias = self._inference_bias
        if bias is None or bias.shape[-1] < length or bias.device != self.final_norm.weight.device:
            bias = self._compute_position_bias(1 << (length - 1).bit_length())
            self._inference_bias = bias
        return bias

    def _compute_position_bias(self, length: int) -> Tensor:
        config = self.config
        position = torch.arange(length, device=self.final_norm.weight.device)
        distance = position[None, :] - position[:, None]
        bucket = relative_position_bucket(
            distance, config.relative_attention_num_buckets, config.relative_attention_max_distance
        )
        bias: Tensor = self.relative_attention_bias(bucket)
        return bias.permute(2, 0, 1).contiguous()

    def forward(self, token_ids: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        """Encode a packed batch.

        Args:
            token_ids: [T] integer, the texts' tokens one after another, texts of equal length side by side.
            groups: where the texts lie; their rows cover `token_ids` in order.

        Returns:
            [T, d_model] float32, the last layer's normed output.
        """
        position_bias = self.position_bias(max(group.length for group in groups))
        # Cut once for all layers: in the backward pass each cut costs a gradient of the whole's size.
        biases = [position_bias[:, : group.length, : group.length] for group in groups]
        dropout = self.dropout if self.training else 0.0
        embedded = self.embed_tokens(token_ids)
        x = dropped(embedded.to(torch.promote_types(embedded.dtype, torch.float32)), dropout)
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, biases, groups, dropout, use_reentrant=False)
            else:
                x = block(x, biases, groups, dropout)
        return dropped(self.final_norm(x), dropout)

    def train(self, mode: bool = True) -> T5Encoder:
        self._inference_bias = None
        super().train(mode)
        return self
