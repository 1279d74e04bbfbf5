"""One model used by many: coroutines, event loops, threads, forked and spawned processes, copies."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import copy
import gc
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anytask import Instructor, load_shared, release_shared
from anytask.batching import TokenizedText
from anytask.coalescing import Coalescer

MakeCheckpoint = Callable[..., Path]

INSTRUCTION = "Represent the statement: "
PATIENCE = 120.0
"""Seconds after which something hangs; nothing here takes near as long."""


@pytest.fixture(scope="module")
def folder(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint()


@pytest.fixture(scope="module")
def texts(sentences: list[str]) -> list[str]:
    return sentences[:64]


@pytest.fixture(scope="module")
def expected(folder: Path, texts: list[str]) -> Any:
    return Instructor.from_pretrained(folder).encode(texts, INSTRUCTION)


def assert_same(left: Any, right: Any) -> None:
    np.testing.assert_allclose(left, right, atol=1e-5)


class Watched:
    """A model whose engine keeps a list of its runs, can be held, and fails on one text."""

    def __init__(self, folder: Path, step_tokens: int = 4096) -> None:
        self.model = Instructor.from_pretrained(folder, device="cpu")
        self.runs: list[list[str]] = []
        self.limits: list[int | None] = []
        self.poison: str | None = None
        self._go = threading.Event()
        self._go.set()
        self._embed = self.model._engine.embed
        self.model._engine.embed = self.embed  # type: ignore[method-assign, assignment]
        self.model._engine.batch_tokens = step_tokens
        self.model._start()

    @property
    def waiting(self) -> int:
        return len(self.model._calls._coalescer._waiting)

    def embed(
        self, texts: Sequence[TokenizedText], batch_tokens: int | None = None, *advance: Callable[[int], object]
    ) -> torch.Tensor:
        tokenizer = self.model._tokenizer.tokenizer
        run = [tokenizer.decode(text.ids.tolist()) for text in texts]
        self.runs.append(run)
        self.limits.append(batch_tokens)
        assert self._go.wait(PATIENCE)
        if any(self.poison is not None and self.poison in text for text in run):
            raise ZeroDivisionError(self.poison)
        return self._embed(texts, batch_tokens, *advance)

    def hold(self) -> None:
        self._go.clear()

    def release(self) -> None:
        self._go.set()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)

    async def until_waiting(self, count: int) -> None:
        """Until one run is held and `count` more calls wait for theirs."""
        await self.until(lambda: bool(self.runs) and self.waiting == count)


@pytest.fixture
def watched(folder: Path) -> Iterator[Watched]:
    watched = Watched(folder)
    yield watched
    watched.release()


@dataclass
class _Number:
    size: int


@contextmanager
def _timer_interrupts() -> Iterator[None]:
    """The timer's signal interrupts like Control-C."""
    former = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, former)


