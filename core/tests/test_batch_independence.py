"""A vector depends on its text and instruction alone: not on batch size, order or company."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anytask import Instructor
from anytask.batching import TokenizedText, pack, plan_batches

Pair = tuple[str, str]
Vectors = npt.NDArray[np.float32]
INSTRUCTIONS = ("", "the ", "Represent the statement: ", "Represent the Python document for retrieval: ")
TOLERANCE = 1e-5
SIZE = 40
indices = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=24)


class Model:
    """A model and the pairs that the tests draw from, each with the vector that it has alone."""

    def __init__(self, folder: Path, pairs: Sequence[Pair]) -> None:
        self.instructor = Instructor.from_pretrained(folder, device="cpu")
        self.pairs = list(pairs)
        self.alone: Vectors = np.concatenate([self.instructor.encode([pair]) for pair in self.pairs])

    def encode(self, chosen: Sequence[int], batch_tokens: int | None = None) -> Vectors:
        vectors: Vectors = self.instructor.encode([self.pairs[index] for index in chosen], batch_tokens=batch_tokens)
        return vectors


@pytest.fixture(scope="session", params=["relu", "gated-gelu"])
def model(request: pytest.FixtureRequest, make_checkpoint: Callable[..., Path], sentences: list[str]) -> Model:
    rng = np.random.default_rng(0)
    everything = " ".join(sentences[:60])
    lengths = [0, 1, 5, *rng.lognormal(4.0, 1.2, SIZE - 3).astype(int)]
    texts = [everything[start : start + min(length, 1500)] for start, length in enumerate(lengths)]
    pairs = [(INSTRUCTIONS[number % len(INSTRUCTIONS)], text) for number, text in enumerate(texts)]
    return Model(make_checkpoint(shape={"feed_forward_proj": request.param}), pairs)


@settings(max_examples=40, deadline=None)
@given(chosen=indices, batch_tokens=st.none() | st.integers(1, 3000))
def test_neighbours_order_and_batch_size(model: Model, chosen: list[int], batch_tokens: int | None) -> None:
    np.testing.assert_allclose(model.encode(chosen, batch_tokens), model.alone[chosen], atol=TOLERANCE, rtol=0)


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(SIZE)), batch_tokens=st.sampled_from([1, 64, 512, 100_000]))
def test_every_order_of_all(model: Model, order: list[int], batch_tokens: int) -> None:
    np.testing.assert_allclose(model.encode(order, batch_tokens), model.alone[order], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("copies", [2, 7, 33])
def test_many_texts_of_one_length(model: Model, copies: int) -> None:
    """Equal lengths share a group: the same text many times, and many texts once."""
    for index in (0, 3, 10):
        same = model.encode([index] * copies)
        np.testing.assert_allclose(same, model.alone[[index] * copies], atol=TOLERANCE, rtol=0)


def test_one_text_beside_thousands_of_tokens(model: Model) -> None:
    longest = max(range(SIZE), key=lambda index: len(model.pairs[index][1]))
    vectors = model.encode([1, *[longest] * 12, 2], batch_tokens=100_000)
    np.testing.assert_allclose(vectors[[0, -1]], model.alone[[1, 2]], atol=TOLERANCE, rtol=0)


class TestPlan:
    @given(lengths=st.lists(st.integers(1, 600), max_size=60), batch_tokens=st.integers(1, 2000))
    def test_every_text_once_within_the_budget_longest_first(self, lengths: list[int], batch_tokens: int) -> None:
        batches = list(plan_batches(lengths, batch_tokens))
        planned = [index for batch in batches for index in batch]
        assert sorted(planned) == list(range(len(lengths)))
        assert all(batches)
        assert all(len(batch) == 1 or sum(lengths[index] for index in batch) <= batch_tokens for batch in batches)
        assert [lengths[index] for index in planned] == sorted(lengths, reverse=True)

    @given(texts=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 8)), min_size=1, max_size=30))
    def test_packing_keeps_tokens_and_pools(self, texts: list[tuple[int, int]]) -> None:
        tokenized = [
            TokenizedText(np.arange(length, dtype=np.int32) + 100 * number, min(start, length - 1))
            for number, (length, start) in enumerate(sorted(texts, reverse=True))
        ]
        packed = pack(tokenized)
        assert packed.token_ids.tolist() == [token for text in tokenized for token in text.ids]
        assert packed.pool_mask.tolist() == [
            float(place >= text.pool_start) for text in tokenized for place in range(len(text.ids))
        ]
        rows = [row for group in packed.groups for row in range(group.rows.start, group.rows.stop)]
        assert rows == list(range(len(packed.token_ids)))
        assert [group.length for group in packed.groups for _ in range(group.count)] == [
            len(text.ids) for text in tokenized
        ]
        assert len({group.length for group in packed.groups}) == len(packed.groups)
