"""The losses, against their formulas written out in loops over Python's floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from anytask.training import bidirectional_contrastive_loss, distillation_loss

Rows = list[list[float]]


def unit_vectors(count: int, dimension: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-1)


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def literal_contrastive_loss(
    queries: Rows,
    positives: Rows,
    negatives: Rows,
    temperature: float,
    same: Callable[[int, int], bool] = lambda _i, _j: False,
) -> float:
    """For each pair, minus the logarithm of its share of the exponentials, in both directions, then the mean."""
    n = len(queries)

    def weight(a: Sequence[float], b: Sequence[float]) -> float:
        return math.exp(dot(a, b) / temperature)

    forward = backward = 0.0
    for i in range(n):
        others = [j for j in range(n) if j != i and not same(i, j)]
        own = weight(queries[i], positives[i])
        against = sum(weight(queries[i], positives[j]) for j in others) + sum(weight(queries[i], n) for n in negatives)
        forward -= math.log(own / (own + against))
        backward -= math.log(own / (own + sum(weight(positives[i], queries[j]) for j in others)))
    return (forward / n + backward / n) / 2


def literal_distillation_loss(student: Rows, teacher: Rows, temperature: float, geometry: float) -> float:
    n = len(student)
    distance = sum(1 - dot(student[i], teacher[i]) for i in range(n)) / n
    softmax = 0.0
    for i in range(n):
        weights = [math.exp(dot(student[i], teacher[j]) / temperature) for j in range(n)]
        softmax -= math.log(weights[i] / sum(weights)) / n
    squares = [(dot(student[i], student[j]) - dot(teacher[i], teacher[j])) ** 2 for i in range(n) for j in range(n)]
    return distance + softmax + geometry * sum(squares) / n**2


def slopes(loss: Callable[..., float], arguments: list[Rows], step: float = 1e-6) -> list[Rows]:
    """Central differences of a function of rows by each of their numbers."""

    def moved(place: int, row: int, column: int, by: float) -> float:
        changed = [[list(vector) for vector in rows] for rows in arguments]
        changed[place][row][column] += by
        return loss(*changed)

    return [
        [
            [
                (moved(place, row, column, step) - moved(place, row, column, -step)) / (2 * step)
                for column in range(len(vector))
            ]
            for row, vector in enumerate(rows)
        ]
        for place, rows in enumerate(arguments)
    ]


def assert_loss_and_gradients(loss: Tensor, leaves: Sequence[Tensor], literal: Callable[..., float]) -> None:
    rows = [leaf.tolist() for leaf in leaves]
    assert loss.ndim == 0
    assert loss.item() == pytest.approx(literal(*rows), rel=1e-9)
    loss.backward()  # type: ignore[no-untyped-call]
    for leaf, slope in zip(leaves, slopes(literal, rows), strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, torch.tensor(slope, dtype=torch.float64), rtol=1e-4, atol=1e-6)


class TestContrastive:
    @pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
    @pytest.mark.parametrize("hard", [0, 1, 7])
    def test_formula(self, temperature: float, hard: int) -> None:
        sizes = (4, 4, hard) if hard else (4, 4)
        leaves = [unit_vectors(size, 3, seed).requires_grad_() for seed, size in enumerate(sizes)]
        loss = bidirectional_contrastive_loss(*leaves, temperature=temperature)

        def literal(queries: Rows, positives: Rows, negatives: Rows | None = None) -> float:
            return literal_contrastive_loss(queries, positives, negatives or [], temperature)

        assert_loss_and_gradients(loss, leaves, literal)

    @pytest.mark.parametrize("given", ["query_ids", "positive_ids", "both"])
    def test_the_same_text_is_no_negative(self, given: str) -> None:
        query_ids, positive_ids = [7, 8, 7, 9, 10], [1, 2, 3, 3, 1]
        leaves = [unit_vectors(size, 3, seed).requires_grad_() for seed, size in enumerate((5, 5, 2))]
        ids = {"query_ids": torch.tensor(query_ids), "positive_ids": torch.tensor(positive_ids)}
        if given != "both":
            ids = {given: ids[given]}
        loss = bidirectional_contrastive_loss(*leaves, temperature=0.2, **ids)

        def same(i: int, j: int) -> bool:
            return ("query_ids" in ids and query_ids[i] == query_ids[j]) or (
                "positive_ids" in ids and positive_ids[i] == positive_ids[j]
            )

        def literal(queries: Rows, positives: Rows, negatives: Rows) -> float:
            return literal_contrastive_loss(queries, positives, negatives, 0.2, same)

        assert_loss_and_gradients(loss, leaves, literal)

    def test_a_batch_of_one_text_leaves_nothing_to_tell_apart(self) -> None:
        queries, positives = unit_vectors(3, 4, 0), unit_vectors(3, 4, 1)
        ids = torch.zeros(3, dtype=torch.long)
        assert bidirectional_contrastive_loss(queries, positives, query_ids=ids).item() == 0
        assert bidirectional_contrastive_loss(queries[:1], positives[:1]).item() == 0

    def test_the_papers_temperature_is_the_default_and_does_not_overflow(self) -> None:
        queries = torch.eye(3)
        assert bidirectional_contrastive_loss(queries, queries).item() == pytest.approx(0, abs=1e-6)
        worst = bidirectional_contrastive_loss(queries, -queries)
        assert worst.item() == pytest.approx(100 + math.log(2), rel=1e-4)

    def test_the_inputs_are_left_alone(self) -> None:
        queries, positives = unit_vectors(3, 4, 0), unit_vectors(3, 4, 1)
        before = queries.clone(), positives.clone()
        bidirectional_contrastive_loss(queries, positives, query_ids=torch.tensor([1, 1, 2]))
        assert torch.equal(queries, before[0])
        assert torch.equal(positives, before[1])


class TestDistillation:
    @pytest.mark.parametrize(("temperature", "geometry"), [(0.05, 10.0), (1.0, 0.0), (0.2, 3.0)])
    def test_formula(self, temperature: float, geometry: float) -> None:
        student, teacher = unit_vectors(5, 4, 0).requires_grad_(), unit_vectors(5, 4, 1)
        loss = distillation_loss(student, teacher, temperature=temperature, geometry=geometry)

        def literal(rows: Rows) -> float:
            return literal_distillation_loss(rows, teacher.tolist(), temperature, geometry)

        assert_loss_and_gradients(loss, [student], literal)

    def test_defaults(self) -> None:
        student, teacher = unit_vectors(5, 4, 0), unit_vectors(5, 4, 1)
        expected = literal_distillation_loss(student.tolist(), teacher.tolist(), 0.05, 10.0)
        assert distillation_loss(student, teacher).item() == pytest.approx(expected, rel=1e-9)

    def test_the_teachers_own_vectors_cost_almost_nothing(self) -> None:
        teacher = torch.eye(6, 8)
        assert 0 <= distillation_loss(teacher, teacher).item() < 1e-6
        assert distillation_loss(teacher.roll(1, 0), teacher).item() > 10

    def test_descent_leads_to_the_teacher(self) -> None:
        teacher, weights = unit_vectors(8, 4, 0), unit_vectors(8, 4, 1).requires_grad_()
        optimiser = torch.optim.Adam([weights], lr=0.05)
        for _ in range(300):
            loss = distillation_loss(torch.nn.functional.normalize(weights, dim=-1), teacher)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        cosines = (torch.nn.functional.normalize(weights.detach(), dim=-1) * teacher).sum(-1)
        assert cosines.min() > 0.98
