"""The T5 encoder as it runs on a GPU: the numbers of `anytask.encoder`, for inference alone.

Steps of few lengths run as `T5Encoder` does, one attention call for each length. Texts of many lengths, as a large
batch has them, would take hundreds of calls a layer: their attention is one call over all tokens (FlexAttention, Dong
et al., 2024, arXiv 2412.05496), in which a token sees those of its own text and a score gets the bias of its distance.
Nothing is padded, and no bias of [length, length] is ever made. A layer is compiled as a whole, so that norms,
conversions and sums are fused between the matrix products; that takes up to a minute, and so it waits until a model has
shown to be used for many texts.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from anytask.device_memory import is_out_of_memory
from anytask.encoder import Block, LengthGroup, T5Config, T5Encoder, relative_position_bucket
from anytask.transfers import to_device

logger = logging.getLogger(__name__)

FEW_LENGTHS = 8
"""Up to so many lengths a call for each is as fast, and there is nothing to compile."""
TILE = 128
"""Tokens of a tile of FlexAttention's mask. A step is filled up to whole tiles by one more text, which nobody sees."""
SMALLEST_HEAD = 16
"""Heads below that can't be compiled."""
COMPILE_AFTER = 1_000_000
"""Tokens in steps of many lengths before their layers are compiled: seconds of work, uncompiled."""
VERSIONS = 64
"""Compiled versions of a layer that all models together may have: two each for a shape, precision and device."""
ALL_BUT_CUDNN = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""cuDNN's attention plans each new number and length of texts, for 55 to 400 ms on an H200; the others don't."""

Layer = Callable[[Tensor, Block, Tensor, Tensor, Any], Tensor]


class GpuEncoder:
    """T5's encoder over packed tokens; called like `T5Encoder`, whose weights it uses.

    Args:
        encoder: on its device, in its precision, without gradients.
        compile_after: tokens in steps of many lengths after which their layers are compiled.
        compiled: whether they ever are. If not, one attention call takes T x T scores: for tests alone.
    """

    def __init__(self, encoder: T5Encoder, compile_after: int = COMPILE_AFTER, compiled: bool = True) -> None:
        self.config = encoder.config
        self._encoder = encoder
        self._compiled = compiled
        self._uncompiled_tokens_left = compile_after
        self._packs = encoder.config.d_kv >= SMALLEST_HEAD or not compiled

    def state_dict(self) -> dict[str, Tensor]:
        return self._encoder.state_dict()

    def __call__(self, token_ids: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        """[T] integer and where the texts lie, to [T, d_model] float32; see `T5Encoder.forward`."""
        if not self._packs or len(groups) <= FEW_LENGTHS:
            return self._by_length(token_ids, groups)
        self._uncompiled_tokens_left -= len(token_ids)
        if self._uncompiled_tokens_left >= 0:
            return self._by_length(token_ids, groups)
        try:
            return self._packed(token_ids, groups)
        except Exception as error:  # whatever a machine's compiler says
            if is_out_of_memory(error):
                raise
            self._packs = False
            logger.warning(
                "torch.compile failed on %s; batches of many lengths run uncompiled, and slower: %s",
                token_ids.device,
                _root_cause(error),
                exc_info=logger.isEnabledFor(logging.DEBUG),
            )
        return self._by_length(token_ids, groups)  # not in the handler, whose traceback holds the attempt's tensors

    def _by_length(self, token_ids: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        with sdpa_kernel(ALL_BUT_CUDNN):
            hidden: Tensor = self._encoder(token_ids, groups)
        return hidden

    def _packed(self, token_ids: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        layer = _compiled_layer() if self._compiled else _layer
        tokens = len(token_ids)
        text_of = text_of_each_token(groups, -tokens % TILE)
        owners = to_device(torch.from_numpy(text_of), token_ids.device)
        mask = _block_mask(text_of, owners)
        bias = bias_by_distance(self.config, self._encoder.relative_attention_bias.weight)
        padded = F.pad(token_ids, (0, len(text_of) - tokens))
        x = self._encoder.embed_tokens(padded).float()
        for block in self._encoder.blocks:
            x = layer(x, block, bias, owners, mask)  # type: ignore[arg-type]
        hidden: Tensor = self._encoder.final_norm(x[:tokens])
        return hidden


def bias_by_distance(config: T5Config, table: Tensor) -> Tensor:
    """The relative position bias of key-minus-query distances, [H, 2m + 1] float32 with distance 0 in the middle.

    m is the distance beyond which all share a bucket, and so a bias.
    """
    furthest = config.relative_attention_max_distance
    distance = torch.arange(-furthest, furthest + 1, device=table.device)
    bucket = relative_position_bucket(distance, config.relative_attention_num_buckets, furthest)
    return F.embedding(bucket, table).t().float().contiguous()


def text_of_each_token(groups: Sequence[LengthGroup], padding: int = 0) -> Any:
    """The number of each packed token's text, int32 [T + padding]; padding counts as one more text."""
    lengths = np.concatenate([np.full(group.count, group.length) for group in groups])
    return np.repeat(np.arange(len(lengths) + 1, dtype=np.int32), np.append(lengths, padding))


