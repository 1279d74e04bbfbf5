from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytask import Instructor
from anytask.cli.medi import token_counter
from anytask.training.medi.data_card import INSTRUCTIONS, DataCard
from anytask.training.medi.data_card_report import LISTED, card_files, markdown, save, to_json
from anytask.training.medi.lengths import Lengths
from anytask.training.medi.records import InstructedText, Record


def record(task_id: str | int, query: str = "q", pos: str = "p", neg: tuple[str, ...] = (), note: str = "") -> Record:
    return Record(
        InstructedText(f"Represent the query{note}: ", query),
        InstructedText("Represent the answer: ", pos),
        tuple(InstructedText("Represent the answer: ", text) for text in neg),
        task_id,
    )


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=200), st.randoms(use_true_random=False))
def test_lengths_are_those_of_the_whole_list(values: list[int], draw: random.Random) -> None:
    whole, parts = Lengths(), [Lengths(), Lengths()]
    for value in values:
        whole.add(value)
    for value in draw.sample(values, len(values)):
        draw.choice(parts).add(value)
    parts[0].merge(parts[1])
    assert whole.to_json() == parts[0].to_json()
    assert (whole.least, whole.greatest, whole.count) == (min(values), max(values), len(values))
    assert whole.mean == pytest.approx(np.mean(values))
    for share in (0.0, 0.05, 0.5, 0.95, 1.0):
        exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
        assert whole.quantile(share) == pytest.approx(exact, rel=0.005)
        assert exact >= 256 or whole.quantile(share) == exact


def test_lengths_take_constant_memory() -> None:
    lengths = Lengths()
    draw = random.Random(0)
    for _ in range(100_000):
        lengths.add(int(math.exp(draw.uniform(0, 16))))
    assert len(lengths.bins) < 256 + 128 * 16
    assert Lengths().to_json() == {"count": 0, "mean": 0.0, "min": 0, "p50": 0, "p95": 0, "max": 0}


def test_a_card_counts_each_task() -> None:
    card = DataCard.of(
        [
            record("qa", "ab", "c" * 100, ("d", "ef", "ghi")),
            record(3, "abcd", "efg", note=" in short"),
            record("qa", "abcdef", "c" * 50, ("d",)),
            record("qa", "abcdef", "c" * 50),
        ]
    )
    assert [task_id for task_id, _ in card.in_order()] == [3, "qa"]
    qa, whole = card.tasks["qa"], card.total()
    assert (qa.records, whole.records) == (3, 4)
    assert (qa.negatives.mean, qa.negatives.least, qa.negatives.greatest) == (pytest.approx(4 / 3), 0, 3)
    query, pos, neg = (qa.sides[side].characters for side in ("query", "pos", "neg"))
    assert (query.mean, query.quantile(0.5), query.greatest) == (pytest.approx(14 / 3), 6, 6)
    assert (pos.count, pos.quantile(0.5), pos.quantile(0.95)) == (3, 50, 100)
    assert (neg.count, neg.total, whole.sides["neg"].characters.count) == (4, 7, 4)
    assert whole.sides["query"].characters.total == 18
    assert qa.sides["query"].instructions.most_common() == [("Represent the query: ", 3)]
    assert qa.sides["neg"].instructions.most_common() == [("Represent the answer: ", 4)]
    assert card.tasks[3].sides["query"].instructions.counts == {"Represent the query in short: ": 1}
    assert card.notes() == []


def test_tokens_are_those_the_model_reads() -> None:
    model = Instructor.from_pretrained("mini")
    counter = token_counter("mini")
    assert counter.max_length == model.max_length
    words = [record(1, "word " * count, " an answer ", ("", "another")) for count in (3, 100, 700, 900)]
    card = DataCard.of(words * 40, counter)
    read = model._tokenizer([words[1].query.text], [words[1].query.instruction])
    tokens = card.tasks[1].sides["query"].tokens
    assert len(read[0].ids) in counter([words[1].query])
    assert tokens.count == 160
    assert (
        tokens.least == counter([words[0].query])[0] == len(model._tokenizer(["word " * 3], [words[0].query[0]])[0].ids)
    )
    assert tokens.greatest == counter([words[3].query])[0] > 900
    assert card.tasks[1].sides["neg"].tokens.count == 320
    assert card.over_length == 80
    assert "texts of more than 512 tokens, which the model cuts: 80" in card.notes()
    assert "tokens of instruction and text (the model reads 512)" in markdown(card, ["a.json"])