class TestAsyncio:
    async def test_vectors_are_those_of_encode(self, watched: Watched, texts: list[str], expected: Any) -> None:
        assert_same(await watched.model.aencode(texts, INSTRUCTION), expected)
        assert_same(await watched.model.aencode(texts[3], INSTRUCTION), expected[3])
        assert_same(await watched.model.aencode([(INSTRUCTION, text) for text in texts]), expected)

    async def test_concurrent_calls_share_runs(self, watched: Watched, texts: list[str], expected: Any) -> None:
        watched.hold()
        calls = asyncio.gather(*(watched.model.aencode(text, INSTRUCTION) for text in texts))
        await watched.until_waiting(len(texts) - 1)
        watched.release()
        assert_same(np.stack(await calls), expected)
        assert [len(run) for run in watched.runs] == [1, len(texts) - 1]

    async def test_without_being_held_they_share_runs_too(
        self, watched: Watched, texts: list[str], expected: Any
    ) -> None:
        vectors = await asyncio.gather(*(watched.model.aencode(text, INSTRUCTION) for text in texts))
        assert_same(np.stack(vectors), expected)
        assert len(watched.runs) < len(texts)

    async def test_calls_of_several_sizes_and_options(self, watched: Watched, texts: list[str]) -> None:
        watched.hold()
        model = watched.model
        calls = asyncio.gather(
            model.aencode("first"),
            model.aencode([]),
            model.aencode(texts[:5], INSTRUCTION, truncate_dim=8, batch_tokens=300),
            model.aencode(texts[5], INSTRUCTION, precision="int8", batch_tokens=100),
            model.aencode(texts[6:9], INSTRUCTION, as_tensor=True, normalize=False),
        )
        await watched.until_waiting(4)
        watched.release()
        _, nothing, short, compact, raw = await calls
        assert nothing.shape == (0, model.dimension)
        assert_same(short, model.encode(texts[:5], INSTRUCTION, truncate_dim=8))
        assert np.array_equal(compact, model.encode(texts[5], INSTRUCTION, precision="int8"))
        assert_same(raw.numpy(), model.encode(texts[6:9], INSTRUCTION, normalize=False))
        assert watched.limits[1] == 100  # the smallest that was asked for
        assert raw.untyped_storage().nbytes() == raw.numel() * 4  # not a view that keeps all of the run in memory

    async def test_the_loop_goes_on(self, watched: Watched, texts: list[str]) -> None:
        tokenizing: set[int] = set()
        tokenizer = watched.model._tokenizer

        def tokenize(*args: Any) -> Any:
            tokenizing.add(threading.get_ident())
            return tokenizer(*args)

        watched.model._tokenizer = tokenize  # type: ignore[assignment]
        watched.model._tokenizer.tokenizer = tokenizer.tokenizer
        watched.hold()
        call = asyncio.create_task(watched.model.aencode(texts))
        ticks = 0
        async with asyncio.timeout(PATIENCE):
            while not watched.runs or ticks < 100:
                await asyncio.sleep(0)
                ticks += 1
        assert not call.done()
        watched.release()
        assert (await call).shape == (len(texts), watched.model.dimension)
        assert threading.get_ident() not in tokenizing

    async def test_a_waiting_call_that_is_cancelled_is_never_run(
        self, watched: Watched, caplog: pytest.LogCaptureFixture
    ) -> None:
        watched.hold()
        model = watched.model
        first, second, third = (asyncio.create_task(model.aencode(text)) for text in ("first", "second", "third"))
        await watched.until_waiting(2)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        watched.release()
        vectors = [await first, await third]
        assert_same(vectors, model.encode(["first", "third"]))
        assert "second" not in [text for run in watched.runs for text in run]
        assert not caplog.records

    async def test_a_running_call_that_is_cancelled_harms_nobody(
        self, watched: Watched, caplog: pytest.LogCaptureFixture
    ) -> None:
        watched.hold()
        running = asyncio.create_task(watched.model.aencode("running"))
        await watched.until_waiting(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        waiting = asyncio.create_task(watched.model.aencode("waiting"))
        await watched.until_waiting(1)
        watched.release()
        assert_same(await waiting, watched.model.encode("waiting"))
        assert not caplog.records

    async def test_an_error_belongs_to_its_caller_only(
        self, watched: Watched, texts: list[str], expected: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        watched.poison = "poison"
        watched.hold()
        calls: list[Awaitable[Any]] = [watched.model.aencode(text, INSTRUCTION) for text in texts[:10]]
        calls.insert(4, watched.model.aencode("this is poison"))
        calls.insert(8, watched.model.aencode(["fine", 3]))  # type: ignore[arg-type]
        gathered = asyncio.gather(*calls, return_exceptions=True)
        await watched.until_waiting(10)
        watched.release()
        results: list[Any] = await gathered
        assert isinstance(results.pop(8), TypeError)
        assert isinstance(results.pop(4), ZeroDivisionError)
        assert_same(np.stack(results), expected[:10])
        assert_same(await watched.model.aencode(texts[0], INSTRUCTION), expected[0])
        assert not caplog.records

    async def test_calls_are_served_in_the_order_of_their_arrival(self, folder: Path) -> None:
        watched = Watched(folder, step_tokens=6)  # runs of 18 such calls
        watched.hold()
        calls = []
        for place in range(60):
            calls.append(asyncio.create_task(watched.model.aencode(f"call {place}")))
            await watched.until_waiting(place)
        watched.release()
        await asyncio.gather(*calls)
        assert [text for run in watched.runs for text in run] == [f"call {place}" for place in range(60)]
        assert [len(run) for run in watched.runs] == [1, 18, 18, 18, 5]

    async def test_a_small_call_need_not_wait_for_all_of_a_large_one(
        self, folder: Path, texts: list[str], expected: Any
    ) -> None:
        watched = Watched(folder, step_tokens=100)
        watched.hold()
        large = asyncio.create_task(watched.model.aencode(texts, INSTRUCTION))
        await watched.until_waiting(0)
        small = asyncio.create_task(watched.model.aencode("small"))
        await watched.until_waiting(1)
        watched.release()
        assert_same(await small, watched.model.encode("small"))
        assert_same(await large, expected)
        assert len(watched.runs) > 4
        assert any("small" in run for run in watched.runs[1:3])

    async def test_a_large_call_ends_when_it_is_cancelled(self, folder: Path, texts: list[str]) -> None:
        watched = Watched(folder, step_tokens=100)
        watched.hold()
        large = asyncio.create_task(watched.model.aencode(texts, INSTRUCTION))
        await watched.until_waiting(0)
        large.cancel()
        watched.release()
        with pytest.raises(asyncio.CancelledError):
            await large
        await watched.model.aencode("afterwards")
        assert len(watched.runs) == 2

    def test_event_loops_one_after_another(self, watched: Watched, texts: list[str], expected: Any) -> None:
        for _ in range(3):
            assert_same(asyncio.run(watched.model.aencode(texts[:5], INSTRUCTION)), expected[:5])

    def test_a_loop_that_is_closed_while_its_call_runs(self, watched: Watched, texts: list[str], expected: Any) -> None:
        async def give_up() -> None:
            call = asyncio.create_task(watched.model.aencode(texts))
            await watched.until_waiting(0)
            call.cancel()

        watched.hold()
        asyncio.run(give_up())
        watched.release()
        assert_same(asyncio.run(watched.model.aencode(texts[:5], INSTRUCTION)), expected[:5])

    def test_event_loops_of_several_threads(self, watched: Watched, texts: list[str], expected: Any) -> None:
        async def gather(share: Sequence[str]) -> Any:
            return np.stack(await asyncio.gather(*(watched.model.aencode(text, INSTRUCTION) for text in share)))

        with ThreadPoolExecutor(4) as threads:
            parts = list(threads.map(lambda start: asyncio.run(gather(texts[start::4])), range(4), timeout=PATIENCE))
        for start, part in enumerate(parts):
            assert_same(part, expected[start::4])

    async def test_the_worker_ends_with_its_model(self, folder: Path) -> None:
        model = Instructor.from_pretrained(folder)
        await model.aencode("text")
        engine, worker = weakref.ref(model._engine), next(iter(model._calls._coalescer._worker._threads))
        assert worker.is_alive()
        del model
        gc.collect()
        worker.join(PATIENCE)
        assert not worker.is_alive()
        assert engine() is None


class TestThreads:
    def test_many_threads_get_the_vectors_of_one(self, folder: Path, texts: list[str], expected: Any) -> None:
        model = Instructor.from_pretrained(folder)
        barrier = threading.Barrier(8)

        def encode(start: int) -> Any:
            barrier.wait(PATIENCE)
            return [model.encode(texts[start::8], INSTRUCTION, batch_tokens=100) for _ in range(3)]

        with ThreadPoolExecutor(8) as threads:
            for start, results in enumerate(threads.map(encode, range(8), timeout=PATIENCE)):
                for vectors in results:
                    assert_same(vectors, expected[start::8])

    def test_concurrent_calls_share_runs(self, watched: Watched, texts: list[str], expected: Any) -> None:
        watched.hold()
        with ThreadPoolExecutor(len(texts)) as threads:
            calls = [threads.submit(watched.model.encode, text, INSTRUCTION) for text in texts]
            watched.wait_until(lambda: watched.waiting == len(texts) - 1)
            watched.release()
            assert_same(np.stack([call.result(PATIENCE) for call in calls]), expected)
        assert [len(run) for run in watched.runs] == [1, len(texts) - 1]

    def test_a_lone_call_is_computed_in_its_own_thread(self, folder: Path) -> None:
        model = Instructor.from_pretrained(folder, device="cpu")
        model.encode("text")
        model.encode(["several", "texts"])
        assert not model._calls._coalescer._worker._threads

    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer signals")
    def test_an_interrupt_at_any_moment_leaves_the_model_usable(self) -> None:
        coalescer = Coalescer[_Number, int](lambda calls: [call.size for call in calls], 10, 100)
        rng, interrupted = random.Random(0), 0
        with _timer_interrupts():
            for _ in range(5000):
                try:
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 1e-4))
                    for _ in range(1000):
                        coalescer.run(_Number(1))
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupted += 1
                assert coalescer._busy == (coalescer._owner is not None)
                assert coalescer.run(_Number(2)) == 2
                assert not coalescer._busy
        assert interrupted > 4000, "an interrupt may be lost, such as in a garbage collection"

    def test_an_error_belongs_to_its_caller_only(self, watched: Watched, texts: list[str], expected: Any) -> None:
        watched.poison = "poison"
        watched.hold()
        with ThreadPoolExecutor(16) as threads:
            first = threads.submit(watched.model.encode, texts[0], INSTRUCTION)
            watched.wait_until(lambda: bool(watched.runs))
            good = [threads.submit(watched.model.encode, text, INSTRUCTION) for text in texts[1:10]]
            poison = threads.submit(watched.model.encode, "this is poison")
            surrogate = threads.submit(watched.model.encode, ["fine", "\ud800"])
            long = threads.submit(watched.model.encode, "very " * 600, on_long="error")
            watched.wait_until(lambda: watched.waiting == 12)
            watched.release()
            assert_same(np.stack([call.result(PATIENCE) for call in [first, *good]]), expected[:10])
            with pytest.raises(ZeroDivisionError):
                poison.result(PATIENCE)
            with pytest.raises(ValueError, match=r"text 1 holds U\+D800"):
                surrogate.result(PATIENCE)
            with pytest.raises(ValueError, match="text 0 has more tokens"):
                long.result(PATIENCE)

    def test_each_caller_is_warned_of_its_own_truncations(self, folder: Path) -> None:
        watched = Watched(folder)
        watched.hold()
        with ThreadPoolExecutor(3) as threads, warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            calls = [threads.submit(watched.model.encode, text) for text in ("first", "very " * 600, "short")]
            watched.wait_until(lambda: watched.waiting == 2)
            watched.release()
            assert [call.result(PATIENCE).shape for call in calls] == [(watched.model.dimension,)] * 3
        assert [str(warning.message)[:11] for warning in seen] == ["1 of 1 text"]
        assert seen[0].filename == concurrent.futures.thread.__file__  # what called encode

    def test_a_large_call_and_small_ones_do_not_wait_for_each_other(
        self, folder: Path, texts: list[str], expected: Any
    ) -> None:
        watched = Watched(folder, step_tokens=100)
        watched.hold()
        with ThreadPoolExecutor(3) as threads:
            large = threads.submit(watched.model.encode, texts, INSTRUCTION)
            watched.wait_until(lambda: len(watched.runs) == 1)
            small = threads.submit(watched.model.encode, "small")
            watched.wait_until(lambda: len(watched.runs) == 2)  # begun, though the large one is still at work
            also_small = threads.submit(watched.model.encode, "also small")
            watched.wait_until(lambda: watched.waiting == 1)
            watched.release()
            assert_same(large.result(PATIENCE), expected)
            assert_same(small.result(PATIENCE), watched.model.encode("small"))
            assert_same(also_small.result(PATIENCE), watched.model.encode("also small"))

    def test_threads_and_coroutines_together(self, folder: Path, texts: list[str], expected: Any) -> None:
        model = Instructor.from_pretrained(folder)

        async def both() -> Any:
            return await asyncio.gather(
                *(asyncio.to_thread(model.encode, text, INSTRUCTION) for text in texts[:8]),
                *(model.aencode(text, INSTRUCTION) for text in texts[8:16]),
            )

        assert_same(np.stack(asyncio.run(both())), expected[:16])


