"""One call on several devices: a worker process for each, results in shared memory.

Texts are tokenized here, so that bad input is told before anything is sent. Tokens and vectors lie in one block of
shared memory, sorted by length; a worker is sent no more than the numbers of its texts, some steps' worth at a time,
and asks for more when it is done. A slow device thus does less, and all end at about the same time.

A call can also be computed by one worker, beside others by other workers, and then in the very steps in which the
engine itself would compute it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, Self

import torch
from torch import Tensor

from anytask.batching import TokenizedText
from anytask.device_worker import DONE, Assignment, Task, serve, weights_of
from anytask.engine import EncodingEngine
from anytask.errors import WorkerError
from anytask.shared_arrays import SharedTensors

TASK_STEPS = 4
"""Most steps of a task."""
TASKS_AHEAD = 2
"""Tasks of a worker at work or waiting, so that it needn't wait for the next."""
GRACE = 5.0
"""Seconds for a worker to end by itself when the pool is closed."""
STARTING = (
    'Scripts that use several devices must do so below `if __name__ == "__main__":`, since each worker imports them; '
    "one that comes from standard input can't be imported: save it to a file"
)


class DevicePool:
    """Worker processes that each hold a copy of an engine on their device, until the pool is closed.

    They are spawned, so that they begin without the parent's threads and CUDA context. The weights are handed over
    in shared memory: none reads the checkpoint again. CPU workers share torch's number of threads evenly.

    Args:
        engine: whose encoder, head and precision the workers get.
        devices: such as ["cuda:0", "cuda:1"] or ["cpu", "cpu"]; one may be named several times.

    Raises:
        ValueError: no list of devices, or one that isn't there.
        WorkerError: a worker didn't start.
    """

    def __init__(self, engine: EncodingEngine, devices: Sequence[str | torch.device]) -> None:
        self.devices = device_names(devices)
        self._engine = engine
        self._changed = threading.Condition()
        """Notified when there are more free workers, and when the pool ends."""
        self._workers: list[_Worker] = []
        self._free: list[_Worker] = []
        """Those that no call has."""
        self._failure: WorkerError | None = None
        self._closing = weakref.finalize(self, _close, self._workers, os.getpid())
        tensors = weights_of(engine)
        weights = SharedTensors.create({name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()})
        try:
            for name, tensor in tensors.items():
                weights[name].copy_(tensor)
            del tensors
            threads = iter(_shares(torch.get_num_threads(), sum(map(_is_cpu, self.devices))))
            for device in self.devices:
                share = next(threads) if _is_cpu(device) else 1
                assignment = Assignment(device, engine.dtype, share, engine.encoder.config, weights.layout)
                self._workers.append(_Worker(assignment))
            for worker in self._workers:
                worker.task_tokens = TASK_STEPS * int(worker.receive(STARTING))
            self._free += self._workers
        except BaseException:
            self.close()
            raise
        finally:
            weights.close()

    def embed(
        self,
        texts: Sequence[TokenizedText],
        batch_tokens: int | None = None,
        advance: Callable[[int], object] = lambda _: None,
        *,
        alone: bool = False,
    ) -> Tensor:
        """As `EncodingEngine.embed`, by all workers; calls of several threads take turns.

        Args:
            alone: by one worker, the first that is free. On a device of the engine's kind the steps are those of the
                engine; on a CPU the bits are the same, too.

        Raises:
            WorkerError: a worker ended. The pool is closed then, and so it is when the call is interrupted.
            RuntimeError: the pool is closed; or what the engine raises.
        """
        order = sorted(range(len(texts)), key=lambda index: len(texts[index].ids), reverse=True)
        with self._taken(1 if alone else len(self._workers)) as workers:
            shared = self._share([texts[index] for index in order])
            try:
                tasks = self._whole(shared, batch_tokens) if alone else _Tasks(shared, batch_tokens, len(workers)).give
                _compute(workers, tasks, advance)
                vectors = self._engine.room_for(len(texts))
                vectors[torch.tensor(order, dtype=torch.int64, device="cpu")] = shared["vectors"]
                return vectors
            except _Reported as reported:
                raise reported.error from None
            except WorkerError as error:
                raise self._fail(error) from None
            except BaseException:
                self.close()
                raise
            finally:
                shared.close()

    @contextmanager
    def _taken(self, count: int) -> Iterator[list[_Worker]]:
        """So many workers that no other call has; waits for them."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or len(self._free) >= count)
            if self.closed:
                raise self._failure or RuntimeError("the device pool is closed; make another")
            taken = [self._free.pop(0) for _ in range(count)]
        try:
            yield taken
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()

    def _fail(self, error: WorkerError) -> WorkerError:
        """Close the pool because of a worker; the error of the first, whose end was that of the others."""
        with self._changed:
            self._failure = self._failure or error
        self.close()
        return self._failure

    def _whole(self, shared: SharedTensors, batch_tokens: int | None) -> Callable[[_Worker], None]:
        """Gives a single task, in the steps of the engine where the worker's device is of its kind."""
        tokens, unsent = int(shared["starts"][-1]), [len(shared["pool_starts"])]

        def give(worker: _Worker) -> None:
            alike = torch.device(worker.device).type == self._engine.device.type
            limit = self._engine.step_limit(tokens, batch_tokens) if alike else batch_tokens
            if unsent:
                worker.give(Task(shared.layout, 0, unsent.pop(), limit))

        return give

    def _share(self, texts: Sequence[TokenizedText]) -> SharedTensors:
        """What workers see of a call (`device_worker.Task`), with the tokens of `texts`."""
        lengths = [0, *(len(text.ids) for text in texts)]
        starts = torch.tensor(lengths, dtype=torch.int64, device="cpu").cumsum(0)
        count, tokens = len(texts), int(starts[-1])
        shared = SharedTensors.create(
            {
                "token_ids": (torch.int32, (tokens,)),
                "starts": (torch.int64, (count + 1,)),
                "pool_starts": (torch.int32, (count,)),
                "vectors": (torch.float32, (count, self._engine.dimension)),
            }
        )
        try:
            shared["starts"].copy_(starts)
            shared["pool_starts"].numpy()[:] = [text.pool_start for text in texts]
            token_ids = shared["token_ids"].numpy()
            for text, start in zip(texts, starts.tolist(), strict=False):
                token_ids[start : start + len(text.ids)] = text.ids
        except BaseException:
            shared.remove()
            raise
        return shared

    def close(self) -> None:
        """End the workers, also those at work. A closed pool can be closed again, not used."""
        self._closing()
        with self._changed:
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return not self._closing.alive

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _compute(workers: Sequence[_Worker], give: Callable[[_Worker], None], advance: Callable[[int], object]) -> None:
    """Give tasks to workers until all are done; `give` sends a worker the next, where there is one."""
    failed: Exception | None = None
    for worker in workers:
        for _ in range(TASKS_AHEAD):
            give(worker)
    while any(worker.waiting for worker in workers):
        for worker in _ready(workers):
            try:
                done = worker.done()
            except _Reported as reported:
                failed = failed or reported
            else:
                if done is not DONE:
                    advance(done)
                    continue
            if failed is None:
                give(worker)
    if failed is not None:  # and nobody writes to the shared tensors any more
        raise failed


