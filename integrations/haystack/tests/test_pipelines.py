"""In Haystack's pipelines: indexing and querying over two document stores, saved and loaded."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_socket
from haystack import Document, Pipeline, component
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.core.errors import BreakpointException, PipelineConnectError, PipelineRuntimeError
from haystack.dataclasses.breakpoints import Breakpoint, PipelineSnapshot
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy
from haystack.tools import ComponentTool
from haystack_integrations.components.embedders.anytask import InstructorDocumentEmbedder, InstructorTextEmbedder
from haystack_integrations.components.retrievers.chroma import ChromaEmbeddingRetriever
from haystack_integrations.document_stores.chroma import ChromaDocumentStore

from anytask import Instruction, Instructor

from .conftest import PATIENCE

ALIKE = "Represent the text: "
"""On both sides, so that a text finds itself with any weights."""


def indexing_pipeline(store: Any, **settings: Any) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("embedder", InstructorDocumentEmbedder(progress_bar=False, **settings))
    pipeline.add_component("writer", DocumentWriter(store, policy=DuplicatePolicy.OVERWRITE))
    pipeline.connect("embedder.documents", "writer.documents")
    return pipeline


def query_pipeline(store: Any, **settings: Any) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("embedder", InstructorTextEmbedder(**settings))
    retriever = ChromaEmbeddingRetriever if isinstance(store, ChromaDocumentStore) else InMemoryEmbeddingRetriever
    pipeline.add_component("retriever", retriever(store, top_k=3))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    return pipeline


def found(result: dict[str, Any]) -> list[str]:
    return [document.content for document in result["retriever"]["documents"]]


def chroma(path: Path) -> ChromaDocumentStore:
    return ChromaDocumentStore(persist_path=str(path), distance_function="cosine")


@pytest.fixture(params=["in memory", "chroma"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return InMemoryDocumentStore() if request.param == "in memory" else chroma(tmp_path / "chroma")


def test_documents_find_themselves(store: Any, documents: list[Document]) -> None:
    written = indexing_pipeline(store, instruction=ALIKE).run({"embedder": {"documents": documents}})
    assert written["writer"]["documents_written"] == 3
    querying = query_pipeline(store, instruction=ALIKE)
    for document in documents:
        assert found(querying.run({"embedder": {"text": document.content}}))[0] == document.content


def test_stores_hold_the_vectors_of_the_model(store: Any, documents: list[Document], model: Instructor) -> None:
    indexing_pipeline(store, meta_fields_to_embed=["title"]).run({"embedder": {"documents": documents}})
    stored = {document.content: document.embedding for document in store.filter_documents()}
    prefixes = ["Rocks\n", "Music\n", ""]
    texts = [prefix + (document.content or "") for prefix, document in zip(prefixes, documents, strict=True)]
    vectors = [stored[document.content] for document in documents]
    np.testing.assert_allclose(np.asarray(vectors), model.encode_document(texts), atol=1e-5)


def test_results_are_ranked_by_cosine(store: Any, documents: list[Document], model: Instructor) -> None:
    indexing_pipeline(store).run({"embedder": {"documents": documents}})
    query = "What do rocks come from?"
    result = query_pipeline(store).run({"embedder": {"text": query}})
    texts = [document.content or "" for document in documents]
    cosines = model.similarity(model.encode_query(query), model.encode_document(texts))[0]
    assert found(result) == [texts[index] for index in np.argsort(-cosines)]


def test_yaml_and_back(store: Any, documents: list[Document]) -> None:
    indexing, querying = indexing_pipeline(store, instruction=ALIKE), query_pipeline(store, instruction=ALIKE)
    indexing.run({"embedder": {"documents": documents}})
    query = {"embedder": {"text": documents[1].content}}
    before = querying.run(query)
    indexing_again, querying_again = Pipeline.loads(indexing.dumps()), Pipeline.loads(querying.dumps())
    assert indexing_again.to_dict() == indexing.to_dict()
    assert querying_again.to_dict() == querying.to_dict()
    assert querying_again.dumps() == querying.dumps()
    indexing_again.run({"embedder": {"documents": documents}})
    assert found(querying_again.run(query)) == found(before)


def test_another_process_loads_and_runs_a_saved_pipeline(tmp_path: Path, documents: list[Document]) -> None:
    store = chroma(tmp_path / "chroma")
    indexing_pipeline(store, instruction=ALIKE).run({"embedder": {"documents": documents}})
    with (tmp_path / "pipeline.yaml").open("w") as file:
        query_pipeline(store, instruction=ALIKE).dump(file)
    program = """if True:
        import json, pathlib, sys
        import pytest_socket
        pytest_socket.disable_socket(allow_unix_socket=True)
        from haystack import Pipeline
        pipeline = Pipeline.loads(pathlib.Path(sys.argv[1]).read_text())
        result = pipeline.run({"embedder": {"text": sys.argv[2]}})
        print(json.dumps([document.content for document in result["retriever"]["documents"]]))
    """
    text = documents[2].content or ""
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "pipeline.yaml"), text]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert json.loads(output)[0] == text


def test_a_run_brings_another_instruction(documents: list[Document], model: Instructor) -> None:
    store = InMemoryDocumentStore()
    data = {"embedder": {"documents": documents, "instruction": "A: "}}
    indexing_pipeline(store).run(data)
    texts = [document.content or "" for document in documents]
    stored = {document.content: document.embedding for document in store.filter_documents()}
    vectors = [stored[text] for text in texts]
    np.testing.assert_allclose(np.asarray(vectors), model.encode(texts, "A: "), atol=1e-5)
    querying = query_pipeline(store)
    result = querying.run({"embedder": {"text": texts[0], "instruction": "B: "}}, include_outputs_from={"embedder"})
    np.testing.assert_allclose(result["embedder"]["embedding"], model.encode(texts[0], "B: "), atol=1e-5)


@component
class Phrasing:
    """Gives a query and the instruction that suits it."""

    @component.output_types(query=str, purpose=str, instruction=Instruction)
    def run(self, topic: str) -> dict[str, Any]:
        purpose = Instruction("question", domain=topic, objective="retrieving supporting documents")
        return {"query": f"What is {topic}?", "purpose": str(purpose), "instruction": purpose}


def test_other_components_feed_text_and_instruction(model: Instructor) -> None:
    pipeline = Pipeline()
    pipeline.add_component("phrasing", Phrasing())
    pipeline.add_component("embedder", InstructorTextEmbedder())
    pipeline.connect("phrasing.query", "embedder.text")
    pipeline.connect("phrasing.purpose", "embedder.instruction")
    result = pipeline.run({"phrasing": {"topic": "geology"}})
    instruction = "Represent the geology question for retrieving supporting documents: "
    expected = model.encode("What is geology?", instruction)
    np.testing.assert_allclose(result["embedder"]["embedding"], expected, atol=1e-5)


@pytest.mark.parametrize("embedder", [InstructorTextEmbedder, InstructorDocumentEmbedder])
def test_an_instruction_object_which_snapshots_would_lose_is_not_connected(embedder: Any) -> None:
    pipeline = Pipeline()
    pipeline.add_component("phrasing", Phrasing())
    pipeline.add_component("embedder", embedder())
    with pytest.raises(PipelineConnectError, match="Instruction"):
        pipeline.connect("phrasing.instruction", "embedder.instruction")


def test_a_run_goes_on_from_a_snapshot_with_its_instruction(model: Instructor) -> None:
    pipeline = Pipeline()
    pipeline.add_component("embedder", InstructorTextEmbedder())
    data = {"embedder": {"text": "granite", "instruction": str(Instruction("word", objective="finding synonyms"))}}
    with pytest.raises(BreakpointException) as stopped:
        pipeline.run(data, break_point=Breakpoint("embedder"))
    assert stopped.value.pipeline_snapshot is not None
    stored = json.loads(json.dumps(stopped.value.pipeline_snapshot.to_dict()))
    result = pipeline.run(data={}, pipeline_snapshot=PipelineSnapshot.from_dict(stored))
    expected = model.encode("granite", "Represent the word for finding synonyms: ")
    np.testing.assert_allclose(result["embedder"]["embedding"], expected, atol=1e-5)


def test_errors_name_the_component() -> None:
    with pytest.raises(PipelineRuntimeError, match=r"embedder(?s:.*)InstructorDocumentEmbedder"):
        query_pipeline(InMemoryDocumentStore()).run({"embedder": {"text": [Document(content="x")]}})


def test_agents_may_use_the_embedder_as_a_tool(model: Instructor) -> None:
    tool = ComponentTool(component=InstructorTextEmbedder(), name="embed", description="Embed a text.")
    assert tool.parameters["required"] == ["text"]
    assert {"text", "instruction"} == set(tool.parameters["properties"])
    vector = tool.invoke(text="granite", instruction=ALIKE)["embedding"]
    np.testing.assert_allclose(vector, model.encode("granite", ALIKE), atol=1e-5)


# Chroma's asynchronous retrieval needs a server.


@pytest.fixture
def chroma_server(no_network: None, tmp_path: Path) -> Iterator[int]:  # noqa: ARG001 (after it, to lift it in part)
    pytest_socket.enable_socket()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(tmp_path / "server")]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=subprocess.STDOUT, env=os.environ
        )
    try:
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < give_up, "the server doesn't answer"
                time.sleep(0.1)
        pytest_socket.socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)
        yield port
    finally:
        server.terminate()
        server.wait()
        pytest_socket.enable_socket()


async def test_an_asynchronous_pipeline_over_a_chroma_server(chroma_server: int, documents: list[Document]) -> None:
    store = ChromaDocumentStore(host="127.0.0.1", port=chroma_server, distance_function="cosine")
    await indexing_pipeline(store, instruction=ALIKE).run_async({"embedder": {"documents": documents}})
    querying = query_pipeline(store, instruction=ALIKE)
    for document in documents:
        assert found(await querying.run_async({"embedder": {"text": document.content}}))[0] == document.content
