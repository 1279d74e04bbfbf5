"""Hard negatives of one task: filters, candidates, and the agreement with sentence-transformers' miner."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from anytask import Instructor
from anytask.training.medi.records import InstructedText, Record
from anytask.training.mining.lexical import LexicalIndex
from anytask.training.mining.negatives import EmbedTexts, mine_task
from anytask.training.mining.options import MiningOptions
from anytask.training.mining.vectors import embed_each

Floats = npt.NDArray[np.float32]
QUERY, DOCUMENT = "Represent the question: ", "Represent the answer: "


def record(query: str, pos: str, *neg: str, instruction: str = DOCUMENT, task: str | int = "toy") -> Record:
    negatives = tuple(InstructedText(DOCUMENT, text) for text in neg)
    return Record(InstructedText(QUERY, query), InstructedText(instruction, pos), negatives, task)


def by_name(_kind: str, texts: Sequence[InstructedText]) -> Floats:
    """Unit vectors whose first coordinate is the number that a text begins with: its score for a query "1"."""
    first = np.array([float(text.split()[0]) for _, text in texts])
    return np.stack([first, np.sqrt(1 - first**2)], axis=1).astype(np.float32)


def negatives(records: Sequence[Record], corpus: Sequence[str] = (), **options: Any) -> list[list[str]]:
    mined, _ = mine_task(records, by_name, MiningOptions(**options), corpus=corpus)
    return [[text for _, text in record.neg] for record in mined]


SCORES = [f"{score / 100:.2f}" for score in (95, 90, 85, 80, 75, 70, 60, 50, 40, 30, 20, 10)]


def test_the_nearest_come_first_with_the_positives_instruction() -> None:
    records = [record("1", "0.80", instruction="Represent the other answer: ")]
    mined, summary = mine_task(records, by_name, MiningOptions(num_negatives=3), corpus=SCORES[::-1])
    assert mined[0].neg == tuple(InstructedText("Represent the other answer: ", text) for text in SCORES[:3])
    assert (mined[0].query, mined[0].pos, mined[0].task_id) == (records[0].query, records[0].pos, "toy")
    assert (summary.records, summary.negatives, summary.short, summary.filtered) == (1, 3, 0, 0)
    assert summary.positive_score == pytest.approx(0.8)
    assert summary.negative_score == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"absolute_margin": 0.0}, ["0.75", "0.70", "0.60"]),
        ({"absolute_margin": 0.15}, ["0.60", "0.50", "0.40"]),
        ({"relative_margin": 0.2}, ["0.60", "0.50", "0.40"]),
        ({"relative_margin": 0.2, "absolute_margin": 0.35}, ["0.40", "0.30", "0.20"]),
        ({"max_score": 0.86}, ["0.85", "0.75", "0.70"]),
        ({"max_score": 0.86, "absolute_margin": 0.25}, ["0.50", "0.40", "0.30"]),
        ({"range_min": 4}, ["0.70", "0.60", "0.50"]),
        ({"range_min": 2, "range_max": 4}, ["0.85", "0.75"]),
        ({"range_max": 5, "absolute_margin": 0.09}, ["0.70"]),
        ({"range_min": 4, "absolute_margin": 0.05}, ["0.70", "0.60", "0.50"]),
        ({"absolute_margin": 0.75}, []),
    ],
)
def test_filters(options: dict[str, Any], expected: list[str]) -> None:
    """The positive scores 0.8; ranks count the candidates without it."""
    assert negatives([record("1", "0.80")], SCORES, num_negatives=3, **options) == [expected]


def test_margins_below_a_negative_score() -> None:
    corpus = ["0.1", "-0.41", "-0.43", "-0.5"]
    assert negatives([record("1", "-0.40")], corpus, relative_margin=0.05) == [["-0.43", "-0.5"]]


def test_dropped_candidates_are_counted() -> None:
    options = MiningOptions(absolute_margin=0.05, range_max=6)
    _, summary = mine_task([record("1", "0.80")], by_name, options, corpus=SCORES)
    assert (summary.filtered, summary.negatives, summary.short) == (3, 3, 1)


def test_no_positive_of_the_same_query_is_a_negative() -> None:
    records = [record("1", "0.90"), record("1 ", "0.80"), record("1", " 0.70\n"), record("0.5", "0.60")]
    corpus = ["0.70", "0.80 ", "0.90", "1", " ", "0.10"]
    nearest_of_the_other = [" 0.70\n", "0.80", "0.10", "0.90"]
    assert negatives(records, corpus) == [*[["0.60", "0.10"]] * 3, nearest_of_the_other]


def test_margins_are_measured_from_the_lowest_positive_of_the_query() -> None:
    records = [record("1", "0.90"), record("1", "0.50")]
    assert negatives(records, ["0.70", "0.40"], absolute_margin=0.05) == [["0.40"]] * 2


def test_existing_negatives_are_candidates_and_replaced() -> None:
    records = [record("1", "0.80", "0.10", " 0.70"), record("1 other", "0.60")]
    assert negatives(records, num_negatives=2) == [[" 0.70", "0.60"], ["0.80", " 0.70"]]
    assert negatives(records, num_negatives=2, max_score=0.05) == [[], []]


def test_existing_negatives_are_kept_and_filled_up() -> None:
    records = [record("1", "0.80", "0.10", " 0.70"), record("1 other", "0.60")]
    assert negatives(records, ["0.75"], num_negatives=4, keep_existing=True) == [
        ["0.10", " 0.70", "0.75", "0.60"],
        ["0.80", "0.75", " 0.70", "0.10"],
    ]
    options = MiningOptions(num_negatives=1, keep_existing=True)
    mined, summary = mine_task(records, by_name, options)
    assert [record.neg for record in mined] == [records[0].neg, (InstructedText(DOCUMENT, "0.80"),)]
    assert (summary.negatives, summary.short) == (1, 0)


def test_random_sampling_draws_from_what_passed() -> None:
    def draw(seed: int) -> list[list[str]]:
        return negatives(
            [record("1", "0.80"), record("1", "0.80")],
            SCORES,
            num_negatives=3,
            absolute_margin=0.05,
            sampling_strategy="random",
            seed=seed,
        )

    passed = {score for score in SCORES if float(score) <= 0.75}
    draws = [draw(seed) for seed in range(30)]
    assert draws == [draw(seed) for seed in range(30)]
    counts = Counter(text for both in draws for texts in both for text in texts)
    assert set(counts) == passed
    assert max(counts.values()) < 2 * min(counts.values()) + 10
    for first, second in draws:
        assert len(set(first)) == len(set(second)) == 3
        assert first == sorted(first, reverse=True)
    assert any(first != second for first, second in draws), "records of a query draw each for themselves"


def test_fewer_are_drawn_where_fewer_passed() -> None:
    drawn = negatives([record("1", "0.80")], SCORES, absolute_margin=0.55, sampling_strategy="random")
    assert drawn == [["0.20", "0.10"]]


FRUIT = ["0.90 apples", "0.80 plums", "0.70 figs", "0.30 pears", "0.20 pears and more"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["0.90 apples", "0.30 pears", "0.80 plums", "0.20 pears and more"]),
        ({"num_negatives": 9}, ["0.90 apples", "0.30 pears", "0.80 plums", "0.20 pears and more", "0.70 figs"]),
        ({"max_score": 0.25}, ["0.20 pears and more"]),
        ({"absolute_margin": 0.2}, ["0.30 pears", "0.20 pears and more", "0.70 figs"]),
        ({"range_min": 1, "range_max": 3}, ["0.80 plums", "0.20 pears and more", "0.70 figs"]),
    ],
)
def test_candidates_by_words_come_in_turns(options: dict[str, Any], expected: list[str]) -> None:
    records = [record("1 pears", "0.95 pears")]
    assert negatives(records, FRUIT, bm25=True, **options) == [expected]


def test_bm25_is_that_of_the_formula(sentences: list[str]) -> None:
    texts = sentences[:200]
    documents = [re.findall(r"\w\w+", text.lower()) for text in texts]
    average = sum(map(len, documents)) / len(documents)
    frequency = Counter(word for words in documents for word in set(words))

    def score(query: set[str], words: list[str]) -> float:
        total = 0.0
        for word in query & set(words):
            idf = math.log(1 + (len(documents) - frequency[word] + 0.5) / (frequency[word] + 0.5))
            count = words.count(word)
            total += idf * count / (count + 1.5 * (0.25 + 0.75 * len(words) / average))
        return total

    queries = ["the value of an expression", "import modules", "zzz", ""]
    found = LexicalIndex(texts).search(queries, 20)
    for query, rows in zip(queries, found, strict=True):
        scores = np.array([score(set(re.findall(r"\w\w+", query)), words) for words in documents])
        assert len(rows) == min(20, np.count_nonzero(scores))
        np.testing.assert_allclose(scores[rows], -np.sort(-scores)[: len(rows)], rtol=1e-5)


def test_bm25_orders_equal_scores_by_index() -> None:
    texts = ["a red fox", "two blue whales"] * 20
    (found,) = LexicalIndex(texts).search(["blue whales and a fox"], 30)
    assert found.tolist() == [*range(1, 40, 2), *range(0, 20, 2)]


@pytest.mark.parametrize("texts", [[], ["!", "?"]])
def test_bm25_over_texts_without_words(texts: list[str]) -> None:
    assert [len(rows) for rows in LexicalIndex(texts).search(["a question", "another"], 5)] == [0, 0]


def test_each_text_is_embedded_with_its_own_instruction() -> None:
    seen: dict[str, list[InstructedText]] = {}

    def instructed(kind: str, texts: Sequence[InstructedText]) -> Floats:
        """A document with the other instruction scores 0.3 less."""
        seen[kind] = list(texts)
        scores = [float(text.split()[0]) - 0.3 * (instruction == "other ") for instruction, text in texts]
        return by_name(kind, [InstructedText("", str(score)) for score in scores])

    records = [
        record("1", "0.70"),
        record("1 b", "0.70", instruction="other "),
        record("1 c", "0.60"),
        record("1 d", "0.90", instruction="other "),
    ]
    mined, summary = mine_task(records, instructed, MiningOptions(absolute_margin=0.0), corpus=["0.65"])
    assert seen["queries"] == [InstructedText(QUERY, text) for text in ("1", "1 b", "1 c", "1 d")]
    assert set(seen["documents"]) == {
        InstructedText(DOCUMENT, "0.70"),
        InstructedText("other ", "0.70"),
        InstructedText(DOCUMENT, "0.60"),
        InstructedText("other ", "0.90"),
        InstructedText(DOCUMENT, "0.65"),
    }
    assert summary.positive_score == pytest.approx((0.7 + 0.4 + 0.6 + 0.6) / 4)
    # The second record's positive scores 0.4 with its own instruction; nothing is far enough below.
    assert [[text for _, text in record.neg] for record in mined] == [["0.65", "0.60", "0.90"], [], ["0.90"], ["0.60"]]


def test_a_task_of_one_record_has_no_candidates() -> None:
    mined, summary = mine_task([record("1", "0.9")], by_name, MiningOptions(bm25=True))
    assert mined == [record("1", "0.9")]
    assert (summary.negatives, summary.negative_score, summary.short) == (0, None, 1)


def test_blank_positives_are_scored_and_never_negatives() -> None:
    def embedded(_kind: str, texts: Sequence[InstructedText]) -> Floats:
        return by_name("", [InstructedText("", text.strip() or "0.5") for _, text in texts])

    mined, summary = mine_task([record("1", " "), record("1 b", "0.4")], embedded, MiningOptions())
    assert [len(record.neg) for record in mined] == [1, 0]
    assert summary.positive_score == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_negatives": 0}, "at least 1, got 0"),
        ({"range_min": -1}, "-1 to 100"),
        ({"range_min": 10, "range_max": 10}, "10 to 10"),
        ({"sampling_strategy": "best"}, "one of top, random, got 'best'"),
        ({"seed": -1}, "got -1"),
    ],
)
def test_options_out_of_range_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MiningOptions(**options)


class Neighbours(NamedTuple):
    """Lines of the manual as pairs, every third query with two positives, and more lines as a corpus."""

    pairs: list[tuple[str, str]]
    corpus: list[str]
    embed: EmbedTexts
    sentence_transformer: Any
    score: Callable[[str, str], float]


@pytest.fixture(scope="module")
def neighbours(sentences: list[str], tmp_path_factory: pytest.TempPathFactory) -> Neighbours:
    from sentence_transformers import SentenceTransformer

    pairs = [(sentences[i - i % 3 // 2], sentences[i + 60]) for i in range(60)]
    model, folder = Instructor.from_pretrained("mini", dtype="float32"), tmp_path_factory.mktemp("mini")
    model.save_pretrained(folder)
    known: dict[str, Floats] = {}

    def embed(kind: str, texts: Sequence[InstructedText]) -> Floats:
        if kind not in known:
            known[kind] = embed_each(model, texts)
        return known[kind]

    @cache
    def vector(text: str, prompt: str) -> Any:
        return model.encode(text, prompt)

    def score(query: str, document: str) -> float:
        return float(vector(query, QUERY) @ vector(document, DOCUMENT))

    return Neighbours(pairs, sentences[120:160], embed, SentenceTransformer(str(folder), device="cpu"), score)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"range_min": 5, "range_max": 20},
        {"absolute_margin": 0.1},
        {"relative_margin": 0.05},
        {"relative_margin": 0.05, "absolute_margin": 0.02, "max_score": 0.5},
        {"max_score": 0.45},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_the_same_as_sentence_transformers(options: dict[str, Any], neighbours: Neighbours) -> None:
    """With all candidates in the range: sentence-transformers counts ranks behind the margins."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    pairs, corpus = neighbours.pairs, neighbours.corpus
    found = mine_hard_negatives(
        Dataset.from_dict({"query": [query for query, _ in pairs], "pos": [pos for _, pos in pairs]}),
        neighbours.sentence_transformer,
        corpus=corpus,
        num_negatives=4,
        query_prompt=QUERY,
        corpus_prompt=DOCUMENT,
        verbose=False,
        **{"range_max": 150, **options},
    )
    expected: dict[tuple[str, str], list[str]] = {pair: [] for pair in pairs}
    for query, pos, negative in zip(found["query"], found["pos"], found["negative"], strict=True):
        expected[query, pos].append(negative)

    def mined(**options: Any) -> dict[tuple[str, str], list[str]]:
        given = MiningOptions(**{"range_max": 150, **options})
        records, _ = mine_task([record(*pair) for pair in pairs], neighbours.embed, given, corpus=corpus)
        return {(one.query.text, one.pos.text): [text for _, text in one.neg] for one in records}

    def scores(negatives: dict[tuple[str, str], list[str]]) -> list[list[float]]:
        return [[neighbours.score(query, text) for text in found] for (query, _), found in negatives.items()]

    ours = mined(**options)
    assert list(ours) == list(expected)
    for own, theirs in zip(scores(ours), scores(expected), strict=True):
        assert own == pytest.approx(theirs, abs=2e-6), "other texts than those that are as near"
    assert not options or mined() != expected
