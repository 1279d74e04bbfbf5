"""Work done ahead in a thread, and long lists whose texts are tokenized while others are computed."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from anytask import Instructor, calls
from anytask.prefetch import ahead


class TestAhead:
    def test_items_in_their_order(self) -> None:
        assert list(ahead(range(100))) == list(range(100))
        assert list(ahead([])) == []
        assert list(ahead([None, 0])) == [None, 0]

    def test_the_next_is_made_while_one_is_used(self) -> None:
        begun = [threading.Event() for _ in range(3)]

        def items() -> Iterator[int]:
            for number, event in enumerate(begun):
                event.set()
                yield number

        for number in ahead(items()):
            if number < 2:
                assert begun[number + 1].wait(30)

    def test_an_error_comes_in_its_place(self) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise ZeroDivisionError

        iterator = ahead(items())
        assert next(iterator) == 1
        with pytest.raises(ZeroDivisionError):
            next(iterator)

    def test_leaving_early_leaves_no_thread(self) -> None:
        iterator = ahead(range(1000))
        next(iterator)
        iterator.close()  # type: ignore[attr-defined]
        assert not any(thread.name.startswith("anytask-ahead") for thread in threading.enumerate())


class TestEncode:
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, make_checkpoint: Callable[..., Path]) -> Instructor:
        return Instructor.from_pretrained(make_checkpoint(), device="cpu")

    @pytest.fixture
    def windows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(calls, "WINDOW", 7)

    def test_windows_change_nothing(
        self, model: Instructor, sentences: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = [*sentences[:50], "long " * 600, *sentences[50:90], "very " * 700]
        with pytest.warns(UserWarning, match="2 of 92 texts"):
            expected = model.encode(texts, "Represent: ")
        monkeypatch.setattr(calls, "WINDOW", 7)
        done: list[int] = []
        with pytest.warns(UserWarning, match="2 of 92 texts") as seen:
            vectors = model.encode(texts, "Represent: ", show_progress=done.append)
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
        assert len(seen) == 1
        assert sum(done) == len(texts)

    @pytest.mark.usefixtures("windows")
    def test_bad_texts_are_told_before_any_is_computed(self, model: Instructor, sentences: list[str]) -> None:
        done: list[int] = []
        texts = [*sentences[:40], "half \ud800", *sentences[:5], "very " * 600]
        with pytest.raises(ValueError, match=r"text 40 holds U\+D800"):
            model.encode(texts, show_progress=done.append)
        with pytest.raises(ValueError, match="text 1 has more tokens"), warnings.catch_warnings():
            model.encode(["short", "very " * 600, *sentences[:20]], on_long="error", show_progress=done.append)
        assert not done
