"""One call on several devices: real worker processes on the CPU, killed and interrupted too."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anytask import Instructor, WorkerError
from anytask.batching import TokenizedText
from anytask.devices import DevicePool, _shares, device_names
from anytask.shared_arrays import SHARED_MEMORY, SharedTensors

from .peak_memory import needs_proc

INSTRUCTION = "Represent the statement: "
BOTH = ["cpu", "cpu"]
PATIENCE = 120.0


@pytest.fixture(scope="module")
def folder(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint()


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Instructor]:
    with Instructor.from_pretrained(folder, device="cpu") as model:
        yield model


def blocks(pid: int | None = None) -> set[str]:
    """Shared memory that has a name and was made by a process; by default by this one."""
    return {path.name for path in SHARED_MEMORY.glob(f"anytask-{pid or os.getpid()}-*")}


def workers() -> list[Any]:
    return [child for child in multiprocessing.active_children() if child.name.startswith("anytask-")]


def mapped(pid: int) -> set[str]:
    """Shared memory that a process has attached."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split("/")[-1] for line in lines if "/shm/anytask-" in line}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs that may be nobody's child any more."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


class TestEncode:
    def test_the_vectors_are_those_of_one_process(self, model: Instructor, sentences: list[str]) -> None:
        texts = ["", *sentences[:200], "long " * 600]
        with pytest.warns(UserWarning, match="1 of 202 texts"):
            vectors = model.encode(texts, INSTRUCTION, device=BOTH)
        with pytest.warns(UserWarning, match="1 of 202 texts"):
            expected = model.encode(texts, INSTRUCTION)
        np.testing.assert_allclose(vectors, expected, atol=1e-5)

    @pytest.mark.parametrize("options", [{"batch_tokens": 50}, {"truncate_dim": 9, "precision": "int8"}, {}])
    def test_options_and_progress(self, model: Instructor, sentences: list[str], options: Any) -> None:
        steps: list[int] = []
        texts = sentences[:100]
        vectors = model.encode_query(texts, device=BOTH, show_progress=steps.append, **options)
        np.testing.assert_allclose(vectors, model.encode_query(texts, **options), atol=1e-5)
        assert sum(steps) == len(texts)
        assert len(steps) > 2

    def test_few_texts(self, model: Instructor) -> None:
        assert model.encode([], device=BOTH).shape == (0, model.dimension)
        np.testing.assert_allclose(model.encode("text", device=BOTH), model.encode("text"), atol=1e-5)
        assert model.encode([], device=BOTH, as_tensor=True).dtype == torch.float32

    def test_processes_are_kept_for_the_next_call(self, model: Instructor, sentences: list[str]) -> None:
        model.encode(sentences[:3], device=BOTH)
        before = {worker.pid for worker in workers()}
        model.encode(sentences[:3], device=(torch.device("cpu"), "cpu"))
        assert {worker.pid for worker in workers()} == before
        assert len(before) == 2
        assert not blocks()

    def test_a_failing_step_is_told_and_the_workers_go_on(self, folder: Path, sentences: list[str]) -> None:
        broken = Instructor.from_pretrained(folder, device="cpu", dtype="float16")
        with torch.no_grad():
            broken._engine.encoder.state_dict()["embed_tokens.weight"][7] = torch.nan
        bad = broken._tokenizer.tokenizer.decode([7])
        with broken:
            for _ in range(2):
                with pytest.raises(RuntimeError, match="not finite") as error:
                    broken.encode([*sentences[:50], bad], device=["cpu"])
                assert "in the worker on cpu" in error.value.__notes__
            pids = {worker.pid for worker in workers()}
            good = [text for text in sentences[:50] if 7 not in broken._tokenizer([text], [""])[0].ids]
            np.testing.assert_allclose(broken.encode(good, device=["cpu"]), broken.encode(good), atol=1e-3)
            assert {worker.pid for worker in workers()} == pids
        assert not blocks()

    def test_other_devices_wait_for_nobody_and_end_nobodys_call(self, folder: Path, sentences: list[str]) -> None:
        model = Instructor.from_pretrained(folder, device="cpu")
        others, texts = {worker.pid for worker in workers()}, sentences[:40]
        expected = model.encode(texts, INSTRUCTION)
        inner: list[Any] = []

        def meanwhile(_: int) -> None:
            if not inner:
                inner.append(model.encode(texts, INSTRUCTION, device=["cpu:0"]))

        outer = model.encode(texts, INSTRUCTION, device=["cpu"], show_progress=meanwhile)
        for vectors in (outer, *inner):
            np.testing.assert_allclose(vectors, expected, atol=1e-5)
        assert [worker.name for worker in workers() if worker.pid not in others] == ["anytask-cpu:0"]
        model.close()
        assert {worker.pid for worker in workers()} == others


