"""The Ray job: the bytes of a local run, what a killed one leaves, and errors. The cluster is a real one, of two."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}

ray = pytest.importorskip("ray")

from anytask import Embedder  # noqa: E402
from anytask.corpus import BadRowError, Columns, CorpusJob, InputError, Progress, embed_corpus  # noqa: E402
from anytask.corpus.on_ray import ShardMaker, Workers, embed_corpus_on_ray  # noqa: E402
from anytask.corpus.sources import count_rows  # noqa: E402
from anytask.corpus.work import CorpusWork  # noqa: E402
from anytask.files.whole import write_json  # noqa: E402
from anytask.files.work_folder import SETTINGS  # noqa: E402

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As an actor of one core has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint(max_length=48)


@pytest.fixture
def corpus(sentences: list[str], tmp_path: Path) -> Path:
    """130 rows in two files: with shards of 25, five and a bit, one over the border of the files."""
    (tmp_path / "corpus").mkdir()
    for name, rows in (("a", range(60)), ("b", range(60, 130))):
        table = pa.table({"id": [f"s{row}" for row in rows], "text": [sentences[row] for row in rows], "n": list(rows)})
        pq.write_table(table, tmp_path / f"corpus/{name}.parquet", row_group_size=16)
    return tmp_path / "corpus"


def job_of(corpus: Path, checkpoint: Path, **options: object) -> CorpusJob:
    settings = {"columns": Columns(id="id", keep={"n": None}), "shard_rows": 25, "window_rows": 10, **options}
    return CorpusJob([str(corpus)], Embedder(model=str(checkpoint), device="cpu"), **settings)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster", "one_thread")
def test_two_workers_write_the_bytes_of_one_process(
    corpus: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(corpus.parent)
    job = job_of(Path("corpus"), checkpoint)
    told: list[Progress] = []
    summary = embed_corpus_on_ray(job, "ray.parquet", Workers(2), on_progress=told.append)
    assert summary == embed_corpus(job, tmp_path / "local.parquet")
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
    assert [progress.rows for progress in told][-1] == 130
    assert told[-1].position == told[-1].total
    embed_corpus_on_ray(job, "ray", Workers(2))
    embed_corpus(job, "local")
    names = sorted(path.name for path in Path("ray").iterdir())
    assert names == [f"part-{number:06d}.parquet" for number in range(6)]
    for name in names:
        assert Path("ray", name).read_bytes() == Path("local", name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.usefixtures("cluster", "one_thread")
def test_only_missing_shards_are_made(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    job = job_of(corpus, checkpoint)
    embed_corpus(job, tmp_path / "whole")
    embed_corpus_on_ray(job, tmp_path / "again", Workers(1))
    work = tmp_path / ".again.work"
    (tmp_path / "again").rename(work)
    settings = {**job.settings(), "loaded into": None, "kept": True}
    write_json(work / SETTINGS, settings)
    for number in (0, 3):
        (work / f"part-{number:06d}.parquet").unlink()
    with CorpusWork(job, tmp_path / "again", overwrite=False) as found:
        assert found.finished() == 0
    summary = embed_corpus_on_ray(job, tmp_path / "again", Workers(2))
    assert (summary.shards, summary.resumed, summary.counts.rows) == (6, 4, 130)
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster", "one_thread")
def test_bad_rows_are_told_as_by_a_local_run(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    rows = pq.read_table(corpus / "b.parquet").to_pylist()
    rows[7]["text"] = None
    pq.write_table(pa.Table.from_pylist(rows), corpus / "b.parquet")
    with pytest.raises(BadRowError, match=r"b\.parquet, row 8: the field text is null"):
        embed_corpus_on_ray(job_of(corpus, checkpoint), tmp_path / "out.parquet", Workers(2))
    skipping = job_of(corpus, checkpoint, skip_bad=True)
    summary = embed_corpus_on_ray(skipping, tmp_path / "other.parquet", Workers(2))
    assert (summary.counts.rows, summary.counts.bad) == (129, 1)
    assert len(summary.bad) == 1
    assert "b.parquet, row 8: the field text is null" in summary.bad[0]


@pytest.fixture
def streams(sentences: list[str], tmp_path: Path) -> Path:
    """150 rows in JSON lines, plain and compressed, and CSV with blank lines and line breaks within values."""
    folder = tmp_path / "streams"
    folder.mkdir()
    lines = [json.dumps({"id": f"s{row}", "text": sentences[row], "n": row}) + "\n" for row in range(100)]
    (folder / "a.jsonl").write_text("\n".join(lines[:40]), "utf-8")
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(lines[40:]).encode()))
    with (folder / "c.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "text", "id"])
        writer.writerows([row, f"{sentences[row][:20]}\n\n{sentences[row]}", f"s{row}"] for row in range(100, 150))
    return folder


def test_rows_are_found_in_streams_whose_rows_are_counted(streams: Path, checkpoint: Path) -> None:
    job = job_of(streams, checkpoint, columns=Columns(id="id"))
    counts = [count_rows(source) for source in job.sources]
    assert counts == [40, 60, 50]
    ids = [row.id for window in job.windows_from(0) for row in window.rows]
    assert ids == [f"s{row}" for row in range(150)]
    for shard in range(6):
        again = [row.id for window in job.windows_from(shard, counts) for row in window.rows]
        assert again == ids[25 * shard :]
    (streams / "a.jsonl").unlink()  # what comes before isn't opened
    last = [row.id for window in job.windows_from(4, counts) for row in window.rows]
    assert last == ids[100:]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster", "one_thread")
def test_streams_too_give_the_bytes_of_one_process(streams: Path, checkpoint: Path, tmp_path: Path) -> None:
    job = job_of(streams, checkpoint, columns=Columns(id="id", keep={"n": "int64"}))
    summary = embed_corpus_on_ray(job, tmp_path / "ray.parquet", Workers(2))
    assert summary == embed_corpus(job, tmp_path / "local.parquet")
    assert (summary.counts.rows, summary.shards) == (150, 6)
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()


def test_what_ray_cannot_do_is_told_before_it_starts(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="standard input can't be read twice"):
        embed_corpus_on_ray(job_of(Path("-"), checkpoint), tmp_path / "out.parquet", Workers(1))
    (corpus / "c.jsonl.gz").write_bytes(gzip.compress(b'{"id": "x", "text": "y", "n": 1}\n' * 9)[:-9])
    with pytest.raises(InputError, match=r"c\.jsonl\.gz, row"):
        embed_corpus_on_ray(job_of(corpus, checkpoint, columns=Columns(id="id")), tmp_path / "out.parquet", Workers(1))
    (corpus / "c.jsonl.gz").unlink()
    with pytest.raises(ValueError, match="give a calibration that was made before"):
        embed_corpus_on_ray(job_of(corpus, checkpoint, precision="int8", calibrate=20), tmp_path / "out", Workers(1))
    with pytest.raises(ValueError, match="at least one worker is needed, got 0"):
        Workers(0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus"]


def test_a_missing_extra_is_named() -> None:
    script = """
import sys
sys.modules["ray"] = None
from anytask.cli import app
app(["embed", "a.parquet", "--output", "o.parquet", "--ray", "local"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install "anytask[ray]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_an_actor_works_where_the_directory_of_the_driver_is_not(
    corpus: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ShardMaker(job_of(corpus, checkpoint), [130], tmp_path / "of the driver alone", tmp_path)
    assert Path.cwd() == tmp_path
