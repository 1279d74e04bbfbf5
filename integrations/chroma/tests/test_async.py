"""Asynchronous calls share batches and leave the event loop free."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from anytask import Instructor, release_shared
from anytask.coalescing import Coalescer
from anytask.engine import EncodingEngine
from chroma_anytask import InstructorEmbeddingFunction

pytestmark = pytest.mark.usefixtures("no_network")

QUERIES = [f"What becomes of stone number {number} in the rain?" for number in range(64)]
PATIENCE = 60.0


class HeldEngine:
    """The engine, whose first run waits until `open` is set; what reaches it is counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[int] = []
        self.submitted = 0
        self.begun, self.open = threading.Event(), threading.Event()
        embed, arun = EncodingEngine.embed, Coalescer.arun

        def held(engine: EncodingEngine, texts: Any, *arguments: Any, **options: Any) -> Any:
            self.runs.append(len(texts))
            self.begun.set()
            if not self.open.wait(PATIENCE):
                raise RuntimeError("the event loop stood still while the engine ran")
            return embed(engine, texts, *arguments, **options)

        def counted(coalescer: Coalescer, *arguments: Any, **options: Any) -> Any:
            self.submitted += 1
            return arun(coalescer, *arguments, **options)

        monkeypatch.setattr(EncodingEngine, "embed", held)
        monkeypatch.setattr(Coalescer, "arun", counted)

    async def open_after(self, calls: int) -> int:
        """Open once so many calls are queued; gives how often the loop came round while the engine was at work."""
        ticks = 0
        while self.submitted < calls or ticks < 100:
            await asyncio.sleep(0)
            ticks += self.begun.is_set()
        self.open.set()
        return ticks


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldEngine]:
    release_shared()
    yield HeldEngine(monkeypatch)
    release_shared()


async def test_concurrent_queries_share_batches_while_the_loop_ticks(engine: HeldEngine, mini: Instructor) -> None:
    function = InstructorEmbeddingFunction()
    *vectors, ticks = await asyncio.gather(
        *(function.aembed_query([query]) for query in QUERIES), engine.open_after(len(QUERIES))
    )
    assert ticks >= 100
    assert sum(engine.runs) == len(QUERIES)
    assert len(engine.runs) <= 2  # the first that came, and all that queued meanwhile
    np.testing.assert_allclose(np.concatenate(vectors), mini.encode_query(QUERIES), atol=1e-5)


async def test_functions_and_sides_share_batches(engine: HeldEngine, mini: Instructor) -> None:
    instruction = "Represent the sentence for clustering by its topic: "
    plain, other = InstructorEmbeddingFunction(), InstructorEmbeddingFunction(document_instruction=instruction)
    query, documents, topics, _ = await asyncio.gather(
        plain.aembed_query(QUERIES[:1]),
        plain.aembed_documents(QUERIES[:5]),
        other.aembed_documents(QUERIES[:5]),
        engine.open_after(3),
    )
    assert len(engine.runs) <= 2
    np.testing.assert_allclose(np.stack(query), mini.encode_query(QUERIES[:1]), atol=1e-5)
    np.testing.assert_allclose(np.stack(documents), mini.encode_document(QUERIES[:5]), atol=1e-5)
    np.testing.assert_allclose(np.stack(topics), mini.encode(QUERIES[:5], instruction), atol=1e-5)


async def test_a_failed_call_fails_alone(mini: Instructor) -> None:
    function = InstructorEmbeddingFunction()
    good, bad = await asyncio.gather(
        function.aembed_query(["a stone"]), function.aembed_query(["half a pair: \ud800"]), return_exceptions=True
    )
    assert isinstance(bad, ValueError)
    np.testing.assert_allclose(np.stack(good), mini.encode_query(["a stone"]), atol=1e-5)
