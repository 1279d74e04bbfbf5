"""A bound on what waits: places that callers take before they hand something over, first come, first served."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Places:
    """So many places in all; who finds too few free waits until others are given back, and is overtaken by nobody.

    Threads are blocked meanwhile, coroutines suspended, whatever their event loop. Who takes more than there are gets
    them when all are free. What belonged to a coroutine that is gone, with its event loop, is given back too.

    Args:
        limit: how many there are.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._taken = 0
        self._queue: OrderedDict[_Turn, None] = OrderedDict()
        self._destroyed: deque[_Turn] = deque()
        """Of coroutines. The garbage collector destroys them at any moment, when this thread may hold the lock."""

    @property
    def queued(self) -> int:
        """How many callers wait."""
        return len(self._queue)

    def take(self, count: int) -> None:
        """Take places, which are to be given back; an exception while the thread waits leaves it without."""
        if self._take_at_once(count):
            return
        free = threading.Event()
        turn = _Turn(count, free.set)
        if not self._ask(turn):
            try:
                free.wait()
            except BaseException:
                self._drop(turn)
                raise

    async def atake(self, count: int) -> None:
        """`take` without blocking the event loop; a coroutine that is cancelled while it waits is left without."""
        if self._take_at_once(count):
            return
        loop = asyncio.get_running_loop()
        free = loop.create_future()
        turn = _Turn(count, lambda: loop.call_soon_threadsafe(_resolve, free))
        if not self._ask(turn):
            try:
                await free
            except GeneratorExit:
                self._destroyed.append(turn)
                raise
            except BaseException:
                self._drop(turn)
                raise

    @asynccontextmanager
    async def held(self, count: int) -> AsyncIterator[None]:
        """Places that are given back at the end of the block."""
        await self.atake(count)
        try:
            yield
        except GeneratorExit:
            self._destroyed.append(_Turn(count))
            raise
        except BaseException:
            self.give_back(count)
            raise
        self.give_back(count)

    def give_back(self, count: int) -> None:
        """Free places that were taken."""
        self._drop(_Turn(count))

    def _take_at_once(self, count: int) -> bool:
        with self._lock:
            if self._queue or not self._fits(count):
                return False
            self._taken += count
            return True

    def _ask(self, turn: _Turn) -> bool:
        """Whether its places are taken at once; else it waits for them."""
        with self._lock:
            self._queue[turn] = None
            admitted = self._admit()
        self._wake([other for other in admitted if other is not turn])
        return turn in admitted

    def _drop(self, turn: _Turn) -> None:
        """Wait no longer, or give back what was taken."""
        with self._lock:
            self._forget(turn)
            admitted = self._admit()
        self._wake(admitted)

    def _forget(self, turn: _Turn) -> None:
        if turn in self._queue:
            del self._queue[turn]
        elif not turn.dropped:
            self._taken -= turn.count
        turn.dropped = True

    def _admit(self) -> list[_Turn]:
        """Those whose turn it is, with their places taken."""
        while self._destroyed:
            self._forget(self._destroyed.popleft())
        admitted = []
        while self._queue and self._fits(next(iter(self._queue)).count):
            turn, _ = self._queue.popitem(last=False)
            self._taken += turn.count
            admitted.append(turn)
        return admitted

    def _fits(self, count: int) -> bool:
        return not self._taken or self._taken + count <= self._limit

    def _wake(self, admitted: list[_Turn]) -> None:
        for turn in admitted:  # which grows
            try:
                turn.wake()
            except RuntimeError:  # its event loop is closed
                with self._lock:
                    self._forget(turn)
                    admitted += self._admit()


class _Turn:
    """A caller who waits, or has waited, for places."""

    __slots__ = ("count", "dropped", "wake")

    def __init__(self, count: int, wake: Callable[[], object] = lambda: None) -> None:
        self.count = count
        self.wake = wake
        self.dropped = False


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
