"""Steps in threads of their own: the same vectors, the caller's settings untouched, failures and forks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from anytask import Instructor
from anytask.threads import LonePace, StepThreads

INSTRUCTION = "Represent the statement: "


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(shape={"initializer_factor": 1.0})


@pytest.mark.usefixtures("two_threads")
class TestEncode:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
    def test_the_vectors_are_those_of_one_thread(self, folder: Path, sentences: list[str], dtype: str) -> None:
        model = Instructor.from_pretrained(folder, device="cpu", dtype=dtype)
        texts = ["", "the", *sentences[::50]]
        both = model.encode(texts, INSTRUCTION, batch_tokens=200)
        torch.set_num_threads(1)
        one = model.encode(texts, INSTRUCTION, batch_tokens=200)
        if dtype == "float32":
            np.testing.assert_allclose(both, one, atol=1e-5)
        assert (both * one).sum(1).min() >= 0.9999

    def test_both_compute_and_with_one_thread_each(self, folder: Path, sentences: list[str]) -> None:
        model = Instructor.from_pretrained(folder, device="cpu")
        encoder, seen = model._engine.encoder, set()
        together = threading.Barrier(2)

        def watched(*arguments: object) -> object:
            seen.add((threading.current_thread().name, torch.get_num_threads()))
            together.wait(timeout=30)  # passes only when two steps are at work at the same time
            return encoder(*arguments)  # type: ignore[arg-type]

        model._engine.encoder = watched  # type: ignore[assignment]
        model.encode(sentences[:2])
        assert len(seen) == 2
        assert {count for _, count in seen} == {1}
        assert threading.current_thread().name not in {name for name, _ in seen}

    def test_a_single_text_stays_in_the_callers_thread(self, folder: Path) -> None:
        model = Instructor.from_pretrained(folder, device="cpu")
        encoder, names = model._engine.encoder, []

        def watched(*arguments: object) -> object:
            names.append(threading.current_thread().name)
            return encoder(*arguments)  # type: ignore[arg-type]

        model._engine.encoder = watched  # type: ignore[assignment]
        model.encode("the")
        assert names == [threading.current_thread().name]

    def test_many_callers_at_once(self, folder: Path, sentences: list[str]) -> None:
        model = Instructor.from_pretrained(folder, device="cpu")
        expected = model.encode(sentences[:30])
        with ThreadPoolExecutor(8) as callers:
            results = list(callers.map(lambda _: model.encode(sentences[:30], batch_tokens=64), range(16)))
        for vectors in results:
            np.testing.assert_allclose(vectors, expected, atol=1e-5)

    def test_a_failing_step_fails_the_call_and_no_other(self, folder: Path, sentences: list[str]) -> None:
        model = Instructor.from_pretrained(folder, device="cpu")
        encoder, calls = model._engine.encoder, []

        def failing(*arguments: object) -> object:
            calls.append(arguments)
            if len(calls) == 3:
                raise MemoryError("no room")
            return encoder(*arguments)  # type: ignore[arg-type]

        model._engine.encoder = failing  # type: ignore[assignment]
        with pytest.raises(MemoryError, match="no room"):
            model.encode(sentences[:400], batch_tokens=50)
        assert len(calls) < 100
        model._engine.encoder = encoder
        assert np.isfinite(model.encode(sentences[:10])).all()

    def test_a_caller_with_many_items_lets_others_in_between(self) -> None:
        threads, taken = StepThreads(), []
        many = threads.each(abs, (taken.append(item) or item for item in range(1000)), 2)  # type: ignore[func-returns-value]
        next(many)
        assert [result for _, result in threads.each(abs, [-5], 2)] == [5]
        assert len(taken) <= 4
        assert len(list(many)) == 999

    def test_the_callers_number_of_threads_stays(self, folder: Path, sentences: list[str]) -> None:
        StepThreads()._pool(3).shutdown()
        Instructor.from_pretrained(folder, device="cpu").encode(sentences[:10])
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert (torch.get_num_threads(), later) == (2, [2])

    @pytest.mark.filterwarnings("ignore:.*fork")
    def test_in_a_forked_child(self, folder: Path, sentences: list[str]) -> None:
        model = Instructor.from_pretrained(folder, device="cpu", dtype="int8")
        expected = model.encode(sentences[:10])  # starts the threads
        child = os.fork()
        if child == 0:  # pragma: no cover
            torch.set_num_threads(2)
            same = np.allclose(model.encode(sentences[:10]), expected, atol=1e-3)
            os._exit(0 if same else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class TestSpinning:
    def run(self, program: str, **variables: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | variables
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    PROGRAM = "import os, {}; print(os.environ.get('GOMP_SPINCOUNT'))"

    def test_is_set_for_torch_alone(self) -> None:
        watched = (
            "import os, sys\n"
            "class Watch:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'torch': print(os.environ.get('GOMP_SPINCOUNT'))\n"
            "sys.meta_path.insert(0, Watch())\n"
            "import anytask\nprint(os.environ.get('GOMP_SPINCOUNT'))"
        )
        assert self.run(watched).split() == ["10000", "None"]

    def test_what_the_user_set_stands(self) -> None:
        assert self.run(self.PROGRAM.format("anytask"), GOMP_SPINCOUNT="7") == "7"
        assert self.run(self.PROGRAM.format("anytask"), OMP_WAIT_POLICY="ACTIVE") == "None"
        assert self.run(self.PROGRAM.format("torch, anytask")) == "None"


class TestLonePace:
    def run(self, pace: LonePace, split_seconds: float, steps: int, tokens: int = 20) -> list[bool]:
        """The ways taken when one thread takes a second."""
        ways = []
        for _ in range(steps):
            ways.append(pace.splits(tokens))
            pace.note(tokens, ways[-1], split_seconds if ways[-1] else 1.0)
        return ways

    def test_splits_where_that_is_faster(self) -> None:
        ways = self.run(LonePace(), 0.6, 100)
        assert ways[:2] == [True, False]
        assert ways.count(False) <= 5

    def test_leaves_it_where_a_core_is_busy_and_comes_back(self) -> None:
        pace = LonePace()
        self.run(pace, 0.6, 50)
        assert self.run(pace, 5.0, 1000).count(True) <= 8
        assert all(self.run(pace, 0.6, 600)[-100:])

    def test_tells_sizes_apart(self) -> None:
        pace = LonePace()
        self.run(pace, 5.0, 10)
        self.run(pace, 0.6, 10, tokens=500)
        assert not pace.splits(20)
        assert pace.splits(500)
