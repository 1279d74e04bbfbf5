"""Threads that each compute a step of their own, and the one setting of OpenMP that must precede torch.

Splitting every operation over the cores makes all of them wait for the slowest, dozens of times a step, and GNU's
OpenMP waits by spinning: on a machine whose cores are shared with other processes, two threads are then slower than
one. Whole steps need no such waiting. A core that is busy elsewhere does fewer of them, that is all.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar, TypeVarTuple

Arguments = TypeVarTuple("Arguments")
Item = TypeVar("Item")
Result = TypeVar("Result")

SPIN = "GOMP_SPINCOUNT"
SPIN_SETTINGS = (SPIN, "OMP_WAIT_POLICY")
SPINS = "10000"
"""Rounds, some 50 microseconds, after which a waiting OpenMP thread sleeps; without the setting it is milliseconds."""
TRIALS = 16, 256
"""Lone steps after which the slower way is tried again: at first, and at most."""

QUEUED_PER_THREAD = 2
"""Items of a caller at work or waiting for each thread, so that none is idle while the next is queued."""


def import_torch_without_spinning() -> None:
    """Import torch, so that its OpenMP threads go to sleep soon; without effect when it has been imported before.

    GNU's OpenMP reads its environment when it is loaded and never again. What the user has set stands.
    """
    if "torch" in sys.modules or any(name in os.environ for name in SPIN_SETTINGS):
        return
    os.environ[SPIN] = SPINS
    try:
        import torch  # noqa: F401
    finally:
        del os.environ[SPIN]


class StepThreads:
    """A pool of threads in which torch computes with one thread each; shared by all callers, started when needed."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, as a forked child must: the threads are its parent's."""
        self._lock = threading.Lock()
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def each(self, work: Callable[[Item], Result], items: Iterable[Item], count: int) -> Iterator[tuple[Item, Result]]:
        """Each item with what `work` makes of it, in the order of completion, computed by `count` threads.

        Few items are queued at a time: other callers' come in between, and `items` may be made while others are
        computed.

        Raises:
            what `work` raises; items not yet begun are then left.
        """
        source = iter(items)
        try:
            pool = self._pool(count)
        except RuntimeError:  # the interpreter is ending and starts no more work in threads
            yield from ((item, work(item)) for item in source)
            return
        queued: dict[Future[Result], Item] = {}
        try:
            while True:
                for item in islice(source, QUEUED_PER_THREAD * count - len(queued)):
                    queued[submit(pool, work, item)] = item
                if not queued:
                    return
                for future in wait(queued, return_when=FIRST_COMPLETED).done:
                    yield queued.pop(future), future.result()
        finally:
            for future in queued:
                future.cancel()

    def _pool(self, count: int) -> ThreadPoolExecutor:
        with self._lock:
            if count not in self._pools:
                self._pools[count] = _single_threaded_pool(count)
            return self._pools[count]


def submit(pool: ThreadPoolExecutor, work: Callable[[*Arguments], Result], *given: *Arguments) -> Future[Result]:
    """`pool.submit`; at once, in this thread, when the interpreter is ending and the pool takes nothing any more."""
    try:
        return pool.submit(work, *given)
    except RuntimeError:
        future: Future[Result] = Future()
        try:
            future.set_result(work(*given))
        except Exception as error:
            future.set_exception(error)
        return future


class LonePace:
    """Which way a lone step is faster, found by trying: split over the cores, or computed by one thread.

    Splitting wins on an idle machine. Where another process keeps a core busy, each of the step's dozens of parallel
    operations waits for the thread that has to share, and splitting is several times slower than one thread. So the
    way that was faster of late is taken, and the other is tried again after ever more steps. Steps are told apart by
    their size in powers of two.
    """

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, bool], float] = {}
        self._trials: dict[int, tuple[int, int]] = {}

    def splits(self, tokens: int) -> bool:
        """Whether the next step, of so many tokens, is to be split."""
        size = tokens.bit_length()
        for split in (True, False):
            if (size, split) not in self._seconds:
                return split
        faster = self._seconds[size, True] < self._seconds[size, False]
        left, gap = self._trials.get(size, (TRIALS[0], TRIALS[0]))
        if left > 1:
            self._trials[size] = left - 1, gap
            return faster
        gap = min(2 * gap, TRIALS[1])
        self._trials[size] = gap, gap
        return not faster

    def note(self, tokens: int, split: bool, seconds: float) -> None:
        """What a step took."""
        self._seconds[tokens.bit_length(), split] = seconds / tokens


def _single_threaded_pool(count: int) -> ThreadPoolExecutor:
    """Torch's number of threads is each thread's own, but the last one set is what later threads begin with."""
    import torch

    before = torch.get_num_threads()
    ready = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread's first question sets its number to the common one
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(count, "anytask-step", initializer=start)
    for _ in range(count):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(before)
    return pool


step_threads = StepThreads()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=step_threads.forget)
