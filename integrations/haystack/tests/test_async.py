"""Asynchronous runs never block the event loop, and share the model's batches."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.anytask import InstructorDocumentEmbedder, InstructorTextEmbedder

import anytask.embedder
from anytask import Instructor, load_shared

from .conftest import Engine, Ticker

CALLS = 64
QUERIES = [f"What is the colour of stone number {number}?" for number in range(CALLS)]


def assert_equal(vectors: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(vectors), np.asarray(expected), atol=1e-5)


async def test_concurrent_queries_share_batches(engine: Engine, ticker: Ticker) -> None:
    component = InstructorTextEmbedder()
    engine.hold_first_run_until(CALLS, ticker)
    results = await ticker.beside(asyncio.gather(*(component.run_async(query) for query in QUERIES)))
    assert sum(engine.runs) == CALLS
    assert len(engine.runs) == 2  # the one that was held, and one with all that queued meanwhile
    assert_equal([result["embedding"] for result in results], load_shared("mini").encode_query(QUERIES))


async def test_components_and_instructions_share_batches(engine: Engine, ticker: Ticker) -> None:
    texts = [InstructorTextEmbedder(instruction=f"Instruction {number}: ") for number in range(4)]
    many = InstructorDocumentEmbedder()
    engine.hold_first_run_until(len(texts) + 1, ticker)
    documents = [Document(content=query) for query in QUERIES[:5]]
    work = asyncio.gather(many.run_async(documents), *(text.run_async("granite") for text in texts))
    embedded, *queries = await ticker.beside(work)
    assert len(engine.runs) == 2
    model = load_shared("mini")
    assert_equal([document.embedding for document in embedded["documents"]], model.encode_document(QUERIES[:5]))
    expected = [model.encode("granite", f"Instruction {number}: ") for number in range(4)]
    assert_equal([result["embedding"] for result in queries], expected)


async def test_one_bad_call_does_not_fail_the_others(engine: Engine, ticker: Ticker) -> None:
    component = InstructorTextEmbedder()
    engine.hold_first_run_until(2, ticker)
    calls = (component.run_async(text) for text in ("granite", "half \ud83d of a pair", "basalt"))
    good, bad, other = await ticker.beside(asyncio.gather(*calls, return_exceptions=True))
    assert isinstance(bad, ValueError)
    assert_equal([good["embedding"], other["embedding"]], load_shared("mini").encode_query(["granite", "basalt"]))


@pytest.mark.parametrize("embedder", [InstructorTextEmbedder, InstructorDocumentEmbedder])
async def test_loading_does_not_block(monkeypatch: pytest.MonkeyPatch, ticker: Ticker, embedder: Any) -> None:
    loads: list[str] = []

    def patient_load(name: str, **options: Any) -> Instructor:
        ticker.wait_for_ticks()
        loads.append(name)
        return load_shared(name, **options)

    monkeypatch.setattr(anytask.embedder, "load_shared", patient_load)
    component = embedder()
    await ticker.beside(component.warm_up_async())
    assert loads == ["mini"]
    await ticker.beside(component.run_async("text" if embedder is InstructorTextEmbedder else [Document(content="x")]))
    pipeline = Pipeline()
    pipeline.add_component("embedder", embedder())
    data = {"text": "text"} if embedder is InstructorTextEmbedder else {"documents": [Document(content="x")]}
    await ticker.beside(pipeline.run_async({"embedder": data}))


def test_one_component_serves_one_loop_after_another() -> None:
    component = InstructorTextEmbedder()
    first, second = (asyncio.run(component.run_async("granite"))["embedding"] for _ in range(2))
    assert_equal(first, second)


async def test_a_cancelled_run_leaves_the_component_usable(engine: Engine, ticker: Ticker) -> None:
    component = InstructorTextEmbedder()
    engine.hold_first_run_until(2, ticker)
    running, waiting = (asyncio.create_task(component.run_async(text)) for text in ("granite", "basalt"))

    async def cancel() -> None:
        while engine.submitted < 2:
            await asyncio.sleep(0)
        waiting.cancel()
        await running

    await ticker.beside(cancel())
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert_equal((await component.run_async("slate"))["embedding"], load_shared("mini").encode_query("slate"))


# Haystack's own asynchronous pipeline.


@pytest.fixture
def querying() -> Pipeline:
    store = InMemoryDocumentStore()
    indexing = Pipeline()
    indexing.add_component("embedder", InstructorDocumentEmbedder(instruction="", progress_bar=False))
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("embedder.documents", "writer.documents")
    indexing.run({"embedder": {"documents": [Document(content=query) for query in QUERIES]}})
    pipeline = Pipeline()
    pipeline.add_component("embedder", InstructorTextEmbedder(instruction=""))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    return pipeline


async def test_runs_of_one_pipeline_share_batches(engine: Engine, ticker: Ticker, querying: Pipeline) -> None:
    engine.runs.clear()
    engine.hold_first_run_until(CALLS, ticker)
    runs = (querying.run_async({"embedder": {"text": query}}) for query in QUERIES)
    results = await ticker.beside(asyncio.gather(*runs))
    assert [result["retriever"]["documents"][0].content for result in results] == QUERIES
    assert len(engine.runs) == 2


async def test_indexing_in_an_asynchronous_pipeline(ticker: Ticker) -> None:
    store = InMemoryDocumentStore()
    pipeline = Pipeline()
    pipeline.add_component("embedder", InstructorDocumentEmbedder())
    pipeline.add_component("writer", DocumentWriter(store))
    pipeline.connect("embedder.documents", "writer.documents")
    documents = [Document(content=query) for query in QUERIES]
    await ticker.beside(pipeline.run_async({"embedder": {"documents": documents}}))
    stored = {document.content: document.embedding for document in store.filter_documents()}
    assert_equal([stored[query] for query in QUERIES], load_shared("mini").encode_document(QUERIES))


async def test_branches_of_a_pipeline_run_at_the_same_time(engine: Engine, ticker: Ticker) -> None:
    pipeline = Pipeline()
    for name in ("search", "similar", "cluster"):
        pipeline.add_component(name, InstructorTextEmbedder(instruction=f"Represent the text for {name}: "))
    engine.hold_first_run_until(3, ticker)  # one after another, they would never be three
    data = {name: {"text": "granite"} for name in ("search", "similar", "cluster")}
    results = await ticker.beside(pipeline.run_async(data))
    assert sum(engine.runs) == 3
    for name, result in results.items():
        expected = load_shared("mini").encode("granite", f"Represent the text for {name}: ")
        assert_equal(result["embedding"], expected)
