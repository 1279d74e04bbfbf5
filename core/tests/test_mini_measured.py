"""How `mini` is measured: the controlled set, figures that are kept, the targets."""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anytask import Instructor
from anytask.evaluation import FAMILIES, find_tasks
from anytask.evaluation.suite import RIGHT

RECIPE = Path(__file__).parents[1] / "recipes/mini"


@pytest.fixture(autouse=True)
def recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(RECIPE)


@pytest.fixture
def controlled() -> Any:
    return importlib.import_module("controlled")


@pytest.fixture
def evaluation() -> Any:
    return importlib.import_module("evaluate")


def test_controlled_set_is_the_same_each_time_large_and_without_repetition(controlled: Any) -> None:
    sentences = controlled.generate()

    assert sentences == controlled.generate()
    assert sentences != controlled.generate(seed=1)
    assert len(sentences) >= 600
    assert len({sentence.text.casefold() for sentence in sentences}) == len(sentences)
    assert not any("{" in sentence.text for sentence in sentences)


def test_controlled_set_is_balanced(controlled: Any) -> None:
    sentences = controlled.generate()

    cells = Counter((sentence.topic, sentence.sentiment, sentence.style) for sentence in sentences)
    assert set(cells.values()) == {controlled.PER_CELL}
    assert len(cells) == 8 * 3 * 4
    for style, templates in controlled.TEMPLATES.items():
        used = Counter(sentence.template for sentence in sentences if sentence.style == style)
        assert set(used) == set(templates)
    for sentence in sentences:
        text = sentence.text.casefold()
        assert all(words.casefold() in text for words in (sentence.subject, sentence.setting, sentence.verdict))


def test_controlled_wording_tells_only_its_own_value(controlled: Any) -> None:
    """No string of a topic or sentiment stands in the lists of another."""
    by_topic = {topic: {*lists["subject"], *lists["setting"]} for topic, lists in controlled.TOPICS.items()}
    every = [words for found in by_topic.values() for words in found]
    assert len(set(every)) == len(every)
    verdicts = [words for styles in controlled.VERDICTS.values() for found in styles.values() for words in found]
    assert len(set(verdicts)) == len(verdicts)


class Listening:
    """Vectors of the attributes' values, in which the instruction's attribute weighs most, or `deaf` topic always."""

    def __init__(self, sentences: Sequence[Any], deaf: bool) -> None:
        self.by_text = {sentence.text: sentence for sentence in sentences}
        self.deaf = deaf
        self.values = {
            name: sorted({getattr(sentence, name) for sentence in sentences})
            for name in ("topic", "sentiment", "style")
        }

    def encode(self, texts: Sequence[str], instruction: str | None = None) -> np.ndarray:
        heard = [name for name in self.values if re.search(rf"\b{name}\b", instruction or "")]
        first = "topic" if self.deaf or not heard else heard[0]
        parts = []
        for name, values in self.values.items():
            weight = 3.0 if name == first else 1.0
            parts.append(weight * np.eye(len(values))[[values.index(getattr(self.by_text[t], name)) for t in texts]])
        return np.concatenate(parts, axis=1)


def test_agreement_of_a_model_that_listens(controlled: Any) -> None:
    sentences = controlled.generate()
    found = controlled.measure(Listening(sentences, deaf=False), sentences)

    for asked in controlled.ATTRIBUTES:
        assert found["plain"][asked][asked] == 100
        assert found["hard"][asked][asked] == 100
        for wordings in found["other_wordings"][asked].values():
            assert wordings == {"plain": 100, "hard": 100}
    assert found["hard"]["topic"]["none"] == 100
    assert found["hard"]["sentiment"]["none"] == found["hard"]["sentiment"]["topic"] == 0
    assert found["hard"]["style"]["sentiment"] == 0


def test_agreement_of_a_model_that_does_not_listen(controlled: Any) -> None:
    """The plain form can be passed by a model that ignores the instruction, the hard form can't."""
    sentences = controlled.generate()
    found = controlled.measure(Listening(sentences, deaf=True), sentences)

    assert found["plain"]["sentiment"]["sentiment"] > 85
    assert found["hard"]["sentiment"]["sentiment"] == 0
    assert found["hard"]["topic"]["sentiment"] == 100
    assert found["changed"] == 0