def test_notes_name_what_looks_wrong() -> None:
    card = DataCard.of(
        [
            record(1, "same", "same"),
            record("1", " ", "p", ("p", "n", "p")),
            record("other"),
            *(record("swapped", note=f" {i}") for i in range(INSTRUCTIONS + 5)),
        ]
    )
    swapped = card.tasks["swapped"].sides["query"].instructions
    assert (len(swapped.counts), swapped.others) == (INSTRUCTIONS, 5)
    notes = "\n".join(card.notes())
    assert "task ids both as a number and as a string, which are two tasks: 1\n" in notes
    assert f"more than {INSTRUCTIONS} instructions on a side" in notes
    assert "'swapped'" in notes
    assert "blank texts: 1\n" in notes
    assert "positives with the text of their query: 1\n" in notes
    assert notes.endswith("negatives with the text of their positive: 2")


def test_the_card_is_saved_as_markdown_and_json(tmp_path: Path) -> None:
    instructed = [record("a | b `c`", note=f" {i % (LISTED + 2)}") for i in range(30)]
    card = DataCard.of([*instructed, record("7", neg=("n",)), record(7, "x" * 3000)])
    page, figures = save(card, tmp_path / "cards" / "medi.md", ["x.json", "y.jsonl.gz"])
    assert (page, figures) == (tmp_path / "cards/medi.md", tmp_path / "cards/medi.card.json")
    assert sorted(path.name for path in page.parent.iterdir()) == ["medi.card.json", "medi.md"]
    text = page.read_text()
    assert "32 records of 3 tasks in `x.json`, `y.jsonl.gz`." in text
    assert "| `` a \\| b `c` `` | 30 | 93.8% | 0.00 (0-0) | 1 / 1 / 1 | 1 / 1 / 1 |  |" in text
    assert "| `7` | 1 | 3.1% | 0.00 (0-0) | 3,000 / 3,000 / 3,000 |" in text
    assert '| `"7"` | 1 | 3.1% | 1.00 (1-1) | 1 / 1 / 1 | 1 / 1 / 1 | 1 / 1 / 1 |' in text
    assert "| `` a \\| b `c` `` | query | 5 | `Represent the query 1:` |" in text
    assert "| `` a \\| b `c` `` | query | 8 | `(2 others)` |" in text
    for block in text.split("\n\n"):
        rows = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
    data = json.loads(figures.read_text())
    assert data == json.loads(json.dumps(to_json(card, ["x.json", "y.jsonl.gz"])))
    assert [task["task_id"] for task in data["tasks"]] == [7, "7", "a | b `c`"]
    assert len(data["tasks"][2]["instructions"]["query"]["counts"]) == LISTED + 2
    assert data["total"]["records"] == 32
    assert data["tasks"][0]["query"]["characters"]["max"] == 3000
    assert data["max_length"] is data["over_length"] is None


def test_where_a_card_goes(tmp_path: Path) -> None:
    assert card_files(tmp_path) == (tmp_path / "data.md", tmp_path / "data.card.json")
    assert card_files(tmp_path / "v1") == (tmp_path / "v1" / "data.md", tmp_path / "v1" / "data.card.json")
    assert card_files(tmp_path / "v1.md") == (tmp_path / "v1.md", tmp_path / "v1.card.json")
    with pytest.raises(ValueError, match=r"written to a folder or to a name that ends in \.md"):
        card_files(tmp_path / "medi.json")


def test_a_card_of_nothing() -> None:
    card = DataCard.of([])
    assert card.notes() == []
    assert "0 records of 0 tasks in `empty.jsonl`." in markdown(card, ["empty.jsonl"])
