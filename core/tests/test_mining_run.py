"""`anytask mine`: whole files, and what a killed process leaves."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from anytask import Instructor
from anytask.cli import app
from anytask.training.medi.record_files import read_records
from anytask.training.medi.records import InstructedText, Record
from anytask.training.mining import vectors
from anytask.training.mining.options import MiningOptions
from anytask.training.mining.run import mine
from anytask.training.mining.vectors import embed_each, embed_to_file

QUERY, DOCUMENT = "Represent the topic for retrieval: ", "Represent the paragraph: "


class Counting:
    """A model that counts the texts it embeds, by instruction."""

    def __init__(self) -> None:
        self.model = Instructor.from_pretrained("mini")
        self.calls: list[tuple[str | None, int]] = []

    def encode(self, texts: Sequence[str], instruction: str | None = None) -> Any:
        self.calls.append((instruction, len(texts)))
        return self.model.encode(texts, instruction=instruction)


@pytest.fixture
def records(sentences: list[str], tmp_path: Path) -> Path:
    """Three tasks, shuffled into each other: 90 records with ids of both types, one with a negative."""
    rows: list[dict[str, Any]] = [
        {
            "query": [QUERY, " ".join(text.split()[:2])],
            "pos": [DOCUMENT, text],
            "task_id": ("manual/a", 1, "1")[place % 3],
        }
        for place, text in enumerate(sentences[:90])
    ]
    rows[4]["neg"] = [DOCUMENT, "A negative that was there."]
    path = tmp_path / "records.json"
    path.write_text(json.dumps(rows))
    return path


def anytask(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_gives_every_record_negatives_of_its_task(records: Path, tmp_path: Path) -> None:
    output = tmp_path / "mined.jsonl.zst"
    done = anytask("mine", records, "--output", output, "--negatives", "3", "--no-margin")
    assert done.exit_code == 0, done.output
    given, mined = list(read_records(records)), list(read_records(output))
    assert [(record.task_id, record.query, record.pos) for record in mined] == [
        (record.task_id, record.query, record.pos)
        for task in ("manual/a", 1, "1")
        for record in given
        if record.task_id == task
    ]
    members = {record.task_id: {one.pos.text for one in given if one.task_id == record.task_id} for record in given}
    members[1].add("A negative that was there.")
    for record in mined:
        texts = [text for _, text in record.neg]
        assert len(set(texts)) == 3
        assert set(texts) <= members[record.task_id] - {record.pos.text}
        assert {instruction for instruction, _ in record.neg} == {DOCUMENT}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mined.jsonl.zst", "records.json"]
    table = [line for line in done.stdout.splitlines() if "│" in line]
    assert [line.split("│")[1].strip() for line in table] == ["manual/a", "1", "1", "all tasks"]
    assert [cell.strip() for cell in table[-1].split("│")[2:5]] == ["90", "270", "0"]


def test_the_default_margin_leaves_uneven_numbers(records: Path, tmp_path: Path) -> None:
    outputs: list[list[Record]] = []
    for options in ((), ("--relative-margin", "0.05"), ("--margin", "0.3"), ("--max-score", "0.4"), ("--no-margin",)):
        output = tmp_path / f"{len(outputs)}.jsonl"
        done = anytask("mine", records, "--output", output, "--negatives", "20", *options)
        assert done.exit_code == 0, done.output
        outputs.append(list(read_records(output)))
    assert outputs[0] == outputs[1]
    assert all(outputs[0] != others for others in outputs[2:])
    assert len({len(record.neg) for record in outputs[0]}) > 2


def test_a_corpus_and_bm25(records: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl.gz"
    documents = [
        {"title": "Import", "text": "statements of modules and packages"},
        {"text": "Only the first task has this import statement.", "task_id": "manual/a"},
        {"text": "Only the task 1 has this import statement.", "task_id": 1},
        {"text": "", "title": None},
    ]
    corpus.write_bytes(gzip.compress("\n\n".join(map(json.dumps, documents)).encode()))
    output = tmp_path / "mined.jsonl"
    options = ("--no-margin", "--negatives", "100", "--range-max", "1000")
    done = anytask("mine", records, "--output", output, "--corpus", corpus, "--bm25", *options)
    assert done.exit_code == 0, done.output
    own = {
        "manual/a": {"Import statements of modules and packages", documents[1]["text"]},
        1: {"Import statements of modules and packages", documents[2]["text"]},
        "1": {"Import statements of modules and packages"},
    }
    for record in read_records(output):
        texts = {text for _, text in record.neg}
        assert {text for text in texts if "statement" in text and "mport" in text} >= own[record.task_id]
        others = set().union(*own.values()) - own[record.task_id]
        assert not texts & others


def test_existing_negatives(records: Path, tmp_path: Path) -> None:
    for name, options in (("kept", ["--keep-existing"]), ("replaced", [])):
        output = tmp_path / f"{name}.jsonl"
        assert anytask("mine", records, "--output", output, "--max-score", "-0.9", *options).exit_code == 0
        counts = [len(record.neg) for record in read_records(output)]
        assert sum(counts) == (1 if name == "kept" else 0)


def test_seeds(records: Path, tmp_path: Path) -> None:
    outputs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        done = anytask(
            "mine",
            records,
            "--output",
            tmp_path / f"{name}.jsonl",
            "--sampling",
            "random",
            "--seed",
            seed,
            "--no-margin",
        )
        assert done.exit_code == 0, done.output
        outputs.append((tmp_path / f"{name}.jsonl").read_bytes())
    assert outputs[0] == outputs[1] != outputs[2]


def test_a_sentence_transformers_folder_mines_alike(records: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    Instructor.from_pretrained("mini", dtype="float32").save_pretrained(folder)
    outputs = []
    for options in (["--sentence-transformers", "--instructions"], [], ["--sentence-transformers"]):
        output = tmp_path / f"{len(outputs)}.jsonl"
        done = anytask("mine", records, "--output", output, "--model", folder, *options)
        assert done.exit_code == 0, done.output
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1] != outputs[2]
    done = anytask("mine", records, "--output", output, "--model", folder, "--no-instructions", "--overwrite")
    assert done.exit_code == 0, done.output
    assert output.read_bytes() == outputs[2]


KILLED = textwrap.dedent("""
    import os, pathlib, signal, sys
    from anytask.cli import app
    from anytask.files import work_folder
    from anytask.training.mining import run as mining_run
    from anytask.training.mining import vectors

    vectors.CHUNK = 8
    embed, write, assemble = vectors.embed_each, work_folder.WorkFolder.write, mining_run.write_records
    embedded = 0

    def run_until(place, count):
        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        def embed_each(embedder, texts):
            global embedded
            embedded += len(texts)
            if place == "embedding" and embedded > count:
                die()
            return embed(embedder, texts)

        def write_part(work, name, rows):
            write(work, name, rows)
            if place == name:
                die()

        def write_records(records, path):
            assemble(records, path)
            if place == "assembled":
                die()

        vectors.embed_each, mining_run.write_records = embed_each, write_records
        work_folder.WorkFolder.write = write_part
        app()

    for place, count in (("tasks.jsonl", 0), ("embedding", 45), ("1.summary", 0), ("2.mined", 0), ("assembled", 0)):
        child = os.fork()
        if child == 0:
            run_until(place, count)
        print(place, os.WTERMSIG(os.waitpid(child, 0)[1]), pathlib.Path(sys.argv[-1]).exists())
