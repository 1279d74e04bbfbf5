"""Who computes a call of `encode`: its own thread, or a run that it shares with others."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anytask.background import in_background
from anytask.batching import TokenizedText, plan_batches
from anytask.coalescing import Coalescer
from anytask.engine import EncodingEngine
from anytask.output import Output, Vectors
from anytask.places import Places
from anytask.prefetch import ahead
from anytask.tokenization import InstructionTokenizer, OnLong

if TYPE_CHECKING:
    from anytask.devices import DevicePool

CHARACTERS_PER_TOKEN = 4
"""About as many as English has; calls are sized by them before they are tokenized."""
RUN_STEPS = 6
"""Most steps of a shared run: enough for long and short texts to find company of their length."""
PART_STEPS = 3
"""Steps of a large asynchronous call between which other calls get their turn."""
QUEUE_RUNS = 8
"""Runs whose calls may wait in the queue; further callers wait at its door."""
MOST_SMALL, MOST_RUN, MOST_PART = 4096, 16_384, 65_536
"""Tokens that small calls, runs and parts have at most, where steps are as large as those of a GPU."""
WINDOW = 8192
"""Texts that are tokenized ahead, and sorted by length together."""
ASYNC_WINDOW, MOST_TOKENIZED = 2048, 8_388_608
"""Texts of a large asynchronous call that are tokenized together, and tokens, about, of all such calls at a time."""
RAW = Output(normalize=False, as_tensor=True)


@dataclass(frozen=True)
class EncodeCall:
    """What one call of `encode` asks for.

    `tokenized` is given where the tokens are known already; the texts are then left out of account.
    """

    texts: Sequence[str]
    instructions: Sequence[str]
    output: Output
    batch_tokens: int | None = None
    on_long: OnLong = "truncate"
    tokenized: Sequence[TokenizedText] | None = None

    def __len__(self) -> int:
        return len(self.texts if self.tokenized is None else self.tokenized)

    @cached_property
    def size(self) -> int:
        """Tokens, about."""
        if self.tokenized is not None:
            return sum(len(text.ids) for text in self.tokenized)
        characters = sum(map(len, self.texts)) + sum(map(len, self.instructions))
        return len(self.texts) + characters // CHARACTERS_PER_TOKEN


@dataclass(frozen=True)
class Answer:
    """The vectors of a call, and how many of its texts were cut."""

    vectors: Vectors
    truncated: int


class Calls:
    """Computes calls with one tokenizer and engine.

    Small ones, of half a step at most, share runs with others that come at the same time, from whatever thread or event
    loop. A large one has nothing to gain from company: it is computed in its own thread or, when it is asynchronous, in
    parts that queue among the shared runs.

    What waits is bounded, and so is what is tokenized: further callers wait before, with their strings.
    """

    def __init__(self, tokenizer: InstructionTokenizer, engine: EncodingEngine) -> None:
        self._tokenizer = tokenizer
        self._engine = engine
        step = engine.batch_tokens
        self._small = min(step // 2, MOST_SMALL)
        self._part_tokens = min(PART_STEPS * step, MOST_PART)
        run = min(RUN_STEPS * step, MOST_RUN)
        self._coalescer = Coalescer(_Together(tokenizer, engine), run, QUEUE_RUNS * run)
        self._tokenized = Places(MOST_TOKENIZED)
        self._pool: DevicePool | None = None
        self._pool_calls: Counter[DevicePool] = Counter()
        """Calls at work in each pool."""
        self._pool_lock = threading.Lock()

    def encode(self, call: EncodeCall) -> Answer:
        """The answer, by whichever thread.

        Raises:
            ValueError: as the tokenizer.
            RuntimeError: as the engine.
        """
        return self._coalescer.run(call) if call.size <= self._small else self.encode_alone(call)

    def encode_alone(self, call: EncodeCall, advance: Callable[[int], object] = lambda _: None) -> Answer:
        """The answer, by this thread; `advance` is called with the number of texts done after each step.

        Of many texts, some thousands at a time are tokenized while those before them are computed.
        """
        windows = self._windows(call, WINDOW)
        if len(call) > WINDOW:
            windows = ahead(windows)
        vectors, truncated, start = self._engine.room_for(len(call)), 0, 0
        for window in windows:
            vectors[start : start + len(window)] = self._engine.embed(window, call.batch_tokens, advance)
            truncated += _truncated(window)
            start += len(window)
        return Answer(call.output.finish(vectors), truncated)

    def _windows(self, call: EncodeCall, size: int) -> Iterator[list[TokenizedText]]:
        """The tokens of `size` texts at a time; of all at once where a long one is an error, which is told first."""
        if len(call) <= size or call.on_long == "error":
            yield self._tokenizer(call.texts, call.instructions, call.on_long)
        else:
            yield from self._tokenizer.chunks(call.texts, call.instructions, call.on_long, size)

    def encode_on(
        self, devices: Sequence[str | torch.device], call: EncodeCall, advance: Callable[[int], object]
    ) -> Answer:
        """The answer, by a worker process on each device; they stay until other devices are named, or `close`.

        Raises:
            ValueError: as `encode`, or a device that isn't there; before any process is started.
            WorkerError: a worker ended.
        """
        from anytask.devices import device_names

        names = device_names(devices)
        tokenized = self._tokenizer(call.texts, call.instructions, call.on_long)
        with self._pool_on(names) as pool:
            vectors = pool.embed(tokenized, call.batch_tokens, advance)
        return Answer(call.output.finish(vectors), _truncated(tokenized))

    @contextmanager
    def _pool_on(self, devices: Sequence[str]) -> Iterator[DevicePool]:
        """The pool of these devices for a call; one of others ends with its last call."""
        from anytask.devices import DevicePool

        with self._pool_lock:
            if self._pool is None or self._pool.closed or self._pool.devices != devices:
                former, self._pool = self._pool, None
                if former is not None and former not in self._pool_calls:
                    former.close()
                self._pool = DevicePool(self._engine, devices)
            pool = self._pool
            self._pool_calls[pool] += 1
        try:
            yield pool
        finally:
            with self._pool_lock:
                self._pool_calls[pool] -= 1
                if not self._pool_calls[pool]:
                    del self._pool_calls[pool]
                    if pool is not self._pool:
                        pool.close()

    def close(self) -> None:
        """End the worker processes, if there are any, also those at work."""
        with self._pool_lock:
            pool, self._pool = self._pool, None
            for one in {*self._pool_calls, *([pool] if pool is not None else [])}:
                one.close()

    async def aencode(self, call: EncodeCall) -> Answer:
        """The answer, without blocking the event loop. Cancelling it ends it with the part at work."""
        if call.size <= self._small:
            return await self._coalescer.arun(call)
        vectors, truncated = self._engine.room_for(len(call)), 0
        size = len(call) if call.on_long == "error" else ASYNC_WINDOW
        windows = self._windows(call, size)
        for start in range(0, len(call), size):
            window = slice(start, start + size)
            waiting = replace(call, texts=call.texts[window], instructions=call.instructions[window])
            async with self._tokenized.held(waiting.size):
                tokenized = await in_background(next, windows)
                await self._in_parts(replace(call, tokenized=tokenized, output=RAW), vectors[window])
            truncated += _truncated(tokenized)
        return Answer(await in_background(call.output.finish, vectors), truncated)

    async def _in_parts(self, call: EncodeCall, vectors: Tensor) -> None:
        """Compute the vectors of a tokenized call; others get their turn between its parts."""
        texts = call.tokenized or []
        for places in plan_batches([len(text.ids) for text in texts], self._part_tokens):
            answer = await self._coalescer.arun(replace(call, tokenized=[texts[place] for place in places]))
            vectors[places] = torch.as_tensor(answer.vectors, device="cpu")


class _Together:
    """Answers to several calls: tokenized, embedded and, where they ask for the same, finished together."""

    def __init__(self, tokenizer: InstructionTokenizer, engine: EncodingEngine) -> None:
        self._tokenizer = tokenizer
        self._engine = engine

    def __call__(self, calls: Sequence[EncodeCall]) -> list[Answer | Exception]:
        tokenized = self._tokenize(calls)
        good = [
            (call, texts) for call, texts in zip(calls, tokenized, strict=True) if not isinstance(texts, ValueError)
        ]
        limits = [call.batch_tokens for call, _ in good if call.batch_tokens is not None]
        vectors = self._engine.embed([text for _, texts in good for text in texts], min(limits, default=None))
        finished = _finish([call for call, _ in good], vectors)
        return [
            texts if isinstance(texts, ValueError) else Answer(next(finished), _truncated(texts)) for texts in tokenized
        ]

    def _tokenize(self, calls: Sequence[EncodeCall]) -> list[Sequence[TokenizedText] | ValueError]:
        """The tokens of each call, or what is wrong with its texts."""
        fresh = [call for call in calls if call.tokenized is None]
        if any(call.on_long == "error" for call in fresh):
            return [self._tokenize_alone(call) for call in calls]
        texts = [text for call in fresh for text in call.texts]
        instructions = [instruction for call in fresh for instruction in call.instructions]
        try:
            together = iter(self._tokenizer(texts, instructions))
        except ValueError:
            return [self._tokenize_alone(call) for call in calls]
        return [list(islice(together, len(call))) if call.tokenized is None else call.tokenized for call in calls]

    def _tokenize_alone(self, call: EncodeCall) -> Sequence[TokenizedText] | ValueError:
        if call.tokenized is not None:
            return call.tokenized
        try:
            return self._tokenizer(call.texts, call.instructions, call.on_long)
        except ValueError as error:
            return error


def _finish(calls: Sequence[EncodeCall], vectors: Tensor) -> Iterator[Vectors]:
    """What each call asks of its rows of the raw `vectors`; none keeps those of others in memory."""
    sizes = list(map(len, calls))
    if len({call.output for call in calls}) > 1:
        for call, part in zip(calls, torch.split(vectors, sizes), strict=True):
            yield call.output.finish(part.clone())
    elif len(calls) == 1:
        yield calls[0].output.finish(vectors)
    elif calls:
        finished, start = calls[0].output.finish(vectors), 0
        for size in sizes:
            rows = finished[start : start + size]
            yield rows.clone() if isinstance(rows, Tensor) else rows.copy()
            start += size


def _truncated(texts: Sequence[TokenizedText]) -> int:
    return sum(text.truncated for text in texts)
