"""How many tokens may be computed together on a device, and how to tell that they were too many."""

from __future__ import annotations

import torch

from anytask.encoder import T5Config, T5Encoder

CPU_ACTIVATION = 3 << 20
"""Elements of a step's largest activation on a CPU; each thread has its own."""
CPU_BATCH_TOKENS = 256, 704
"""Fewest and most tokens of a step on a CPU. Larger ones are hardly faster, and a call is shared less evenly."""
GPU_BATCH_TOKENS = 1024, 65_536
"""Fewest and most tokens of a step elsewhere: matrices of more rows aren't multiplied faster."""
UNKNOWN_GPU_BATCH_TOKENS = 16_384
"""On devices that don't tell their free memory."""
SHARE = 0.4
"""Of the free memory, for one step: attention and the allocator take more than is counted, and others want some too."""
CPU_CHUNK_TOKENS = 4096
"""Tokens of a chunk in training on a CPU, and on devices that don't tell their free memory."""
GPU_CHUNK_TOKENS = 1024, 32_768
"""Fewest and most tokens of a chunk in training elsewhere."""
TRAINING_SHARE = 0.6
"""Of the memory that training leaves free, for what a chunk keeps: the backward pass takes more than is counted."""
OUT_OF_MEMORY = ("out of memory", "STATUS_ALLOC_FAILED", "DefaultCPUAllocator: ")
"""What MPS, CUDA's driver and libraries (cuBLAS, cuDNN) and the CPU say in a plain RuntimeError."""


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a step failed for want of memory, and a smaller one may not."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)


def chunk_tokens(encoder: T5Encoder, device: torch.device, dtype: torch.dtype, *, max_length: int) -> int:
    """Tokens whose gradient is computed together in training, by the device's memory that is free at present.

    Args:
        encoder: on the device; memory is left for its gradients and AdamW's two moments, which aren't there yet.
        dtype: of the matrix products.
        max_length: most tokens of a text.
    """
    free = _free_bytes(device)
    if free is None:
        return CPU_CHUNK_TOKENS
    weights = list(encoder.parameters())
    optimiser = 3 * 4 * sum(weight.numel() for weight in weights if weight.requires_grad)
    copies = 0 if dtype == torch.float32 else dtype.itemsize * sum(weight.numel() for weight in weights)
    kept = TRAINING_SHARE * (free - optimiser - copies)
    fewest, most = GPU_CHUNK_TOKENS
    return min(max(int(kept) // trained_bytes_per_token(encoder, dtype, max_length), fewest), most)


def trained_bytes_per_token(encoder: T5Encoder, dtype: torch.dtype, length: int) -> int:
    """Memory that a token's activations take between the forward and the backward pass, all weights being trained.

    A layer keeps twice the residual stream and its norm without the gain in float32, and what goes into the matrix;
    q, k, v, the contexts as attention gives them and as they are joined, and its copy of the position bias, a whole one
    for a text whose length no other has; the hidden values as often as they are changed, and for float16's `wo` in
    float32. Dropout keeps a byte for each value that it may leave out. With gradient checkpointing it is the inputs of
    all layers, and one layer.

    Args:
        length: tokens of the text.
    """
    config, size = encoder.config, dtype.itemsize
    dropout = encoder.dropout > 0
    norms = 2 * ((4 + 4 + size + dropout) * config.d_model + 4)
    attention = config.num_heads * (5 * size * config.d_kv + size * length + 4)
    changes = 4 if config.is_gated else 2 if dropout or config.activation != "relu" else 1
    hidden = config.d_ff * (size * changes + dropout + (4 if dtype == torch.float16 else 0))
    layer = norms + attention + hidden
    ends = (4 + 4 + 4 + 2 * dropout) * config.d_model + 16
    if encoder.gradient_checkpointing:
        return ends + 4 * config.d_model * config.num_layers + layer
    return ends + config.num_layers * layer


def _widest(config: T5Config) -> int:
    return max(config.d_ff, 3 * config.num_heads * config.d_kv)


def _free_bytes(device: torch.device) -> int | None:
    """Bytes that can be had on the device, those that torch keeps for reuse included; None where it doesn't tell."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
