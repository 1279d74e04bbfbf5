"""What waits for a model is bounded: threads and coroutines at the door of a full queue."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anytask import Instructor
from anytask.coalescing import Coalescer
from anytask.places import Places
from anytask.tokenization import InstructionTokenizer

PATIENCE = 120.0
"""Seconds after which something hangs; nothing here takes near as long."""


@dataclass(frozen=True)
class Job:
    """A call whose answer is its name; that of a name with "poison" is an exception."""

    name: str
    size: int = 1


class Held:
    """A coalescer whose runs are noted, and held for as long as wanted."""

    def __init__(self, run_size: int = 4, queue_size: int = 4) -> None:
        self.runs: list[list[str]] = []
        self.go = threading.Event()
        self.coalescer: Coalescer[Job, str] = Coalescer(self.compute, run_size, queue_size)
        self.fullest = 0

    def compute(self, jobs: Sequence[Job]) -> list[str | Exception]:
        self.runs.append([job.name for job in jobs])
        assert self.go.wait(PATIENCE)
        self.fullest = max(self.fullest, sum(waiting.call.size for waiting in self.coalescer._waiting))
        return [ZeroDivisionError(job.name) if "poison" in job.name else job.name for job in jobs]

    @property
    def waiting(self) -> tuple[int, int]:
        """Calls in the queue, and at its door."""
        return len(self.coalescer._waiting), self.coalescer._door.queued

    @property
    def order(self) -> list[str]:
        return [name for run in self.runs for name in run]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.go.set()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


class TestThreads:
    def test_callers_wait_at_the_door_of_a_full_queue_and_are_served_in_order(
        self, held: Held, threads: ThreadPoolExecutor
    ) -> None:
        calls = []
        for place in range(16):
            calls.append(threads.submit(held.coalescer.run, Job(f"{place}")))
            wait_until(lambda: bool(held.runs) and sum(held.waiting) == len(calls) - 1)
        assert held.runs == [["0"]]
        assert held.waiting == (4, 11)
        held.go.set()
        assert [call.result(PATIENCE) for call in calls] == [f"{place}" for place in range(16)]
        assert held.order[:5] == ["0", "1", "2", "3", "4"]
        assert sorted(held.order, key=int) == [f"{place}" for place in range(16)]
        assert held.fullest <= 4
        assert held.waiting == (0, 0)

    def test_a_call_larger_than_the_queue_goes_through_and_is_not_overtaken(
        self, held: Held, threads: ThreadPoolExecutor
    ) -> None:
        calls = []
        for job in (Job("first"), Job("small"), Job("huge", 100), Job("last")):
            calls.append(threads.submit(held.coalescer.run, job))
            wait_until(lambda: bool(held.runs) and sum(held.waiting) == len(calls) - 1)
        assert held.waiting == (1, 2)
        held.go.set()
        assert [call.result(PATIENCE) for call in calls] == ["first", "small", "huge", "last"]
        assert held.order == ["first", "small", "huge", "last"]

    def test_many_threads_and_little_room(self, threads: ThreadPoolExecutor) -> None:
        held = Held(run_size=5, queue_size=3)
        held.go.set()
        names = [f"poison {n}" if n % 7 == 0 else f"{n}" for n in range(600)]

        def call(name: str) -> str:
            try:
                return held.coalescer.run(Job(name, 1 + len(name) % 6))
            except ZeroDivisionError as error:
                return f"raised for {error}"

        answers = list(threads.map(call, names, timeout=PATIENCE))
        assert answers == [f"raised for {name}" if "poison" in name else name for name in names]
        assert sorted(held.order) == sorted(names)
        assert held.waiting == (0, 0)


class TestCoroutines:
    async def test_the_loop_goes_on_while_callers_wait_in_order(self, held: Held) -> None:
        calls = [asyncio.create_task(held.coalescer.arun(Job(f"{place}"))) for place in range(40)]
        await until(lambda: bool(held.runs) and sum(held.waiting) >= 39 - len(held.runs[0]) + 1)
        assert held.waiting[0] <= 4
        assert held.waiting[1] >= 30
        held.go.set()
        assert await asyncio.gather(*calls) == [f"{place}" for place in range(40)]
        assert held.order == [f"{place}" for place in range(40)]
        assert held.fullest <= 4

    async def test_who_gives_up_frees_a_place_at_once(self, held: Held) -> None:
        first = asyncio.create_task(held.coalescer.arun(Job("first")))
        await until(lambda: bool(held.runs))
        calls = [asyncio.create_task(held.coalescer.arun(Job(f"{place}"))) for place in range(8)]
        await until(lambda: held.waiting == (4, 4))
        calls[1].cancel()  # of the queue
        calls[6].cancel()  # at the door
        await until(lambda: held.waiting == (4, 2))
        for call in calls[:4]:
            call.cancel()
        await until(lambda: held.waiting == (3, 0))
        held.go.set()
        assert await first == "first"
        assert [await calls[place] for place in (4, 5, 7)] == ["4", "5", "7"]
        assert held.order == ["first", "4", "5", "7"]

    async def test_who_waits_behind_a_huge_call_goes_on_when_that_is_cancelled(self, held: Held) -> None:
        first = asyncio.create_task(held.coalescer.arun(Job("first")))
        await until(lambda: bool(held.runs))
        small, huge, last = (
            asyncio.create_task(held.coalescer.arun(job)) for job in (Job("small"), Job("huge", 100), Job("last"))
        )
        await until(lambda: held.waiting == (1, 2))
        huge.cancel()
        await until(lambda: held.waiting == (2, 0))
        held.go.set()
        assert [await call for call in (first, small, last)] == ["first", "small", "last"]
        assert held.order == ["first", "small", "last"]

    async def test_cancelling_at_any_moment_loses_no_place(self) -> None:
        held = Held(run_size=3, queue_size=2)
        held.go.set()
        for round_ in range(30):
            calls = [asyncio.create_task(held.coalescer.arun(Job(f"{place}"))) for place in range(20)]
            for turn in range(round_ % 6):
                await asyncio.sleep(0)
                calls[(3 * turn + round_) % 20].cancel()
            done = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), PATIENCE)
            for place, answer in enumerate(done):
                assert answer == f"{place}" or isinstance(answer, asyncio.CancelledError)
        assert held.waiting == (0, 0)
        await until(lambda: not held.coalescer._door._taken)

    async def test_an_error_reaches_its_caller_through_a_full_queue(self, held: Held) -> None:
        names = ["first", *(f"poison {n}" if n % 3 == 0 else f"{n}" for n in range(20))]
        calls = asyncio.gather(*(held.coalescer.arun(Job(name)) for name in names), return_exceptions=True)
        await until(lambda: bool(held.runs) and held.waiting[1] > 0)
        held.go.set()
        for name, answer in zip(names, await calls, strict=True):
            assert str(answer) == name
            assert isinstance(answer, ZeroDivisionError) == ("poison" in name)

    async def test_threads_and_event_loops_share_the_room(self, threads: ThreadPoolExecutor) -> None:
        held = Held(run_size=4, queue_size=3)
        held.go.set()

        async def some(first: int) -> list[str]:
            return await asyncio.gather(*(held.coalescer.arun(Job(f"{first + n}")) for n in range(50)))

        loops = [threads.submit(asyncio.run, some(first)) for first in (0, 50, 100)]
        plain = [threads.submit(held.coalescer.run, Job(f"{n}")) for n in range(150, 200)]
        ours = await asyncio.wait_for(some(200), PATIENCE)
        answers = [name for loop in loops for name in loop.result(PATIENCE)] + [call.result(PATIENCE) for call in plain]
        assert answers + ours == [f"{n}" for n in range(250)]


class TestAbandoned:
    """An event loop that ends, or is closed, while its coroutines wait."""

    def test_a_loop_that_ends_cancels_its_calls(self, held: Held) -> None:
        async def give_up() -> None:
            calls = [asyncio.ensure_future(held.coalescer.arun(Job("gone"))) for _ in range(20)]
            await until(lambda: bool(held.runs) and held.waiting[1] > 0)
            assert not any(call.done() for call in calls)

        asyncio.run(give_up())
        assert held.waiting == (0, 0)
        held.go.set()
        assert held.coalescer.run(Job("afterwards")) == "afterwards"

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_places_of_a_closed_loop_are_not_lost(self, held: Held) -> None:
        loop = asyncio.new_event_loop()
        calls = [loop.create_task(held.coalescer.arun(Job("gone"))) for _ in range(20)]
        loop.run_until_complete(until(lambda: bool(held.runs) and held.waiting[1] > 0))
        loop.close()
        held.go.set()
        wait_until(lambda: held.waiting == (0, 0))
        for call in calls:
            call._log_destroy_pending = False  # type: ignore[attr-defined]
        calls.clear()
        gc.collect()
        for name in ("a", "b"):
            assert held.coalescer.run(Job(name)) == name
        wait_until(lambda: not held.coalescer._door._taken)

    async def test_places_of_a_destroyed_coroutine_are_given_back(self) -> None:
        places = Places(3)
        places.take(2)

        async def forever() -> None:
            async with places.held(1):
                await asyncio.get_running_loop().create_future()

        holder, waiter = forever(), places.atake(2)
        holder.send(None)
        waiter.send(None)
        assert (places._taken, places.queued) == (3, 1)
        holder.close()
        waiter.close()
        await asyncio.wait_for(places.atake(1), PATIENCE)
        assert (places._taken, places.queued) == (3, 0)


class TestModel:
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, make_checkpoint: Callable[..., Path]) -> Path:
        return make_checkpoint()

    async def test_more_callers_than_the_queue_holds(
        self, folder: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor
    ) -> None:
        monkeypatch.setattr("anytask.calls.QUEUE_RUNS", 1)
        model = Instructor.from_pretrained(folder, device="cpu")
        model._engine.batch_tokens = 200
        model._start()
        expected = model.encode(sentences[:120])
        calls = [threads.submit(model.encode, text) for text in sentences[:60]]
        vectors = await asyncio.gather(*map(model.aencode, sentences[60:120]))
        vectors = [*(call.result(PATIENCE) for call in calls), *vectors]
        np.testing.assert_allclose(np.stack(vectors), expected, atol=1e-5)

    async def test_large_calls_are_tokenized_when_there_is_room(
        self, folder: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("anytask.calls.ASYNC_WINDOW", 25)
        monkeypatch.setattr("anytask.calls.MOST_TOKENIZED", 1)  # one window at a time
        model = Instructor.from_pretrained(folder, device="cpu")
        model._engine.batch_tokens = 100
        model._start()
        expected = [model.encode(sentences[start : start + 60]) for start in range(0, 300, 60)]
        order: list[str] = []
        chunks, embed = InstructionTokenizer.chunks, model._engine.embed

        def noted(self: InstructionTokenizer, texts: Sequence[str], *rest: Any) -> Iterator[Any]:
            for chunk in chunks(self, texts, *rest):
                if len(chunk) > 1:
                    order.append(texts[0])
                yield chunk

        def embedded(*arguments: Any) -> Any:
            order.append("part")
            return embed(*arguments)

        monkeypatch.setattr(InstructionTokenizer, "chunks", noted)
        monkeypatch.setattr(model._engine, "embed", embedded)
        calls = [model.aencode(sentences[start : start + 60]) for start in range(0, 300, 60)]
        for vectors, right in zip(await asyncio.gather(*calls), expected, strict=True):
            np.testing.assert_allclose(vectors, right, atol=1e-5)
        windows = [name for name in order if name != "part"]
        assert windows == [sentences[start] for start in range(0, 300, 60)] * 3  # each call's window in turn
        assert not any(one != "part" and other != "part" for one, other in pairwise(order))

    async def test_large_calls_tell_of_bad_texts_and_of_cut_ones_by_their_place(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("anytask.calls.ASYNC_WINDOW", 25)
        model = Instructor.from_pretrained(folder, device="cpu", max_length=64)
        model._engine.batch_tokens = 100
        model._start()
        texts = [*["a few words"] * 60, "very " * 100, *["a few words"] * 10]
        with pytest.warns(UserWarning, match="1 of 71 texts"):
            np.testing.assert_allclose(await model.aencode(texts), model.encode(texts), atol=1e-5)
        with pytest.raises(ValueError, match="text 60 has more tokens"):
            await model.aencode(texts, on_long="error")
        with pytest.raises(ValueError, match=r"text 70 holds U\+D800"):
            await model.aencode([*texts[:70], "\ud800"])
        assert not model._calls._tokenized._taken

    def test_closing_the_model_leaves_nobody_waiting(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor
    ) -> None:
        monkeypatch.setattr("anytask.calls.QUEUE_RUNS", 1)
        model = Instructor.from_pretrained(folder, device="cpu")
        model._engine.batch_tokens = 24
        model._start()
        text = "a few short words of one of many callers"
        go, embed = threading.Event(), model._engine.embed

        def slowly(*arguments: Any) -> Any:
            assert go.wait(PATIENCE)
            return embed(*arguments)

        model._engine.embed = slowly  # type: ignore[method-assign]
        calls = [threads.submit(model.encode, text) for _ in range(32)]
        try:
            wait_until(lambda: model._calls._coalescer._door.queued > 0)
            model.close()
        finally:
            go.set()
        vectors = [call.result(PATIENCE) for call in calls]
        np.testing.assert_allclose(vectors, np.stack([model.encode(text)] * 32), atol=1e-5)
