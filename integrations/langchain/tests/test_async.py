"""Asynchronous calls: the same vectors, shared batches, a loop that goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore

from anytask import release_shared
from anytask.coalescing import Coalescer
from anytask.engine import EncodingEngine
from langchain_anytask import InstructorEmbeddings

CALLS = 64
QUERIES = [f"What happens in case {number}, and what if there are {number % 7} of them?" for number in range(CALLS)]


class GatedEngine:
    """The engine, held in its first run until the event loop opens the gate; it counts calls and runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.submitted = 0
        self.runs: list[int] = []
        self.begun, self.gate = threading.Event(), threading.Event()
        embed, arun = EncodingEngine.embed, Coalescer.arun

        def gated(engine: EncodingEngine, texts: Any, *arguments: Any, **options: Any) -> Any:
            self.runs.append(len(texts))
            self.begun.set()
            if not self.gate.wait(30):
                self.gate.set()
                raise RuntimeError("the event loop stood still while the engine ran")
            return embed(engine, texts, *arguments, **options)

        def counted(coalescer: Coalescer, *arguments: Any, **options: Any) -> Any:
            self.submitted += 1
            return arun(coalescer, *arguments, **options)

        monkeypatch.setattr(EncodingEngine, "embed", gated)
        monkeypatch.setattr(Coalescer, "arun", counted)

    async def tick_until(self, submitted: int) -> int:
        """Another coroutine's life: the number of times it was resumed while the engine was running."""
        ticks = 0
        while self.submitted < submitted or not self.begun.is_set() or ticks < 100:
            await asyncio.sleep(0)
            ticks += self.begun.is_set()
        self.gate.set()
        return ticks


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[GatedEngine]:
    release_shared()
    yield GatedEngine(monkeypatch)
    release_shared()


async def test_concurrent_queries_share_batches_while_the_loop_ticks(engine: GatedEngine) -> None:
    embeddings = InstructorEmbeddings()
    *vectors, ticks = await asyncio.gather(
        *(embeddings.aembed_query(query) for query in QUERIES), engine.tick_until(CALLS)
    )
    assert ticks >= 100
    assert sum(engine.runs) == CALLS
    assert len(engine.runs) <= 2  # those that came before the first run began, and all the others
    np.testing.assert_allclose(vectors, [embeddings.embed_query(query) for query in QUERIES], atol=1e-5)


async def test_concurrent_retrievals_share_batches(texts: list[str], engine: GatedEngine) -> None:
    embeddings = InstructorEmbeddings()
    engine.gate.set()
    store = await InMemoryVectorStore.afrom_texts(texts, embeddings)
    engine.gate.clear()
    engine.begun.clear()
    engine.runs.clear()
    retriever = store.as_retriever(search_kwargs={"k": 2})
    *found, _ = await asyncio.gather(
        *(retriever.ainvoke(query) for query in QUERIES), engine.tick_until(engine.submitted + CALLS)
    )
    assert sum(engine.runs) == CALLS
    assert len(engine.runs) <= 2
    assert found == [retriever.invoke(query) for query in QUERIES]


async def test_the_loop_goes_on_while_documents_are_embedded(texts: list[str], engine: GatedEngine) -> None:
    embeddings = InstructorEmbeddings()
    vectors, ticks = await asyncio.gather(embeddings.aembed_documents(texts), engine.tick_until(1))
    assert ticks >= 100
    np.testing.assert_allclose(vectors, embeddings.embed_documents(texts), atol=1e-5)


async def test_calls_of_different_instances_and_sides_share_batches_and_keep_their_instructions(
    texts: list[str], engine: GatedEngine
) -> None:
    plain, other = InstructorEmbeddings(), InstructorEmbeddings(query_instruction="Represent the riddle: ")
    query, riddle, documents, _ = await asyncio.gather(
        plain.aembed_query(texts[0]),
        other.aembed_query(texts[0]),
        plain.aembed_documents(texts),
        engine.tick_until(3),
    )
    assert len(engine.runs) <= 2
    np.testing.assert_allclose(query, plain.embed_query(texts[0]), atol=1e-5)
    np.testing.assert_allclose(riddle, other.embed_query(texts[0]), atol=1e-5)
    np.testing.assert_allclose(documents, plain.embed_documents(texts), atol=1e-5)


async def test_a_cancelled_call_leaves_the_others_alone(engine: GatedEngine) -> None:
    embeddings = InstructorEmbeddings()
    tasks = [asyncio.create_task(embeddings.aembed_query(query)) for query in QUERIES[:4]]
    await asyncio.to_thread(engine.begun.wait, 30)
    tasks[3].cancel()
    engine.gate.set()
    *vectors, cancelled = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(cancelled, asyncio.CancelledError)
    np.testing.assert_allclose(vectors, [embeddings.embed_query(query) for query in QUERIES[:3]], atol=1e-5)


async def test_no_documents() -> None:
    assert await InstructorEmbeddings().aembed_documents([]) == []


def test_one_instance_in_several_event_loops(texts: list[str]) -> None:
    embeddings = InstructorEmbeddings()
    first, second = (asyncio.run(embeddings.aembed_query(texts[0])) for _ in range(2))
    assert first == second
