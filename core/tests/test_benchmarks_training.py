"""The training benchmarks: what they compare is comparable."""

from __future__ import annotations

import gzip
import importlib
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anytask import Instructor

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ABLATION = BENCHMARKS / "instruction_ablation"


@pytest.fixture
def mixture(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ABLATION)
    return importlib.import_module("mixture")


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ABLATION)
    return importlib.import_module("report")


@pytest.fixture
def data(tmp_path: Path, mixture: Any) -> Path:
    """Made-up sentences in the files that the mixture reads, one of them twice."""
    rng = random.Random(0)

    def sentence() -> str:
        return " ".join(rng.choice(["red", "old", "calm", "cat", "boat", "sings", "waits", "hill"]) for _ in range(30))

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        path = tmp_path / f"{name}.jsonl.gz"
        path.parent.mkdir(exist_ok=True)
        with gzip.open(path, "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    names = mixture.MIXTURES["both"]
    for name in names:
        if name in ("goemotions", "query_wellformedness"):
            write(f"classification/{name}", [{"text": sentence(), "label": f"{row % 3}"} for row in range(40)])
        elif name != mixture.FIELD:
            rows = [
                {"query": sentence(), "pos": sentence(), "meta": {"lexfile": f"{row // 2 % 3}"}} for row in range(80)
            ]
            write(f"pairs/{name}", [*rows, {**rows[0], "pos": sentence()}])
    instructions = {name: {"query": f"Query of {name}: ", "pos": f"Text of {name}: "} for name in names}
    for name in mixture.SYMMETRIC:
        instructions[name]["pos"] = instructions[name]["query"]
    (tmp_path / "instructions.json").write_text(json.dumps(instructions))
    return tmp_path


def test_both_forms_have_the_same_texts_and_none_that_is_held_out(data: Path, mixture: Any) -> None:
    tasks = mixture.read_tasks(data, Instructor.from_pretrained("mini"))
    assert [task.name for task in tasks] == list(mixture.MIXTURES["both"])
    for task in tasks:
        plain = mixture.without_instructions(task)
        trained, alone = ([texts(record) for record in form.records] for form in (task, plain))
        assert trained == alone
        assert all(
            side.instruction == "" for record in plain.records + plain.pairs for side in (record.query, record.pos)
        )
        assert all(record.query.instruction == task.instruction for record in task.records)
        assert all(
            (record.query.instruction == record.pos.instruction) == (task.name in mixture.SYMMETRIC)
            for record in task.records
        )
        held_out = {text for record in task.pairs for text in texts(record)} | set(task.labelled.texts)
        assert held_out
        assert not held_out & {text for record in trained for text in record}
        assert max(len(text.split()) for text in held_out) == mixture.WORDS
    definitions, field = (
        {text for record in task.records for text in (record.query.text, record.pos.text)}
        for task in tasks
        if task.name in (mixture.WORDNET, mixture.FIELD)
    )
    assert not definitions & field


def texts(record: Any) -> tuple[str, ...]:
    return tuple(side.text for side in (record.query, record.pos, *record.neg))


def test_the_report_pairs_the_seeds(tmp_path: Path, report: Any) -> None:
    rows = []
    for mixture, seeds in (("start", 1), ("both", 3)):
        for seed in range(seeds):
            for instructions, gain in (("with", 0.5), ("without", 0.25)):
                row = report.Row(mixture, instructions, seed, tmp_path / f"{mixture}-{instructions}-{seed}")
                row.folder.mkdir()
                figures = {"a": gain * seed, "symmetric": gain, "asymmetric": 0}
                row.path("held out").write_text(json.dumps(figures))
                rows.append(row)
    table = report.write_report(rows, ["held out"], tmp_path)
    assert (tmp_path / "table.md").read_text() == table + "\n"
    assert "| both | with | 0.500 ± 0.000 | 0.000 ± 0.000 | 0.250 ± 0.000 |" in table
    assert "| both | gain | +0.250 ± 0.000 | +0.000 ± 0.000 | +0.125 ± 0.000 |" in table
    assert "| a | +0.250 ± 0.250 |" in table
    assert "<svg" in (tmp_path / "figure.svg").read_text()


@pytest.mark.slow
def test_both_trainers_have_the_same_loss() -> None:
    arguments = ["--shape", "mini", "--batch-size", "4", "--steps", "1", "--rounds", "1", "--mini-batch", "2"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "training_speed.py"), *arguments], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"(\d+\.\d{5}) │\n", done.stdout)]
    assert len(losses) == 8
    assert losses[:4] == pytest.approx([losses[0]] * 4, rel=1e-4)
    assert losses[4:] == pytest.approx([losses[0]] * 4, rel=0.05), "in bfloat16"
