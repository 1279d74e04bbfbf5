"""Concurrent calls share runs of the model.

A call that finds the model idle is computed at once: a synchronous one in its own thread, so that a lone caller pays
nothing, an asynchronous one in the worker thread. Calls that arrive meanwhile wait in one queue; whoever was computing
then wakes the worker, which takes those that have waited longest, as many as fit into a run, and again until none is
left. Nobody waits for company, nobody is overtaken, and what stands before a call are the run at work and the calls
that came before it.

The queue is bounded. Callers who find it full wait at its door, threads blocked and coroutines suspended, with what
they ask for still theirs; a run that begins makes room. A caller who gives up is out of the queue at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

from anytask.places import Places
from anytask.threads import submit


class Sized(Protocol):
    """A call."""

    @property
    def size(self) -> int:
        """Its share of a run, in the unit of `Coalescer`'s `run_size`."""


Call = TypeVar("Call", bound=Sized)
Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Waiting(Generic[Call, Answer]):
    """A call in the queue. Of a coroutine, `future` belongs to `loop` and is touched in its thread alone."""

    number: int
    """Of the calls that arrived."""
    call: Call
    future: Future[Answer] | asyncio.Future[Answer]
    loop: asyncio.AbstractEventLoop | None = None
    outcome: Answer | BaseException | None = field(default=None, init=False)

    @property
    def places(self) -> int:
        """Of the queue; an empty call takes one too."""
        return max(1, self.call.size)

    def deliver(self) -> None:
        if self.future.cancelled():
            return
        try:
            if isinstance(self.outcome, BaseException):
                self.future.set_exception(self.outcome)
            else:
                self.future.set_result(self.outcome)  # type: ignore[arg-type]
        except InvalidStateError:  # cancelled since
            pass


class Coalescer(Generic[Call, Answer]):
    """Computes the calls of many threads and coroutines, one run at a time.

    The worker thread starts when it is first needed and ends with the coalescer, or with the interpreter once no call
    is waiting.

    Args:
        compute: answers to several calls, in their order; an exception is what its caller gets raised. Where it raises
            one instead, and so for all calls, each is computed alone, so that the error is its caller's only.
        run_size: most of a run; a larger call is a run of its own.
        queue_size: most that waits in the queue; a larger call waits there alone.
    """

    def __init__(
        self, compute: Callable[[Sequence[Call]], Sequence[Answer | Exception]], run_size: int, queue_size: int
    ) -> None:
        self._compute = compute
        self._run_size = run_size
        self._lock = threading.Lock()
        self._busy = False
        """Whether somebody computes, or the worker is about to; nothing waits otherwise."""
        self._owner: int | None = None
        """The thread that computes a call of its own. Where that calls again, an interrupt has cut its run short."""
        self._arrivals = count()
        self._door = Places(queue_size)
        self._waiting: list[_Waiting[Call, Answer]] = []
        """The queue, in the order of arrival."""
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="anytask")

    def run(self, call: Call) -> Answer:
        """The answer to a call of this thread.

        Raises:
            what `compute` raises for it.
        """
        thread, is_mine = threading.get_ident(), False
        try:
            with self._lock:
                if not self._busy or self._owner == thread:
                    self._busy, self._owner, is_mine = True, thread, True
            if is_mine:
                answer = self._compute([call])[0]
        finally:
            if is_mine:
                try:
                    self._pass_on()
                except BaseException:  # an interrupt, just then
                    self._pass_on()
                    raise
        if is_mine:
            if isinstance(answer, Exception):
                raise answer
            return answer
        return self._wait(call)

    def _wait(self, call: Call) -> Answer:
        """The answer, by the worker."""
        future: Future[Answer] = Future()
        waiting = _Waiting(next(self._arrivals), call, future)
        self._door.take(waiting.places)
        try:
            self._enter(waiting)
            return future.result()
        except BaseException:  # also an interrupt of the one who waits
            self._leave(waiting)
            raise

    async def arun(self, call: Call) -> Answer:
        """The answer to a call of this coroutine, whose cancellation drops the call unless its run has begun."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        waiting = _Waiting(next(self._arrivals), call, future, loop)
        await self._door.atake(waiting.places)
        try:
            self._enter(waiting)
            return await future
        except asyncio.CancelledError:
            self._leave(waiting)
            raise

    def _enter(self, waiting: _Waiting[Call, Answer]) -> None:
        """Queue a call whose places are taken; its future is told the outcome, in the thread of its loop."""
        with self._lock:
            insort(self._waiting, waiting, key=attrgetter("number"))
            idle = not self._busy
            self._busy = True
        if idle:
            submit(self._worker, self._serve)

    def _leave(self, waiting: _Waiting[Call, Answer]) -> None:
        """Take a call out of the queue, if it is still there; its outcome is wanted by nobody."""
        waiting.future.cancel()
        with self._lock:
            if waiting not in self._waiting:
                return
            self._waiting.remove(waiting)
        self._door.give_back(waiting.places)

    def _pass_on(self) -> None:
        """After a run of this thread: calls that came meanwhile are the worker's. Interrupted, it can be done again."""
        thread = threading.get_ident()
        with self._lock:
            if self._owner != thread:
                return
            self._busy = others = bool(self._waiting)
            if not others:
                self._owner = None
        if others:
            submit(self._worker, self._serve)
            with self._lock:
                if self._owner == thread:
                    self._owner = None

    def _serve(self) -> None:
        """Runs for as long as calls are waiting."""
        while calls := self._next_run():
            self._run(calls)

    def _next_run(self) -> list[_Waiting[Call, Answer]]:
        """The calls that have waited longest; none, and the model is idle from here on."""
        chosen: list[_Waiting[Call, Answer]] = []
        size = places = 0
        with self._lock:
            while self._waiting and (not chosen or size + self._waiting[0].call.size <= self._run_size):
                waiting = self._waiting.pop(0)
                places += waiting.places
                if not waiting.future.cancelled():
                    chosen.append(waiting)
                    size += waiting.call.size
            self._busy = bool(chosen)
        if places:
            self._door.give_back(places)
        return chosen

    def _run(self, calls: Sequence[_Waiting[Call, Answer]]) -> None:
        try:
            answers = self._compute([waiting.call for waiting in calls])
        except BaseException as error:
            if len(calls) > 1:
                for waiting in calls:
                    self._run([waiting])
                return
            calls[0].outcome = error
        else:
            for waiting, answer in zip(calls, answers, strict=True):
                waiting.outcome = answer
        _deliver(calls)


def _deliver(calls: Sequence[_Waiting[Call, Answer]]) -> None:
    """Tell the callers; each event loop is woken once for all of its own."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Waiting[Call, Answer]]] = defaultdict(list)
    for waiting in calls:
        if waiting.loop is None:
            waiting.deliver()
        else:
            by_loop[waiting.loop].append(waiting)
    for loop, theirs in by_loop.items():
        # a loop that is closed has no coroutine left that could wait
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_deliver_all, theirs)


def _deliver_all(calls: Sequence[_Waiting[Call, Answer]]) -> None:
    for waiting in calls:
        waiting.deliver()
