from __future__ import annotations

import gzip
import io
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.feature_extraction.text import HashingVectorizer

from anytask import Instruction
from anytask.evaluation import (
    FAMILIES,
    Instructions,
    Result,
    TruncatedEmbedder,
    evaluate,
    evaluate_task,
    family_means,
    find_tasks,
    overall,
    table,
    write_json,
)
from anytask.evaluation.data import NUMBER, read_rows
from anytask.evaluation.embedder import embed
from anytask.evaluation.families import sample
from anytask.evaluation.metrics import average_precision, ndcg_at_10
from anytask.evaluation.suite import RIGHT, WRONG_FAMILY

Rows = list[dict[str, Any]]


class BagOfWords:
    """Counts of hashed words: texts that share k of their n distinct words each have the cosine k/n."""

    def __init__(self) -> None:
        self.calls: list[tuple[str | None, list[str]]] = []
        self.vectorizer = HashingVectorizer(n_features=2**16, alternate_sign=False, norm=None)

    def encode(self, texts: Sequence[str], instruction: str | None = None) -> np.ndarray:
        self.calls.append((instruction, list(texts)))
        return self.vectorizer.transform(texts).toarray().astype(np.float32)


STS = [
    {"a": "red apple pie", "b": "red apple pie", "score": 5.0},
    {"a": "red apple pie", "b": "red apple tart", "score": 1.0},
    {"a": "red apple pie", "b": "red wooden door", "score": 3.0},
    {"a": "red apple pie", "b": "cold winter night", "score": 0.0},
]
CLASSIFICATION = [
    {"text": f"{verb} {place}", "label": label, "split": "train"}
    for label, verb in (("play", "play music"), ("book", "reserve table"))
    for place in ("kitchen", "garden", "office")
] + [
    {"text": "play music loud", "label": "play", "split": "test"},
    {"text": "play music softly", "label": "play", "split": "test"},
    {"text": "reserve table tonight", "label": "book", "split": "test"},
    {"text": "reserve table tomorrow", "label": "play", "split": "test"},
    {"text": "never looked at", "label": "none", "split": "dev"},
]
CORPUS = [
    {"_id": "d1", "title": "solar panels", "text": "on roofs"},
    {"_id": "d2", "title": "", "text": "solar eclipse"},
    {"_id": "d3", "title": "", "text": "panels garden fence paint"},
    {"_id": "d4", "title": "", "text": "bread recipes"},
]
QUERIES = [{"_id": "q1", "text": "solar panels"}, {"_id": "q2", "text": "bread"}, {"_id": "q3", "text": "unjudged"}]
QRELS = [
    {"qid": "q1", "did": "d1", "score": 1},
    {"qid": "q1", "did": "d3", "score": 1},
    {"qid": "q2", "did": "d4", "score": 1},
    {"qid": "q2", "did": "d1", "score": 0},
]
RERANK = [
    {
        "query": "blue whale size",
        "pos": ["blue whale size facts", "whale song music"],
        "neg": ["blue whale paint", "x y"],
    },
    {"query": "tall tower", "pos": ["tower"], "neg": ["tall tower", "sea"]},
    {"query": "nothing right", "pos": [], "neg": ["nothing"]},
]
CLUSTERING = [
    {"text": f"{word} {word}", "label": label}
    for word, labels in (("football", "aaab"), ("galaxy", "bbba"))
    for label in labels
]
PAIRS = [
    {"a": "wash hands often", "b": "wash hands often", "label": 1},
    {"a": "wash hands often", "b": "wash hands never", "label": 0},
    {"a": "wash hands often", "b": "clean hands regularly", "label": 1},
    {"a": "wash hands often", "b": "buy cheap tickets", "label": 0},
]
TEXTGEN = [
    {"hyp": "a1 a2", "refs": ["a1 a2", "zz yy"], "human_score": 4.0},
    {"hyp": "b1 b2", "refs": ["zz yy", "b1 xx"], "human_score": 3.0},
    {"hyp": "c1 c2", "refs": ["zz yy"], "human_score": 1.0},
]
PROMPT_RETRIEVAL = [
    {"input": "capital france", "output": "city", "split": "train"},
    {"input": "capital spain", "output": "city", "split": "train"},
    {"input": "twelve plus five", "output": "number", "split": "train"},
    {"input": "capital peru", "output": "city", "split": "test"},
    {"input": "twelve plus", "output": "number", "split": "test"},
    {"input": "capital letter", "output": "number", "split": "test"},
]


