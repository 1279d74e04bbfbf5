"""Indexes, retrievers, query engines, pipelines and stores of LlamaIndex, real ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import chromadb
import llama_index.core
import numpy as np
import pytest
from llama_index.core import (
    Document,
    QueryBundle,
    Settings,
    StorageContext,
    VectorStoreIndex,
    load_index_from_storage,
)
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.anytask import InstructorEmbedding
from llama_index.vector_stores.chroma import ChromaVectorStore
from safetensors.numpy import load_file, save_file

from anytask import Instructor
from anytask.hub import BUNDLED

QUESTION = "When are apple trees cut back?"
PLAIN = "Represent the gardening text: "


@pytest.fixture
def documents(texts: list[str]) -> list[Document]:
    return [Document(text=text, id_=f"note-{number}") for number, text in enumerate(texts)]


def ranking(model: Instructor, texts: list[str]) -> list[str]:
    """The corpus as the core itself ranks it for the question."""
    scores = model.encode_document(texts) @ model.encode_query(QUESTION)
    return [texts[index] for index in np.argsort(-scores)]


async def test_index_and_retriever_with_settings(
    documents: list[Document], texts: list[str], model: Instructor
) -> None:
    Settings.embed_model = InstructorEmbedding()
    index = VectorStoreIndex.from_documents(documents)
    retriever = index.as_retriever(similarity_top_k=5)
    found = retriever.retrieve(QUESTION)
    assert [hit.node.get_content() for hit in found] == ranking(model, texts)
    assert found[0].score == pytest.approx(
        float(model.encode_document(found[0].node.get_content()) @ model.encode_query(QUESTION)), abs=1e-5
    )
    assert [hit.node.get_content() for hit in await retriever.aretrieve(QUESTION)] == ranking(model, texts)


async def test_several_queries_are_averaged(documents: list[Document], texts: list[str], model: Instructor) -> None:
    index = VectorStoreIndex.from_documents(documents, embed_model=InstructorEmbedding())
    several = QueryBundle(QUESTION, custom_embedding_strs=[QUESTION, "Pruning in winter"])
    found = await index.as_retriever(similarity_top_k=1).aretrieve(several)
    vector = model.encode_query([QUESTION, "Pruning in winter"]).mean(axis=0)
    assert found[0].node.get_content() == texts[int(np.argmax(model.encode_document(texts) @ vector))]


def test_a_text_finds_itself(documents: list[Document], texts: list[str]) -> None:
    embed_model = InstructorEmbedding(query_instruction=PLAIN, document_instruction=PLAIN)
    retriever = VectorStoreIndex.from_documents(documents, embed_model=embed_model).as_retriever(similarity_top_k=1)
    for text in texts:
        [hit] = retriever.retrieve(text)
        assert hit.node.get_content() == text
        assert hit.score == pytest.approx(1, abs=1e-5)


def test_a_retriever_with_an_instruction_of_its_own(documents: list[Document], embedded: Any) -> None:
    embed_model = InstructorEmbedding()
    index = VectorStoreIndex.from_documents(documents, embed_model=embed_model)
    other = embed_model.model_copy(update={"query_instruction": PLAIN})
    index.as_retriever(embed_model=other).retrieve(QUESTION)
    assert embedded[-1] == ("query", PLAIN, QUESTION)


async def test_query_engine(documents: list[Document], texts: list[str], model: Instructor) -> None:
    index = VectorStoreIndex.from_documents(documents, embed_model=InstructorEmbedding())
    engine = index.as_query_engine(similarity_top_k=2)
    for answer in (engine.query(QUESTION), await engine.aquery(QUESTION)):
        assert [hit.node.get_content() for hit in answer.source_nodes] == ranking(model, texts)[:2]
        assert all(text in str(answer) for text in [QUESTION, *ranking(model, texts)[:2]])  # MockLLM repeats its prompt


def test_an_index_persists(documents: list[Document], texts: list[str], model: Instructor, tmp_path: Path) -> None:
    VectorStoreIndex.from_documents(documents, embed_model=InstructorEmbedding()).storage_context.persist(tmp_path)
    storage = StorageContext.from_defaults(persist_dir=str(tmp_path))
    index = load_index_from_storage(storage, embed_model=InstructorEmbedding())
    found = index.as_retriever(similarity_top_k=5).retrieve(QUESTION)
    assert [hit.node.get_content() for hit in found] == ranking(model, texts)


def pipeline(cache: IngestionCache | None = None, **settings: Any) -> IngestionPipeline:
    return IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=8), InstructorEmbedding(**settings)],
        cache=cache or IngestionCache(),
    )


def test_pipeline_with_cache(
    documents: list[Document], texts: list[str], model: Instructor, embedded: Any, tmp_path: Path
) -> None:
    first = pipeline()
    nodes = first.run(documents=documents)
    np.testing.assert_allclose([node.embedding for node in nodes], model.encode_document(texts), atol=1e-5)
    assert [node.embedding for node in first.run(documents=documents)] == [node.embedding for node in nodes]
    assert embedded.texts("document") == texts  # the second run embedded nothing

    first.persist(str(tmp_path))
    reopened = pipeline()
    reopened.load(str(tmp_path))
    reopened.run(documents=documents)
    assert embedded.texts("document") == texts


@pytest.mark.parametrize(
    "change",
    [{"document_instruction": PLAIN}, {"query_instruction": PLAIN}, {"truncate_dim": 8}, {"normalize": False}],
)
def test_a_changed_instruction_misses_the_pipelines_cache(
    documents: list[Document], texts: list[str], embedded: Any, change: dict[str, Any]
) -> None:
    cache = IngestionCache()
    pipeline(cache).run(documents=documents)
    nodes = pipeline(cache, **change).run(documents=documents)
    assert embedded.texts("document") == [*texts, *texts]
    expected = InstructorEmbedding(**change).get_text_embedding_batch(texts)
    np.testing.assert_allclose([node.embedding for node in nodes], expected, atol=1e-5)


def test_stores_and_handlers_do_not_change_the_pipelines_key(documents: list[Document], embedded: Any) -> None:

    cache = IngestionCache()
    pipeline(cache).run(documents=documents)
    embedded.clear()
    manager = CallbackManager([LlamaDebugHandler(print_trace_on_end=False)])
    pipeline(cache, embeddings_cache=SimpleKVStore(), callback_manager=manager).run(documents=documents)
    assert embedded == []


def test_of_a_folder_trained_anew_in_place_the_pipelines_cache_knows_nothing(
    documents: list[Document], embedded: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED / "mini", folder)
    filling, store = pipeline(model_name=str(folder)), SimpleKVStore()
    cached = InstructorEmbedding(str(folder), embeddings_cache=store)
    before = [node.embedding for node in filling.run(documents=documents)]
    cached.get_text_embedding("a fern")
    dense = folder / "2_Dense" / "model.safetensors"
    save_file({name: weight[::-1].copy() for name, weight in load_file(dense).items()}, dense)
    assert [node.embedding for node in filling.run(documents=documents)] == before
    filling.cache.clear()
    after = [node.embedding for node in filling.run(documents=documents)]
    np.testing.assert_allclose(after, np.asarray(before)[:, ::-1], atol=1e-5)
    cached.get_text_embedding("a fern")
    assert embedded.texts("document").count("a fern") == 2


async def test_asynchronous_pipeline(documents: list[Document], texts: list[str], model: Instructor) -> None:
    nodes = await pipeline(num_workers=2, embed_batch_size=2).arun(documents=documents)
    np.testing.assert_allclose([node.embedding for node in nodes], model.encode_document(texts), atol=1e-5)


@pytest.mark.slow
def test_pipeline_with_worker_processes(
    documents: list[Document], texts: list[str], model: Instructor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The splitter's tiktoken encoding is unpickled in the workers and would be downloaded there.
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(Path(llama_index.core.__file__).parent / "_static" / "tiktoken_cache"))
    nodes = pipeline(token="hf_stays_here").run(documents=documents, num_workers=2)
    vectors = {node.get_content(): node.embedding for node in nodes}
    np.testing.assert_allclose([vectors[text] for text in texts], model.encode_document(texts), atol=1e-5)


def chroma_store(folder: Path) -> ChromaVectorStore:
    collection = chromadb.PersistentClient(path=str(folder)).get_or_create_collection(
        "garden", metadata={"hnsw:space": "cosine"}, embedding_function=None
    )
    return ChromaVectorStore(chroma_collection=collection)


REOPEN = """
import json, sys
import chromadb
from llama_index.core import VectorStoreIndex
from llama_index.embeddings.anytask import InstructorEmbedding
from llama_index.vector_stores.chroma import ChromaVectorStore