class TestCopies:
    @pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))])
    @pytest.mark.parametrize("used", [False, True])
    def test_copies_give_the_same_vectors(
        self,
        folder: Path,
        texts: list[str],
        expected: Any,
        duplicate: Callable[[Instructor], Instructor],
        used: bool,
    ) -> None:
        model = Instructor.from_pretrained(folder, max_length=200)
        if used:
            model.encode(texts)
            asyncio.run(model.aencode(texts))
        twin = duplicate(model)
        assert_same(twin.encode(texts, INSTRUCTION), expected)
        assert_same(asyncio.run(twin.aencode(texts, INSTRUCTION)), expected)
        assert_same(model.encode(texts, INSTRUCTION), expected)
        assert repr(twin) == repr(model)
        assert twin.max_length == 200
        assert twin._calls is not model._calls

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    @pytest.mark.parametrize("projection", ["gated-gelu", "gated-silu"])
    def test_every_shape_can_be_pickled(self, make_checkpoint: MakeCheckpoint, dtype: str, projection: str) -> None:
        folder = make_checkpoint(shape={"feed_forward_proj": projection}, dense=None)
        model = Instructor.from_pretrained(folder, dtype=dtype)
        twin = pickle.loads(pickle.dumps(model))
        assert np.array_equal(twin.encode("text"), model.encode("text"))
        assert twin.dtype == model.dtype


