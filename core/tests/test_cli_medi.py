from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from anytask.cli import app

RECORDS: list[dict[str, Any]] = [
    {"query": ["Represent the question: ", "How?"], "pos": ["Represent the answer: ", "So."], "task_id": 1},
    {
        "query": ["Represent the question: ", "Why?"],
        "pos": ["Represent the answer: ", "Because."],
        "neg": [["Represent the answer: ", "So."], ["Represent the answer: ", "Not at all."]],
        "task_id": "reasons",
    },
]


@pytest.fixture
def array(tmp_path: Path) -> Path:
    path = tmp_path / "medi.json"
    path.write_text(json.dumps(RECORDS))
    return path


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    path = tmp_path / "damaged.jsonl"
    wrong = [RECORDS[0] | {"pos": ["only one"]}, RECORDS[1] | {"task_id": None}]
    path.write_text("".join(json.dumps(each) + "\n" for each in [RECORDS[0], *wrong, RECORDS[1], *wrong]))
    return path


def medi(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["medi", *map(str, arguments)])


def test_validate_tells_what_files_hold(array: Path, tmp_path: Path) -> None:
    lines = tmp_path / "medi.jsonl.gz"
    lines.write_bytes(gzip.compress(json.dumps(RECORDS[0]).encode()))
    done = medi("validate", array, lines)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{array}: valid, 2 records of 2 tasks\n{lines}: valid, 1 records of 1 tasks\n"


def test_validate_tells_every_error_and_goes_on(array: Path, damaged: Path) -> None:
    done = medi("validate", damaged, array)
    assert done.exit_code == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [error.split(": ")[1] for error in errors] == [
        f"{damaged}, line 2, record 2, field pos",
        f"{damaged}, line 3, record 3, field task_id",
        f"{damaged}, line 5, record 5, field pos",
        f"{damaged}, line 6, record 6, field task_id",
    ]
    assert done.stdout == f"{array}: valid, 2 records of 2 tasks\n"
    assert "Traceback" not in done.output
    done = medi("validate", damaged, "--max-errors", "2")
    assert done.exit_code == 1
    assert done.stderr.count("error: ") == 2
    assert f"{damaged}: stopped after 2 errors" in done.stderr


def test_convert_keeps_every_record(array: Path, tmp_path: Path) -> None:
    path = array
    for name in ("a.jsonl.zst", "b.json.gz", "c.jsonl", "d.json"):
        done = medi("convert", path, tmp_path / name)
        assert done.exit_code == 0, done.output
        assert done.stdout == f"2 records written to {tmp_path / name}\n"
        path = tmp_path / name
    assert json.loads(path.read_text()) == RECORDS


def test_convert_writes_nothing_from_a_damaged_file(damaged: Path, tmp_path: Path) -> None:
    done = medi("convert", damaged, tmp_path / "whole.json")
    assert done.exit_code == 1
    assert f"error: {damaged}, line 2, record 2, field pos: found a list of 1" in done.stderr
    assert list(tmp_path.iterdir()) == [damaged]


def test_card_prints_and_saves(array: Path, tmp_path: Path) -> None:
    done = medi("card", array, array, "--output", tmp_path / "card.md", "--model", "mini")
    assert done.exit_code == 0, done.output
    assert all(word in done.stdout for word in ("reasons", "50.0%", "tokens of", "Represent the question:"))
    assert "4 records of 2 tasks" in (tmp_path / "card.md").read_text()
    figures = json.loads((tmp_path / "card.card.json").read_text())
    assert figures["total"]["neg"]["tokens"]["count"] == 4
    assert figures["max_length"] == 512
    assert json.loads(array.read_text()) == RECORDS


def test_card_notes_are_printed(tmp_path: Path) -> None:
    path = tmp_path / "medi.jsonl"
    path.write_text(json.dumps(RECORDS[0] | {"pos": RECORDS[0]["query"]}))
    done = medi("card", path)
    assert done.exit_code == 0, done.output
    assert "note: positives with the text of their query: 1" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("validate", "nowhere.json"), "nowhere.json"),
        (("convert", "FILE", "out.txt"), "expected a name that ends in .json or .jsonl"),
        (("card", "FILE", "--output", "card.html"), "written to a folder or to a name that ends in .md"),
        (("card", "FILE", "--model", "no/such/model/here"), "no/such/model/here"),
    ],
)
def test_errors_are_one_message_without_traceback(array: Path, arguments: tuple[str, ...], message: str) -> None:
    done = medi(*(str(array) if argument == "FILE" else argument for argument in arguments))
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["validate", "convert", "card"])
def test_help_shows_an_example(command: str) -> None:
    done = medi(command, "--help")
    assert done.exit_code == 0
    assert f"Example: anytask medi {command} medi.json" in done.stdout


def test_the_module_runs_the_same_command(array: Path, damaged: Path) -> None:
    run = [sys.executable, "-m", "anytask", "medi", "validate", damaged, array]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, f"{array}: valid, 2 records of 2 tasks\n")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("error: ") == 4
    assert "Traceback" not in done.stderr
