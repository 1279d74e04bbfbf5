"""Tokenized texts to vectors: batches by token budget, on any device, and what to do when one fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from anytask.batching import TokenizedText, pack, plan_batches
from anytask.encoder import T5Encoder
from anytask.pooling import SentenceHead

logger = logging.getLogger(__name__)

CPU_BATCH_TOKENS = 1024
"""512 to 1,024 tokens a step are equally fast on a CPU; larger activations leave the cache."""
GPU_BATCH_TOKENS = 16_384


class EncodingEngine:
    """An encoder and its head on one device.

    Args:
        dtype: precision of the matrices; norms, residual stream, pooling and the dense layer are float32.
    """

    def __init__(self, encoder: T5Encoder, head: SentenceHead, device: torch.device, dtype: torch.dtype) -> None:
        self.encoder = encoder.to_precision(dtype).to(device).eval().requires_grad_(False)
        self.head = head.float().to(device).eval().requires_grad_(False)
        self.device = device
        self.dtype = dtype
        self.batch_tokens = CPU_BATCH_TOKENS if device.type == "cpu" else GPU_BATCH_TOKENS
        self.fitting_tokens: int | None = None
        """Most tokens of a step since the device ran out of memory; None as long as it hasn't."""

    @property
    def dimension(self) -> int:
        dense = self.head.dense
        return self.encoder.config.d_model if dense is None else dense.out_features

    def embed(
        self,
        texts: Sequence[TokenizedText],
        batch_tokens: int | None = None,
        advance: Callable[[int], object] = lambda _: None,
    ) -> Tensor:
        """Vectors of `texts`, float32 [n, dimension] on the CPU, not normalised.

        Args:
            batch_tokens: most tokens of a step; a longer text is a step of its own. None takes the device's default.
                Where a step of that size ran out of memory before, smaller ones are taken.
            advance: called with the number of texts done after each step.

        Raises:
            RuntimeError: a vector isn't finite in float32 either.
        """
        vectors = torch.empty((len(texts), self.dimension), dtype=torch.float32)
        lengths = [len(text.ids) for text in texts]
        with torch.inference_mode():
            limit = batch_tokens or self.batch_tokens
            for indices in plan_batches(lengths, min(limit, self.fitting_tokens or limit)):
                batch = [texts[index] for index in indices]
                vectors[torch.tensor(indices)] = self._step_within_memory(batch).cpu()
                advance(len(batch))
        return vectors

    def _step_within_memory(self, batch: Sequence[TokenizedText]) -> Tensor:
        """One step, halved for as long as the device runs out of memory; the size that fits is remembered."""
        fits = self.fitting_tokens is None or _tokens(batch) <= self.fitting_tokens
        if fits or len(batch) == 1:
            try:
                return self._step(batch)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
        halves = batch[: len(batch) // 2], batch[len(batch) // 2 :]
        if fits:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.fitting_tokens = max(_tokens(half) for half in halves)
            logger.warning("out of memory on %s: steps of %d tokens from here on", self.device, self.fitting_tokens)
        return torch.cat([self._step_within_memory(half) for half in halves])

    def _step(self, batch: Sequence[TokenizedText]) -> Tensor:
        packed = pack(batch).to(self.device)
        hidden = self.encoder(packed.token_ids, packed.groups)
        vectors: Tensor = self.head(hidden, packed.pool_mask, packed.groups)
        if not torch.isfinite(vectors).all():
            vectors = self._step_in_float32(batch)
        return vectors

    def _step_in_float32(self, batch: Sequence[TokenizedText]) -> Tensor:
        """The same step on a float32 copy of the weights, for activations that left the range of float16."""
        if self.dtype == torch.float32:
            raise RuntimeError(
                "the encoder gave vectors that are not finite in float32: the checkpoint's weights hold inf or NaN, or "
                'lie outside float16\'s range where that is the dtype; then load it with dtype="bfloat16"'
            )
        logger.warning("%s overflowed; %d texts are computed again in float32", self.dtype, len(batch))
        with torch.device("meta"):
            wide = T5Encoder(self.encoder.config)
        wide.load_state_dict({name: tensor.float() for name, tensor in self.encoder.state_dict().items()}, assign=True)
        engine = EncodingEngine(wide, SentenceHead(self.head.dense), self.device, torch.float32)
        return engine._step(batch)


def _tokens(batch: Sequence[TokenizedText]) -> int:
    return sum(len(text.ids) for text in batch)