def run_python(*arguments: object, **environment: str) -> str:
    """Standard output of a fresh interpreter; it must end by itself, with status 0 and nothing on standard error."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "TOKENIZERS_"))}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", *map(str, arguments)],
        env={**inherited, "OMP_WAIT_POLICY": "PASSIVE", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its forks too
            raise
    unexpected = [
        line
        for line in errors.splitlines()
        if not line.startswith(("huggingface/tokenizers", "To disable this warning", "\t"))
    ]
    assert process.returncode == 0, errors
    assert not unexpected, errors
    return output


PARENT = textwrap.dedent("""
    import asyncio, multiprocessing, os, sys, threading
    import numpy as np
    import torch
    from anytask import Instructor, load_shared

    folder = sys.argv[1]
    texts = ["the statement number %d raises an exception when the sequence is empty" % n for n in range(150)]
    torch.set_num_threads(2)
    model = load_shared(folder)
    expected = model.encode(texts)
    asyncio.run(model.aencode(texts))

    def check():
        assert np.allclose(model.encode(texts), expected, atol=1e-5), "encode"
        assert np.allclose(asyncio.run(model.aencode(texts)), expected, atol=1e-5), "aencode"
        assert load_shared(folder) is model

    def wait(pid):
        assert os.waitpid(pid, 0)[1] == 0
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
class TestFork:
    @pytest.fixture(scope="class")
    @classmethod
    def wide(cls, make_checkpoint: MakeCheckpoint) -> Path:
        """Large enough that torch gives its work to several threads."""
        return make_checkpoint(shape={"d_model": 128, "d_ff": 512, "num_heads": 8, "d_kv": 16})

    def test_a_worker_forked_after_the_model_was_used(self, wide: Path) -> None:
        script = """
            pid = os.fork()
            if pid == 0:
                check()
                pid = os.fork()  # and its own child
                if pid == 0:
                    check()
                    sys.exit(0)  # an exit that waits for threads
                wait(pid)
                os._exit(0)
            wait(pid)
            check()
            print("done")
        """
        assert run_python("-c", PARENT + textwrap.dedent(script), wide) == "done\n"

    def test_worker_pools(self, wide: Path) -> None:
        script = """
            from concurrent.futures import ProcessPoolExecutor

            def embed(start):
                return model.encode(texts[start::4])

            def aembed(start):
                return asyncio.run(model.aencode(texts[start::4]))

            fork = multiprocessing.get_context("fork")
            with fork.Pool(2) as pool, ProcessPoolExecutor(2, mp_context=fork) as executor:
                for apply in (pool.map, executor.map):
                    parts = [*apply(embed, range(4)), *apply(aembed, range(4))]
                    for place, part in enumerate(parts):
                        assert np.allclose(part, expected[place % 4 :: 4], atol=1e-5)
            print("done")
        """
        assert run_python("-c", PARENT + textwrap.dedent(script), wide) == "done\n"

    def test_a_fork_while_other_threads_are_at_work(self, wide: Path) -> None:
        script = """
            stop = threading.Event()

            def encode():
                while not stop.is_set():
                    model.encode(texts[:20])

            def aencode():
                async def some():
                    await asyncio.gather(*(model.aencode(text) for text in texts[:20]))
                while not stop.is_set():
                    asyncio.run(some())

            threads = [threading.Thread(target=work) for work in (encode, aencode)]
            for thread in threads:
                thread.start()
            for _ in range(5):
                pid = os.fork()
                if pid == 0:
                    check()
                    os._exit(0)
                wait(pid)
            stop.set()
            for thread in threads:
                thread.join()
            print("done")
        """
        assert run_python("-c", PARENT + textwrap.dedent(script), wide) == "done\n"

    def test_a_fork_while_another_thread_loads(self, wide: Path) -> None:
        script = """
            load, loading, go_on = Instructor.from_pretrained, threading.Event(), threading.Event()

            def slow(*args, **options):
                loading.set()
                go_on.wait()
                return load(*args, **options)

            Instructor.from_pretrained = slow
            thread = threading.Thread(target=load_shared, args=(folder,), kwargs={"max_length": 50})
            thread.start()
            loading.wait()
            pid = os.fork()
            if pid == 0:
                go_on.set()
                assert load_shared(folder, max_length=50).max_length == 50
                os._exit(0)
            wait(pid)
            go_on.set()
            thread.join()
            print("done")
        """
        assert run_python("-c", PARENT + textwrap.dedent(script), wide) == "done\n"


