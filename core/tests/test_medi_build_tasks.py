"""Tasks read from files: both forms of Super-NaturalInstructions, labelled texts, pairs; instructions; recipes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from anytask import Instruction
from anytask.training.building.annotation import TaskInstructions, annotate, parse_instructions, read_instructions
from anytask.training.building.labelled import read_labelled, read_pairs
from anytask.training.building.recipe import Recipe, Source, load_recipe
from anytask.training.building.superni import SuperNITask, read_superni
from anytask.training.building.task_sources import read_tasks
from anytask.training.building.task_texts import LabelledTexts, TextOutputs, TextPair, TextPairs

PUBLISHED: dict[str, Any] = {
    "Contributors": ["Somebody"],
    "Source": ["harbour_logs"],
    "URL": ["https://example.org"],
    "Categories": ["Question Answering"],
    "Reasoning": [],
    "Definition": ["You are given a passage about a harbour. Answer the question."],
    "Input_language": ["English"],
    "Output_language": ["English"],
    "Domains": ["Wikipedia"],
    "Positive Examples": [{"input": "a", "output": "b", "explanation": "c"}],
    "Negative Examples": [],
    "Instances": [
        {"id": "task7-1", "input": "Who keeps the lighthouse?", "output": ["Ada", "Ada Lane"]},
        {"id": "task7-2", "input": "When does it open?", "output": ["at noon"]},
        {"id": "task7-3", "input": " ", "output": ["nothing"]},
        {"id": "task7-4", "input": "Is there more?", "output": [" "]},
    ],
    "Instance License": ["Apache 2.0"],
}


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines, "utf-8")
    return path


def superni(**changes: Any) -> SuperNITask:
    return SuperNITask.from_json({**PUBLISHED, **changes}, "task7_harbour")


class TestSuperNaturalInstructions:
    def test_the_published_form(self, tmp_path: Path) -> None:
        path = tmp_path / "task7_harbour_answer_generation.json"
        path.write_text(json.dumps(PUBLISHED), "utf-8")
        (task,) = read_superni(path)
        assert task.name == "task7_harbour_answer_generation"
        assert task.definition.startswith("You are given a passage")
        assert (task.categories, task.domains, task.sources) == (
            ("Question Answering",),
            ("Wikipedia",),
            ("harbour_logs",),
        )
        assert task.inputs == ("Who keeps the lighthouse?", "When does it open?")
        assert task.outputs == (("Ada", "Ada Lane"), ("at noon",))
        assert task.about["input_language"] == ["English"]

    @pytest.mark.parametrize("name", ["tasks.jsonl", "tasks.jsonl.gz"])
    def test_a_task_a_row(self, tmp_path: Path, name: str) -> None:
        row = {
            "name": "task8_tides",
            "definition": "Given a sentence, name the tide.",
            "categories": ["Information Extraction"],
            "url": [float("nan")],
            "instances": [{"input": "High at six.", "output": "high", "more_outputs": ["flood"]}],
        }
        first, second = read_superni(write_lines(tmp_path / name, [row, {**row, "name": "task9_tides"}]))
        assert (first.name, second.name) == ("task8_tides", "task9_tides")
        assert first.outputs == (("high", "flood"),)
        assert first.domains == ()

    def test_few_outputs_that_come_often_are_labels(self) -> None:
        def task(outputs: list[list[str]]) -> SuperNITask:
            return superni(Instances=[{"input": f"text {i}", "output": o} for i, o in enumerate(outputs)])

        labels = task([["Yes"], ["yes "]] * 5 + [["no"]] * 5)
        assert labels.is_classification
        texts = labels.texts()
        assert isinstance(texts, LabelledTexts)
        assert set(texts.labels) == {"yes", "no"}
        assert task([[str(i % 20)] for i in range(100)]).is_classification
        assert not task([[str(i % 20)] for i in range(99)]).is_classification
        assert not task([[str(i % 21)] for i in range(200)]).is_classification
        several = task([["yes", "no"]] + [["yes"]] * 100)
        assert isinstance(several.texts(), TextOutputs)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[1]", "expected an object"),
            ("{", "task.json"),
            ('{"Definition": ["x"]}', "no list of Instances, only Definition"),
            ('{"Instances": [{"input": "x"}]}', r"Instances\[0\] is not an object with input and output"),
            ('{"Instances": [{"input": 3, "output": ["y"]}]}', r"Instances\[0\].input: expected a string, found 3"),
            ('{"Instances": [{"input": "x", "output": [null]}]}', r"Instances\[0\].output: .*found null"),
            ('{"Instances": [{"input": "\\ud800", "output": ["y"]}]}', r"U\+D800, half of a surrogate pair"),
            ('{"Categories": [1], "Instances": []}', "Categories is neither a string nor a list of strings"),
        ],
    )
    def test_what_is_no_task_is_told(self, tmp_path: Path, content: str, message: str) -> None:
        path = tmp_path / "task.json"
        path.write_text(content)
        with pytest.raises(ValueError, match=message) as raised:
            list(read_superni(path))
        assert str(path) in str(raised.value)

    def test_a_row_without_a_name_is_told_with_its_line(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "tasks.jsonl", [{"name": "a", "instances": []}, {"instances": []}])
        with pytest.raises(ValueError, match=r"tasks.jsonl, line 2: the task has no name"):
            list(read_superni(path))


class TestRows:
    def test_labels_in_any_field(self, tmp_path: Path) -> None:
        rows = [
            {"body": "The boat came in.", "meta": {"port": "north", "year": 1990}, "kind": "log"},
            {"body": "The crane broke.", "meta": {"port": "south", "year": 1991}, "kind": "log"},
            {"body": "For sale.", "meta": {"port": "north", "year": 1991}, "kind": "advert"},
        ]
        path = write_lines(tmp_path / "log.jsonl.gz", rows)
        fields = {"text": "body", "label": "meta.port"}
        assert read_labelled(path, fields).labels == ["north", "south", "north"]
        logs = read_labelled(path, {**fields, "label": "meta.year"}, {"kind": ("log", "diary")})
        assert (logs.texts, logs.labels) == (["The boat came in.", "The crane broke."], ["1990", "1991"])
        by_start = read_labelled(path, {**fields, "label": "body"}, label_pattern=r"^The (\w+)")
        assert by_start.labels == ["boat", "crane"]
        assert read_labelled(path, {**fields, "label": "body"}, label_pattern=r"^\w+").labels == ["The", "The", "For"]

    def test_pairs(self, tmp_path: Path) -> None:
        rows = [
            {"query": "a", "pos": "b"},
            {"query": "c", "pos": "d", "neg": ["e", "f"]},
            {"query": "g", "pos": "h", "neg": "i"},
        ]
        pairs = read_pairs(write_lines(tmp_path / "pairs.jsonl", rows)).pairs
        assert pairs == [TextPair("a", "b"), TextPair("c", "d", ("e", "f")), TextPair("g", "h", ("i",))]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"text": "x"}', "no field 'label', only text"),
            ('{"label": "x"}', "no field 'text', only label"),
            ('{"text": ["x"], "label": "y"}', "text: expected a string, found a list of 1"),
            ("[1]", "expected an object, found a list of 1"),
            ("{", "not valid JSON"),
        ],
    )
    def test_what_is_no_labelled_text_is_told(self, tmp_path: Path, line: str, message: str) -> None:
        path = tmp_path / "texts.jsonl"
        path.write_text(f'{{"text": "fine", "label": "good"}}\n\n{line}\n')
        with pytest.raises(ValueError, match=message) as raised:
            read_labelled(path)
        assert str(raised.value).startswith(f"{path}, line 3")

    def test_a_cut_off_file_is_told(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "pairs.jsonl.gz", [{"query": str(i), "pos": str(-i)} for i in range(5000)])
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ValueError, match="cut off"):
            read_pairs(path)


class TestDistinct:
    def test_a_text_with_two_labels_is_left_out(self) -> None:
        texts = LabelledTexts(["One", "two", "one ", "TWO", "three", " "], ["a", "a", "a", "b", "c", "c"])
        assert texts.distinct() == LabelledTexts(["One", "three"], ["a", "c"])

    def test_outputs_of_the_same_input_come_together(self) -> None:
        outputs = TextOutputs(["One", "two", "one"], [("a", "b"), ("c",), ("B", "d")])
        assert outputs.distinct() == TextOutputs(["One", "two"], [("a", "b", "d"), ("c",)])

    def test_pairs_of_a_text_with_itself_and_negatives_that_are_none(self) -> None:
        pairs = TextPairs(
            [
                TextPair("q", "p", ("P ", "n", "N", "q", "", "m")),
                TextPair("Q", "p", ("other",)),
                TextPair("same", "Same "),
                TextPair("", "p"),
            ]
        )
        assert pairs.distinct() == TextPairs([TextPair("q", "p", ("n", "m"))])


class TestAnnotation:
    @pytest.mark.parametrize(
        ("changes", "instruction"),
        [
            ({}, "Represent the Wikipedia passage for finding its answer: "),
            ({"Definition": ["Answer."]}, "Represent the Wikipedia question for finding its answer: "),
            (
                {"Definition": ["Based on your knowledge, write a sentence."], "Domains": ["Reviews -> Books"]},
                "Represent the book review question for finding its answer: ",
            ),
            (
                {
                    "Categories": ["Sentiment Analysis"],
                    "Domains": ["Social Media -> Twitter"],
                    "Definition": "Rate it.",
                },
                "Represent the Twitter text for classifying its sentiment: ",
            ),
            (
                {"Categories": ["Something New"], "Domains": ["Miscellaneous"], "Definition": []},
                "Represent the text for the task of harbour: ",
            ),
            ({"Domains": []}, "Represent the passage for finding its answer: "),
            ({"Domains": [], "Source": ["codex (a paper)"]}, "Represent the codex passage for finding its answer: "),
            (
                {"Domains": ["Stories"], "Definition": ["You are given a short story."]},
                "Represent the story for finding its answer: ",
            ),
        ],
    )
    def test_domain_text_type_and_objective(self, changes: dict[str, Any], instruction: str) -> None:
        assert annotate(superni(**changes)) == (instruction, instruction)

    def test_a_file_of_instructions(self, tmp_path: Path) -> None:
        path = tmp_path / "instructions.json"
        content = {
            "_note": "no task",
            "a": {"query": "Represent the x; Input: ", "pos": "Represent the y; Input: ", "symmetric": False},
            "b": {"query": "Represent the z: ", "pos": "unused: ", "symmetric": True},
            "c": "Represent the w: ",
            "d": {"query": {"text_type": "post", "domain": "forum"}, "pos": "Represent the answer: "},
        }
        path.write_text(json.dumps(content))
        assert read_instructions(path) == {
            "a": ("Represent the x: ", "Represent the y: "),
            "b": ("Represent the z: ", "Represent the z: "),
            "c": ("Represent the w: ", "Represent the w: "),
            "d": ("Represent the forum post: ", "Represent the answer: "),
        }

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (3, "here: expected a string, found 3"),
            ({"pos": "x"}, "here: found pos; expected text_type"),
            ({"text_type": "x", "topic": "y"}, "here: found text_type, topic; expected text_type"),
            ({"text_type": " "}, "here: Instruction text_type is blank"),
            ({"query": "x", "symmetric": False}, "here.pos: expected a string, found null"),
            ({"query": "x", "document": "y"}, "here: unknown document; expected query, pos, symmetric"),
        ],
    )
    def test_what_is_no_instruction_is_told(self, value: object, message: str) -> None:
        with pytest.raises(ValueError, match="^" + message):
            parse_instructions(value, "here")


RECIPE = """
seed = 3
negatives = 2
max_per_task = 50
instructions = "mine.json"