def test_candidates_share_no_part_and_chance_is_counted(controlled: Any) -> None:
    def sentence(number: int, topic: str, sentiment: str, style: str, template: str) -> Any:
        return controlled.Sentence(f"s{number}", topic, sentiment, style, template, *(f"{p}{number}" for p in "vos"))

    sentences = [
        sentence(0, "food", "positive", "note", "a"),
        sentence(1, "food", "positive", "note", "a"),
        sentence(2, "food", "negative", "report", "b"),
        sentence(3, "music", "positive", "note", "c"),
        sentence(4, "music", "negative", "report", "d"),
    ]
    plain = controlled.candidates(sentences, "topic", "plain")
    hard = controlled.candidates(sentences, "topic", "hard")

    assert plain[0].tolist() == [False, False, True, True, True]
    assert hard[0].tolist() == [False, False, True, True, True]
    assert controlled.candidates(sentences, "sentiment", "hard")[0].tolist() == [False, False, True, False, True]
    assert controlled.chance(sentences, "topic", "plain") == pytest.approx(
        100 * (1 / 3 + 1 / 3 + 2 / 4 + 1 / 4 + 1 / 4) / 5
    )
    vectors = np.eye(5, dtype=np.float32)[[0, 0, 1, 0, 1]]
    assert controlled.agreement(vectors, sentences, "topic") == 0
    assert controlled.agreement(vectors, sentences, "sentiment") == 100


def test_paraphrases_of_every_instruction() -> None:
    paraphrases = importlib.import_module("paraphrases")
    needed = {
        text
        for each in (*RIGHT.values(), *(family.default for family in FAMILIES.values()))
        for text in (each.query, each.document)
    }
    assert needed == set(paraphrases.PARAPHRASES)
    for instruction, others in paraphrases.PARAPHRASES.items():
        assert len({instruction, *others}) == paraphrases.COUNT + 1
    with pytest.raises(ValueError, match="no paraphrases are written for 'Represent the poem: '"):
        paraphrases.paraphrase("Represent the poem: ", 0)


def test_figures_are_kept_and_measured_anew_when_what_they_depend_on_changes(tmp_path: Path) -> None:
    kept = importlib.import_module("figures").Figures
    path, calls = tmp_path / "inner" / "figures.json", []

    def figure() -> dict[str, int]:
        calls.append(1)
        return {"value": len(calls)}

    first = kept(path, {"model": "a"})
    first.measure("one", {"data": "x"}, figure)
    again = kept(path, {"model": "a"})
    again.measure("one", {"data": "x"}, figure)
    assert again.get("one", {"data": "x"}) == {"value": 1}
    again.measure("one", {"data": "y"}, figure)
    assert again.get("one", {"data": "y"}) == {"value": 2}
    assert again.get("one", {"data": "x"}) is None
    assert kept(path, {"model": "b"}).get("one", {"data": "y"}) is None


def write_suite(folder: Path) -> None:
    def write(name: str, rows: Sequence[dict[str, Any]]) -> None:
        path = folder / "dev" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    write(
        "sts/paint",
        [
            {"a": "a red door", "b": f"a {colour} door", "score": score}
            for score, colour in enumerate(["loud", "blue", "crimson", "red"])
        ],
    )
    texts = [f"{verb} {what}" for verb in ("play", "cook") for what in ("jazz", "soup", "rock", "stew")]
    rows = [{"text": text, "label": text.split()[0], "split": split} for text in texts for split in ("train", "test")]
    write("classification/verbs", rows)
    write("retrieval/cacm/corpus", [{"_id": "1", "text": "sorting lists"}, {"_id": "2", "text": "growing leeks"}])
    write("retrieval/cacm/queries", [{"_id": "q", "text": "how to sort"}])
    write("retrieval/cacm/qrels", [{"qid": "q", "did": "1", "score": 1}])


