"""Asynchronous calls share batches and leave the event loop free."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.anytask import InstructorEmbedding

from anytask import Embedder, Instructor
from anytask.coalescing import Coalescer
from anytask.engine import EncodingEngine

QUERIES = [f"How do I care for plant number {number}?" for number in range(64)]


async def test_64_queries_share_batches_while_the_loop_ticks(
    monkeypatch: pytest.MonkeyPatch, model: Instructor
) -> None:
    batches: list[int] = []
    submitted: list[int] = []
    computing, may_compute = threading.Event(), threading.Event()
    embed, arun = EncodingEngine.embed, Coalescer.arun

    def watched_embed(self: EncodingEngine, texts: Sequence[Any], *args: Any) -> Any:
        batches.append(len(texts))
        computing.set()
        assert may_compute.wait(60), "the event loop stood still while texts were embedded"
        return embed(self, texts, *args)

    def watched_arun(self: Coalescer, texts: Sequence[Any], *args: Any) -> Coroutine[Any, Any, Any]:
        submitted.append(len(texts))
        return arun(self, texts, *args)

    monkeypatch.setattr(EncodingEngine, "embed", watched_embed)
    monkeypatch.setattr(Coalescer, "arun", watched_arun)
    embed_model = InstructorEmbedding(max_length=91)  # a configuration of its own, so the model is made by this test

    async def tick() -> int:
        """Count turns of the loop during the first batch; it is only computed after 100 of them."""
        ticks = 0
        while ticks < 100 or len(submitted) < len(QUERIES):
            await asyncio.sleep(0.001)
            ticks += computing.is_set()
        may_compute.set()
        return ticks

    ticking = asyncio.create_task(tick())
    vectors = await asyncio.gather(*(embed_model.aget_query_embedding(query) for query in QUERIES))
    assert await ticking >= 100
    assert sum(batches) == 64
    assert len(batches) <= 2
    np.testing.assert_allclose(vectors, model.encode_query(QUERIES), atol=1e-5)


def test_64_threads_get_the_same(model: Instructor) -> None:
    embed_model = InstructorEmbedding()
    with ThreadPoolExecutor(64) as pool:
        vectors = list(pool.map(embed_model.get_query_embedding, QUERIES))
    np.testing.assert_allclose(vectors, model.encode_query(QUERIES), atol=1e-5)


class WatchedMatrix(np.ndarray):
    """Vectors that note the threads in which they become Python numbers."""

    threads: ClassVar[set[int]] = set()

    def tolist(self) -> Any:
        self.threads.add(threading.get_ident())
        return super().tolist()


@pytest.mark.parametrize("cached", [False, True])
async def test_neither_hashing_nor_conversion_is_done_on_the_loop(
    monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    hashing: set[int] = set()
    fingerprint = Embedder.fingerprint

    def watched_fingerprint(self: Embedder, side: str) -> str:
        hashing.add(threading.get_ident())
        return fingerprint(self, side)

    def watch(name: str) -> None:
        embed = getattr(Embedder, name)

        async def watched(self: Embedder, *args: Any) -> Any:
            return (await embed(self, *args)).view(WatchedMatrix)

        monkeypatch.setattr(Embedder, name, watched)

    monkeypatch.setattr(Embedder, "fingerprint", watched_fingerprint)
    watch("aembed_queries")
    watch("aembed_documents")
    WatchedMatrix.threads.clear()
    embed_model = InstructorEmbedding(embeddings_cache=SimpleKVStore() if cached else None)
    await embed_model.aget_query_embedding(QUERIES[0])
    await embed_model.aget_text_embedding_batch(QUERIES)
    assert bool(hashing) == cached
    assert WatchedMatrix.threads
    assert threading.get_ident() not in hashing | WatchedMatrix.threads


async def test_num_workers_bounds_the_batches_under_way(monkeypatch: pytest.MonkeyPatch, model: Instructor) -> None:
    under_way, most = 0, 0
    original = Embedder.aembed_documents

    async def watched(self: Embedder, texts: Sequence[str], *args: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await original(self, texts, *args)
        finally:
            under_way -= 1

    monkeypatch.setattr(Embedder, "aembed_documents", watched)
    embed_model = InstructorEmbedding(num_workers=3, embed_batch_size=4)
    vectors = await embed_model.aget_text_embedding_batch(QUERIES)
    assert most == 3
    np.testing.assert_allclose(vectors, model.encode_document(QUERIES), atol=1e-5)


async def test_a_failed_call_fails_alone(model: Instructor) -> None:
    embed_model = InstructorEmbedding()
    good, bad = await asyncio.gather(
        embed_model.aget_query_embedding("a fern"), embed_model.aget_query_embedding(None), return_exceptions=True
    )
    assert isinstance(bad, TypeError)
    np.testing.assert_allclose(good, model.encode_query("a fern"), atol=1e-5)
