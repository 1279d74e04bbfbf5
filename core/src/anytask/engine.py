"""Tokenized texts to vectors: batches by token budget, on any device, and what to do when one fails."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from anytask.batching import TokenizedText, pack, plan_batches
from anytask.cpu_encoder import CPU_DTYPES, CpuEncoder, float_state
from anytask.device_memory import batch_tokens as suitable_batch_tokens
from anytask.device_memory import is_out_of_memory
from anytask.encoder import T5Config, T5Encoder
from anytask.gpu_encoder import GpuEncoder, text_means
from anytask.pooling import SentenceHead
from anytask.threads import LonePace, step_threads
from anytask.transfers import in_flight

logger = logging.getLogger(__name__)

LEAST_SPLIT = 500_000_000
"""Multiplications of a lone step from which the faster way is sought; smaller ones stay in the caller's thread."""

Encoder = T5Encoder | CpuEncoder | GpuEncoder

_launching = threading.Lock()
"""Whatever the number of callers, a device other than the CPU holds the activations of one step at a time."""


class EncodingEngine:
    """An encoder and its head on one device.

    Args:
        encoder: converted in place, but for a CPU, where it is packed anew unless it is already.
        dtype: precision of the matrices; norms, residual stream, pooling and the dense layer are float32.

    Raises:
        ValueError: int8 elsewhere than on a CPU.
    """

    def __init__(self, encoder: Encoder, head: SentenceHead, device: torch.device, dtype: torch.dtype) -> None:
        self.encoder = _on_device(encoder, device, dtype)
        self.head = head.float().to(device).eval().requires_grad_(False)
        self.device = device
        self.dtype = self.encoder.dtype if isinstance(self.encoder, CpuEncoder) else dtype
        self.batch_tokens = suitable_batch_tokens(encoder.config, device, self.dtype)
        self.fitting_tokens: int | None = None
        """Most tokens of a step since the device ran out of memory; None as long as it hasn't."""
        self._pace = LonePace()
        self._matrix_elements = _matrix_elements(encoder.config)

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
        vectors = self.room_for(len(texts))
        lengths = [len(text.ids) for text in texts]
        with torch.inference_mode():
            steps = list(plan_batches(lengths, self.step_limit(sum(lengths), batch_tokens)))
            for indices, part in self._computed(texts, steps, sum(lengths)):
                if not torch.isfinite(part).all():
                    part = self._step_in_float32([texts[index] for index in indices])
                vectors[torch.tensor(indices, dtype=torch.int64, device="cpu")] = part
                advance(len(indices))
        return vectors

    def room_for(self, texts: int) -> Tensor:
        """Uninitialised vectors, float32 [texts, dimension] on the CPU, whatever torch's defaults are."""
        return torch.empty((texts, self.dimension), dtype=torch.float32, device="cpu")

    def step_limit(self, tokens: int, batch_tokens: int | None = None) -> int:
        """Most tokens of a step of `embed`, for texts of so many tokens together: each of a CPU's threads gets one."""
        limit = batch_tokens or self.batch_tokens
        limit = min(limit, self.fitting_tokens or limit)
        return min(limit, max(1, math.ceil(tokens / self._threads)))

    @property
    def _threads(self) -> int:
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def _computed(
        self, texts: Sequence[TokenizedText], steps: list[list[int]], tokens: int
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Indices of each step's texts, and their vectors on the CPU. There, every thread has a step of its own."""

        def compute(indices: list[int]) -> Tensor:
            with torch.inference_mode():
                return self._step_within_memory([texts[index] for index in indices])

        threads = self._threads
        if threads > 1 and len(steps) > 1:
            return step_threads.each(compute, steps, threads)
        if threads > 1 and tokens * self._matrix_elements >= LEAST_SPLIT:
            return self._lone(compute, steps, threads, tokens)
        if self.device.type == "cpu":
            return ((step, compute(step)) for step in steps)

        def launch(indices: list[int]) -> Tensor:
            with _launching:
                return compute(indices)

        return in_flight(launch, steps)

    def _lone(
        self, compute: Callable[[list[int]], Tensor], steps: list[list[int]], threads: int, tokens: int
    ) -> Iterator[tuple[list[int], Tensor]]:
        """The only step of a call, if it is large: split over the cores where that is faster at present."""
        split = self._pace.splits(tokens)
        started = time.perf_counter()
        done = (steps[0], compute(steps[0])) if split else next(step_threads.each(compute, steps, threads))
        self._pace.note(tokens, split, time.perf_counter() - started)
        return iter([done])

    def _step_within_memory(self, batch: Sequence[TokenizedText]) -> Tensor:
        """One step, halved for as long as the device runs out of memory; the size that fits is remembered."""
        fits = self.fitting_tokens is None or _tokens(batch) <= self.fitting_tokens
        if fits or len(batch) == 1:
            try:
                return self._step(batch)
            except RuntimeError as error:
                if len(batch) == 1 or not is_out_of_memory(error):
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
        if isinstance(self.encoder, GpuEncoder):
            return self.head.project(text_means(hidden, packed.pool_mask, packed.groups))
        vectors: Tensor = self.head(hidden, packed.pool_mask, packed.groups)
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
        wide.load_state_dict(float_state(self.encoder.state_dict()), assign=True)
        engine = EncodingEngine(wide, SentenceHead(self.head.dense), self.device, torch.float32)
        return engine.embed(batch, batch_tokens=self.fitting_tokens)


def packs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether models of `dtype` on `device` run packed. float16, which oneDNN can't do on most CPUs, doesn't."""
    return device.type == "cpu" and dtype in CPU_DTYPES


def _on_device(encoder: Encoder, device: torch.device, dtype: torch.dtype) -> Encoder:
    if not isinstance(encoder, T5Encoder):
        return encoder
    if packs(device, dtype):
        return CpuEncoder(encoder.config, encoder.state_dict(), dtype)
    if dtype == torch.int8:
        raise ValueError(f'dtype "int8" is for CPUs; on {device} take "bfloat16"')
    encoder = encoder.to_precision(dtype).to(device).eval().requires_grad_(False)
    return GpuEncoder(encoder) if device.type == "cuda" else encoder


def _tokens(batch: Sequence[TokenizedText]) -> int:
    return sum(len(text.ids) for text in batch)


def _matrix_elements(config: T5Config) -> int:
    """Elements of the layers' matrices: what a token is multiplied with."""
    attention = 4 * config.d_model * config.num_heads * config.d_kv
    feed_forward = (3 if config.is_gated else 2) * config.d_model * config.d_ff
    return config.num_layers * (attention + feed_forward)