def tiles_to_look_at(text_of: Any) -> tuple[Any, Any]:
    """Which tiles of keys hold tokens of the texts of each tile of queries.

    Args:
        text_of: [n * TILE], ascending.

    Returns:
        how many, int32 [n]; and which, int32 [n, n], of which each row's first so many count. They follow one another.
    """
    starts = np.searchsorted(text_of, text_of[::TILE], side="left") // TILE
    ends = (np.searchsorted(text_of, text_of[TILE - 1 :: TILE], side="right") - 1) // TILE
    count = len(starts)
    indices = np.minimum(starts[:, None] + np.arange(count), count - 1)
    return (ends - starts + 1).astype(np.int32), indices.astype(np.int32)


def text_means(hidden: Tensor, pool_mask: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
    """`anytask.pooling.mean_pool` in as many operations for many lengths as for one."""
    owners = to_device(torch.from_numpy(text_of_each_token(groups)), hidden.device)
    texts = sum(group.count for group in groups)
    sums = hidden.new_zeros(texts, hidden.shape[1]).index_add_(0, owners, hidden * pool_mask[:, None])
    counts = pool_mask.new_zeros(texts).index_add_(0, owners, pool_mask)
    return sums / counts[:, None]


def _block_mask(text_of: Any, owners: Tensor) -> Any:
    from torch.nn.attention.flex_attention import BlockMask

    counts, indices = (to_device(torch.from_numpy(part), owners.device) for part in tiles_to_look_at(text_of))

    def same_text(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return owners[query] == owners[key]

    return BlockMask.from_kv_blocks(
        counts[None, None], indices[None, None], BLOCK_SIZE=TILE, mask_mod=same_text, seq_lengths=(len(owners),) * 2
    )


def _layer(x: Tensor, block: Block, bias: Tensor, _owners: Tensor, mask: Any) -> Tensor:
    """`Block.forward` with one attention call for all texts: x [T, d_model] float32 to the same."""
    from torch.nn.attention.flex_attention import flex_attention

    attention = block.attention
    dtype = attention.qkv.weight.dtype
    furthest = bias.shape[1] // 2

    def add_bias(score: Tensor, _batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + bias[head, (key - query).clamp(-furthest, furthest) + furthest]

    qkv = attention.qkv(block.attention_norm(x).to(dtype)).view(-1, 3, attention.num_heads, attention.d_kv)
    q, k, v = qkv.permute(1, 2, 0, 3)[:, None]  # [1, H, T, K] each
    context = flex_attention(q, k, v, score_mod=add_bias, block_mask=mask, scale=1.0)
    x = x + attention.o(context[0].transpose(0, 1).flatten(1))
    fed: Tensor = block.feed_forward(block.feed_forward_norm(x).to(dtype))
    return x + fed


@cache
def _compiled_layer() -> Layer:
    """One compiled function for all layers of a model: weights are its arguments.

    It is compiled for the first step's number of tokens, and once more, when another number comes, for any; so for
    every shape, precision and device, which torch's usual limit of 8 versions has no room for.
    """
    from torch._dynamo import config

    compiled: Layer = torch.compile(_layer_if_compiled, fullgraph=True)
    with_room: Layer = config.patch(cache_size_limit=VERSIONS)(compiled)
    return with_room


def _layer_if_compiled(x: Tensor, block: Block, bias: Tensor, owners: Tensor, mask: Any) -> Tensor:
    """`_layer`, unless torch.compile leaves it as it is (TORCH_COMPILE_DISABLE=1): it would take T x T scores."""
    if not torch.compiler.is_compiling():
        raise RuntimeError("torch.compile is switched off")
    return _layer(x, block, bias, owners, mask)


def _root_cause(error: BaseException) -> str:
    """Type and text of the error that the compiler's own were raised from, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return textwrap.shorten(f"{type(error).__name__}: {error}", 300).rstrip(": ")
