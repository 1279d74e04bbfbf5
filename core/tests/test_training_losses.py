"""The losses, against their formulas written out in loops over Python's floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from anytask.training import TextKeys, contrastive_loss, distillation_loss
from anytask.training.contrastive import Variant
from anytask.training.objective import Objective, Roles

Rows = list[list[float]]
Texts = Sequence[str]


def unit_vectors(count: int, dimension: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-1)


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def text_keys(queries: Texts, positives: Texts, negatives: Texts) -> TextKeys:
    numbers = {text: 10**12 + place for place, text in enumerate({*queries, *positives, *negatives})}
    return TextKeys(
        *(torch.tensor([numbers[text] for text in side], dtype=torch.int64) for side in (queries, positives, negatives))
    )


def literal_contrastive_loss(
    queries: Rows,
    positives: Rows,
    negatives: Rows,
    temperature: float,
    variant: Variant = "paper",
    texts: tuple[Texts, Texts, Texts] | None = None,
) -> float:
    """Minus the logarithm of each pair's share of the exponentials, averaged over the batch, in both directions.

    With `texts`, a candidate isn't one where it answers the query as well: for query i, another record's positive or a
    hard negative whose text is the query's own, or a positive of any record with that query. For the other direction,
    the queries that a positive answers.
    """
    n = len(queries)

    def weight(a: Sequence[float], b: Sequence[float]) -> float:
        return math.exp(dot(a, b) / temperature)

    def answers(i: int, j: int, side: int = 1) -> bool:
        if texts is None:
            return False
        q, p, _ = texts
        return texts[side][j] in {q[i], *(p[k] for k in range(n) if q[k] == q[i])}

    forward = backward = 0.0
    for i in range(n):
        own = weight(queries[i], positives[i])
        against = sum(weight(queries[i], negatives[j]) for j in range(len(negatives)) if not answers(i, j, 2))
        if variant == "paper":
            against += sum(weight(queries[i], positives[j]) for j in range(n) if j != i and not answers(i, j))
        forward -= math.log(own / (own + against))
        against = sum(weight(positives[i], queries[j]) for j in range(n) if j != i and not answers(j, i))
        backward -= math.log(own / (own + against))
    return forward / n + backward / n


def literal_distillation_loss(student: Rows, teacher: Rows, temperature: float, geometry: float) -> float:
    n = len(student)
    squares = [(dot(student[i], student[j]) - dot(teacher[i], teacher[j])) ** 2 for i in range(n) for j in range(n)]
    shape = geometry * sum(squares) / n**2
    if len(student[0]) != len(teacher[0]):
        return shape
    distance = sum(1 - dot(student[i], teacher[i]) for i in range(n)) / n
    softmax = 0.0
    for i in range(n):
        weights = [math.exp(dot(student[i], teacher[j]) / temperature) for j in range(n)]
        softmax -= math.log(weights[i] / sum(weights)) / n
    return distance + softmax + shape


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
        expected = torch.tensor(slope, dtype=torch.float64).reshape(leaf.shape)
        torch.testing.assert_close(leaf.grad, expected, rtol=1e-4, atol=1e-6)


VARIANTS = pytest.mark.parametrize("variant", ["paper", "released"])
MASKED = {
    "equal queries": ("aba", "xyz", "mn"),
    "equal positives": ("abc", "xyx", "mn"),
    "a query that is another's positive": ("abc", "xab", "mn"),
    "a hard negative that is a positive": ("abc", "xyz", "xmz"),
    "a hard negative that is a query": ("abc", "xyz", "bmc"),
    "a hard negative that comes twice": ("abc", "xyz", "mmx"),
    "a hard negative that is an equal query's positive": ("aab", "xyz", "mny"),
    "a positive that is an equal query's positive": ("aab", "xyy", "mn"),
    "several at once": ("aabca", "xyxaz", "xamb"),
    "nothing": ("abcd", "wxyz", "mno"),
    "nothing, and no hard negative": ("abcd", "wxyz", ""),
    "all": ("aaa", "xxx", "ax"),
}


class TestContrastive:
    @VARIANTS
    @pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01])
    @pytest.mark.parametrize("hard", [0, 1, 7])
    def test_formula(self, variant: Variant, temperature: float, hard: int) -> None:
        sizes = (4, 4, hard) if hard else (4, 4)
        leaves = [unit_vectors(size, 3, seed).requires_grad_() for seed, size in enumerate(sizes)]
        loss = contrastive_loss(*leaves, temperature=temperature, variant=variant)

        def literal(queries: Rows, positives: Rows, negatives: Rows | None = None) -> float:
            return literal_contrastive_loss(queries, positives, negatives or [], temperature, variant)

        assert_loss_and_gradients(loss, leaves, literal)

    @VARIANTS
    @pytest.mark.parametrize("texts", MASKED.values(), ids=MASKED.keys())
    def test_false_negatives_are_no_candidates(self, variant: Variant, texts: tuple[str, str, str]) -> None:
        leaves = [unit_vectors(len(side), 3, seed).requires_grad_() for seed, side in enumerate(texts)]
        loss = contrastive_loss(*leaves, temperature=0.2, variant=variant, keys=text_keys(*texts))

        def literal(queries: Rows, positives: Rows, negatives: Rows) -> float:
            return literal_contrastive_loss(queries, positives, negatives, 0.2, variant, texts)

        assert_loss_and_gradients(loss, leaves, literal)

    @pytest.mark.parametrize(
        "texts", [pair for name, pair in MASKED.items() if not name.startswith("nothing")], ids=str
    )
    def test_masking_changes_the_loss(self, texts: tuple[str, str, str]) -> None:
        sides = [unit_vectors(len(side), 3, seed) for seed, side in enumerate(texts)]
        assert (
            contrastive_loss(*sides, temperature=0.2, keys=text_keys(*texts))
            < contrastive_loss(*sides, temperature=0.2) - 1e-3
        )

    def test_a_pairs_own_positive_is_never_left_out(self) -> None:
        """A record whose query is its own positive (a paraphrase set's duplicates) is still learnt."""
        sides = [unit_vectors(size, 3, seed) for seed, size in enumerate((3, 3, 2))]
        kept = contrastive_loss(*sides, temperature=0.2, keys=text_keys("abc", "axy", "mn"))
        assert kept.item() == pytest.approx(
            literal_contrastive_loss(*(side.tolist() for side in sides), 0.2, "paper", ("abc", "axy", "mn"))
        )
        assert kept > 0

    def test_released_candidates_are_fewer(self) -> None:
        sides = [unit_vectors(size, 3, seed) for seed, size in enumerate((4, 4, 5))]
        paper, released = (contrastive_loss(*sides, temperature=0.3, variant=v) for v in ("paper", "released"))
        assert released < paper - 1e-3

    @VARIANTS
    def test_a_single_pair(self, variant: Variant) -> None:
        query, positive, negatives = (unit_vectors(size, 4, seed) for seed, size in enumerate((1, 1, 3)))
        assert contrastive_loss(query, positive, variant=variant).item() == 0
        against = contrastive_loss(query, positive, negatives, temperature=0.5, variant=variant).item()
        own = math.exp(float(query @ positive.T) / 0.5)
        assert against == pytest.approx(-math.log(own / (own + (query @ negatives.T / 0.5).exp().sum().item())))

    def test_a_batch_of_one_text_leaves_nothing_to_tell_apart(self) -> None:
        queries, positives = unit_vectors(3, 4, 0), unit_vectors(3, 4, 1)
        assert contrastive_loss(queries, positives, keys=text_keys("aaa", "xyz", "")).item() == 0

    @VARIANTS
    def test_gradients_are_finite_where_all_candidates_are_left_out(self, variant: Variant) -> None:
        leaves = [unit_vectors(size, 4, seed).requires_grad_() for seed, size in enumerate((3, 3, 2))]
        contrastive_loss(*leaves, variant=variant, keys=text_keys("aaa", "xxx", "ax")).backward()  # type: ignore[no-untyped-call]
        assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)

    def test_the_papers_temperature_is_the_default_and_does_not_overflow(self) -> None:
        queries = torch.eye(3)
        assert contrastive_loss(queries, queries).item() == pytest.approx(0, abs=1e-6)
        worst = contrastive_loss(queries, -queries)
        assert worst.item() == pytest.approx(2 * (100 + math.log(2)), rel=1e-4)

    def test_order_of_the_batch_does_not_matter(self) -> None:
        texts = MASKED["several at once"]
        sides = [unit_vectors(len(side), 3, seed) for seed, side in enumerate(texts)]
        order, order_of_negatives = [3, 0, 4, 2, 1], [2, 0, 3, 1]
        shuffled = tuple(
            "".join(side[place] for place in (order, order, order_of_negatives)[n]) for n, side in enumerate(texts)
        )
        moved = [sides[0][order], sides[1][order], sides[2][order_of_negatives]]
        torch.testing.assert_close(
            contrastive_loss(*sides, temperature=0.2, keys=text_keys(*texts)),
            contrastive_loss(*moved, temperature=0.2, keys=text_keys(*shuffled)),
        )

    def test_the_inputs_are_left_alone(self) -> None:
        sides = [unit_vectors(size, 4, seed) for seed, size in enumerate((3, 3, 2))]
        before = [side.clone() for side in sides]
        contrastive_loss(*sides, keys=text_keys("aab", "xyz", "xm"))
        assert all(map(torch.equal, sides, before))

    @pytest.mark.parametrize(
        ("sizes", "options", "message"),
        [
            ([(3, 4), (2, 4)], {}, r"\(3, 4\) and \(2, 4\)"),
            ([(3, 4), (3, 5)], {}, r"\(3, 4\) and \(3, 5\)"),
            ([(0, 4), (0, 4)], {}, "n >= 1"),
            ([(3, 4), (3, 4), (2, 5)], {}, r"negatives must be \[m, 4\], got \(2, 5\)"),
            ([(4,), (4,)], {}, r"\[n, d\]"),
            ([(3, 4), (3, 4)], {"temperature": 0.0}, "temperature must be positive, got 0"),
            ([(3, 4), (3, 4)], {"temperature": float("nan")}, "temperature must be positive, got nan"),
            ([(3, 4), (3, 4)], {"variant": "infonce"}, "variant must be paper or released, got 'infonce'"),
        ],
    )
    def test_errors(self, sizes: list[tuple[int, ...]], options: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            contrastive_loss(*(torch.zeros(size) for size in sizes), **options)  # type: ignore[arg-type]


class TestDistillation:
    @pytest.mark.parametrize("dimension", [4, 6])
    @pytest.mark.parametrize(("temperature", "geometry"), [(0.05, 10.0), (1.0, 0.5), (0.2, 3.0)])
    def test_formula(self, temperature: float, geometry: float, dimension: int) -> None:
        student, teacher = unit_vectors(5, 4, 0).requires_grad_(), unit_vectors(5, dimension, 1)
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

    @pytest.mark.parametrize("dimension", [4, 7])
    def test_descent_leads_to_the_teacher(self, dimension: int) -> None:
        """To its vectors, or, where the student's are longer, to its cosines."""
        teacher, weights = unit_vectors(8, 4, 0), unit_vectors(8, dimension, 1).requires_grad_()
        optimiser = torch.optim.Adam([weights], lr=0.05)
        for _ in range(300):
            loss = distillation_loss(torch.nn.functional.normalize(weights, dim=-1), teacher)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        student = torch.nn.functional.normalize(weights.detach(), dim=-1)
        if dimension == 4:
            assert (student * teacher).sum(-1).min() > 0.98
        torch.testing.assert_close(
            student @ student.T, teacher @ teacher.T, rtol=0, atol=0.15 if dimension == 4 else 0.01
        )


class TestObjective:
    """The loss of a step: which rows are what, and how the parts are weighed."""

    TEXTS = ("aba", "xyz", "xm")

    def roles(self, **more: Tensor) -> Roles:
        keys = text_keys(*self.TEXTS)
        return Roles(3, 2, torch.cat([keys.queries, keys.positives, keys.negatives]), **more)

    def vectors(self) -> Tensor:
        return unit_vectors(8, 4, 5).requires_grad_()

    @VARIANTS
    def test_queries_then_positives_then_negatives(self, variant: Variant) -> None:
        vectors = self.vectors()
        loss, parts = Objective(temperature=0.2, variant=variant)(vectors, self.roles())
        rows = vectors.tolist()
        expected = literal_contrastive_loss(rows[:3], rows[3:6], rows[6:], 0.2, variant, self.TEXTS)
        assert loss.item() == pytest.approx(expected)
        assert parts == {"contrastive": pytest.approx(expected)}

    def test_false_negatives_may_be_kept(self) -> None:
        vectors = self.vectors()
        loss, _ = Objective(temperature=0.2, mask_false_negatives=False)(vectors, self.roles())
        rows = vectors.tolist()
        assert loss.item() == pytest.approx(literal_contrastive_loss(rows[:3], rows[3:6], rows[6:], 0.2))

    def test_weights_and_a_teacher_of_some_texts(self) -> None:
        vectors, taught = self.vectors(), torch.tensor([0, 4, 7])
        teacher = unit_vectors(3, 4, 9)
        roles = self.roles(taught=taught, teacher=3 * teacher.float())
        objective = Objective(temperature=0.2, contrastive_weight=0.5, teacher_weight=2.0)
        loss, parts = objective(vectors, roles)
        contrastive, _ = Objective(temperature=0.2)(vectors, self.roles())
        distilled = distillation_loss(vectors[taught], teacher)
        assert parts["contrastive"] == pytest.approx(contrastive.item())
        assert parts["distillation"] == pytest.approx(distilled.item(), rel=1e-6)
        assert loss.item() == pytest.approx(0.5 * contrastive.item() + 2 * distilled.item(), rel=1e-6)

    def test_a_weight_of_zero_leaves_the_part_out(self) -> None:
        roles = self.roles(taught=torch.arange(8), teacher=unit_vectors(8, 6, 9))
        assert set(Objective(contrastive_weight=0)(self.vectors(), roles)[1]) == {"distillation"}
        assert set(Objective(teacher_weight=0)(self.vectors(), roles)[1]) == {"contrastive"}

    def test_roles_move_whole(self) -> None:
        roles = self.roles(taught=torch.arange(8), teacher=unit_vectors(8, 6, 9)).to(torch.device("meta"))
        assert (roles.pairs, roles.negatives) == (3, 2)
        assert roles.taught is not None
        assert roles.teacher is not None
        assert {roles.keys.device.type, roles.taught.device.type, roles.teacher.device.type} == {"meta"}