def write(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_suite(folder: Path) -> Path:
    write(folder / "sts/toy.jsonl.gz", STS)
    write(folder / "classification/toy.jsonl", CLASSIFICATION)
    write(folder / "retrieval/toy/corpus.jsonl.gz", CORPUS)
    write(folder / "retrieval/toy/queries.jsonl", QUERIES)
    write(folder / "retrieval/toy/qrels.jsonl.gz", QRELS)
    write(folder / "rerank/toy.jsonl", RERANK)
    write(folder / "clustering/toy.jsonl.gz", CLUSTERING)
    write(folder / "pairs/toy.jsonl.gz", PAIRS)
    write(folder / "textgen/toy.jsonl.gz", TEXTGEN)
    write(folder / "prompt_retrieval/toy.jsonl.gz", PROMPT_RETRIEVAL)
    return folder


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return write_suite(tmp_path / "suite")


def scores(results: list[Result]) -> dict[str, float]:
    return {result.task: result.score for result in results}


def entropy(*shares: float) -> float:
    return -sum(share * math.log(share) for share in shares)


# Worked out by hand from the shared words of the toy texts.
EXPECTED = {
    # ranks by cosine 4 3 2 1, by score 4 2 3 1: 1 - 6 * (1 + 1) / (4 * 15)
    "sts/toy": 0.8,
    # three of the four test texts carry the label that their words have in training
    "classification/toy": 0.75,
    # q1 ranks d1 (its title counts) first and d3 third, after d2; q2 ranks its document first
    "retrieval/toy": np.mean([(1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3)), 1]),
    # first query: relevant at 1 and 3; second: relevant at 2
    "rerank/toy": np.mean([(1 + 2 / 3) / 2, 1 / 2]),
    # two pure-word clusters of four, three quarters of each with one label; homogeneity = completeness
    "clustering/toy": 1 - entropy(1 / 4, 3 / 4) / entropy(1 / 2, 1 / 2),
    # ordered by cosine: 1 0 1 0
    "pairs/toy": (1 + 2 / 3) / 2,
    # best cosines 1, 1/2, 0 with human scores 4, 3, 1: covariance 1.5, deviations sqrt(0.5) and sqrt(14 / 3)
    "textgen/toy": 1.5 / math.sqrt(0.5 * 14 / 3),
    # inverse distances vote 4 : 1 for the city, 5.4 : 2 for the number, and 4 : 1 for a city at "capital letter"
    "prompt_retrieval/toy": 2 / 3,
}


def test_each_family_gives_the_figure_worked_out_by_hand(suite: Path) -> None:
    results = evaluate(BagOfWords(), suite)
    assert scores(results) == pytest.approx(EXPECTED)
    assert [result.family for result in results] == list(FAMILIES)
    assert {result.measure for result in results} == {family.measure for family in FAMILIES.values()}


def test_spread_is_over_the_seeds_where_something_is_drawn(tmp_path: Path) -> None:
    drawn = [
        {"text": f"w{number % 3} w{number % 5} w{number % 7}", "label": f"l{number % 2}", "split": split}
        for split in ("train", "test")
        for number in range(60)
    ]
    write(tmp_path / "classification/noisy.jsonl", drawn)
    write(tmp_path / "sts/toy.jsonl", STS)
    sts, classification = evaluate(BagOfWords(), tmp_path)
    assert sts.spread is None
    assert len(classification.scores) == 5
    assert classification.spread is not None
    assert classification.spread > 0
    assert classification.spread == pytest.approx(np.std(classification.scores))
    assert classification.scores == evaluate(BagOfWords(), tmp_path)[1].scores


