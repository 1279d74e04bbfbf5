"""The pairs against the paper's scores, written out in loops over Python's floats."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from anytask.training.building import pairing
from anytask.training.building.pairing import Pairing, pair_by_label, pair_by_output

Vectors = npt.NDArray[np.float32]


def unit_vectors(count: int, seed: int, dimension: int = 6) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def cos(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def best(candidates: Sequence[int], score: Callable[[int], float], count: int) -> tuple[int, ...]:
    return tuple(sorted(candidates, key=lambda j: -score(j))[:count])


def literal_by_label(
    x: Vectors, labels: Sequence[str], negatives: int, queries: Sequence[int] | None = None
) -> list[Pairing]:
    pairs: list[Pairing] = []
    for i in range(len(x)) if queries is None else queries:
        same = [j for j in range(len(x)) if j != i and labels[j] == labels[i]]
        other = [j for j in range(len(x)) if labels[j] != labels[i]]
        for pos in best(same, lambda j, i=i: cos(x[i], x[j]), 1):
            if not any(pair.query == pos and pair.pos == i for pair in pairs):
                neg = best(other, lambda j, i=i: cos(x[i], x[j]), negatives)
                pairs.append(Pairing(i, pos, neg, cos(x[i], x[pos])))
    return pairs


def literal_by_output(x: Vectors, y: Vectors, same_output: Sequence[str], negatives: int) -> list[Pairing]:
    pairs: list[Pairing] = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        score = [cos(y[i], y[j]) - cos(x[i], x[j]) for j in range(len(x))]
        for pos in best(others, score.__getitem__, 1):
            if not any(pair.query == pos and pair.pos == i for pair in pairs):
                different = [j for j in others if same_output[j] != same_output[i]]
                neg = best(different, lambda j, score=score: -score[j], negatives)
                pairs.append(Pairing(i, pos, tuple(j for j in neg if j != pos), score[pos]))
    return pairs


def assert_same(found: list[Pairing], expected: list[Pairing]) -> None:
    assert [pair[:3] for pair in found] == [pair[:3] for pair in expected]
    assert [pair.score for pair in found] == pytest.approx([pair.score for pair in expected], abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("count", "kinds"), [(2, 1), (7, 3), (60, 2), (60, 25)])
def test_labels(seed: int, count: int, kinds: int) -> None:
    draw = random.Random(seed)
    x, labels = unit_vectors(count, seed), [f"label {draw.randrange(kinds)}" for _ in range(count)]
    for negatives in (0, 1, 4):
        assert_same(pair_by_label(x, labels, negatives), literal_by_label(x, labels, negatives))
    queries = sorted(draw.sample(range(count), count // 2))
    assert_same(pair_by_label(x, labels, 2, queries), literal_by_label(x, labels, 2, queries))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("count", "kinds"), [(2, 2), (7, 3), (60, 3), (60, 1000)])
def test_text_output(seed: int, count: int, kinds: int) -> None:
    draw = random.Random(seed)
    x = unit_vectors(count, seed)
    different = unit_vectors(kinds, seed + 100)
    outputs = [draw.randrange(kinds) for _ in range(count)]
    y, same_output = different[outputs], [f"output {output}" for output in outputs]
    for negatives in (0, 1, 4):
        assert_same(pair_by_output(x, y, same_output, negatives), literal_by_output(x, y, same_output, negatives))


def test_parts_of_the_search_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = unit_vectors(80, 0), unit_vectors(80, 1)
    labels = ["a"] * 60 + [str(place) for place in range(20)]
    whole = pair_by_label(x, labels, 2), pair_by_output(x, y, labels, 2)
    monkeypatch.setattr(pairing, "HELD", 100)
    assert (pair_by_label(x, labels, 2), pair_by_output(x, y, labels, 2)) == whole
    assert_same(whole[0], literal_by_label(x, labels, 2))


def test_a_label_or_an_output_that_is_alone_or_everywhere() -> None:
    x = unit_vectors(5, 0)
    assert pair_by_label(x, list("abcde"), 1) == []
    assert pair_by_label(x[:0], [], 1) == []
    assert all(pair.neg == () for pair in pair_by_label(x, ["a"] * 5, 2))
    assert [pair.query for pair in pair_by_label(x, list("aabcd"), 1)] == [0]
    assert pair_by_output(x[:1], x[:1], ["a"], 1) == []
    assert all(pair.neg == () for pair in pair_by_output(x, x, ["a"] * 5, 2))


def test_of_a_mutual_pair_one_direction_is_kept() -> None:
    x = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], dtype=np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert [(pair.query, pair.pos) for pair in pair_by_label(x, ["a"] * 4, 1)] == [(0, 1), (2, 3)]


def test_the_positive_is_no_negative() -> None:
    x, y = unit_vectors(2, 0), unit_vectors(2, 1)
    (pair,) = pair_by_output(x, y, ["a", "b"], 3)
    assert pair[:3] == (0, 1, ())
