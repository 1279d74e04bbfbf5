"""Hard negatives for the records of one task: near the query by a model's vectors or by words, but no positives."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
import torch

from anytask.progress import Bar, no_bar
from anytask.training.medi.records import InstructedText, Record
from anytask.training.mining.candidates import TaskTexts, identity
from anytask.training.mining.lexical import LexicalIndex
from anytask.training.mining.options import MiningOptions
from anytask.training.nearest import top_k

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
EmbedTexts = Callable[[str, Sequence[InstructedText]], Vectors]
"""Given "queries" or "documents" and their texts, unit vectors float32 [n, d]."""
QUERY_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class MiningSummary:
    """What mining a task gave.

    Args:
        short: records left with fewer negatives than asked for.
        negatives: mined, existing ones that were kept not counted.
        positive_score, negative_score: means over the pairs and over the mined negatives; None where there are none.
        filtered: candidates of the queries that a margin or `max_score` took for probable false negatives.
    """

    task_id: str | int
    records: int
    short: int
    negatives: int
    positive_score: float | None
    negative_score: float | None
    filtered: int


@dataclass(frozen=True, slots=True)
class _Pool:
    """A query's candidates that passed the filters, in order of choice, with their scores."""

    rows: Indices
    scores: Vectors
    filtered: int


def mine_task(
    records: Sequence[Record],
    embed_texts: EmbedTexts,
    options: MiningOptions,
    *,
    corpus: Iterable[str] = (),
    device: str | torch.device = "cpu",
    bar: Bar = no_bar,
) -> tuple[list[Record], MiningSummary]:
    """The records with hard negatives from the task's own positives and negatives and from `corpus`.

    Never a negative: any positive of the same query text, the query's own text, a blank text. Texts are the same if
    they differ only in white space at their ends. A negative carries the instruction of its record's positive.

    Args:
        records: of one task, at least one.
        embed_texts: called once with the distinct queries and once with the distinct documents.
        corpus: further candidates, embedded with the instruction that most positives have.
        device: where the nearest are searched.
        bar: draws the progress of the search.

    Returns:
        the records in their order, and a summary.
    """
    texts = TaskTexts(records, corpus)
    queries, documents = embed_texts("queries", texts.queries), embed_texts("documents", texts.documents)
    positive_scores = _pairwise(queries, documents, texts.query_of, texts.positive_of)
    lowest = np.full(len(texts.queries), np.inf, dtype=np.float32)
    np.minimum.at(lowest, texts.query_of, positive_scores)
    random = np.random.default_rng([options.seed, zlib.crc32(repr(records[0].task_id).encode())])
    members: list[list[int]] = [[] for _ in texts.queries]
    for number, query in enumerate(texts.query_of):
        members[query].append(number)

    mined = list(records)
    negative_scores: list[Vectors] = []
    filtered = 0
    with bar(f"{records[0].task_id}: searching", len(texts.queries)) as advance:
        for query, pool in enumerate(_pools(texts, queries, documents, lowest, options, device)):
            filtered += pool.filtered
            for number in members[query]:
                mined[number], scores = _with_negatives(records[number], texts, pool, options, random)
                negative_scores.append(scores)
            advance(1)
    return mined, MiningSummary(
        task_id=records[0].task_id,
        records=len(records),
        short=sum(len(record.neg) < options.num_negatives for record in mined),
        negatives=sum(map(len, negative_scores)),
        positive_score=_mean(positive_scores),
        negative_score=_mean(np.concatenate(negative_scores)),
        filtered=filtered,
    )


def _pools(
    texts: TaskTexts,
    queries: Vectors,
    documents: Vectors,
    lowest: Vectors,
    options: MiningOptions,
    device: str | torch.device,
) -> Iterator[_Pool]:
    """The pool of each distinct query, in their order."""
    candidates = documents[: texts.candidate_count]
    lexical = LexicalIndex([document.text for document in texts.documents[: len(candidates)]]) if options.bm25 else None
    ranks = slice(options.range_min, options.range_max)
    for start in range(0, len(queries), QUERY_BLOCK):
        block = texts.queries[start : start + QUERY_BLOCK]
        known = [texts.known(query) for query in block]
        # Deep enough to fill the range whichever known positives are in it.
        k = options.range_max + max(map(len, known))
        nearest, scores = top_k(queries[start : start + QUERY_BLOCK], candidates, k, device=device)
        by_words = None if lexical is None else lexical.search([query.text for query in block], k)
        for place in range(len(block)):
            unknown = ~np.isin(nearest[place], known[place])
            rows, values = nearest[place][unknown][ranks], scores[place][unknown][ranks]
            if by_words is not None:
                words = by_words[place]
                rows = _alternate(rows, words[~np.isin(words, known[place])][ranks])
                values = candidates[rows] @ queries[start + place]
            passed = options.passes(values, lowest[start + place])
            yield _Pool(rows[passed], values[passed], int(np.count_nonzero(~passed)))


def _alternate(left: Indices, right: Indices) -> Indices:
    """The elements of both in turns, each once."""
    turns = (row for pair in zip_longest(left.tolist(), right.tolist()) for row in pair if row is not None)
    return np.fromiter(dict.fromkeys(turns), dtype=np.int64)


def _with_negatives(
    record: Record, texts: TaskTexts, pool: _Pool, options: MiningOptions, random: np.random.Generator
) -> tuple[Record, Vectors]:
    """The record with its negatives, and the scores of those that are new."""
    kept = record.neg if options.keep_existing else ()
    taken = {identity(negative.text) for negative in kept}
    free = [place for place, row in enumerate(pool.rows) if identity(texts.documents[row].text) not in taken]
    wanted = min(len(free), max(0, options.num_negatives - len(kept)))
    if options.sampling_strategy == "random":
        free = sorted(random.choice(free, wanted, replace=False).tolist())
    chosen = free[:wanted]
    mined = tuple(InstructedText(record.pos.instruction, texts.documents[row].text) for row in pool.rows[chosen])
    return replace(record, neg=(*kept, *mined)), pool.scores[chosen]


def _pairwise(queries: Vectors, documents: Vectors, query_of: Indices, document_of: Indices) -> Vectors:
    """Inner products of pairs of rows."""
    scores = np.empty(len(query_of), dtype=np.float32)
    for start in range(0, len(query_of), QUERY_BLOCK):
        part = slice(start, start + QUERY_BLOCK)
        scores[part] = np.einsum("nd,nd->n", queries[query_of[part]], documents[document_of[part]])
    return scores


def _mean(scores: Vectors) -> float | None:
    return float(np.mean(scores, dtype=np.float64)) if len(scores) else None