def test_overall_counts_each_family_once(suite: Path) -> None:
    write(suite / "sts/second.jsonl", [row | {"score": -row["score"]} for row in STS])
    results = evaluate(BagOfWords(), suite, tasks=["sts", "pairs"])
    assert scores(results) == pytest.approx({"sts/second": -0.8, "sts/toy": 0.8, "pairs/toy": 5 / 6})
    assert family_means(results) == pytest.approx({"sts": 0.0, "pairs": 5 / 6})
    assert overall(results) == pytest.approx(5 / 12)


def test_ndcg_and_average_precision_agree_with_trec_eval() -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    random = np.random.default_rng(1)
    queries = random.standard_normal((20, 16)).astype(np.float32)
    documents = random.standard_normal((300, 16)).astype(np.float32)
    gains = [
        {int(document): float(random.integers(1, 4)) for document in random.choice(300, size=30, replace=False)}
        for _ in queries
    ]
    run = {
        str(query): {str(document): float(score) for document, score in enumerate(documents @ queries[query])}
        for query in range(20)
    }
    judged = {str(query): {str(document): int(gain) for document, gain in gains[query].items()} for query in range(20)}
    trec = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "map"}).evaluate(run)
    assert ndcg_at_10(queries, documents, gains) == pytest.approx(
        np.mean([figures["ndcg_cut_10"] for figures in trec.values()])
    )
    for query, figures in trec.items():
        relevant = [int(document in gains[int(query)]) for document in range(300)]
        cosines = (documents @ queries[int(query)]).astype(np.float64)
        assert average_precision(relevant, cosines) == pytest.approx(figures["map"])


def instructions_given(suite: Path, task: str, choice: Any) -> list[str | None]:
    embedder = BagOfWords()
    evaluate(embedder, suite, tasks=[task], instructions=choice)
    return [instruction for instruction, _ in embedder.calls]


def test_each_side_gets_its_instruction(suite: Path) -> None:
    embedder = BagOfWords()
    (result,) = evaluate(embedder, suite, tasks=["retrieval"])
    default = FAMILIES["retrieval"].default
    assert embedder.calls == [
        (default.query, ["solar panels", "bread"]),
        (default.document, ["solar panels on roofs", "solar eclipse", "panels garden fence paint", "bread recipes"]),
    ]
    assert (result.query_instruction, result.document_instruction) == (default.query, default.document)


@pytest.mark.parametrize("family", FAMILIES)
def test_none_and_wrong_instructions(suite: Path, family: str) -> None:
    right, none, wrong = (instructions_given(suite, family, choice) for choice in ("right", "none", "wrong"))
    assert set(none) == {None}
    assert None not in right + wrong
    assert not set(right) & set(wrong)
    assert len(right) == len(none) == len(wrong)


def test_a_task_known_by_name_gets_its_own_instruction(tmp_path: Path) -> None:
    write(tmp_path / "clustering/tweet89.jsonl", CLUSTERING)
    (result,) = evaluate(BagOfWords(), tmp_path)
    assert result.query_instruction == "Represent the tweet for clustering by topic: "


def test_instructions_follow_the_template_and_wrong_is_another_family() -> None:
    for chosen in [*RIGHT.values(), *(family.default for family in FAMILIES.values())]:
        for text in (chosen.query, chosen.document):
            assert text is not None
            assert str(Instruction.parse(text)) == text
    assert set(WRONG_FAMILY) == set(FAMILIES)
    assert all(family != other and other in FAMILIES for family, other in WRONG_FAMILY.items())
    assert {name.partition("/")[0] for name in RIGHT} <= set(FAMILIES)


def test_unknown_choice_of_instructions(suite: Path) -> None:
    with pytest.raises(ValueError, match="'right', 'none' or 'wrong', got 'good'"):
        evaluate(BagOfWords(), suite, instructions="good")  # type: ignore[arg-type]