collection = chromadb.PersistentClient(path=sys.argv[1]).get_collection("garden", embedding_function=None)
embed_model = InstructorEmbedding.from_json(sys.argv[2])
index = VectorStoreIndex.from_vector_store(ChromaVectorStore(chroma_collection=collection), embed_model=embed_model)
print(json.dumps([hit.node.get_content() for hit in index.as_retriever(similarity_top_k=5).retrieve(sys.argv[3])]))
"""


def test_chroma_is_reopened_by_another_process(
    documents: list[Document], texts: list[str], model: Instructor, tmp_path: Path
) -> None:
    embed_model = InstructorEmbedding()
    storage = StorageContext.from_defaults(vector_store=chroma_store(tmp_path))
    index = VectorStoreIndex.from_documents(documents, storage_context=storage, embed_model=embed_model)
    retrieved = index.as_retriever(similarity_top_k=5).retrieve(QUESTION)
    assert [hit.node.get_content() for hit in retrieved] == ranking(model, texts)
    run = subprocess.run(
        [sys.executable, "-c", REOPEN, str(tmp_path), embed_model.to_json(), QUESTION],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == ranking(model, texts)


def test_a_pipeline_fills_chroma(documents: list[Document], texts: list[str], tmp_path: Path) -> None:
    store = chroma_store(tmp_path)
    filling = IngestionPipeline(transformations=[InstructorEmbedding()], vector_store=store)
    filling.run(documents=documents)
    reopened = chroma_store(tmp_path)
    assert set(reopened._collection.get()["documents"]) == set(texts)
    index = VectorStoreIndex.from_vector_store(reopened, embed_model=InstructorEmbedding())
    index.insert_nodes([TextNode(text="Water roses in the morning.")])
    assert reopened._collection.count() == len(texts) + 1
