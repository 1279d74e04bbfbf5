"""`anytask embed --device cpu,cpu`: the bytes of one process, by several; killed at either end."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from anytask import Embedder, WorkerError
from anytask.cli import app
from anytask.corpus import BadRowError, Columns, CorpusJob, Progress, embed_corpus

TWO = ["cpu", "cpu"]


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(max_length=48)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def corpus(sentences: list[str], tmp_path: Path) -> Path:
    """310 rows: with shards of 60, five and a bit."""
    path = tmp_path / "corpus.jsonl"
    write_rows(path, [{"id": f"s{i}", "text": text} for i, text in enumerate(sentences[:310])])
    return path


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def job_of(corpus: Path, checkpoint: Path, **options: Any) -> CorpusJob:
    embedder = Embedder(model=str(checkpoint), device="cpu", dtype=options.pop("dtype", None))
    settings = {"columns": Columns(id="id"), "shard_rows": 60, "window_rows": 25, **options}
    return CorpusJob([str(corpus)], embedder, **settings)


def workers() -> set[int]:
    return {child.pid or 0 for child in multiprocessing.active_children() if child.name.startswith("anytask-")}


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("dtype", "options"),
    [("float32", {}), ("bfloat16", {"precision": "int8", "calibrate": 100}), ("int8", {"precision": "float16"})],
)
def test_the_output_has_the_bytes_of_one_process(
    dtype: str, options: dict[str, Any], corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    job = job_of(corpus, checkpoint, dtype=dtype, **options)
    told: list[Progress] = []
    seen: set[int] = set()
    others = workers()

    def note(progress: Progress) -> None:
        told.append(progress)
        seen.update(workers() - others)

    summary = embed_corpus(job, tmp_path / "two", devices=TWO, on_progress=note)
    assert summary == embed_corpus(job, tmp_path / "one")
    assert summary.counts.cut > 0
    assert folder_bytes(tmp_path / "two") == folder_bytes(tmp_path / "one")
    assert len(seen) == 2  # for all six shards
    assert workers() == others
    assert (told[-1].rows, told[-1].position) == (310, told[-1].total)
    assert [progress.position for progress in told] == sorted(progress.position for progress in told)


def test_the_command(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    def run(output: Path, device: str) -> Any:
        small = ("--shard-rows", "60", "--window-rows", "25")
        arguments = (corpus, "--output", output, "--model", checkpoint, "--device", device, *small)
        return CliRunner().invoke(app, ["embed", *map(str, arguments)])

    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    assert run(one, "cpu").exit_code == 0
    done = run(two, "cpu, cpu")
    assert done.exit_code == 0, done.output
    assert "310 texts embedded in 6 shards" in done.stderr
    assert two.read_bytes() == one.read_bytes()
    for device, message in [
        ("cpu,tpu:9", "device 'tpu:9', expected one such as 'cpu'"),
        ("cpu,cuda:99", "device 'cuda:99' isn't there: torch sees"),
        ("cpu,", "device '', expected one such as 'cpu'"),
    ]:
        refused = run(tmp_path / "other.parquet", device)
        assert refused.exit_code == 1
        assert f"error: {message}" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "one.parquet", "two.parquet"]


def test_several_devices_and_ray_do_not_go_together(tmp_path: Path) -> None:
    arguments = ["embed", "a.jsonl", "--output", str(tmp_path / "o.parquet"), "--device", "cpu,cpu", "--ray", "local"]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 1
    assert "--ray takes one --device" in refused.stderr


@pytest.mark.parametrize("devices", ["cpu,cpu", pytest.param("cpu", marks=pytest.mark.slow)])
def test_killed_the_other_kind_of_command_goes_on(
    devices: str, corpus: Path, sentences: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    """Real processes; what one device began, two end, and the other way round."""
    write_rows(corpus, [{"text": text} for text in sentences[:1200]])
    whole, again = tmp_path / "whole.parquet", tmp_path / "again.parquet"
    command = [sys.executable, "-m", "anytask", "embed", corpus, "--model", checkpoint, "--shard-rows", "40"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--output", again, "--device", devices], env=environment, stderr=subprocess.DEVNULL
    ) as process:
        work = tmp_path / ".again.parquet.work"
        while not (work / "part-000002.parquet").exists():
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finished = len(list(work.glob("part-*.parquet")))
    assert 3 <= finished < 30
    other = "cpu" if devices == "cpu,cpu" else "cpu,cpu"
    resumed = subprocess.run(
        [*command, "--output", again, "--device", other], env=environment, capture_output=True, check=True
    )
    assert f"1,200 texts embedded in 30 shards, {finished} of them by an earlier run: ".encode() in resumed.stderr
    embed_corpus(CorpusJob([str(corpus)], Embedder(model=str(checkpoint), device="cpu"), shard_rows=40), whole)
    assert again.read_bytes() == whole.read_bytes()


def test_a_killed_worker_is_told_and_finished_shards_are_kept(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    job, output = job_of(corpus, checkpoint), tmp_path / "out"
    others = workers()
    work = tmp_path / ".out.work"

    def kill(_: Progress) -> None:
        if (work / "part-000001.parquet").exists() and len(ours := workers() - others) == 2:
            with suppress(ProcessLookupError):  # told to before, and gone
                os.kill(max(ours), signal.SIGKILL)

    with pytest.raises(WorkerError, match=r"on cpu ended with exit code -9 \(killed by SIGKILL"):
        embed_corpus(job, output, devices=TWO, on_progress=kill)
    assert workers() == others
    kept = {path.name: path.read_bytes() for path in work.glob("part-*.parquet")}
    assert len(kept) >= 2
    summary = embed_corpus(job, output, devices=TWO)
    assert summary.resumed == len(kept)
    embed_corpus(job, tmp_path / "whole")
    assert folder_bytes(output) == folder_bytes(tmp_path / "whole")


def test_an_interrupt_ends_the_workers(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    others = workers()

    class Interrupting:
        name = "a loader that is interrupted"

        def load(self, shard: Path) -> None:
            assert len(workers() - others) == 2
            raise KeyboardInterrupt(shard)

    with pytest.raises(KeyboardInterrupt):
        embed_corpus(job_of(corpus, checkpoint), tmp_path / "out", devices=TWO, loader=Interrupting())
    assert workers() == others


def test_bad_rows_stop_at_the_same_shard(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in corpus.read_text("utf-8").splitlines()]
    rows[130]["text"] = 3
    rows[170:195] = [{"id": "bad"}] * 25
    write_rows(corpus, rows)
    for name, devices in (("one", []), ("two", TWO)):
        with pytest.raises(BadRowError, match="row 131"):
            embed_corpus(job_of(corpus, checkpoint), tmp_path / name, devices=devices)
        kept = [path.name for path in (tmp_path / f".{name}.work").glob("part-*")]
        assert sorted(kept) == ["part-000000.parquet", "part-000001.parquet"]
    skipping = job_of(corpus, checkpoint, skip_bad=True)
    summary = embed_corpus(skipping, tmp_path / "skipped.parquet", devices=TWO)
    assert summary == embed_corpus(skipping, tmp_path / "also.parquet")
    assert summary.counts.bad == 26
    assert (tmp_path / "skipped.parquet").read_bytes() == (tmp_path / "also.parquet").read_bytes()
