"""Whole mixtures: the records, the same twice, and the same after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from anytask import Instructor
from anytask.cli import app
from anytask.training.augmentation import paraphrases
from anytask.training.building.build import build, manifest_path
from anytask.training.building.recipe import Recipe, Source
from anytask.training.building.task_records import task_records
from anytask.training.building.task_sources import read_tasks
from anytask.training.medi.record_files import read_records
from anytask.training.medi.records import Record

from .conftest import MakeCheckpoint

SUBJECTS = {
    "sea": ("harbour", "tide", "anchor", "sail", "gull"),
    "kitchen": ("oven", "spoon", "flour", "soup", "pan"),
    "railway": ("platform", "engine", "signal", "ticket", "guard"),
}
VERBS = ("waits for", "stands by", "follows", "hides", "needs")


class Bags:
    """An embedder of counted letters; it remembers what it embedded, and may stop as a killed process does."""

    def __init__(self, calls: int | None = None) -> None:
        self.texts: list[str] = []
        self.calls = calls

    def encode(self, texts: Sequence[str], instruction: str | None = None) -> np.ndarray[Any, Any]:
        assert instruction is None
        if self.calls == 0:
            raise KeyboardInterrupt
        self.calls = None if self.calls is None else self.calls - 1
        self.texts += texts
        counts = [[text.lower().count(chr(97 + letter)) for letter in range(26)] for text in texts]
        return np.array(counts, dtype=np.float32) + 0.01


def sentences() -> list[tuple[str, str]]:
    return [
        (f"The {first} {verb} the {second}.", subject)
        for subject, words in SUBJECTS.items()
        for first in words
        for verb in VERBS
        for second in words
        if first != second
    ]


def first_words(text: str) -> str:
    return " ".join(text.split()[1:3])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = sentences()
    for number in range(3):
        part = rows[number::3]
        task = {
            "Definition": ["Given a sentence, name its first thing and what that does."],
            "Categories": ["Information Extraction"],
            "Domains": ["Stories"],
            "Instances": [{"input": text, "output": [first_words(text)]} for text, _ in part],
        }
        (folder / f"task{number}_first_thing.json").write_text(json.dumps(task))
    labelled = [{"text": text, "label": subject} for text, subject in rows]
    (folder / "subjects.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labelled))
    pairs = [{"query": f"What {text.split(' ', 2)[2]}?", "pos": text, "neg": ["No.", "None."]} for text, _ in rows]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return folder


SOURCES = (
    Source("super-ni", ("task*.json",)),
    Source("labelled", ("subjects.jsonl",)),
    Source("paired", ("answers.jsonl",)),
)


def by_task(path: Path) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in read_records(path):
        found.setdefault(str(record.task_id), []).append(record)
    return found


def anytask(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_records_of_all_kinds(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out/medi.jsonl.zst"
    summaries = build(Recipe(SOURCES, negatives=2, max_per_task=90), data, output, Bags(), about={"embedder": "bags"})
    tasks = by_task(output)
    assert list(tasks) == [f"task{n}_first_thing" for n in range(3)] + ["subjects", "answers"]
    subject_of = dict(sentences())
    for record in tasks["subjects"]:
        assert subject_of[record.query.text] == subject_of[record.pos.text]
        assert record.query.text != record.pos.text
        assert all(subject_of[text] != subject_of[record.query.text] for _, text in record.neg)
        assert len(record.neg) == 2
    for record in tasks["task1_first_thing"]:
        assert record.query.text != record.pos.text
        assert all(first_words(text) != first_words(record.query.text) for _, text in record.neg)
        assert record.query.instruction == "Represent the story sentence for extracting information: "
    for record in tasks["answers"]:
        assert record.query.text.startswith("What ")
        assert [text for _, text in record.neg] == ["No.", "None."]
        assert {record.pos.instruction, *(i for i, _ in record.neg)} == {"Represent the document for retrieval: "}
    assert any(first_words(r.query.text) == first_words(r.pos.text) for r in tasks["task1_first_thing"])
    assert [summary.records for summary in summaries] == [len(records) for records in tasks.values()]
    assert max(len(records) for records in tasks.values()) == 90
    manifest = json.loads((tmp_path / "out/medi.manifest.json").read_text())
    assert manifest["records"] == sum(map(len, tasks.values()))
    assert manifest["embedder"] == "bags"
    assert manifest["options"] == {
        "seed": 0,
        "negatives": 2,
        "max_per_task": 90,
        "max_texts": 10_000,
        "paraphrase": 0,
    }
    assert [task["task"] for task in manifest["tasks"]] == list(tasks)
    assert [task["pairs"] for task in manifest["tasks"]] == ["similar output"] * 3 + ["same label", "given"]
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["medi.jsonl.zst", "medi.manifest.json"]


def test_a_cap_takes_all_labels_in_turn_and_the_best_outputs(data: Path) -> None:
    rows = [{"text": text, "label": subject} for text, subject in sentences() if subject == "sea"]
    rows += [{"text": text, "label": subject} for text, subject in sentences() if subject == "railway"][:10]
    rows += [{"text": "A spoon.", "label": "kitchen"}]
    (data / "subjects.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe(SOURCES, max_per_task=8)
    output, _, _, labelled, paired = (task_records(task, recipe, Bags())[0] for task in read_tasks(recipe, data))
    subjects = [dict(sentences())[record.query.text] for record in labelled]
    assert len(subjects) == len(set(labelled)) <= 8
    assert {subjects.count(subject) for subject in ("sea", "railway")} <= {3, 4}
    assert len(paired) == len(output) == 8
    everything = task_records(next(read_tasks(Recipe(SOURCES), data)), Recipe(SOURCES), Bags())[0]
    assert set(output) < set(everything)
    assert [record for record in everything if record in set(output)] == output


def test_fewer_texts_are_drawn_than_there_are(data: Path) -> None:
    bags = Bags()
    recipe = Recipe((SOURCES[1],), max_texts=30)
    (task,) = read_tasks(recipe, data)
    records, summary = task_records(task, recipe, bags)
    assert len(bags.texts) == 30
    assert summary.distinct == len(sentences())
    assert {record.query.text for record in records} | {record.pos.text for record in records} <= set(bags.texts)


def test_several_accepted_outputs_are_embedded_by_their_mean(tmp_path: Path) -> None:
    class Directions:
        def encode(self, texts: Sequence[str], instruction: str | None = None) -> list[list[float]]:
            assert instruction is None
            directions = {"north": (1, 0, 0), "east": (0, 1, 0), "north-east": (0.7, 0.7, 0.1)}
            return [list(directions.get(text, (0, 0, 1))) for text in texts]

    instances = [("a", ["north", "east"]), ("b", ["north"]), ("c", ["north-east"]), ("d", ["east"])]
    task = {"Instances": [{"input": text, "output": output} for text, output in instances]}
    (tmp_path / "task.json").write_text(json.dumps(task))
    recipe = Recipe((Source("super-ni", ("task.json",)),))
    records, _ = task_records(next(read_tasks(recipe, tmp_path)), recipe, Directions())
    assert (records[0].query.text, records[0].pos.text) == ("a", "c")


def test_paraphrases_by_share_and_equal_on_both_sides_of_symmetric_tasks(data: Path, tmp_path: Path) -> None:
    def instructions(share: float) -> dict[str, list[tuple[str, str]]]:
        output = tmp_path / f"{share}.jsonl"
        build(Recipe(SOURCES[1:], paraphrase=share), data, output, Bags())
        return {
            name: [(record.query.instruction, record.pos.instruction) for record in records]
            for name, records in by_task(output).items()
        }

    plain, half, every = instructions(0), instructions(0.5), instructions(1)
    for name, texts in plain.items():
        (given,) = set(texts)
        assert given not in every[name]
        assert 0.3 < sum(pair != given for pair in half[name]) / len(texts) < 0.7
        wordings = [paraphrases(instruction) for instruction in given]
        assert all(pair[side] in wordings[side] for pair in every[name] for side in (0, 1))
        assert len(set(every[name])) > 5
    assert all(query == pos for query, pos in every["subjects"])
    assert all(query != pos for query, pos in every["answers"])


def test_the_seed_alone_decides(data: Path, tmp_path: Path) -> None:
    def content(seed: int, name: str) -> bytes:
        recipe = Recipe(SOURCES, seed=seed, max_per_task=40, max_texts=60, paraphrase=0.5)
        build(recipe, data, tmp_path / name, Bags())
        return (tmp_path / name).read_bytes()

    first = content(1, "a.jsonl.gz")
    assert content(1, "b.jsonl.gz") == first
    assert content(2, "c.jsonl.gz") != first


def test_finished_tasks_are_not_made_again(data: Path, tmp_path: Path) -> None:
    recipe, output = Recipe(SOURCES), tmp_path / "medi.jsonl"
    build(recipe, data, tmp_path / "whole.jsonl", Bags())
    with pytest.raises(KeyboardInterrupt):
        build(recipe, data, output, Bags(calls=4))
    assert not output.exists()
    bags = Bags()
    build(recipe, data, output, bags)
    firsts = sentences()[:2]
    assert not any(text in bags.texts[: len(sentences()) // 3] for text, _ in firsts)
    assert bags.texts[0] == sentences()[2][0]
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert manifest_path(output).read_text() == manifest_path(tmp_path / "whole.jsonl").read_text()


@pytest.mark.parametrize("changed", ["seed", "source", "instructions", "data", "embedder"])
def test_unfinished_work_of_other_settings_is_not_mixed_in(data: Path, tmp_path: Path, changed: str) -> None:
    output, about = tmp_path / "medi.jsonl", {"embedder": "bags"}
    with pytest.raises(KeyboardInterrupt):
        build(Recipe(SOURCES), data, output, Bags(calls=4), about=about)
    recipe = Recipe(SOURCES)
    match changed:
        case "seed":
            recipe = Recipe(SOURCES, seed=1)
        case "source":
            recipe = Recipe((*SOURCES[:2], Source("paired", ("answers.jsonl",), max_per_task=3)))
        case "instructions":
            recipe = Recipe(SOURCES, instructions={"answers": next(read_tasks(recipe, data)).instructions})
        case "data":
            (data / "answers.jsonl").write_text('{"query": "a", "pos": "b"}\n')
        case "embedder":
            about = {"embedder": "another"}
    with pytest.raises(ValueError, match="holds unfinished work with other settings"):
        build(recipe, data, output, Bags(), about=about)


def test_nothing_is_embedded_before_all_files_are_read(data: Path, tmp_path: Path) -> None:
    with (data / "answers.jsonl").open("a") as file:
        file.write('{"query": "only"}\n')
    bags = Bags()
    with pytest.raises(ValueError, match=r"answers.jsonl, line 301: no field 'pos'"):
        build(Recipe(SOURCES), data, tmp_path / "medi.jsonl", bags)
    assert bags.texts == []
    with pytest.raises(ValueError, match=r"ends in .json or .jsonl"):
        build(Recipe(SOURCES), data, tmp_path / "medi.txt", bags)


RECIPE = """
max_per_task = 60
[[sources]]
kind = "super-ni"
files = "task*.json"
[[sources]]
kind = "labelled"
files = "subjects*.jsonl"
instruction = { text_type = "sentence", objective = "classifying its subject" }
[[sources]]
kind = "paired"
files = "answers.jsonl"
"""


def test_the_command(data: Path, tmp_path: Path) -> None:
    recipe, output = tmp_path / "recipe.toml", tmp_path / "medi.jsonl"
    recipe.write_text(RECIPE)
    done = anytask("medi", "build", recipe, "--data", data, "--output", output, "--negatives", 2, "--seed", 3)
    assert done.exit_code == 0, done.output
    assert "built with mini" in done.stdout
    assert "manifest: " in done.stdout
    manifest = json.loads(manifest_path(output).read_text())
    assert (manifest["embedder"], manifest["options"]["negatives"], manifest["options"]["seed"]) == ("mini", 2, 3)
    assert all(len(record.neg) == 2 for record in by_task(output)["subjects"])
    expected = tmp_path / "expected.jsonl"
    from anytask.training.building.recipe import load_recipe

    by_hand = load_recipe(recipe, data)
    by_hand = Recipe(by_hand.sources, seed=3, negatives=2, max_per_task=60)
    build(by_hand, data, expected, Instructor.from_pretrained("mini"))
    assert output.read_bytes() == expected.read_bytes()
    again = anytask("medi", "build", recipe, "--data", data, "--output", output)
    assert again.exit_code == 1
    assert "already there" in again.stderr
    assert anytask("medi", "build", recipe, "--data", data, "--output", output, "--overwrite").exit_code == 0
    assert output.read_bytes() != expected.read_bytes()


def test_the_command_with_files_and_instructions(data: Path, tmp_path: Path) -> None:
    instructions, output = tmp_path / "instructions.json", tmp_path / "medi.jsonl"
    instructions.write_text(json.dumps({"task0_first_thing": "Represent the sentence for naming its first thing: "}))
    done = anytask(
        *("medi", "build", "--data", data, "--super-ni", "task0*.json", "--super-ni", "task1*.json"),
        *("--labelled", data / "subjects.jsonl"),
        *("--instructions", instructions, "--max-per-task", 20, "--output", output),
    )
    assert done.exit_code == 0, done.output
    tasks = by_task(output)
    assert {name: records[0].query.instruction for name, records in tasks.items()} == {
        "task0_first_thing": "Represent the sentence for naming its first thing: ",
        "task1_first_thing": "Represent the story sentence for extracting information: ",
        "subjects": "Represent the text for classification: ",
    }
    assert max(map(len, tasks.values())) == 20


def test_the_sources_of_some_kinds_alone(data: Path, tmp_path: Path) -> None:
    recipe, whole, part = tmp_path / "recipe.toml", tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    recipe.write_text(RECIPE)
    given = ("medi", "build", recipe, "--data", data, "--output")
    assert anytask(*given, whole).exit_code == 0
    assert anytask(*given, part, "--kind", "super-ni", "--kind", "paired").exit_code == 0
    of_whole, of_part = by_task(whole), by_task(part)
    assert of_part.keys() == of_whole.keys() - {"subjects"}
    assert all(of_part[name] == of_whole[name] for name in of_part), "a task's records don't depend on other sources"


def test_help_shows_an_example() -> None:
    assert "Example: anytask medi build medi.toml" in anytask("medi", "build", "--help").stdout


@pytest.mark.parametrize(
    ("kind", "files", "sides"),
    [
        ("--super-ni", "task0*.json", ("the x: ", "the x: ")),
        ("--labelled", "subjects.jsonl", ("the x: ", "the x: ")),
        ("--paired", "answers.jsonl", ("the x: ", "the y: ")),
    ],
)
def test_the_command_with_its_own_instructions(
    data: Path, tmp_path: Path, kind: str, files: str, sides: tuple[str, str]
) -> None:
    output = tmp_path / "medi.jsonl"
    given = ("--query-instruction", "the x: ", "--document-instruction", "the y: ")
    done = anytask("medi", "build", "--data", data, kind, files, *given, "--max-per-task", 5, "--output", output)
    assert done.exit_code == 0, done.output
    assert {(record.query.instruction, record.pos.instruction) for record in read_records(output)} == {sides}


@pytest.mark.parametrize(
    ("given", "sides"),
    [
        (("--query-instruction", "the x: ", "--document-instruction", ""), ("the x: ", "")),
        (("--query-instruction", "", "--document-instruction", "the y: "), ("", "the y: ")),
        (("--query-instruction", ""), ("", "")),
        (("--query-instruction", "the x: "), ("the x: ", "the x: ")),
    ],
)
def test_empty_instructions_are_instructions(
    data: Path, tmp_path: Path, given: tuple[str, ...], sides: tuple[str, str]
) -> None:
    output = tmp_path / "medi.jsonl"
    arguments = ("--data", data, "--paired", "answers.jsonl", "--max-per-task", 5, "--output", output)
    done = anytask("medi", "build", *arguments, *given)
    assert done.exit_code == 0, done.output
    assert {(record.query.instruction, record.pos.instruction) for record in read_records(output)} == {sides}


def test_tasks_without_pairs_are_named(data: Path, tmp_path: Path) -> None:
    (data / "lonely.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    done = anytask("medi", "build", "--data", data, "--labelled", "lonely.jsonl", "--output", tmp_path / "medi.jsonl")
    assert done.exit_code == 0, done.output
    assert "no pairs in 1 of 1 tasks: lonely" in done.stderr


def test_pairs_that_the_cap_leaves_out_are_told(data: Path, tmp_path: Path) -> None:
    rows = [{"query": f"question {place}", "pos": f"answer {place}"} for place in range(8)]
    (data / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ("medi", "build", "--data", data, "--paired", "own.jsonl", "--max-per-task")
    cut, whole = (anytask(*given, most, "--output", tmp_path / f"{most}.jsonl") for most in (5, 8))
    assert cut.exit_code == whole.exit_code == 0, cut.output + whole.output
    assert "max_per_task of their source, else --max-per-task, takes them: own (5 of 8)" in cut.stderr
    assert "left out" not in whole.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "DATA"), "give a recipe, or files by --super-ni"),
        (("RECIPE", "--data", "DATA", "--paired", "answers.jsonl"), "give a recipe, or files by --super-ni"),
        (("RECIPE", "--data", "DATA", "--query-instruction", "x"), "a recipe has its own instructions"),
        (("--data", "DATA", "--paired", "x", "--document-instruction", "x"), "--document-instruction goes with"),
        (("RECIPE", "--data", "no/such/folder"), "no data folder at no/such/folder"),
        (("--data", "DATA", "--labelled", "subjects.jsonl", "--kind", "labelled"), "--kind chooses among a recipe's"),
        (
            ("RECIPE", "--data", "DATA", "--kind", "pairs"),
            "no source of kind 'pairs'; it has labelled, paired, super-ni",
        ),
        (("none.toml", "--data", "DATA"), "none.toml"),
        (("RECIPE", "--data", "DATA", "--max-per-task", "0"), "max_per_task must be at least 1"),
        (("--data", "DATA", "--labelled", "answers.jsonl"), "answers.jsonl, line 1: no field 'text'"),
        (("--data", "DATA", "--paired", "answers.jsonl", "--embedder", "no/such/model"), "no/such/model"),
    ],
)
def test_errors_are_one_message(data: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    places = {"DATA": str(data), "RECIPE": str(tmp_path / "recipe.toml")}
    done = anytask(
        "medi",
        "build",
        "--output",
        tmp_path / "medi.jsonl",
        *(places.get(argument, argument) for argument in arguments),
    )
    assert done.exit_code == 1, done.output
    assert "error: " in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert not (tmp_path / "medi.jsonl").exists()


def test_a_sentence_transformers_folder_as_the_embedder(
    data: Path, tmp_path: Path, make_checkpoint: MakeCheckpoint
) -> None:
    pytest.importorskip("sentence_transformers")
    folder, contents = make_checkpoint(), []
    for options in ([], ["--sentence-transformers"]):
        output = tmp_path / f"{len(options)}.jsonl"
        done = anytask(
            *("medi", "build", "--data", data, "--super-ni", "task0*.json", "--labelled", "subjects.jsonl"),
            *("--max-per-task", 50, "--embedder", folder, "--output", output, *options),
        )
        assert done.exit_code == 0, done.output
        contents.append(output.read_text())
    assert contents[0] == contents[1]
    other = tmp_path / "other.jsonl"
    build(Recipe(SOURCES, max_per_task=50), data, other, Bags())
    assert by_task(other)["subjects"] != by_task(output)["subjects"]


def test_killed_and_begun_again(data: Path, tmp_path: Path) -> None:
    for number in range(25):
        rows = [{"text": f"{text} {number}", "label": subject} for text, subject in sentences()[::10]]
        (data / f"subjects{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    output, whole = tmp_path / "medi.jsonl.zst", tmp_path / "whole.jsonl.zst"
    command = ["medi", "build", str(tmp_path / "recipe.toml"), "--data", str(data), "--output"]
    assert anytask(*command, whole).exit_code == 0
    work = tmp_path / ".medi.jsonl.zst.work"
    run = [sys.executable, "-m", "anytask", *command, str(output)]
    with subprocess.Popen(run, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (work / "5.records").exists():
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not output.exists()
    assert 6 <= len(list(work.glob("*.records"))) < 30
    assert anytask(*command, output).exit_code == 0
    assert output.read_bytes() == whole.read_bytes()
    assert len(by_task(output)) == 30
    assert not work.exists()
