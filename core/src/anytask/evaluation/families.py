"""The eight task families: how each reads its file, embeds it and arrives at its figure.

A family's `run` takes the embedder, the task's path and its instructions and returns one figure per seed, or a
single one where nothing is drawn. To keep the whole suite within minutes for a small model on one core, at most
`TEST_CAP` test rows, `POOL_CAP` examples to retrieve from and `CLUSTERING_CAP` texts to cluster are used; a larger
file is sampled once, always by seed 0, so that every embedder meets the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anytask.evaluation import metrics
from anytask.evaluation.data import (
    ANY_TEXTS,
    NAME,
    NUMBER,
    OPTIONAL_TEXT,
    TEXT,
    TEXTS,
    YES_OR_NO,
    Kind,
    Row,
    find_file,
    read_rows,
)
from anytask.evaluation.embedder import Embedder, embed
from anytask.instruction import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION

SHOTS = 8
SEEDS = 5
NEIGHBOURS = 8
TEST_CAP = 1000
POOL_CAP = 2000
CLUSTERING_CAP = 8000


@dataclass(frozen=True)
class Instructions:
    """The instruction of each side of a task; the two are equal where both sides play the same role."""

    query: str | None
    document: str | None

    @classmethod
    def both(cls, instruction: str) -> Instructions:
        return cls(instruction, instruction)


@dataclass(frozen=True)
class Family:
    """A kind of task.

    Args:
        measure: the figure's name.
        default: instructions for a file that the suite knows nothing else about.
        run: (embedder, path of the task, instructions) -> figures, one per seed.
    """

    measure: str
    default: Instructions
    run: Callable[[Embedder, Path, Instructions], list[float]]


def sample(rows: Sequence[Row], cap: int) -> list[Row]:
    """At most `cap` of the rows, in their order, drawn by seed 0."""
    if len(rows) <= cap:
        return list(rows)
    chosen = np.sort(np.random.default_rng(0).choice(len(rows), size=cap, replace=False))
    return [rows[place] for place in chosen]


def column(rows: Sequence[Row], key: str) -> npt.NDArray[np.str_]:
    return np.array([str(row[key]) for row in rows])


def several(rows: Sequence[Row], key: str, path: Path) -> None:
    """Raise ValueError where all rows have the same, with which any vectors would reach a figure."""
    if len(np.unique(column(rows, key))) < 2:
        raise ValueError(f"{path}: needs two {key}s or more, the {len(rows)} rows all have {rows[0][key]!r}")


def train_and_test(path: Path, fields: Mapping[str, Kind]) -> tuple[list[Row], list[Row]]:
    rows = read_rows(path, {**fields, "split": TEXT})
    train = [row for row in rows if row["split"] == "train"]
    test = [row for row in rows if row["split"] == "test"]
    if not train or not test:
        raise ValueError(f"{path}: needs rows of split 'train' and of split 'test'; has {len(train)} and {len(test)}")
    return train, test


def sts(embedder: Embedder, path: Path, instructions: Instructions) -> list[float]:
    """{a, b, score}: Spearman correlation of the cosine with the human score."""
    rows = read_rows(path, {"a": TEXT, "b": TEXT, "score": NUMBER})
    a = embed(embedder, [row["a"] for row in rows], instructions.query)
    b = embed(embedder, [row["b"] for row in rows], instructions.document)
    return [metrics.spearman(metrics.row_cosines(a, b), [row["score"] for row in rows])]


def classification(embedder: Embedder, path: Path, instructions: Instructions) -> list[float]:
    """{text, label, split}: accuracy on the test split of a logistic regression on 8 train texts per label."""
    train, test = train_and_test(path, {"text": TEXT, "label": NAME})
    several(train, "label", path)
    test = sample(test, TEST_CAP)
    labels = column(train, "label")
    drawn = [metrics.few_shot_rows(labels, shots=SHOTS, seed=seed) for seed in range(SEEDS)]
    train_vectors = embed(embedder, [train[place]["text"] for rows in drawn for place in rows], instructions.query)
    test_vectors = embed(embedder, [row["text"] for row in test], instructions.query)
    ends = np.cumsum([len(rows) for rows in drawn])[:-1]
    return [
        metrics.linear_probe_accuracy(vectors, labels[rows], test_vectors, column(test, "label"), seed=seed)
        for seed, (rows, vectors) in enumerate(zip(drawn, np.split(train_vectors, ends), strict=True))
    ]


@dataclass(frozen=True)
class RetrievalTexts:
    """What a retrieval task compares.

    Attributes:
        queries: those with a relevant document.
        documents: each its title and text joined by a space.
        gains: of each query, its relevant documents' places and scores.
    """

    queries: list[str]
    documents: list[str]
    gains: list[dict[int, float]]


def read_retrieval(path: Path) -> RetrievalTexts:
    """A folder of {_id, title?, text} corpus, {_id, text} queries and {qid, did, score} qrels."""
    corpus = read_rows(part(path, "corpus"), {"_id": NAME, "title": OPTIONAL_TEXT, "text": TEXT}, unique="_id")
    if len(corpus) < 2:
        raise ValueError(f"{path}: ranking needs two documents or more, the corpus has {len(corpus)}")
    places = {row["_id"]: place for place, row in enumerate(corpus)}
    gains: dict[str, dict[int, float]] = {}
    for row in read_rows(part(path, "qrels"), {"qid": NAME, "did": NAME, "score": NUMBER}):
        if row["did"] not in places:
            raise ValueError(f"{path}: qrels judge document {row['did']!r}, which the corpus lacks")
        if row["score"] > 0:
            gains.setdefault(row["qid"], {})[places[row["did"]]] = float(row["score"])
    asked = read_rows(part(path, "queries"), {"_id": NAME, "text": TEXT}, unique="_id")
    queries = [row for row in asked if row["_id"] in gains]
    if not queries:
        raise ValueError(f"{path}: no query has a relevant document in the qrels")
    return RetrievalTexts(
        [row["text"] for row in queries],
        [f"{row.get('title') or ''} {row['text']}".strip() for row in corpus],
        [gains[row["_id"]] for row in queries],
    )


def retrieval(embedder: Embedder, path: Path, instructions: Instructions) -> list[float]:
    """What `read_retrieval` reads: nDCG@10. Queries without a relevant document are left out."""
    texts = read_retrieval(path)
    queries = embed(embedder, texts.queries, instructions.query)
    documents = embed(embedder, texts.documents, instructions.document)
    return [metrics.ndcg_at_10(queries, documents, texts.gains)]


def part(folder: Path, stem: str) -> Path:
    path = find_file(folder, stem)
    if path is None:
        raise ValueError(f"{folder}: {stem}.jsonl or {stem}.jsonl.gz is missing")
    return path


def rerank(embedder: Embedder, path: Path, instructions: Instructions) -> list[float]:
    """{query, pos: [..], neg: [..]}: mean average precision of each query's candidates ordered by cosine."""
    given = read_rows(path, {"query": TEXT, "pos": TEXTS, "neg": TEXTS})
    rows = [row for row in given if row["pos"] and row["neg"]]
    if not rows:
        raise ValueError(f"{path}: no query has both positive and negative candidates")
    queries = embed(embedder, [row["query"] for row in rows], instructions.query)
    candidates = embed(embedder, [text for row in rows for text in [*row["pos"], *row["neg"]]], instructions.document)
    ends = np.cumsum([len(row["pos"]) + len(row["neg"]) for row in rows])[:-1]
    figures = [
        metrics.average_precision([1] * len(row["pos"]) + [0] * len(row["neg"]), (vectors @ query).astype(np.float64))
        for row, query, vectors in zip(rows, queries, np.split(candidates, ends), strict=True)
    ]
    return [float(np.mean(figures))]


