"""How many tokens a step may have on a device."""

from __future__ import annotations

import torch

from anytask.encoder import T5Config

CPU_ACTIVATION = 1 << 20
"""Elements of a step's largest activation on a CPU; larger ones leave the cache, and each thread has its own."""
CPU_BATCH_TOKENS = 256, 1024
"""Fewest and most tokens of a step on a CPU, in between which the speed hardly depends on their number."""
GPU_BATCH_TOKENS = 1024, 65_536
"""Fewest and most tokens of a step elsewhere: matrices of more rows aren't multiplied faster."""
UNKNOWN_GPU_BATCH_TOKENS = 16_384
"""On devices that don't tell their free memory."""
SHARE = 0.4
"""Of the free memory, for one step: attention and the allocator take more than is counted, and others want some too."""


def batch_tokens(config: T5Config, device: torch.device, dtype: torch.dtype) -> int:
    """Tokens of a step that suit the device, by the memory that is free at present."""
    if device.type == "cpu":
        fewest, most = CPU_BATCH_TOKENS
        return min(max(CPU_ACTIVATION // _widest(config), fewest), most)
    free = _free_bytes(device)
    if free is None:
        return UNKNOWN_GPU_BATCH_TOKENS
    fewest, most = GPU_BATCH_TOKENS
    return min(max(int(SHARE * free) // bytes_per_token(config, dtype), fewest), most)


def bytes_per_token(config: T5Config, dtype: torch.dtype) -> int:
    """Memory that a token's activations take at most at the same time, in either half of a layer.

    The residual stream and its norm are float32. Attention holds q, k, v, its contexts and the result; the feed-forward
    layer holds the hidden values before and after the activation (twice as wide where it is gated), and in float16 also
    their float32 copy for `wo`.
    """
    inner = config.num_heads * config.d_kv
    size = dtype.itemsize
    residual = 3 * 4 * config.d_model + size * config.d_model
    attention = size * (3 * inner + 2 * inner + config.d_model)
    hidden = config.d_ff * (3 if config.is_gated else 1)
    feed_forward = size * (hidden + config.d_ff + config.d_model)
    if dtype == torch.float16:
        feed_forward += 4 * config.d_ff
    return residual + max(attention, feed_forward)


def _widest(config: T5Config) -> int:
    return max(config.d_ff, 3 * config.num_heads * config.d_kv)


def _free_bytes(device: torch.device) -> int | None:
    """Bytes that can be had on the device, those that torch keeps for reuse included; None where it doesn't tell."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
