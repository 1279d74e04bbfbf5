"""LangChain's indexing API: what is there isn't embedded again."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from langchain_anytask import InstructorEmbeddings

ALL_ADDED = {"num_added": 5, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}
NONE_ADDED = {"num_added": 0, "num_updated": 0, "num_skipped": 5, "num_deleted": 0}
ONE_REPLACED = {"num_added": 1, "num_updated": 0, "num_skipped": 4, "num_deleted": 1}


@pytest.fixture
def documents(texts: list[str]) -> list[Document]:
    return [Document(text, metadata={"source": f"page {number}"}) for number, text in enumerate(texts)]


@pytest.fixture(params=["in memory", "chroma"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VectorStore:
    embeddings = InstructorEmbeddings()
    if request.param == "in memory":
        return InMemoryVectorStore(embeddings)
    return Chroma("indexed", embedding_function=embeddings, persist_directory=str(tmp_path))


@pytest.fixture
def records() -> InMemoryRecordManager:
    records = InMemoryRecordManager(namespace=InstructorEmbeddings().cache_namespace("document"))
    records.create_schema()
    return records


def contents(store: VectorStore) -> set[str]:
    return {document.page_content for document in store.similarity_search("anything", k=100)}


def test_indexing_twice_adds_nothing(
    engine_runs: list[int], store: VectorStore, records: InMemoryRecordManager, documents: list[Document]
) -> None:
    for expected in (ALL_ADDED, NONE_ADDED):
        assert (
            index(documents, records, store, cleanup="full", source_id_key="source", key_encoder="sha256") == expected
        )
        assert engine_runs == [5]
    assert contents(store) == {document.page_content for document in documents}


def test_a_changed_document_takes_the_old_ones_place(
    engine_runs: list[int], store: VectorStore, records: InMemoryRecordManager, documents: list[Document]
) -> None:
    index(documents, records, store, cleanup="full", source_id_key="source", key_encoder="sha256")
    documents[1] = Document("The harbour was given up.", metadata=documents[1].metadata)
    result = index(documents, records, store, cleanup="full", source_id_key="source", key_encoder="sha256")
    assert result == ONE_REPLACED
    assert engine_runs == [5, 1]
    assert contents(store) == {document.page_content for document in documents}


async def test_asynchronously(
    engine_runs: list[int], store: VectorStore, records: InMemoryRecordManager, documents: list[Document]
) -> None:
    for expected in (ALL_ADDED, NONE_ADDED):
        result = await aindex(
            documents, records, store, cleanup="incremental", source_id_key="source", key_encoder="sha256"
        )
        assert result == expected
        assert engine_runs == [5]
