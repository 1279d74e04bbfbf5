"""`CacheBackedEmbeddings`: nothing is computed twice, and no instruction gets the vectors of another."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore
from langchain_core.stores import InMemoryByteStore

from langchain_anytask import InstructorEmbeddings

INSTRUCTION = "Represent the sentence for clustering: "


def cached(embeddings: InstructorEmbeddings, root: Path) -> CacheBackedEmbeddings:
    return CacheBackedEmbeddings.from_bytes_store(
        embeddings,
        LocalFileStore(root / embeddings.cache_namespace("document")),
        query_embedding_cache=LocalFileStore(root / embeddings.cache_namespace("query")),
        key_encoder="sha256",
    )


async def test_nothing_is_computed_twice(texts: list[str], engine_runs: list[int], tmp_path: Path) -> None:
    first = cached(InstructorEmbeddings(), tmp_path)
    documents, query = first.embed_documents(texts), first.embed_query(texts[0])
    assert engine_runs == [len(texts), 1]
    again = cached(InstructorEmbeddings(), tmp_path)
    assert again.embed_documents(texts) == documents
    assert again.embed_query(texts[0]) == query
    assert await again.aembed_documents(texts) == documents
    assert await again.aembed_query(texts[0]) == query
    assert engine_runs == [len(texts), 1]
    assert len(again.embed_documents([*texts, "a new one"])) == len(texts) + 1
    assert engine_runs == [len(texts), 1, 1]


def test_the_sides_do_not_mix(texts: list[str], embeddings: InstructorEmbeddings, tmp_path: Path) -> None:
    cache = cached(embeddings, tmp_path)
    for _ in range(2):
        np.testing.assert_allclose(cache.embed_documents(texts), embeddings.embed_documents(texts), atol=1e-5)
        queries = [cache.embed_query(text) for text in texts]
        np.testing.assert_allclose(queries, [embeddings.embed_query(text) for text in texts], atol=1e-5)


def test_another_query_instruction_keeps_the_documents(
    texts: list[str], engine_runs: list[int], tmp_path: Path
) -> None:
    first = cached(InstructorEmbeddings(), tmp_path)
    documents, query = first.embed_documents(texts), first.embed_query(texts[0])
    engine_runs.clear()
    changed = cached(InstructorEmbeddings(query_instruction=INSTRUCTION), tmp_path)
    assert changed.embed_documents(texts) == documents
    assert engine_runs == []
    assert not np.allclose(changed.embed_query(texts[0]), query, atol=1e-3)


def test_document_instructions_in_one_store(texts: list[str], embeddings: InstructorEmbeddings) -> None:
    store = InMemoryByteStore()
    other = InstructorEmbeddings(document_instruction=INSTRUCTION)
    caches = [
        CacheBackedEmbeddings.from_bytes_store(
            each, store, namespace=each.cache_namespace("document"), key_encoder="sha256"
        )
        for each in (embeddings, other)
    ]
    for _ in range(2):
        for cache, each in zip(caches, (embeddings, other), strict=True):
            np.testing.assert_allclose(cache.embed_documents(texts), each.embed_documents(texts), atol=1e-5)
    assert len(list(store.yield_keys())) == 2 * len(texts)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "hkunlp/instructor-large"},
        {"document_instruction": INSTRUCTION},
        {"dtype": "bfloat16"},
        {"truncate_dim": 64},
        {"normalize": False},
        {"max_length": 64},
        {"revision": "v2"},
    ],
)
def test_the_namespace_changes_with_the_vectors(embeddings: InstructorEmbeddings, change: dict[str, object]) -> None:
    assert InstructorEmbeddings(**change).cache_namespace("document") != embeddings.cache_namespace("document")


def test_the_namespace_is_that_of_equal_vectors(embeddings: InstructorEmbeddings) -> None:
    same = InstructorEmbeddings(batch_tokens=64, token="hf_word", show_progress=True, query_instruction=INSTRUCTION)
    assert same.cache_namespace("document") == embeddings.cache_namespace("document")
    assert same.cache_namespace("query") != embeddings.cache_namespace("query")
    assert embeddings.cache_namespace("document") != embeddings.cache_namespace("query")


@pytest.mark.parametrize("model", ["mini", "hkunlp/instructor-xl", "/a folder/ünïcode~/" + 60 * "deep/", "C:\\models"])
def test_the_namespace_suits_folders_and_keys(model: str) -> None:
    name = InstructorEmbeddings(model=model).cache_namespace("document")
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", name)


def test_an_unknown_side(embeddings: InstructorEmbeddings) -> None:
    with pytest.raises(ValueError, match='"query" or "document", got \'both\''):
        embeddings.cache_namespace("both")  # type: ignore[arg-type]