[[sources]]
kind = "super-ni"
files = ["tasks/*.json"]
exclude = "task9*"
where = { input_language = "English" }

[[sources]]
kind = "labelled"
name = "ports"
files = "log.jsonl"
fields = { label = "meta.port" }
where = { kind = ["log", "diary"] }
instruction = { text_type = "log entry", objective = "classifying its port" }
max_per_task = 5

[[sources]]
kind = "paired"
files = "pairs*.jsonl"
query_instruction = "Represent the question: "
document_instruction = { text_type = "answer" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tasks").mkdir()
    for name in ("task7_harbour", "task8_finnish", "task9_left_out"):
        language = {"Input_language": ["Finnish"]} if "finnish" in name else {}
        (tmp_path / f"tasks/{name}.json").write_text(json.dumps({**PUBLISHED, **language}))
    write_lines(tmp_path / "log.jsonl", [{"text": "In.", "kind": "log", "meta": {"port": "north"}}])
    for name in ("pairs_a", "pairs_b"):
        write_lines(tmp_path / f"{name}.jsonl", [{"query": "q", "pos": "p"}])
    (tmp_path / "mine.json").write_text(json.dumps({"pairs_b": "Represent the b: "}))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


class TestRecipe:
    def test_the_tasks(self, folder: Path) -> None:
        recipe = load_recipe(folder / "recipe.toml", folder)
        assert (recipe.seed, recipe.negatives, recipe.max_per_task) == (3, 2, 50)
        tasks = {task.name: task for task in read_tasks(recipe, folder)}
        assert list(tasks) == ["task7_harbour", "ports", "pairs_a", "pairs_b"]
        assert tasks["ports"].instructions.query == "Represent the log entry for classifying its port: "
        assert tasks["pairs_a"].instructions == ("Represent the question: ", "Represent the answer: ")
        assert tasks["pairs_b"].instructions == ("Represent the b: ", "Represent the b: ")
        assert tasks["ports"].texts == LabelledTexts(["In."], ["north"])
        assert [task.max_records for task in tasks.values()] == [50, 5, 50, 50]
        assert tasks["task7_harbour"].file == "tasks/task7_harbour.json"

    def test_instructions_in_the_data_folder(self, folder: Path, tmp_path: Path) -> None:
        beside = tmp_path / "elsewhere"
        beside.mkdir()
        (beside / "recipe.toml").write_text(RECIPE)
        assert load_recipe(beside / "recipe.toml", folder).instructions.keys() == {"pairs_b"}
        (beside / "mine.json").write_text("{}")
        assert load_recipe(beside / "recipe.toml", folder).instructions == {}

    def test_defaults(self, folder: Path) -> None:
        sources = (Source("labelled", ("log.jsonl",), fields={"label": "kind"}), Source("paired", ("pairs_a.jsonl",)))
        labelled, paired = read_tasks(Recipe(sources), folder)
        assert labelled.instructions == TaskInstructions(*2 * ("Represent the text for classification: ",))
        assert paired.instructions == (
            "Represent the question for retrieving supporting documents: ",
            "Represent the document for retrieval: ",
        )

    def test_absolute_patterns(self, folder: Path, tmp_path: Path) -> None:
        recipe = Recipe((Source("paired", (str(folder / "pairs_*.jsonl"),)),))
        assert [task.name for task in read_tasks(recipe, tmp_path / "tasks")] == ["pairs_a", "pairs_b"]

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("seed = 3", "seed = 3 4", "not valid TOML"),
            ("seed = 3", 'seed = "3"', "seed must be an integer, got '3'"),
            ("seed = 3", "seeds = 3", "unknown seeds; expected sources, seed, negatives"),
            ("seed = 3", "paraphrase = 2", "paraphrase is a share between 0 and 1, got 2"),
            ("max_per_task = 50", "max_per_task = 0", "max_per_task must be at least 1, got 0"),
            ("max_per_task = 5\n", "max_per_task = -5\n", r"sources\[2\]: max_per_task must be at least 1, got -5"),
            ('"mine.json"', "[3]", "instructions must be a string or a list of strings"),
            ('kind = "super-ni"', 'kind = "superni"', r"sources\[1\]: kind is 'superni', expected super-ni, labelled"),
            ('kind = "super-ni"', "", r"sources\[1\]: has no kind"),
            ('kind = "super-ni"', 'kind = "super-ni"\nname = "x"', r"sources\[1\]: .* leave name out"),
            ('name = "ports"', "name = true", r"sources\[2\]: name must be a string, got True"),
            ('files = "log.jsonl"', "files = []", r"sources\[2\]: files names no file"),
            ('{ label = "meta.port" }', '{ query = "x" }', r"sources\[2\]: fields names query; .* has text, label"),
            ('{ label = "meta.port" }', "{ label = 1 }", r"sources\[2\]: fields.label must be a string, got 1"),
            ('name = "ports"', 'label_pattern = "("', r"sources\[2\]: label_pattern '\(' is no regular expression"),
            ('kind = "paired"', 'kind = "paired"\nlabel_pattern = "x"', r"sources\[3\]: .* has no label"),
            ('document_instruction = { text_type = "answer" }', "", r"sources\[3\]: has query_instruction; give"),
            ('text_type = "answer"', 'type = "answer"', r"sources\[3\]: document_instruction: found type; expected"),
        ],
    )
    def test_what_is_no_recipe_is_told(self, folder: Path, old: str, new: str, message: str) -> None:
        assert old in RECIPE
        path = folder / "recipe.toml"
        path.write_text(RECIPE.replace(old, new))
        with pytest.raises(ValueError, match=message) as raised:
            load_recipe(path, folder)
        assert str(raised.value).startswith(f"{path}: ")

    @pytest.mark.parametrize("content", ["", "sources = 1", "[sources]\nkind = 'paired'\nfiles = 'x'"])
    def test_no_sources(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "recipe.toml"
        path.write_text(content)
        with pytest.raises(ValueError, match=r"recipe.toml: (a recipe needs a source|.*\[\[sources\]\])"):
            load_recipe(path, tmp_path)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ('"pairs*.jsonl"', '"pears*.jsonl"', "no file fits 'pears"),
            ('"pairs*.jsonl"', '["pairs*.jsonl", "log.jsonl"]', "log.jsonl, line 1: no field 'query'"),
            ('name = "ports"', 'name = "pairs_a"', "two tasks are called 'pairs_a', from log.jsonl and pairs_a.jsonl"),
            ('exclude = "task9*"', 'exclude = "*"', r"sources\[1\] \(tasks/\*.json\) gives no task"),
        ],
    )
    def test_what_the_folder_does_not_have_is_told(self, folder: Path, old: str, new: str, message: str) -> None:
        assert old in RECIPE
        (folder / "recipe.toml").write_text(RECIPE.replace(old, new))
        with pytest.raises(ValueError, match=message):
            list(read_tasks(load_recipe(folder / "recipe.toml", folder), folder))

    def test_no_data_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no data folder at"):
            list(read_tasks(Recipe((Source("paired", ("x.jsonl",)),)), tmp_path / "none"))


def test_the_recipe_of_this_repository(tmp_path: Path) -> None:
    folder = Path(__file__).parents[1] / "recipes/medi"
    (tmp_path / "instructions.json").write_text("{}")
    recipe = load_recipe(folder / "medi.toml", tmp_path)
    instructions = [sides.query for sides in recipe.instructions.values()]
    instructions += [source.instructions.query for source in recipe.sources if source.instructions is not None]
    assert len(instructions) == len(set(instructions)) == 246
    for instruction in instructions:
        assert str(Instruction.parse(instruction)) == instruction
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    told = {task["task"]: task["query_instruction"] for task in manifest["tasks"]}
    assert len(told) == manifest["tasks_with_records"] == 272
    assert all(told[name] == sides.query for name, sides in recipe.instructions.items())
    assert manifest["records"] == sum(task["records"] for task in manifest["tasks"])