def test_evaluation_is_resumed_and_reported(
    tmp_path: Path, evaluation: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_suite(tmp_path)
    monkeypatch.setattr(evaluation, "SPEED", tmp_path / "not-measured.json")
    output = tmp_path / "out" / "evaluation.json"
    options = ["mini", "--data", str(tmp_path), "--json", str(output), "--measured", str(tmp_path / "measured")]
    parts = ["--part", "size", "--part", "suite", "--part", "paraphrases"]

    evaluation.main([*options, "--part", "size"])
    report = json.loads(output.read_text("utf-8"))
    assert report["suite"] == {}
    assert report["size"]["parameters"] > 1e6
    assert {target["met"] for target in report["targets"] if target["name"] == "parameters"} == {True}
    assert sum(target["met"] is None for target in report["targets"]) == len(report["targets"]) - 2

    evaluation.main([*options, *parts])
    report = json.loads(output.read_text("utf-8"))
    right, half = report["suite"]["right"], report["suite"]["right, half the dimensions"]
    assert set(right["families"]) == {"sts", "classification", "retrieval"}
    assert right["overall"] == pytest.approx(np.mean(list(right["families"].values())))
    assert right["tasks"]["retrieval/cacm"]["score"] == 1
    assert right["tasks"]["classification/verbs"]["spread"] is not None
    loss = next(target["value"] for target in report["targets"] if target["name"] == "loss by half the dimensions")
    assert loss == pytest.approx(100 * (right["overall"] - half["overall"]))
    assert next(t["value"] for t in report["targets"] if "cacm" in t["name"]) == pytest.approx(1 / 0.346)
    assert output.with_suffix(".svg").stat().st_size > 1000

    capsys.readouterr()
    monkeypatch.setattr(Instructor, "encode", None)
    evaluation.main([*options, *parts])
    assert json.loads(output.read_text("utf-8"))["suite"] == report["suite"]
    printed = capsys.readouterr().out
    assert re.search(r"parameters\s+│ <= 25 M\s+│\s+[\d.]+ │ met", printed)
    assert re.search(r"neighbour of the same topic\s+│ >= 85 %\s+│\s+│ not measured", printed)

    (tmp_path / "dev/sts/paint.jsonl").write_text('{"a": "x", "b": "y", "score": 1}\n', "utf-8")
    assert evaluation.main([*options, "--part", "size"]) is None
    assert json.loads(output.read_text("utf-8"))["suite"] == {}, "figures of other data are not reported"


def test_targets_at_their_limits() -> None:
    target = importlib.import_module("targets").Target

    assert target("loss", 2, False, 2.0).met is True
    assert target("loss", 2, False, 2.1).met is False
    assert target("range", 1, False, 1.0, strict=True).met is False
    assert target("gain", 1.5, True, 1.6).met is True
    assert target("gain", 1.5, True, 1.4).met is False
    assert target("gain", 1.5, True, None).met is None
    assert target("gain", 0, True, 0.0, "points", strict=True).condition == "> 0 points"


def test_half_the_dimensions_are_the_leading_ones(tmp_path: Path) -> None:
    development, kept = importlib.import_module("development"), importlib.import_module("figures").Figures
    write_suite(tmp_path)
    model = Instructor.from_pretrained("mini", device="cpu")
    figures, tasks = kept(tmp_path / "figures.json", {}), find_tasks(tmp_path / "dev", ["sts"])
    development.measure(figures, model, tasks, development.SETTINGS, lambda _: None)

    instruction = FAMILIES["sts"].default.query
    rows = [json.loads(line) for line in (tmp_path / "dev/sts/paint.jsonl").read_text("utf-8").splitlines()]
    a, b = (model.encode([row[side] for row in rows], instruction, truncate_dim=model.dimension // 2) for side in "ab")
    ranks = np.argsort(np.argsort((a * b).sum(axis=1)))
    expected = np.corrcoef(ranks, np.arange(len(rows)))[0, 1]
    assert figures.measured["right, half the dimensions/sts/paint"]["found"]["scores"] == pytest.approx([expected])
