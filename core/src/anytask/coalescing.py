"""Concurrent asynchronous calls share batches.

One worker thread per model takes whatever calls have arrived while it was busy and embeds them together. Nobody waits
for company: a call that finds the worker idle starts at once. A large call goes in parts, each of which queues anew, so
that small ones aren't kept waiting by it and cancelling it takes effect.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from anytask.batching import TokenizedText, plan_batches

Embed = Callable[[Sequence[TokenizedText], int | None], Tensor]


@dataclass(frozen=True, eq=False)
class _Call:
    texts: Sequence[TokenizedText]
    batch_tokens: int | None
    future: Future[Tensor] = field(default_factory=Future)

    @property
    def tokens(self) -> int:
        return sum(len(text.ids) for text in self.texts)


class Coalescer:
    """Runs `embed` in a thread of its own on the texts of all waiting calls.

    The thread starts with the first call and ends with the coalescer, or with the interpreter once its run is done.

    Args:
        embed: tokenized texts and most tokens of a step to vectors [n, dimension]; called by one thread at a time.
        run_tokens: most tokens of a run, and of a part of a large call; a longer text is a run of its own.
    """

    def __init__(self, embed: Embed, run_tokens: int = 8192) -> None:
        self._embed = embed
        self._run_tokens = run_tokens
        self._waiting: deque[_Call] = deque()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="anytask")

    async def embed(self, texts: Sequence[TokenizedText], batch_tokens: int | None = None) -> Tensor:
        """Vectors of `texts` [n, dimension], without blocking the event loop.

        Args:
            batch_tokens: as for `embed`; calls that share a run take the smallest.

        Raises:
            what `embed` raises for these texts, never another call's error.
        """
        parts = list(plan_batches([len(text.ids) for text in texts], self._run_tokens))
        if len(parts) <= 1:
            return await asyncio.wrap_future(self.submit(texts, batch_tokens))
        vectors = [
            await asyncio.wrap_future(self.submit([texts[index] for index in part], batch_tokens)) for part in parts
        ]
        return await asyncio.to_thread(_in_order, vectors, parts)

    def submit(self, texts: Sequence[TokenizedText], batch_tokens: int | None = None) -> Future[Tensor]:
        """Queue one call; cancelling its future drops it unless its run has begun."""
        call = _Call(texts, batch_tokens)
        self._waiting.append(call)
        self._worker.submit(self._run_waiting)
        return call.future

    def _run_waiting(self) -> None:
        """One run: the calls that have waited longest. Each call asks for a run, so none is left behind."""
        calls: list[_Call] = []
        tokens = 0
        while self._waiting and (not calls or tokens + self._waiting[0].tokens <= self._run_tokens):
            call = self._waiting.popleft()
            if call.future.set_running_or_notify_cancel():
                calls.append(call)
                tokens += call.tokens
        if calls:
            self._run(calls)

    def _run(self, calls: Sequence[_Call]) -> None:
        limits = [call.batch_tokens for call in calls if call.batch_tokens is not None]
        try:
            vectors = self._embed([text for call in calls for text in call.texts], min(limits, default=None))
            parts = torch.split(vectors, [len(call.texts) for call in calls])
        except BaseException as error:
            if len(calls) == 1:
                calls[0].future.set_exception(error)
            else:  # one call's failure is its own: run each alone
                for call in calls:
                    self._run([call])
            return
        for call, part in zip(calls, parts, strict=True):
            call.future.set_result(part.clone() if len(calls) > 1 else part)


def _in_order(vectors: Sequence[Tensor], parts: Sequence[Sequence[int]]) -> Tensor:
    """The vectors of all parts, where each part lists its texts' places in the call."""
    places = torch.tensor([place for part in parts for place in part])
    return torch.cat(list(vectors))[places.argsort()]
