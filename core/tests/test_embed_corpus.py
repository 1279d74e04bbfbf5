"""`anytask embed`: whole corpora, and what a killed process leaves."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from anytask import Embedder, Instructor
from anytask.cli import app
from anytask.corpus import (
    BadRowError,
    Columns,
    CorpusJob,
    Progress,
    embed_corpus,
    read_description,
    read_vectors,
)
from anytask.corpus.work import CorpusWork
from anytask.errors import TruncationWarning
from anytask.files.work_folder import SETTINGS, WorkFolder
from anytask.precision import Calibration, quantize

from .peak_memory import PEAK, needs_proc

MakeCheckpoint = Callable[..., Path]
INSTRUCTION = "Represent the manual's paragraph for retrieval: "
SMALL = ("--shard-rows", "50", "--window-rows", "20")


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint(max_length=48)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Instructor:
    return Instructor.from_pretrained(checkpoint, device="cpu")


@pytest.fixture
def corpus(sentences: list[str], tmp_path: Path) -> Path:
    """170 rows: with shards of 50, three and a bit."""
    path = tmp_path / "corpus.jsonl"
    write_rows(path, [{"id": f"s{i}", "text": text, "length": len(text)} for i, text in enumerate(sentences[:170])])
    return path


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")


def job_of(corpus: Path, checkpoint: Path) -> CorpusJob:
    return CorpusJob([str(corpus)], Embedder(model=str(checkpoint)), shard_rows=50, window_rows=20)


def anytask(*arguments: str | Path, input: bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["embed", *map(str, arguments)], input=input)


def test_the_command_writes_what_encode_gives(
    corpus: Path, sentences: list[str], checkpoint: Path, model: Instructor, tmp_path: Path
) -> None:
    output = tmp_path / "out.parquet"
    done = anytask(
        *(corpus, "--output", output, "--model", checkpoint, "--id", "id", "--keep", "length:int64", "--keep-text"),
        *("--instruction", INSTRUCTION, *SMALL),
    )
    assert done.exit_code == 0, done.output
    table = pq.read_table(output)
    assert table.column_names == ["id", "embedding", "text", "length"]
    assert table.schema.field("embedding").type == pa.list_(pa.field("element", pa.float32(), False), 24)
    assert table["id"].to_pylist() == [f"s{i}" for i in range(170)]
    assert table["text"].to_pylist() == sentences[:170]
    assert table["length"].to_pylist() == [len(text) for text in sentences[:170]]
    with pytest.warns(TruncationWarning) as caught:
        expected = model.encode(sentences[:170], INSTRUCTION)
    ids, vectors = read_vectors(output)
    assert ids == table["id"].to_pylist()
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    cut = caught[0].message.count  # type: ignore[union-attr]
    assert f"{cut} were longer than the model takes" in done.stderr
    assert "170 texts embedded in 4 shards" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "out.parquet"]


def test_the_output_says_what_its_vectors_are(
    corpus: Path, checkpoint: Path, model: Instructor, tmp_path: Path
) -> None:
    job = CorpusJob([str(corpus)], Embedder(model=str(checkpoint), truncate_dim=10, device="cpu"), role="query")
    embed_corpus(job, tmp_path / "out.parquet")
    description, calibration = read_description(tmp_path / "out.parquet")
    assert calibration is None
    assert {name: description[name] for name in ("model", "role", "dimension", "precision", "dtype", "max_length")} == {
        "model": str(checkpoint),
        "role": "query",
        "dimension": 10,
        "precision": "float32",
        "dtype": "float32",
        "max_length": 48,
    }
    assert description["instruction"] == model.query_instruction
    assert description["fingerprint"] == job.embedder.fingerprint("query")
    ids, vectors = read_vectors(tmp_path / "out.parquet")
    assert ids[:3] == ["0", "1", "2"]
    texts = [json.loads(line)["text"] for line in corpus.read_text("utf-8").splitlines()]
    with pytest.warns(TruncationWarning):
        np.testing.assert_allclose(vectors, model.encode_query(texts, truncate_dim=10), atol=1e-5)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="holds no description"):
        read_description(tmp_path / "other.parquet")


@pytest.mark.parametrize("precision", ["float16", "int8", "binary"])
@pytest.mark.parametrize("calibrated", ["", "made", "given"])
def test_compact_vectors(
    precision: str, calibrated: str, corpus: Path, checkpoint: Path, model: Instructor, tmp_path: Path
) -> None:
    output, options = tmp_path / "out.parquet", ["--precision", precision]
    texts = [json.loads(line)["text"] for line in corpus.read_text("utf-8").splitlines()]
    with pytest.warns(TruncationWarning):
        vectors = model.encode_document(texts)
    ranges = Calibration.of(vectors[:60])
    if calibrated == "given":
        ranges.save(tmp_path / "ranges.json")
    options += {"": [], "made": ["--calibrate", "60"], "given": ["--calibration", str(tmp_path / "ranges.json")]}[
        calibrated
    ]
    done = anytask(corpus, "--output", output, "--model", checkpoint, *options, *SMALL)
    if calibrated and precision == "float16":
        assert done.exit_code == 1
        assert "a calibration is for int8 and binary vectors, not for float16" in done.stderr
        return
    assert done.exit_code == 0, done.output
    _, codes = read_vectors(output)
    expected = quantize(vectors, precision, ranges if calibrated else None)  # type: ignore[arg-type]
    assert codes.dtype == expected.dtype
    assert codes.shape == expected.shape
    if precision == "binary":
        assert np.unpackbits(codes ^ expected).mean() < 0.001
    else:
        np.testing.assert_allclose(codes.astype(float), expected.astype(float), atol=1 if precision == "int8" else 1e-3)
    description, stored = read_description(output)
    assert description["precision"] == precision
    assert (stored is not None) == bool(calibrated)
    if stored is not None:
        np.testing.assert_allclose(stored.upper, ranges.upper, atol=1e-5)


def test_a_folder_of_shards_holds_the_same(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    job = CorpusJob([str(corpus)], Embedder(model=str(checkpoint)), shard_rows=50, window_rows=20)
    summary = embed_corpus(job, tmp_path / "one.parquet")
    assert embed_corpus(job, tmp_path / "many") == summary
    assert (summary.shards, summary.resumed, summary.counts.rows) == (4, 0, 170)
    shards = sorted((tmp_path / "many").iterdir())
    assert [path.name for path in shards] == [f"part-{number:06d}.parquet" for number in range(4)]
    assert [pq.read_metadata(path).num_rows for path in shards] == [50, 50, 50, 20]
    assert pq.read_table(tmp_path / "many").equals(pq.read_table(tmp_path / "one.parquet"))
    assert read_description(tmp_path / "many") == read_description(tmp_path / "one.parquet")
    with pytest.raises(FileExistsError, match="--overwrite"):
        embed_corpus(job, tmp_path / "many")
    (tmp_path / "many/part-000009.parquet").write_bytes(b"of an older run")
    embed_corpus(job, tmp_path / "many", overwrite=True)
    assert sorted((tmp_path / "many").iterdir()) == shards


def test_killed_the_same_command_goes_on_at_the_next_shard(
    corpus: Path, sentences: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    """Real processes, and the bytes of an undisturbed run."""
    write_rows(corpus, [{"text": text} for text in sentences[:1200]])
    whole, again = tmp_path / "whole.parquet", tmp_path / "again.parquet"
    command = [sys.executable, "-m", "anytask", "embed", corpus, "--model", checkpoint, "--shard-rows", "40"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    undisturbed = subprocess.run([*command, "--output", whole], env=environment, capture_output=True, check=True)
    assert b"1,200 texts embedded in 30 shards: " in undisturbed.stderr
    work = tmp_path / ".again.parquet.work"
    with subprocess.Popen([*command, "--output", again], env=environment, stderr=subprocess.DEVNULL) as process:
        while not (work / "part-000002.parquet").exists():
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not again.exists()
    finished = {path.name: path.stat().st_mtime_ns for path in work.glob("part-*.parquet")}
    assert 3 <= len(finished) < 30
    resumed = subprocess.run([*command, "--output", again], env=environment, capture_output=True, check=True)
    assert f"1,200 texts embedded in 30 shards, {len(finished)} of them by an earlier run: ".encode() in resumed.stderr
    assert again.read_bytes() == whole.read_bytes()
    assert not work.exists()


def test_finished_shards_are_not_made_again(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    rows = corpus.read_text("utf-8").splitlines()
    write_rows(corpus, [*rows[:120], '{"text": 3}', *rows[121:]])
    options = (corpus, "--output", tmp_path / "out.parquet", "--model", checkpoint, *SMALL)
    stopped = anytask(*options)
    assert stopped.exit_code == 1
    assert "corpus.jsonl, row 121 (line 121): the field text must be a string, found 3" in stopped.stderr
    work = tmp_path / ".out.parquet.work"
    before = {path.name: path.stat().st_mtime_ns for path in work.glob("part-*")}
    assert sorted(before) == ["part-000000.parquet", "part-000001.parquet"]
    assert anytask(*options).exit_code == 1
    assert {path.name: path.stat().st_mtime_ns for path in work.glob("part-*")} == before


def test_unfinished_work_of_another_job_or_a_changed_input_is_not_taken_up(
    corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    rows = corpus.read_text("utf-8").splitlines()
    write_rows(corpus, [*rows[:60], "no JSON"])
    options = (corpus, "--output", tmp_path / "out.parquet", "--model", checkpoint, *SMALL)
    assert anytask(*options).exit_code == 1
    other = anytask(*options, "--precision", "int8")
    assert "unfinished work with other settings (precision was 'float32', is 'int8')" in other.stderr
    write_rows(corpus, rows)
    changed = anytask(*options)
    assert changed.exit_code == 1
    assert "unfinished work with other settings (inputs was" in changed.stderr


def test_bad_rows_may_be_left_out_from_the_shard_on_that_has_one(
    corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    rows = corpus.read_text("utf-8").splitlines()
    write_rows(corpus, [*rows[:120], "?", *rows[120:]])
    options = (corpus, "--output", tmp_path / "out.parquet", "--model", checkpoint, *SMALL)
    assert anytask(*options).exit_code == 1
    done = anytask(*options, "--skip-bad")
    assert done.exit_code == 0, done.output
    assert "170 texts embedded in 4 shards, 2 of them by an earlier run" in done.stderr


def test_bad_rows_that_were_left_out_stay_so(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    strict, output = job_of(corpus, checkpoint), tmp_path / "out.parquet"
    with CorpusWork(strict, output, overwrite=False) as work:
        work.begin()
    with CorpusWork(replace(strict, skip_bad=True), output, overwrite=False):
        pass
    with pytest.raises(ValueError, match="skip_bad was True, is False"):
        CorpusWork(strict, output, overwrite=False)


def test_shards_of_another_precision_are_told(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    write_rows(corpus, [*corpus.read_text("utf-8").splitlines()[:120], "?"])
    with pytest.raises(BadRowError):
        embed_corpus(job_of(corpus, checkpoint), tmp_path / "out.parquet")
    with CorpusWork(job_of(corpus, checkpoint), tmp_path / "out.parquet", overwrite=False) as work:
        assert work.finished() == 2
        work.check_description({"dtype": "float32"})
        with pytest.raises(ValueError, match="computed in float32, this device takes bfloat16; go on where they were"):
            work.check_description({"dtype": "bfloat16"})


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_a_folder_of_something_else_is_not_replaced(
    corpus: Path, checkpoint: Path, tmp_path: Path, overwrite: tuple[str, ...]
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "thesis.tex").write_text("precious")
    done = anytask(corpus, "--output", project, "--model", checkpoint, *overwrite)
    assert done.exit_code == 1
    assert "holds 'thesis.tex', which is no shard" in done.stderr
    assert [path.name for path in project.iterdir()] == ["thesis.tex"]


def test_an_output_of_the_other_kind_is_told_before_the_work(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "file").write_text("precious")
    for name, message in (("folder.parquet", "is a folder; an output of that name is one file"), ("file", "is a file")):
        done = anytask(corpus, "--output", tmp_path / name, "--model", checkpoint, "--overwrite")
        assert done.exit_code == 1
        assert message in done.stderr
        assert not list(tmp_path.glob(".*.work"))


def test_a_process_killed_while_it_joins_shards_leaves_nothing_beside_the_output(
    corpus: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(_: Any, path: Path) -> None:
        path.with_name(f".4711-{path.name}").write_bytes(b"half")
        raise Killed

    output = tmp_path / "out.parquet"
    with monkeypatch.context() as patch:
        patch.setattr("anytask.corpus.work.join", killed)
        with pytest.raises(Killed):
            embed_corpus(job_of(corpus, checkpoint), output)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.parquet.work", "corpus.jsonl"]
    assert embed_corpus(job_of(corpus, checkpoint), output).resumed == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "out.parquet"]


def test_inputs_in_another_order_are_another_job(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in "ab"]
    for path in paths:
        Path(path).write_text('{"text": "a"}\n')

    def work(inputs: Sequence[str], keep: Sequence[str]) -> WorkFolder:
        job = CorpusJob(inputs=inputs, embedder=Embedder(), columns=Columns(keep=dict.fromkeys(keep)))
        return WorkFolder(tmp_path / "out.parquet", job.settings())

    with work(paths, "xy") as begun:
        begun.begin()
    with work(paths, "xy") as again:
        assert again.has(SETTINGS)
    for inputs, keep in ((paths[::-1], "xy"), ([*paths, paths[0]], "xy"), (paths, "yx")):
        with pytest.raises(ValueError, match="with other settings"):
            work(inputs, keep)


def test_bad_rows_are_left_out_and_counted(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    rows = corpus.read_text("utf-8").splitlines()
    for place in (3, 60, 61, 100):
        rows[place] = f'{{"id": {place}}}'
    rows[100:150] = ["?"] * 50
    write_rows(corpus, rows)
    output = tmp_path / "out.parquet"
    options = (corpus, "--output", output, "--model", checkpoint, "--id", "id", *SMALL)
    stopped = anytask(*options)
    assert stopped.exit_code == 1
    assert "row 4 (line 4): has no field text; its fields: id" in stopped.stderr
    assert not output.exists()
    done = anytask(*options, "--skip-bad")
    assert done.exit_code == 0, done.output
    assert "117 texts embedded in 4 shards" in done.stderr
    assert "53 bad rows were left out, such as" in done.stderr
    assert "row 62 (line 62): has no field text" in done.stderr
    ids, _ = read_vectors(output)
    assert ids == [f"s{place}" for place in range(170) if place not in (3, 60, 61) and not 100 <= place < 150]
    counts = json.loads(pq.read_metadata(output).metadata[b"anytask.counts"])
    assert (counts["rows"], counts["bad"]) == (117, 53)


def test_a_job_that_fails_leaves_no_thread_that_reads(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    job = CorpusJob([str(corpus)], Embedder(model=str(checkpoint)), shard_rows=50, window_rows=20)

    def fail(_: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as failed:
        embed_corpus(job, tmp_path / "out.parquet", on_progress=fail)
    assert failed.traceback  # which holds the generators of the job
    assert not any(thread.name.startswith("anytask-ahead") for thread in threading.enumerate())


def test_standard_input_goes_on_when_it_is_the_same(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    options = ("-", "--output", tmp_path / "out.parquet", "--model", checkpoint, *SMALL)
    rows = corpus.read_bytes().splitlines(keepends=True)
    stopped = anytask(*options, input=b"".join(rows[:130]) + b"cut of")
    assert stopped.exit_code == 1
    assert "-, row 131 (line 131): not valid JSON" in stopped.stderr
    for other in ([*rows[:10], *rows[11:]], [*rows[:10], b'{"text": "another"}\n', *rows[11:]], rows[:70]):
        refused = anytask(*options, input=b"".join(other))
        assert refused.exit_code == 1
        assert "standard input" in refused.stderr
    done = anytask(*options, input=corpus.read_bytes())
    assert done.exit_code == 0, done.output
    assert "170 texts embedded in 4 shards, 2 of them by an earlier run" in done.stderr
    direct = anytask(corpus, "--output", tmp_path / "direct.parquet", "--model", checkpoint, *SMALL)
    assert direct.exit_code == 0, direct.output
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "direct.parquet").read_bytes()


def test_kept_fields_of_standard_input_are_checked(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    rows = corpus.read_text("utf-8").splitlines()
    options = ("-", "--output", tmp_path / "out.parquet", "--model", checkpoint, "--keep", "length:int64", *SMALL)
    stopped = anytask(*options, input="\n".join([*rows[:120], "?"]).encode())
    assert stopped.exit_code == 1
    other = [rows[0].replace('"length": ', '"length": 1'), *rows[1:]]
    refused = anytask(*options, input="\n".join(other).encode())
    assert refused.exit_code == 1
    assert "standard input isn't what the finished shards" in refused.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_does_not_wait_for_standard_input(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    program = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell began all this in the background
from anytask.cli import app
app()
"""
    options = ("--output", tmp_path / "out.parquet", *SMALL, "--model", checkpoint)
    command = [sys.executable, "-c", program, "embed", "-", *map(str, options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"".join(line + b"\n" for line in corpus.read_bytes().splitlines()[:60]))
        process.stdin.flush()  # and then the producer takes its time
        first = tmp_path / ".out.parquet.work/part-000000.parquet"
        deadline = time.monotonic() + 120
        while not first.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.wait(60)
        process.stdin.close()
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode != 0
    assert b"Fatal Python error" not in said


def test_windows_are_no_larger_than_those_of_encode(tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("word\n" * 9000)
    job = CorpusJob([str(path)], format="lines", shard_rows=20_000, window_rows=20_000)
    assert [len(window) for window in job.windows_from(0)] == [8192, 808]


@needs_proc
def test_memory_does_not_grow_with_the_corpus(checkpoint: Path, tmp_path: Path) -> None:
    script = """
import json, sys
from pathlib import Path
from anytask import Embedder
from anytask.corpus import Columns, CorpusJob, embed_corpus

def work(count):
    corpus = Path(sys.argv[1]) / f"{count}.jsonl"
    with corpus.open("w") as file:
        for number in range(count):
            file.write(json.dumps({"text": f"word{number} " * 300, "more": "kept " * 200}) + "\\n")
    columns = Columns(keep={"more": None}, keep_text=True)
    embedder = Embedder(model=sys.argv[2], max_length=8, device="cpu", document_instruction="")
    job = CorpusJob([str(corpus)], embedder, columns, shard_rows=1500, window_rows=250)
    assert embed_corpus(job, corpus.with_suffix(".parquet")).counts.rows == count
    return corpus.stat().st_size

for count in range(3000, 3004):  # until the heap has what it keeps
    work(count)
before = peak()
size = work(15_000)
print(size, peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", PEAK + script, tmp_path, checkpoint],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    size, growth = map(int, done.stdout.split())
    assert size > 45e6
    assert growth < 8e6


def test_progress_reaches_the_end(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    job = CorpusJob([str(corpus)], Embedder(model=str(checkpoint)), shard_rows=50, window_rows=20)
    embed_corpus(job, tmp_path / "out.parquet", on_progress=told.append)
    assert [progress.position for progress in told] == sorted(progress.position for progress in told)
    assert (told[-1].rows, told[-1].position, told[-1].total) == (170, corpus.stat().st_size, corpus.stat().st_size)
    assert len({progress.position for progress in told}) > 5


def test_kept_columns_of_parquet_stay_what_they_are(checkpoint: Path, tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["one", "two", "three"],
            "tags": [["a", None], None, []],
            "nested": pa.array([[["a"], None], None, []], pa.list_(pa.list_(pa.string()))),
            "pairs": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int8())),
            "point": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.float32(), 2)),
            "page": [{"n": 1}, None, {"n": None}],
            "kind": pa.array(["x", None, "x"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    kept = table.column_names[1:]
    keep = [part for name in kept for part in ("--keep", name)]
    done = anytask(tmp_path / "rows.parquet", *keep, "--output", tmp_path / "o.parquet", "--model", checkpoint)
    assert done.exit_code == 0, done.output
    assert pq.read_table(tmp_path / "o.parquet", columns=kept).to_pylist() == table.select(kept).to_pylist()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are Unicode")
def test_an_input_may_have_any_name(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    path.write_text('{"text": "one"}\n')
    job = CorpusJob(inputs=[str(path)], embedder=Embedder(model=str(checkpoint)))
    embed_corpus(job, tmp_path / "o.parquet")
    assert read_vectors(tmp_path / "o.parquet")[0] == ["0"]


def test_csv_parquet_and_text_folders_alike(
    sentences: list[str], checkpoint: Path, model: Instructor, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"text": sentences[:30], "n": list(range(30))}), tmp_path / "rows.parquet")
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(sentences[:30]):
        (tmp_path / "texts" / f"{number:02d}.txt").write_text(text, "utf-8")
    with pytest.warns(TruncationWarning):
        expected = model.encode_document(sentences[:30])
    for source in ("rows.parquet", "texts"):
        done = anytask(tmp_path / source, "--output", tmp_path / f"{source}.out.parquet", "--model", checkpoint)
        assert done.exit_code == 0, done.output
        ids, vectors = read_vectors(tmp_path / f"{source}.out.parquet")
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert ids == [(tmp_path / "texts" / f"{number:02d}.txt").as_posix() for number in range(30)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CORPUS",), "say where the vectors go: --output OUT.parquet, --to-chroma PATH/COLLECTION, or both"),
        (("none.jsonl", "--output", "o.parquet"), "none.jsonl: no such file or folder"),
        (("EMPTY", "--output", "o.parquet"), "the inputs hold no rows"),
        (("CORPUS", "--output", "o.parquet", "--keep", "length:int"), "must be one of string, int64, float64, bool"),
        (("CORPUS", "--output", "o.parquet", "--truncate-dim", "999"), "truncate_dim must be from 1 to"),
        (("CORPUS", "--output", "o.parquet", "--shard-rows", "0"), "shard_rows must be at least 1, got 0"),
        (("CORPUS", "--output", "o.parquet", "--model", "no/such/model"), "no/such/model"),
        (("CORPUS", "--output", "o.parquet", "--calibrate", "1"), "a calibration is for int8 and binary vectors"),
        (
            ("-", "--output", "o.parquet", "--calibrate", "9", "--precision", "int8"),
            "standard input can't be read twice",
        ),
        (("FOLDER", "--output", "FOLDER"), "is an input; name another output"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("EMPTY.jsonl").write_text("\n")
    named = {"CORPUS": corpus.name, "EMPTY": "EMPTY.jsonl", "FOLDER": "."}
    done = anytask(*(named.get(argument, argument) for argument in arguments))
    assert done.exit_code == 1
    assert "error: " in done.stderr.splitlines()[-1]
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert sorted(path.name for path in tmp_path.iterdir() if "parquet" in path.name) == []


def test_a_missing_extra_is_named() -> None:
    script = """
import sys
sys.modules["pyarrow"] = None
from anytask.cli import app
app(["embed", "a.jsonl", "--output", "a.parquet"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'install it with: pip install "anytask[embed]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_the_warning_of_cut_texts_survives_a_pickle() -> None:
    warning = pickle.loads(pickle.dumps(TruncationWarning(2, 3, 48)))
    assert (warning.count, warning.texts, warning.max_length) == (2, 3, 48)
    assert str(warning).startswith("2 of 3 texts have more tokens with their instruction than max_length 48")


def test_help_shows_an_example() -> None:
    done = anytask("--help")
    assert done.exit_code == 0
    assert "Example: anytask embed passages.jsonl --output passages.parquet" in done.stdout