class TestBadInput:
    @pytest.mark.parametrize(
        ("texts", "error", "message"),
        [
            (["fine", None], TypeError, "text 1 must be a string, got None"),
            (["fine", "\ud800"], ValueError, r"text 1 holds U\+D800"),
            (["very " * 600], ValueError, "text 0 has more tokens"),
        ],
    )
    def test_is_told_before_anything_is_started(
        self, folder: Path, texts: Any, error: type[Exception], message: str
    ) -> None:
        before = len(workers())
        fresh = Instructor.from_pretrained(folder, device="cpu")
        with pytest.raises(error, match=message):
            fresh.encode(texts, device=BOTH, on_long="error")
        assert len(workers()) == before

    @pytest.mark.parametrize(
        ("device", "message"),
        [
            ("cpu", "device must be a list"),
            ([], "device must be a list"),
            (["cpu", "tpu:9"], "device 'tpu:9', expected one such as"),
            (["cpu", "cuda:99"], "device 'cuda:99' isn't there: torch sees"),
        ],
    )
    def test_devices(self, model: Instructor, device: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            model.encode("text", device=device)

    def test_what_a_worker_cannot_do_is_told_at_the_start(self, folder: Path) -> None:
        model = Instructor.from_pretrained(folder, device="cpu", dtype="int8")
        with pytest.raises(ValueError, match="for CPUs") as error:
            DevicePool(model._engine, ["meta"])
        assert "in the worker on meta" in error.value.__notes__


class TestEnds:
    def test_a_killed_worker_is_reported_and_leaves_nothing(self, folder: Path, sentences: list[str]) -> None:
        others, texts = {worker.pid for worker in workers()}, sentences[:400]
        model = Instructor.from_pretrained(folder, device="cpu")
        killed: list[int] = []

        def kill(_: int) -> None:
            if not killed:
                killed.append(next(worker.pid for worker in workers() if worker.pid not in others))
                os.kill(killed[0], signal.SIGKILL)

        with pytest.raises(WorkerError, match=r"on cpu ended with exit code -9 \(killed by SIGKILL") as error:
            model.encode(texts, INSTRUCTION, batch_tokens=20, device=BOTH, show_progress=kill)
        assert str(killed[0]) in str(error.value)
        assert {worker.pid for worker in workers()} == others
        assert not blocks()

        vectors = model.encode(texts, INSTRUCTION, device=BOTH)  # with new ones
        np.testing.assert_allclose(vectors, model.encode(texts, INSTRUCTION), atol=1e-5)
        pids = {worker.pid for worker in workers()} - others
        with pytest.raises(KeyboardInterrupt):
            model.encode(texts, device=BOTH, show_progress=interrupt)
        assert {worker.pid for worker in workers()} == others
        assert not any(map(is_alive, pids))
        assert not blocks()

    def test_an_interrupt_while_texts_are_handed_over(self, model: Instructor) -> None:
        class Interrupting:
            def __len__(self) -> int:
                return 3

            def __array__(self, *_: object, **__: object) -> Any:
                raise KeyboardInterrupt

        with DevicePool(model._engine, ["cpu"]) as pool:
            with pytest.raises(KeyboardInterrupt):
                pool.embed([TokenizedText(Interrupting(), 0)])  # type: ignore[arg-type]
            assert not blocks()

    @needs_proc
    def test_workers_keep_nothing_of_a_call(self, model: Instructor, sentences: list[str]) -> None:
        others = {worker.pid for worker in workers()}
        with DevicePool(model._engine, ["cpu"]) as pool:
            (pid,) = {worker.pid for worker in workers()} - others
            before = mapped(pid)
            pool.embed(model._tokenizer(sentences[:50], [INSTRUCTION] * 50))
            wait_until(lambda: mapped(pid) == before)

    @needs_proc
    @pytest.mark.parametrize(("device", "kept"), [("cpu", 1), ("meta", 0)])
    def test_weights_are_kept_in_shared_memory_where_they_are_used(
        self, model: Instructor, device: str, kept: int
    ) -> None:
        others = {worker.pid for worker in workers()}
        with DevicePool(model._engine, [device]):
            (pid,) = {worker.pid for worker in workers()} - others
            assert len(mapped(pid)) == kept

    def test_closing_and_forgetting(self, folder: Path) -> None:
        model = Instructor.from_pretrained(folder, device="cpu")
        others = {worker.pid for worker in workers()}
        pool = DevicePool(model._engine, ["cpu"])
        pids = {worker.pid for worker in workers()} - others
        assert len(pids) == 1
        pool.close()
        pool.close()
        assert pool.closed
        assert not any(map(is_alive, pids))
        with pytest.raises(RuntimeError, match="pool is closed"):
            pool.embed([])

        model.encode("text", device=["cpu"])
        pids = {worker.pid for worker in workers()} - others
        del model
        gc.collect()
        assert len(pids) == 1
        assert not any(map(is_alive, pids))


def interrupt(_: int) -> None:
    raise KeyboardInterrupt


class TestScripts:
    def run(self, script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", str(script), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def write(self, path: Path, body: str) -> Path:
        path.write_text(
            "import os, signal, sys\nfrom multiprocessing import active_children\nfrom anytask import Instructor\n"
            + textwrap.dedent(body)
        )
        return path

    def test_leaving_without_closing(self, folder: Path, tmp_path: Path) -> None:
        script = """
            if __name__ == "__main__":
                model = Instructor.from_pretrained(sys.argv[1], device="cpu")
                print(os.getpid(), *model.encode(["a", "b"], device=["cpu", "cpu"]).shape)
        """
        ended = self.run(self.write(tmp_path / "leave.py", script), folder)
        assert (ended.returncode, ended.stderr) == (0, "")
        pid, *shape = map(int, ended.stdout.split())
        assert shape == [2, 24]
        assert not blocks(pid)

    def test_a_script_without_a_main_block_is_told_of_it(self, folder: Path, tmp_path: Path) -> None:
        script = """
            model = Instructor.from_pretrained(sys.argv[1], device="cpu")
            model.encode(["a", "b"], device=["cpu"])
        """
        ended = self.run(self.write(tmp_path / "guard.py", script), folder)
        assert ended.returncode == 1
        assert "on cpu ended with exit code 1" in ended.stderr.splitlines()[-1]
        assert '`if __name__ == "__main__":`' in ended.stderr.splitlines()[-1]

    @pytest.mark.skipif(not Path("/proc").exists(), reason="looks processes up in /proc")
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_forked_child_that_exits_leaves_the_workers_alone(self, folder: Path, tmp_path: Path) -> None:
        script = """
            if __name__ == "__main__":
                model = Instructor.from_pretrained(sys.argv[1], device="cpu")
                model.encode(["a", "b"], device=["cpu", "cpu"])
                child = os.fork()
                if child == 0:
                    sys.exit(0)
                assert os.waitpid(child, 0)[1] == 0
                print(*model.encode(["a", "b"], device=["cpu", "cpu"]).shape)
        """
        done = self.run(self.write(tmp_path / "fork.py", script), folder)
        assert (done.returncode, done.stdout, done.stderr) == (0, "2 24\n", "")

    def test_workers_end_with_a_parent_that_is_killed(self, folder: Path, tmp_path: Path) -> None:
        script = """
            def report(_):
                print(os.getpid(), *(child.pid for child in active_children()), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

            if __name__ == "__main__":
                model = Instructor.from_pretrained(sys.argv[1], device="cpu")
                model.encode(["a text", "b"] * 500, device=["cpu", "cpu"], show_progress=report)
        """
        ended = self.run(self.write(tmp_path / "killed.py", script), folder)
        assert ended.returncode == -signal.SIGKILL
        parent, *pids = map(int, ended.stdout.split())
        assert len(pids) == 2
        wait_until(lambda: not any(map(is_alive, pids)))
        wait_until(lambda: not blocks(parent))


class TestParts:
    def test_threads_are_divided(self) -> None:
        assert _shares(8, 3) == [3, 3, 2]
        assert _shares(1, 2) == [1, 1]
        assert _shares(4, 0) == []

    def test_names(self) -> None:
        assert device_names(["cpu", torch.device("cpu")]) == BOTH

    @pytest.mark.skipif(not SHARED_MEMORY.exists(), reason="shared memory is no file system here")
    def test_shared_memory_that_is_not_there(self) -> None:
        with pytest.raises(OSError, match=r"MB of shared memory are needed, /dev/shm has .*--shm-size"):
            SharedTensors.create({"a": (torch.uint8, (1 << 45,))})
        assert not blocks()

    def test_shared_tensors(self) -> None:
        ours = SharedTensors.create(
            {"a": (torch.bfloat16, (3, 2)), "none": (torch.int32, (0,)), "b": (torch.int64, ())}
        )
        assert blocks() == ({ours.layout.name} if SHARED_MEMORY.exists() else set())
        ours["a"].fill_(1.5)
        ours["b"].fill_(7)
        theirs = SharedTensors.attach(ours.layout)
        assert theirs["a"].tolist() == [[1.5, 1.5]] * 3
        assert (theirs["none"].shape, int(theirs["b"])) == ((0,), 7)
        ours.remove()
        assert not blocks()
        theirs["b"].fill_(8)
        assert int(ours["b"]) == 8
        theirs.close()
        ours.close()
        ours.close()
        with pytest.raises(FileNotFoundError):
            SharedTensors.attach(ours.layout)