""")


def test_killed_anywhere_the_same_command_makes_the_same_bytes(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "CHUNK", 8)
    whole, killed = tmp_path / "whole.jsonl.zst", tmp_path / "again.jsonl.zst"
    options = ("mine", records, "--bm25", "--sampling", "random", "--output")
    undisturbed = anytask(*options, whole)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, *options, killed],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines() == [
        "tasks.jsonl 9 False",
        "embedding 9 False",
        "1.summary 9 False",
        "2.mined 9 False",
        "assembled 9 True",
    ]
    monkeypatch.setattr(vectors, "embed_each", None)  # Nothing is left to embed.
    finished = anytask(*options, killed)
    assert finished.exit_code == 0, finished.output
    assert killed.read_bytes() == whole.read_bytes()
    assert not (tmp_path / ".again.jsonl.zst.work").exists()
    assert finished.stdout == undisturbed.stdout.replace("whole", "again")


def test_finished_chunks_are_not_embedded_again(
    sentences: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "CHUNK", 8)
    texts = [InstructedText(("Represent the line: ", "")[place % 2], text) for place, text in enumerate(sentences[:27])]
    model = Counting()
    expected = embed_to_file(model, texts, tmp_path / "whole")
    assert {instruction for instruction, _ in model.calls} == {"Represent the line: ", None}
    np.testing.assert_allclose(expected, embed_each(model, texts), atol=1e-6)
    content = (tmp_path / "whole").read_bytes()
    row = len(content) // 27
    for length, done in ((0, 0), (row - 1, 0), (8 * row, 8), (8 * row + 5, 8), (26 * row + 3, 24), (27 * row, 27)):
        (tmp_path / "cut").write_bytes(content[:length])
        model.calls.clear()
        advanced: list[int] = []
        again = embed_to_file(model, texts, tmp_path / "cut", advanced.append)
        assert again.shape == expected.shape
        assert (tmp_path / "cut").read_bytes() == content
        assert sum(count for _, count in model.calls) == 1 + 27 - done, "one for the dimension"
        assert (advanced[0], sum(advanced)) == (done, 27)


def test_a_large_file_is_sorted_in_batches(records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = []
    for name, waiting in (("one", 1000), ("many", 7)):
        monkeypatch.setattr("anytask.training.mining.run.WAITING", waiting)
        mine(records, tmp_path / f"{name}.jsonl", Counting(), MiningOptions(num_negatives=2))
        outputs.append((tmp_path / f"{name}.jsonl").read_bytes())
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RECORDS", "--output", "OUT.txt"), "OUT.txt: expected a name that ends in .json or .jsonl"),
        (("none.jsonl", "--output", "OUT.jsonl"), "none.jsonl"),
        (("RECORDS", "--output", "OUT.jsonl", "--negatives", "0"), "at least 1, got 0"),
        (("RECORDS", "--output", "OUT.jsonl", "--no-margin", "--margin", "0.1"), "--no-margin goes with neither"),
        (("RECORDS", "--output", "OUT.jsonl", "--model", "no/such/model/here"), "no/such/model/here"),
        (("RECORDS", "--output", "OUT.jsonl", "--corpus", "none.jsonl"), "none.jsonl"),
        (("RECORDS", "--output", "OUT.jsonl", "--corpus", "CORPUS"), 'line 2: expected an object with a string "text"'),
        (("RECORDS", "--output", "OUT.jsonl", "--corpus", "HALF"), 'HALF, line 2: "title": holds U+D83D, half of a'),
        (("EMPTY", "--output", "OUT.jsonl"), "holds no records"),
        (("BROKEN", "--output", "OUT.jsonl"), "record 2"),
        (("RECORDS", "--output", "RECORDS"), "already there"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    good = {"query": ["", "a"], "pos": ["", "b"], "task_id": 1}
    Path("EMPTY").write_text("")
    Path("BROKEN").write_text(f'{json.dumps(good)}\n{{"query": 3}}\n')
    Path("CORPUS").write_text('{"text": "fine"}\n{"contents": "wrong"}\n')
    Path("HALF").write_text('{"text": "fine", "task_id": "x"}\n{"text": "", "title": "\\ud83d", "task_id": "none"}\n')
    done = anytask("mine", *(records if argument == "RECORDS" else argument for argument in arguments))
    assert done.exit_code == 1
    assert "error: " in done.stderr.splitlines()[-1]
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert not Path("OUT.jsonl").exists()
    assert not ("HALF" in arguments and Path(".OUT.jsonl.work").exists()), "told before anything is embedded"


def test_a_repaired_file_begins_anew(tmp_path: Path) -> None:
    path, output = tmp_path / "records.jsonl", tmp_path / "out.jsonl"
    good = {"query": ["", "a question"], "pos": ["", "an answer"], "task_id": 1}
    path.write_text(f'{json.dumps(good)}\n{{"query": 3}}\n')
    assert anytask("mine", path, "--output", output).exit_code == 1
    path.write_text(json.dumps(good))
    done = anytask("mine", path, "--output", output)
    assert done.exit_code == 0, done.output
    assert list(read_records(output)) == [Record.from_json(good)]


def test_unfinished_work_of_another_model_is_not_taken_up(records: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"

    class Broken:
        def encode(self, texts: Sequence[str], instruction: str | None = None) -> Any:
            return [[float("nan")] for text in texts if text != instruction]

    with pytest.raises(ValueError, match="not finite"):
        mine(records, output, Broken(), MiningOptions(), about={"model": "one"})
    with pytest.raises(ValueError, match="model was 'one', is 'other'"):
        mine(records, output, Counting(), MiningOptions(), about={"model": "other"})
    mine(records, output, Counting(), MiningOptions(), about={"model": "one"})
    assert output.is_file()


def test_help_shows_an_example() -> None:
    done = anytask("mine", "--help")
    assert done.exit_code == 0
    assert "Example: anytask mine medi.jsonl --model mini" in done.stdout