class TestProcesses:
    def test_spawned_workers_get_a_copy(self, folder: Path, tmp_path: Path) -> None:
        script = tmp_path / "spawn.py"
        script.write_text(
            textwrap.dedent("""
                import asyncio, multiprocessing, sys
                import numpy as np
                from anytask import Instructor

                def work(model, texts, results):
                    results.put((model.encode(texts), asyncio.run(model.aencode(texts))))

                if __name__ == "__main__":
                    model, texts = Instructor.from_pretrained(sys.argv[1]), ["a statement", "an expression"]
                    expected = model.encode(texts)
                    spawn = multiprocessing.get_context("spawn")
                    results = spawn.Queue()
                    process = spawn.Process(target=work, args=(model, texts, results))
                    process.start()
                    for vectors in results.get(timeout=50):
                        assert np.allclose(vectors, expected, atol=1e-5)
                    process.join()
                    assert process.exitcode == 0
                    print("done")
            """)
        )
        assert run_python(script, folder) == "done\n"

    def test_a_thread_that_outlives_the_main_one(self, folder: Path) -> None:
        script = """
            import sys, threading
            import torch
            from anytask import Instructor

            model = Instructor.from_pretrained(sys.argv[1], device="cpu")
            texts = [f"text number {number} " * (number % 7) for number in range(9000)]

            def work():
                threading.main_thread().join()
                assert model.encode(texts).shape[0] == 9000
                print(len(model.encode("one")), flush=True)

            torch.set_num_threads(2)
            threading.Thread(target=work).start()
        """
        assert run_python("-c", textwrap.dedent(script), folder) == "24\n"

    def test_leaving_while_a_call_is_running(self) -> None:
        script = """
            import asyncio
            from anytask import Instructor

            async def main():
                model = Instructor.from_pretrained("mini")
                call = asyncio.create_task(model.aencode(["some words and a number %d" % n * 50 for n in range(300)]))
                while not model._calls._coalescer._worker._threads:
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.2)
                print("leaving")

            asyncio.run(main())
        """
        assert run_python("-c", textwrap.dedent(script), OMP_NUM_THREADS="1") == "leaving\n"