def test_part_of_a_suite_is_enough(tmp_path: Path) -> None:
    write(tmp_path / "pairs/toy.jsonl", PAIRS)
    (tmp_path / "retrieval/empty").mkdir(parents=True)
    (tmp_path / "sts").mkdir()
    (tmp_path / "sts/notes.txt").write_text("not a task")
    assert [task.name for task in find_tasks(tmp_path)] == ["pairs/toy"]


def test_a_retrieval_folder_without_all_its_files(suite: Path) -> None:
    (suite / "retrieval/toy/qrels.jsonl.gz").unlink()
    with pytest.raises(ValueError, match=r"retrieval/toy: qrels.jsonl or qrels.jsonl.gz is missing"):
        evaluate(BagOfWords(), suite)


def test_a_damaged_file(suite: Path) -> None:
    path = suite / "sts/toy.jsonl.gz"
    content = bytearray(gzip.compress(b'{"a": "one", "b": "two", "score": 1}\n' * 99 + bytes(range(256)) * 9))
    content[20:60] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"toy\.jsonl\.gz: can't be read as JSON lines"):
        evaluate(BagOfWords(), suite, tasks=["sts"])


def test_tasks_by_name_by_last_part_and_by_family(suite: Path) -> None:
    write(suite / "sts/other.dev.jsonl.gz", STS)
    assert [task.name for task in find_tasks(suite, ["sts/toy"])] == ["sts/toy"]
    assert [task.name for task in find_tasks(suite, ["other.dev"])] == ["sts/other.dev"]
    assert [task.name for task in find_tasks(suite, ["sts", "sts/toy"])] == ["sts/other.dev", "sts/toy"]
    with pytest.raises(ValueError, match=r"no task 'stss'.*it has sts/other.dev, sts/toy, classification/toy"):
        find_tasks(suite, ["sts", "stss"])


