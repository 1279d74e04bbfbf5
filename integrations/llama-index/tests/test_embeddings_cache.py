"""`embeddings_cache` keeps models, instructions and sides apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.anytask import InstructorEmbedding

from anytask import Instructor


def test_sides_are_kept_apart(model: Instructor, embedded: Any) -> None:
    embed_model = InstructorEmbedding(embeddings_cache=SimpleKVStore())
    for _ in range(2):
        np.testing.assert_allclose(embed_model.get_text_embedding("fern"), model.encode_document("fern"), atol=1e-5)
        np.testing.assert_allclose(embed_model.get_query_embedding("fern"), model.encode_query("fern"), atol=1e-5)
        np.testing.assert_allclose(
            embed_model.get_text_embedding_batch(["fern"]), model.encode_document(["fern"]), atol=1e-5
        )
    assert embedded.texts("document") == embedded.texts("query") == ["fern"]


async def test_asynchronous_calls_use_the_same_entries(model: Instructor, embedded: Any) -> None:
    embed_model = InstructorEmbedding(embeddings_cache=SimpleKVStore())
    query = await embed_model.aget_query_embedding("fern")
    document = await embed_model.aget_text_embedding("fern")
    assert await embed_model.aget_text_embedding_batch(["fern"]) == [document]
    assert embed_model.get_query_embedding("fern") == await embed_model.aget_query_embedding("fern") == query
    assert embedded.texts("document") == embedded.texts("query") == ["fern"]
    np.testing.assert_allclose(
        [document, query], [model.encode_document("fern"), model.encode_query("fern")], atol=1e-5
    )


@pytest.mark.parametrize(
    "change",
    [
        {"document_instruction": "Represent the plant: "},
        {"document_instruction": ""},
        {"truncate_dim": 8},
        {"normalize": False},
    ],
)
def test_other_settings_have_other_entries(change: dict[str, Any], embedded: Any) -> None:
    store = SimpleKVStore()
    before = InstructorEmbedding(embeddings_cache=store)
    after = InstructorEmbedding(embeddings_cache=store, **change)
    before.get_text_embedding("fern")
    vector = after.get_text_embedding("fern")
    assert embedded.texts("document") == ["fern", "fern"]
    np.testing.assert_allclose(vector, InstructorEmbedding(**change).get_text_embedding("fern"), atol=1e-6)


def test_a_query_instruction_leaves_documents_cached(embedded: Any) -> None:
    store = SimpleKVStore()
    InstructorEmbedding(embeddings_cache=store).get_text_embedding("fern")
    InstructorEmbedding(embeddings_cache=store, query_instruction="Ask: ").get_text_embedding("fern")
    assert embedded.texts("document") == ["fern"]


def test_only_what_is_missing_is_embedded_in_one_call(texts: list[str], model: Instructor, embedded: Any) -> None:
    embed_model = InstructorEmbedding(embeddings_cache=SimpleKVStore())
    embed_model.get_text_embedding_batch([texts[1], texts[3]])
    embedded.clear()
    vectors = embed_model.get_text_embedding_batch([*texts, texts[0]])
    assert embedded.texts("document") == [texts[0], texts[2], texts[4]]
    np.testing.assert_allclose(vectors, model.encode_document([*texts, texts[0]]), atol=1e-5)


def test_a_store_set_later_is_wrapped_too(embedded: Any) -> None:
    embed_model = InstructorEmbedding()
    embed_model.embeddings_cache = SimpleKVStore()
    assert embed_model.get_text_embedding("fern") != embed_model.get_query_embedding("fern")
    copy = embed_model.model_copy(update={"embeddings_cache": SimpleKVStore()})
    assert copy.get_text_embedding("fern") != copy.get_query_embedding("fern")
    assert len(embedded) == 4


def test_a_store_persists_and_is_readable(tmp_path: Path, embedded: Any) -> None:
    store, path = SimpleKVStore(), str(tmp_path / "vectors.json")
    embed_model = InstructorEmbedding(embeddings_cache=store)
    vector = embed_model.get_text_embedding("fern")
    entries = embed_model.embeddings_cache.get_all(collection="embeddings")
    assert entries == store.get_all(collection="embeddings")
    assert [entry["embedding"] for entry in entries.values()] == [vector]
    store.persist(path)
    reopened = InstructorEmbedding(embeddings_cache=SimpleKVStore.from_persist_path(path))
    assert reopened.get_text_embedding("fern") == vector
    assert embedded.texts("document") == ["fern"]


async def test_entries_of_others_are_neither_found_nor_touched(model: Instructor) -> None:
    store = SimpleKVStore()
    store.put("fern", {"by-another-model": [1.0, 2.0]}, collection="embeddings")
    embed_model = InstructorEmbedding(embeddings_cache=store)
    for _ in range(2):
        np.testing.assert_allclose(embed_model.get_query_embedding("fern"), model.encode_query("fern"), atol=1e-5)
        [document] = await embed_model.aget_text_embedding_batch(["fern"])
        np.testing.assert_allclose(document, model.encode_document("fern"), atol=1e-5)
    assert store.get("fern", collection="embeddings") == {"by-another-model": [1.0, 2.0]}
    assert len(store.get_all(collection="embeddings")) == 3


async def test_the_stores_entries_can_be_listed_and_deleted(embedded: Any) -> None:
    embed_model = InstructorEmbedding(embeddings_cache=SimpleKVStore())
    embed_model.get_text_embedding_batch(["fern", "rose"])
    view = embed_model.embeddings_cache
    first, second = view.get_all(collection="embeddings")
    assert await view.aget_all(collection="embeddings") == view.store.get_all(collection="embeddings")
    assert view.delete(first, collection="embeddings")
    assert await view.adelete(second, collection="embeddings")
    assert view.get_all(collection="embeddings") == {}
    embed_model.get_text_embedding_batch(["fern", "rose"])
    assert embedded.texts("document") == ["fern", "rose", "fern", "rose"]


async def test_what_is_no_text_never_hits() -> None:
    embed_model = InstructorEmbedding(embeddings_cache=SimpleKVStore())
    embed_model.get_text_embedding("None")
    with pytest.raises(TypeError, match="must be a string, got None"):
        embed_model.get_text_embedding_batch(["None", None])
    with pytest.raises(TypeError, match="text 0 must be a string, got None"):
        await embed_model.aget_text_embedding(None)


@pytest.mark.skipif("rate_limiter" not in InstructorEmbedding.model_fields, reason="this LlamaIndex has none")
async def test_the_rate_limiter_is_asked_for_cached_vectors_too(embedded: Any) -> None:
    from llama_index.core.rate_limiter import TokenBucketRateLimiter

    class Counting(TokenBucketRateLimiter):
        asked: int = 0

        def acquire(self, num_tokens: int = 0) -> None:
            self.asked += 1
            super().acquire(num_tokens)

        async def async_acquire(self, num_tokens: int = 0) -> None:
            self.asked += 1
            await super().async_acquire(num_tokens)

    limiter = Counting(requests_per_minute=1000)
    embed_model = InstructorEmbedding(embeddings_cache=SimpleKVStore(), rate_limiter=limiter)
    for calls in range(1, 3):
        embed_model.get_query_embedding("fern")
        await embed_model.aget_query_embedding("fern")
        embed_model.get_text_embedding_batch(["fern", "rose"])
        assert limiter.asked == 3 * calls
    await embed_model.aget_text_embedding_batch(["moss"])
    assert limiter.asked == 6
    assert embedded.texts("query") == ["fern"]


def test_what_is_no_store_is_refused() -> None:
    with pytest.raises(TypeError, match="embeddings_cache must be of type BaseKVStore"):
        InstructorEmbedding(embeddings_cache={})