class TestShared:
    @pytest.fixture(autouse=True)
    def _released(self) -> Iterator[None]:
        release_shared()
        yield
        release_shared()

    @pytest.fixture
    def loads(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Every configuration that is really loaded."""
        loads: list[Any] = []
        load = Instructor.from_pretrained

        def counted(*args: Any, **options: Any) -> Instructor:
            loads.append((args, options))
            return load(*args, **options)

        monkeypatch.setattr(Instructor, "from_pretrained", counted)
        return loads

    def test_many_threads_get_one_object(self, folder: Path, loads: list[Any]) -> None:
        barrier = threading.Barrier(16)

        def load(number: int) -> Instructor:
            barrier.wait(PATIENCE)
            return load_shared(folder, max_length=100 + number % 2)

        with ThreadPoolExecutor(16) as threads:
            models = list(threads.map(load, range(16), timeout=PATIENCE))
        assert len(loads) == 2
        assert all(model is models[place % 2] for place, model in enumerate(models))
        assert [model.max_length for model in models[:2]] == [100, 101]

    def test_configurations_differ(self, folder: Path, make_checkpoint: MakeCheckpoint) -> None:
        models = [
            load_shared(folder),
            load_shared(folder, dtype="bfloat16"),
            load_shared(folder, max_length=64),
            load_shared(make_checkpoint(seed=1)),
        ]
        assert len(set(map(id, models))) == 4

    def test_the_same_configuration_in_other_words(self, folder: Path, loads: list[Any]) -> None:
        models = [
            load_shared(folder),
            load_shared(str(folder)),
            load_shared(name_or_path=folder),
            load_shared(folder, dtype="float32", local_files_only=False, revision=None),
            load_shared(folder, dtype=torch.float32, device=torch.device("cpu")),
            load_shared(folder, device="cpu"),
        ]
        assert len(set(map(id, models))) == 1
        assert len(loads) == 1

    def test_release(self, folder: Path) -> None:
        model = load_shared(folder)
        reference = weakref.ref(model)
        release_shared()
        assert model.encode("still in use").shape == (model.dimension,)
        assert load_shared(folder) is not model
        del model
        gc.collect()
        assert reference() is None

    def test_an_error_is_not_kept(self, folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "model"
        for _ in range(2):
            with pytest.raises(ValueError, match="expected the folder of a checkpoint"):
                load_shared(path)
        path.symlink_to(folder)
        assert load_shared(path).dimension == 24

    def test_unknown_options(self, folder: Path) -> None:
        with pytest.raises(TypeError, match="batch_size"):
            load_shared(folder, batch_size=3)
        with pytest.raises(ValueError, match="dtype must be"):
            load_shared(folder, dtype="float8")

    def test_releasing_while_others_load(self, folder: Path) -> None:
        def load(_: int) -> Instructor:
            return load_shared(folder)

        with ThreadPoolExecutor(4) as threads:
            futures = [threads.submit(load, number) for number in range(30)]
            while not all(future.done() for future in futures):
                release_shared()
            assert {future.result(PATIENCE).dimension for future in futures} == {24}


def test_a_failing_event_loop_is_not_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A caller that leaves its loop while the run goes on costs nobody an error message."""
    watched = Watched(folder)

    async def abandon() -> None:
        watched.hold()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watched.model.aencode("text"), 0.2)

    with caplog.at_level(logging.ERROR):
        asyncio.run(abandon())
        watched.release()
        assert_same(asyncio.run(watched.model.aencode("text")), watched.model.encode("text"))
    assert not caplog.records