def test_no_suite(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no suite folder at .*missing"):
        find_tasks(tmp_path / "missing")
    with pytest.raises(
        FileNotFoundError, match=r"holds no evaluation task; expected .* sts, classification, retrieval"
    ):
        find_tasks(tmp_path)


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("sts/bad.jsonl", [STS[0], {"a": "x", "b": "y"}], r"bad.jsonl, line 2: .* a, b, score; \['score'\] missing"),
        ("sts/bad.jsonl", ["text"], r"line 1: expected an object with a, b, score"),
        ("sts/bad.jsonl", [], "bad.jsonl: holds no rows"),
        ("sts/bad.jsonl", [row | {"score": 1} for row in STS], "bad.jsonl: Spearman is not defined"),
        ("classification/bad.jsonl", CLASSIFICATION[:6], "split 'train' and of split 'test'; has 6 and 0"),
        ("classification/bad.jsonl", CLASSIFICATION[:3] + CLASSIFICATION[6:], "two labels or more, .* all have 'play'"),
        ("rerank/bad.jsonl", RERANK[2:], "no query has both positive and negative"),
        ("rerank/bad.jsonl", [RERANK[0], RERANK[1] | {"pos": "tower"}], 'line 2: pos is "tower", expected a list of'),
        (
            "rerank/bad.jsonl",
            [RERANK[0] | {"neg": ["a", None]}],
            r'line 1: neg is \["a", null\], expected a list of str',
        ),
        ("rerank/bad.jsonl", [RERANK[0] | {"query": ["a"]}], r'line 1: query is \["a"\], expected a string'),
        ("textgen/bad.jsonl", [*TEXTGEN, TEXTGEN[0] | {"refs": "a1 a2"}], "line 4: refs is .*, expected a list of one"),
        ("textgen/bad.jsonl", [TEXTGEN[0], TEXTGEN[1] | {"refs": []}], r"line 2: refs is \[\], expected a list of one"),
        ("textgen/bad.jsonl", [TEXTGEN[0] | {"human_score": None}], "human_score is null, expected a finite number"),
        ("sts/bad.jsonl", [*STS, STS[0] | {"score": "5"}], 'line 5: score is "5", expected a finite number'),
        ("sts/bad.jsonl", [*STS, STS[0] | {"score": math.nan}], "line 5: score is NaN, expected a finite number"),
        ("sts/bad.jsonl", [STS[0] | {"score": True}], "score is true, expected a finite number"),
        ("sts/bad.jsonl", [STS[0] | {"a": 7}], "line 1: a is 7, expected a string"),
        ("pairs/bad.jsonl", [row | {"label": 1} for row in PAIRS], "two labels or more, the 4 rows all have 1"),
        ("pairs/bad.jsonl", [*PAIRS, PAIRS[0] | {"label": 0.7}], "line 5: label is 0.7, expected 1 or 0"),
        ("pairs/bad.jsonl", [*PAIRS, PAIRS[0] | {"label": "1"}], 'line 5: label is "1", expected 1 or 0'),
        ("clustering/bad.jsonl", [row | {"label": "a"} for row in CLUSTERING], "two labels or more, the 8 rows all"),
        ("clustering/bad.jsonl", [CLUSTERING[0] | {"label": None}], "label is null, expected a string or an integer"),
        ("prompt_retrieval/bad.jsonl", PROMPT_RETRIEVAL[:2] + PROMPT_RETRIEVAL[3:], "needs two outputs or more"),
    ],
)
@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
def test_bad_data_is_named(tmp_path: Path, name: str, rows: Rows, message: str) -> None:
    write(tmp_path / name, rows)
    with pytest.raises(ValueError, match=message):
        evaluate(BagOfWords(), tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2: not JSON"):
        read_rows(path, {"a": NUMBER})
    cut = tmp_path / "rows.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"a": 1}\n' * 1000)[:-20])
    with pytest.raises(ValueError, match=r"rows.jsonl.gz: can't be read"):
        read_rows(cut, {"a": NUMBER})


@pytest.mark.parametrize(
    ("part", "rows", "message"),
    [
        ("qrels.jsonl.gz", [{"qid": "q1", "did": "d9", "score": 1}], "judge document 'd9', which the corpus lacks"),
        ("qrels.jsonl.gz", [{"qid": "q1", "did": "d1", "score": 0}], "no query has a relevant document"),
        (
            "qrels.jsonl.gz",
            [{"qid": "q1", "did": "d1", "score": "1"}],
            'qrels.jsonl.gz, line 1: score is "1", expected',
        ),
        ("corpus.jsonl.gz", CORPUS[:1], "two documents or more"),
        ("corpus.jsonl.gz", [*CORPUS, CORPUS[1]], "corpus.jsonl.gz, line 5: _id 'd2' is already that of line 2"),
        ("corpus.jsonl.gz", [*CORPUS, {"_id": None, "text": "x"}], "line 5: _id is null, expected a string or an int"),
        ("corpus.jsonl.gz", [*CORPUS, {"_id": "d5", "title": 3, "text": "x"}], "title is 3, expected a string or null"),
        ("queries.jsonl", [*QUERIES, QUERIES[0]], "queries.jsonl, line 4: _id 'q1' is already that of line 1"),
    ],
)
def test_retrieval_data_that_does_not_fit(suite: Path, part: str, rows: Rows, message: str) -> None:
    write(suite / "retrieval/toy" / part, rows)
    with pytest.raises(ValueError, match=message):
        evaluate(BagOfWords(), suite, tasks=["retrieval"])


def test_a_document_may_lack_its_title_and_labels_be_of_any_kind(suite: Path) -> None:
    write(
        suite / "retrieval/toy/corpus.jsonl.gz", [CORPUS[0], CORPUS[1] | {"title": None}, *without(CORPUS[2:], "title")]
    )
    write(suite / "pairs/toy.jsonl.gz", [row | {"label": bool(row["label"])} for row in PAIRS])
    write(suite / "clustering/toy.jsonl.gz", [row | {"label": ord(row["label"])} for row in CLUSTERING])
    expected = {name: EXPECTED[name] for name in ("retrieval/toy", "pairs/toy", "clustering/toy")}
    assert scores(evaluate(BagOfWords(), suite, [*expected])) == pytest.approx(expected)


def without(rows: Rows, key: str) -> Rows:
    return [{name: value for name, value in row.items() if name != key} for row in rows]


def test_large_sets_are_sampled_alike_for_everyone() -> None:
    rows = [{"n": number} for number in range(1000)]
    chosen = [row["n"] for row in sample(rows, 100)]
    assert len(set(chosen)) == 100
    assert chosen == sorted(chosen)
    assert chosen == [row["n"] for row in sample(rows, 100)]
    assert sample(rows[:100], 100) == rows[:100]


def test_repeated_texts_are_embedded_once_and_vectors_are_unit() -> None:
    embedder = BagOfWords()
    vectors = embed(embedder, ["xx xx", "yy", "xx xx"], None)
    assert embedder.calls == [(None, ["xx xx", "yy"])]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert vectors[0] @ vectors[1] == 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [(np.ones(3), r"shape \(3,\) for 2 texts"), (np.full((2, 3), np.nan), "not finite"), (np.ones((1, 3)), "shape")],
)
def test_unusable_vectors_are_refused(answer: np.ndarray, message: str) -> None:
    class Broken:
        def encode(self, texts: Sequence[str], instruction: str | None = None) -> np.ndarray:  # noqa: ARG002
            return answer

    with pytest.raises(ValueError, match=message):
        embed(Broken(), ["x", "y"], None)