class _Reported(Exception):
    """A worker lives and tells of an exception."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Worker:
    """A worker process, seen from here."""

    task_tokens = 0
    waiting = 0
    """Tasks that were sent and not answered."""

    def __init__(self, assignment: Assignment) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self.device = assignment.device
        self.process = spawn.Process(
            target=serve, args=(assignment, theirs), name=f"anytask-{self.device}", daemon=True
        )
        self.process.start()
        _started.add(self.process)
        theirs.close()  # the worker's end lives in the worker alone, so that its death closes it

    def give(self, task: Task) -> None:
        self.waiting += 1
        try:
            self.connection.send(task)
        except OSError:
            raise self._ended("") from None

    def receive(self, hint: str = "") -> Any:
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            raise self._ended(hint) from None
        if isinstance(answer, BaseException):
            answer.add_note(f"in the worker on {self.device}")
            raise answer
        return answer

    def done(self) -> int | None:
        """How many more texts are done; None, and a task is."""
        try:
            done: int | None = self.receive()
        except WorkerError:
            raise
        except Exception as error:
            self.waiting -= 1
            raise _Reported(error) from None
        self.waiting -= done is DONE
        return done

    def _ended(self, hint: str) -> WorkerError:
        self.process.join(GRACE)
        code = self.process.exitcode
        how = f"exit code {code}"
        if code is not None and code < 0:
            how += f" (killed by {signal.Signals(-code).name}; SIGKILL is often the system's when memory runs out)"
        return WorkerError(f"the worker process {self.process.pid} on {self.device} ended with {how}. {hint}".rstrip())


class _Tasks:
    """The tasks of a call, cut as they are asked for: smaller towards the end."""

    def __init__(self, shared: SharedTensors, batch_tokens: int | None, workers: int) -> None:
        self._layout = shared.layout
        self._starts: list[int] = shared["starts"].tolist()
        self._batch_tokens = batch_tokens
        self._workers = workers
        self._next = 0

    def give(self, worker: _Worker) -> None:
        """Send the next one, where texts are left."""
        first, count = self._next, len(self._starts) - 1
        if first == count:
            return
        left = self._starts[-1] - self._starts[first]
        limit = min(worker.task_tokens, left // (TASKS_AHEAD * self._workers))
        last = first + 1
        while last < count and self._starts[last + 1] - self._starts[first] <= limit:
            last += 1
        self._next = last
        worker.give(Task(self._layout, first, last, self._batch_tokens))


def _ready(workers: Sequence[_Worker]) -> list[_Worker]:
    """Those that have something to tell, their end included; waits until there is one."""
    by_connection = {worker.connection: worker for worker in workers}
    return [by_connection[connection] for connection in wait(list(by_connection)) if isinstance(connection, Connection)]


def _close(workers: list[_Worker], owner: int) -> None:
    """End all workers: kindly, and after `GRACE` by force. A forked child's copy of the pool leaves them alone.

    A thread that waits for one of them is told by the end of its connection.
    """
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(GRACE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
    workers.clear()


_started: weakref.WeakSet[Any] = weakref.WeakSet()


def _disown() -> None:
    """In a forked child: multiprocessing would end its parent's workers when the child exits."""
    for process in _started:
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)


def device_names(devices: Sequence[str | torch.device]) -> list[str]:
    """Devices as torch spells them.

    Raises:
        ValueError: no list of devices, or one that isn't there.
    """
    if isinstance(devices, (str, torch.device)) or not devices:
        raise ValueError(f"device must be a list such as ['cuda:0', 'cuda:1'] or ['cpu', 'cpu'], got {devices!r}")
    names = []
    for device in devices:
        try:
            place = torch.device(device)
        except (RuntimeError, TypeError):
            raise ValueError(f"device {device!r}, expected one such as 'cpu', 'cuda:0' or 'cuda:1'") from None
        if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"device {device!r} isn't there: torch sees {torch.cuda.device_count()} GPUs")
        names.append(str(place))
    return names


def _is_cpu(device: str) -> bool:
    return torch.device(device).type == "cpu"


def _shares(threads: int, workers: int) -> list[int]:
    """`threads` divided among `workers`, at least one each."""
    return [max(1, threads // workers + (place < threads % workers)) for place in range(workers)]