def clustering(embedder: Embedder, path: Path, instructions: Instructions) -> list[float]:
    """{text, label}: V-measure of k-means."""
    rows = sample(read_rows(path, {"text": TEXT, "label": NAME}), CLUSTERING_CAP)
    several(rows, "label", path)
    vectors = embed(embedder, [row["text"] for row in rows], instructions.query)
    return [metrics.clustering_v_measure(vectors, column(rows, "label"), seed=seed) for seed in range(SEEDS)]


def pairs(embedder: Embedder, path: Path, instructions: Instructions) -> list[float]:
    """{a, b, label: 1 | 0}: average precision of the pairs ordered by cosine."""
    rows = read_rows(path, {"a": TEXT, "b": TEXT, "label": YES_OR_NO})
    several(rows, "label", path)
    a = embed(embedder, [row["a"] for row in rows], instructions.query)
    b = embed(embedder, [row["b"] for row in rows], instructions.document)
    return [metrics.average_precision([int(row["label"]) for row in rows], metrics.row_cosines(a, b))]


def textgen(embedder: Embedder, path: Path, instructions: Instructions) -> list[float]:
    """{hyp, refs: [..], human_score}: Pearson correlation of the best cosine over the references with the score."""
    rows = read_rows(path, {"hyp": TEXT, "refs": ANY_TEXTS, "human_score": NUMBER})
    hypotheses = embed(embedder, [row["hyp"] for row in rows], instructions.query)
    references = embed(embedder, [text for row in rows for text in row["refs"]], instructions.document)
    ends = np.cumsum([len(row["refs"]) for row in rows])[:-1]
    best = [
        float((vectors @ hypothesis).max())
        for hypothesis, vectors in zip(hypotheses, np.split(references, ends), strict=True)
    ]
    return [metrics.pearson(np.array(best), [float(row["human_score"]) for row in rows])]


def prompt_retrieval(embedder: Embedder, path: Path, instructions: Instructions) -> list[float]:
    """{input, output, split}: share of test inputs whose 8 nearest train examples vote for the right output."""
    train, test = train_and_test(path, {"input": TEXT, "output": NAME})
    several(train, "output", path)
    train, test = sample(train, POOL_CAP), sample(test, TEST_CAP)
    return [
        metrics.neighbour_accuracy(
            embed(embedder, [row["input"] for row in train], instructions.document),
            column(train, "output"),
            embed(embedder, [row["input"] for row in test], instructions.query),
            column(test, "output"),
            neighbours=NEIGHBOURS,
        )
    ]


FAMILIES = {
    "sts": Family("Spearman", Instructions.both("Represent the sentence for measuring semantic similarity: "), sts),
    "classification": Family("accuracy", Instructions.both("Represent the text for classification: "), classification),
    "retrieval": Family("nDCG@10", Instructions(DEFAULT_QUERY_INSTRUCTION, DEFAULT_DOCUMENT_INSTRUCTION), retrieval),
    "rerank": Family(
        "MAP",
        Instructions(
            "Represent the question for retrieving supporting answers: ", "Represent the answer for retrieval: "
        ),
        rerank,
    ),
    "clustering": Family("V-measure", Instructions.both("Represent the text for clustering by topic: "), clustering),
    "pairs": Family("AP", Instructions.both("Represent the text for retrieving duplicates: "), pairs),
    "textgen": Family("Pearson", Instructions.both("Represent the text for judging its quality: "), textgen),
    "prompt_retrieval": Family(
        "kNN accuracy", Instructions.both("Represent the example for retrieving similar examples: "), prompt_retrieval
    ),
}
