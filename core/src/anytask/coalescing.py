"""Concurrent asynchronous calls share batches.

One worker thread per model takes whatever calls have arrived while it was busy and embeds them together. Nobody waits
for company: a call that finds the worker idle starts at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import torch
from torch import Tensor

from anytask.batching import TokenizedText

Embed = Callable[[Sequence[TokenizedText]], Tensor]


class Coalescer:
    """Runs `embed` in a daemon thread of its own on the texts of all waiting calls.

    Args:
        embed: tokenized texts to vectors [n, dimension]; called by one thread at a time.
        most_texts: texts taken into one run; the rest waits, in order of arrival.
    """

    def __init__(self, embed: Embed, most_texts: int = 1024) -> None:
        self._embed = embed
        self._most_texts = most_texts
        self._calls: deque[tuple[Sequence[TokenizedText], Future[Tensor]]] = deque()
        self._arrived = threading.Condition()
        self._thread: threading.Thread | None = None

    async def embed(self, texts: Sequence[TokenizedText]) -> Tensor:
        """Vectors of `texts`, without blocking the event loop; a cancelled call that hasn't begun is dropped."""
        return await asyncio.wrap_future(self.submit(texts))

    def submit(self, texts: Sequence[TokenizedText]) -> Future[Tensor]:
        future: Future[Tensor] = Future()
        with self._arrived:
            self._calls.append((texts, future))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="anytask-coalescer", daemon=True)
                self._thread.start()
            self._arrived.notify()
        return future

    def _work(self) -> None:
        while True:
            with self._arrived:
                while not self._calls:
                    self._arrived.wait()
                calls = self._take()
            self._run([(texts, future) for texts, future in calls if future.set_running_or_notify_cancel()])

    def _take(self) -> list[tuple[Sequence[TokenizedText], Future[Tensor]]]:
        calls = [self._calls.popleft()]
        count = len(calls[0][0])
        while self._calls and count + len(self._calls[0][0]) <= self._most_texts:
            calls.append(self._calls.popleft())
            count += len(calls[-1][0])
        return calls

    def _run(self, calls: list[tuple[Sequence[TokenizedText], Future[Tensor]]]) -> None:
        if not calls:
            return
        try:
            vectors = self._embed([text for texts, _ in calls for text in texts])
            for (_, future), part in zip(calls, torch.split(vectors, [len(texts) for texts, _ in calls]), strict=True):
                future.set_result(part)
        except BaseException as error:
            if len(calls) == 1:
                calls[0][1].set_exception(error)
            else:  # one call's failure is its own: run each alone
                for call in calls:
                    if not call[1].done():
                        self._run([call])
