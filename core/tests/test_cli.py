from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from anytask import Instructor
from anytask.cli import app
from anytask.evaluation import TruncatedEmbedder, evaluate, overall

STS = [
    {"a": "A dog runs on the beach.", "b": "A dog is running along the shore.", "score": 4.6},
    {"a": "A dog runs on the beach.", "b": "Two cats sleep on a sofa.", "score": 0.4},
    {"a": "She plays the violin.", "b": "A woman is playing an instrument.", "score": 3.4},
    {"a": "She plays the violin.", "b": "The train arrives at nine.", "score": 0.0},
    {"a": "They cook pasta.", "b": "People are preparing food.", "score": 3.0},
]
PAIRS = [
    {"a": "How do I reset my password?", "b": "I forgot my password, what now?", "label": 1},
    {"a": "How do I reset my password?", "b": "Where is the nearest bakery?", "label": 0},
    {"a": "When does the shop open?", "b": "What are your opening hours?", "label": 1},
]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    write(tmp_path / "suite/sts/toy.jsonl", STS)
    write(tmp_path / "suite/pairs/toy.jsonl", PAIRS)
    return tmp_path / "suite"


def anytask(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_evaluate_prints_a_table_and_writes_json(suite: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = anytask("evaluate", "mini", "--suite", suite, "--json", report)
    assert done.exit_code == 0, done.output
    assert all(word in done.stdout for word in ("sts/toy", "Spearman", "pairs/toy", "overall"))
    written = json.loads(report.read_text())
    expected = evaluate(Instructor.from_pretrained("mini"), suite)
    assert written["overall"] == pytest.approx(overall(expected), abs=1e-6)
    assert (written["model"], written["instructions"], written["dtype"]) == ("mini", "right", None)
    assert written["tasks"][0]["query_instruction"] == expected[0].query_instruction is not None
    assert written["to_come"] == []


def test_a_report_that_cannot_be_written_is_told_first(suite: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target, message in ((tmp_path, "is a folder; name a file for the figures"), (tmp_path / "file/a.json", "file")):
        done = anytask("evaluate", "no/such/model", "--suite", suite, "--json", target)
        assert (done.exit_code, done.stdout) == (1, "")
        assert message in done.stderr
        assert "no/such/model" not in done.stderr


def test_what_is_finished_outlives_an_error(suite: Path, tmp_path: Path) -> None:
    """A row that can't be read is met when all tasks before it are measured."""
    write(suite / "pairs/toy.jsonl", [*PAIRS, {"a": "one", "b": None, "label": 1}])
    report = tmp_path / "report.json"
    done = anytask("evaluate", "mini", "--suite", suite, "--json", report)
    assert done.exit_code == 1
    assert "pairs/toy.jsonl, line 4: b is null, expected a string" in done.stderr
    assert "1 of 2 tasks" in done.stdout
    assert "sts/toy" in done.stdout
    written = json.loads(report.read_text())
    assert ([task["task"] for task in written["tasks"]], written["to_come"]) == (["sts/toy"], ["pairs/toy"])


def test_evaluate_chosen_tasks_without_instructions(suite: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = anytask("evaluate", "mini", "--suite", suite, "--task", "sts", "--instructions", "none", "--json", report)
    assert done.exit_code == 0, done.output
    assert "pairs" not in done.stdout
    (task,) = json.loads(report.read_text())["tasks"]
    assert (task["task"], task["query_instruction"], task["document_instruction"]) == ("sts/toy", None, None)


def test_evaluate_of_leading_dimensions(suite: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = anytask("evaluate", "mini", "--suite", suite, "--task", "sts", "--truncate-dim", "8", "--json", report)
    assert done.exit_code == 0, done.output
    written = json.loads(report.read_text())
    (expected,) = evaluate(TruncatedEmbedder(Instructor.from_pretrained("mini"), 8), suite, ["sts"])
    assert (written["truncate_dim"], written["tasks"][0]["scores"]) == (8, [pytest.approx(expected.score)])
    done = anytask("evaluate", "mini", "--suite", suite, "--task", "sts", "--truncate-dim", "9999")
    assert (done.exit_code, "can't keep 9999 dimensions" in done.stderr) == (1, True)


def test_a_sentence_transformers_folder_is_measured_alike(suite: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    Instructor.from_pretrained("mini", dtype="float32").save_pretrained(model)
    figures = []
    for options in (["--instructions", "none"], ["--sentence-transformers"]):
        report = tmp_path / "report.json"
        done = anytask("evaluate", model, "--suite", suite, "--json", report, *options)
        assert done.exit_code == 0, done.output
        written = json.loads(report.read_text())
        assert written["instructions"] == "none"
        figures.append({task["task"]: task["score"] for task in written["tasks"]})
    assert figures[0] == pytest.approx(figures[1])


def test_sentence_transformers_has_no_int8(suite: Path) -> None:
    done = anytask("evaluate", "folder", "--suite", suite, "--sentence-transformers", "--dtype", "int8")
    assert (done.exit_code, "doesn't compute in int8; give float32" in done.stderr) == (1, True)


def test_long_texts_are_noted_and_not_counted_as_errors(suite: Path) -> None:
    write(suite / "sts/toy.jsonl", [*STS, {"a": "word " * 600, "b": "words", "score": 1}])
    done = anytask("evaluate", "mini", "--suite", suite, "--task", "sts")
    assert done.exit_code == 0, done.output
    assert "sts/toy: 1 of" in done.stderr
    assert "max_length" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "mini", "--suite", "no/such/suite"), "no suite folder at no/such/suite"),
        (("evaluate", "no/such/model/here", "--suite", "SUITE"), "no/such/model/here"),
        (("evaluate", "mini", "--suite", "SUITE", "--task", "stss"), "no task 'stss' in"),
        (("evaluate", "mini", "--suite", "SUITE", "--device", "abacus"), "device 'abacus'"),
        (("info", "no/such/model/here"), "no/such/model/here"),
    ],
)
def test_errors_are_one_message_without_traceback(suite: Path, arguments: tuple[str, ...], message: str) -> None:
    done = anytask(*(str(suite) if argument == "SUITE" else argument for argument in arguments))
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""


def test_a_broken_checkpoint_is_told(tmp_path: Path) -> None:
    model = tmp_path / "model"
    Instructor.from_pretrained("mini", dtype="float32").save_pretrained(model)
    (model / "model.safetensors").write_bytes(b"no weights")
    done = anytask("info", model)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "model.safetensors" in done.stderr


def test_info_tells_that_matrices_are_bytes() -> None:
    done = anytask("info", "mini")
    assert done.exit_code == 0, done.output
    assert "int8 matrices, bfloat16 embeddings" in done.stdout


def test_info_tells_what_the_model_says_of_itself(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = Instructor.from_pretrained("mini", dtype="float32")
    model.save_pretrained(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    model.save_pretrained(folder / "training" / "best")  # as a run that goes on leaves it
    done = anytask("info", folder)
    assert done.exit_code == 0, done.output
    told = {name: value.strip() for name, _, value in (line.partition("  ") for line in done.stdout.splitlines())}
    config = json.loads((folder / "config.json").read_text())
    assert told["dimension"] == str(model.dimension)
    assert told["layers"] == str(config["num_layers"])
    assert told["heads"] == f"{config['num_heads']} of {config['d_kv']}"
    assert told["max length"] == f"{model.max_length} tokens"
    assert told["prompt, query"] == repr(model.query_instruction)
    assert told["folder"] == str(folder)
    assert told["size on disk"] == f"{size / 1e6:.1f} MB"
    weights = 4 * int(told["parameters"].replace(",", ""))
    assert weights == pytest.approx(size, rel=0.1)
    assert told["stored as"] == "float32"


def test_info_without_a_model_prints_versions() -> None:
    done = anytask("info")
    assert done.exit_code == 0, done.output
    for name in ("anytask", "torch", "numpy"):
        assert f"{name} " in done.stdout
        assert metadata.version(name) in done.stdout
    assert "mini" in done.stdout


@pytest.mark.parametrize("command", ["evaluate", "info"])
def test_help_shows_an_example(command: str) -> None:
    done = anytask(command, "--help")
    assert done.exit_code == 0
    assert f"Example: anytask {command} mini" in done.stdout


def test_the_module_runs_the_same_command(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "anytask"]
    helped = subprocess.run([*run, "--help"], capture_output=True, text=True, check=True)
    assert "Usage: anytask" in helped.stdout
    failed = subprocess.run(
        [*run, "evaluate", "mini", "--suite", tmp_path / "none"], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: no suite folder at")
    assert "Traceback" not in failed.stderr