def test_json_report(suite: Path, tmp_path: Path) -> None:
    results = evaluate(BagOfWords(), suite)
    path = tmp_path / "new folder/report.json"
    write_json(results, path, model="bag of words")
    written = json.loads(path.read_text())
    assert list(written) == ["model", "overall", "families", "tasks"]
    assert written["overall"] == pytest.approx(np.mean(list(EXPECTED.values())))
    assert {task["task"]: task["score"] for task in written["tasks"]} == pytest.approx(EXPECTED)
    assert len(next(task for task in written["tasks"] if task["family"] == "clustering")["scores"]) == 5

    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_json(results, path, model=object())
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]


def test_table(suite: Path) -> None:
    console = Console(width=100, file=io.StringIO())
    console.print(table(evaluate(BagOfWords(), suite), title="bag of words"))
    lines = console.file.getvalue().splitlines()
    assert any("retrieval/toy" in line and "nDCG@10" in line and "0.9599" in line for line in lines)
    assert any("classification/toy" in line and "0.7500" in line and "0.000" in line for line in lines)
    assert any("overall" in line and f"{np.mean(list(EXPECTED.values())):.4f}" in line for line in lines)


def test_instructions_of_ones_own(suite: Path) -> None:
    embedder = BagOfWords()
    (task,) = find_tasks(suite, ["retrieval"])
    result = evaluate_task(embedder, task, Instructions("Find: ", None))
    assert (result.query_instruction, result.document_instruction) == ("Find: ", None)
    assert [instruction for instruction, _ in embedder.calls] == ["Find: ", None]
    assert result.score == evaluate_task(BagOfWords(), task).score


def test_leading_dimensions() -> None:
    class Counting:
        def encode(self, texts: Sequence[str], instruction: str | None = None) -> list[list[int]]:
            return [[len(instruction or ""), len(text), 9] for text in texts]

    assert TruncatedEmbedder(Counting(), 2).encode(["ab", "c"], "def").tolist() == [[3, 2], [3, 1]]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        TruncatedEmbedder(Counting(), 0)
    with pytest.raises(ValueError, match="can't keep 4 dimensions of vectors that have 3"):
        TruncatedEmbedder(Counting(), 4).encode(["ab"])


def test_no_results_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no results"):
        overall([])


@pytest.mark.parametrize("package", ["sklearn", "scipy"])
def test_a_missing_extra_is_named(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; import anytask.evaluation"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ImportError: anytask.evaluation needs scikit-learn and scipy" in done.stderr
    assert 'pip install "anytask[eval]"' in done.stderr
