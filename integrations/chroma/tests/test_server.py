"""Clients of a real `chroma run` server, over HTTP on the loopback."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import chromadb
import httpx
import numpy as np
import pytest
from chromadb.api import ClientAPI
from chromadb.config import Settings
from chromadb.errors import ChromaError, NotFoundError

from anytask import Instructor
from chroma_anytask import InstructorEmbeddingFunction

TEXTS = [
    "The mitral valve lies between the left atrium and the left ventricle.",
    "Basalt forms from lava that cools quickly at the surface.",
    "A sonnet has fourteen lines.",
]
IDS = [f"text-{number}" for number in range(len(TEXTS))]
TOPIC = "Represent the sentence for clustering by its topic: "
QUESTION = "Represent the question for retrieving sentences: "
START_UP = 120
"""Seconds that a busy machine may need to start the server."""

SECOND_CLIENT = """
import json, sys
import chromadb
from chromadb.config import Settings
import chroma_anytask

client = chromadb.HttpClient("127.0.0.1", int(sys.argv[1]), settings=Settings(anonymized_telemetry=False))
collection = client.get_collection(sys.argv[2])
collection.add(ids=["from-the-second"], documents=[sys.argv[3]])
answer = collection.query(query_texts=[sys.argv[3]], n_results=collection.count())
print(json.dumps(dict(zip(answer["ids"][0], answer["distances"][0]))))
"""

Connect = Callable[[], ClientAPI]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server of this module, with its data in a temporary folder."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    chroma = Path(sys.executable).with_name("chroma")
    command = [str(chroma), "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "ANONYMIZED_TELEMETRY": "False"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=environment)
    try:
        wait_until_ready(server, port, folder / "log")
        yield port
    finally:
        server.terminate()
        server.wait(30)


def wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_UP
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/api/v2/heartbeat", trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"the server didn't start: {log.read_text()}")


@pytest.fixture
def connect(port: int) -> Connect:
    return lambda: chromadb.HttpClient("127.0.0.1", port, settings=Settings(anonymized_telemetry=False))


@pytest.fixture
def name() -> str:
    return f"texts-{uuid.uuid4()}"


def test_two_clients_share_a_collection(
    connect: Connect, port: int, name: str, run_elsewhere: Callable[..., str]
) -> None:
    function = InstructorEmbeddingFunction(document_instruction=TOPIC, query_instruction=QUESTION)
    collection = connect().create_collection(name, embedding_function=function)
    collection.add(ids=IDS, documents=TEXTS)
    assert collection.configuration_json["hnsw"]["space"] == "cosine"

    text = "Obsidian is volcanic glass."
    distances = json.loads(run_elsewhere(SECOND_CLIENT, port, name, text))
    cosine = np.stack(function([*TEXTS, text])) @ function.embed_query([text])[0]
    for key, expected in zip([*IDS, "from-the-second"], cosine, strict=True):
        assert 1 - distances[key] == pytest.approx(expected, abs=1e-4)
    assert collection.count() == len(TEXTS) + 1
    stored = collection.get("from-the-second", include=["embeddings"])["embeddings"]
    np.testing.assert_allclose(np.asarray(stored)[0], function([text])[0], atol=1e-5)


def test_the_stored_configuration_is_exact(connect: Connect, name: str) -> None:
    function = InstructorEmbeddingFunction(document_instruction=TOPIC, truncate_dim=64, device="cpu")
    connect().create_collection(name, embedding_function=function)
    stored = connect().get_collection(name).configuration_json["embedding_function"]
    assert stored == {"type": "known", "name": "anytask_instructor", "config": function.get_config()}


def test_modifying_and_opening_are_checked(connect: Connect, name: str) -> None:
    collection = connect().create_collection(name, embedding_function=InstructorEmbeddingFunction())
    collection.add(ids=IDS, documents=TEXTS)
    other = InstructorEmbeddingFunction(document_instruction=TOPIC)
    with pytest.raises(ValueError, match="document_instruction None -> 'Represent"):
        collection.modify(configuration={"embedding_function": other})
    with pytest.raises(ValueError, match="document_instruction None -> 'Represent"):
        connect().get_or_create_collection(name, embedding_function=other)
    collection.modify(configuration={"embedding_function": InstructorEmbeddingFunction(query_instruction=QUESTION)})
    stored = connect().get_collection(name).configuration_json["embedding_function"]["config"]
    assert (stored["document_instruction"], stored["query_instruction"]) == (None, QUESTION)


def test_fork_is_for_hosted_chroma_only(connect: Connect, name: str) -> None:
    collection = connect().create_collection(name, embedding_function=InstructorEmbeddingFunction())
    with pytest.raises(ChromaError, match="forking is unsupported for local"):
        collection.fork(f"{name}-copy")
    with pytest.raises(NotFoundError):
        connect().get_collection(f"{name}-copy")


async def test_an_async_client_with_vectors_computed_off_the_loop(port: int, name: str, mini: Instructor) -> None:
    client = await chromadb.AsyncHttpClient("127.0.0.1", port, settings=Settings(anonymized_telemetry=False))
    function = InstructorEmbeddingFunction()
    collection = await client.create_collection(name, embedding_function=function)
    await collection.add(ids=IDS, embeddings=await function.aembed_documents(TEXTS), documents=TEXTS)

    async def ask(text: str) -> list[float]:
        answer = await collection.query(query_embeddings=await function.aembed_query([text]), n_results=len(TEXTS))
        assert answer["distances"] is not None
        return answer["distances"][0]

    nearest = [1 - distances[0] for distances in await asyncio.gather(*map(ask, TEXTS))]
    cosine = mini.encode_query(TEXTS) @ mini.encode_document(TEXTS).T
    np.testing.assert_allclose(nearest, cosine.max(axis=1), atol=1e-4)

    directly = await collection.query(query_texts=TEXTS[:1], n_results=1)
    assert directly["distances"] is not None
    assert 1 - directly["distances"][0][0] == pytest.approx(cosine[0].max(), abs=1e-4)


async def test_the_async_client_is_checked_too(port: int, name: str) -> None:
    client = await chromadb.AsyncHttpClient("127.0.0.1", port, settings=Settings(anonymized_telemetry=False))
    collection = await client.create_collection(name, embedding_function=InstructorEmbeddingFunction())
    other = InstructorEmbeddingFunction(truncate_dim=32)
    with pytest.raises(ValueError, match="truncate_dim None -> 32"):
        await collection.modify(configuration={"embedding_function": other})
    with pytest.raises(ValueError, match="truncate_dim None -> 32"):
        await client.get_collection(name, embedding_function=other)
    await collection.modify(configuration={"embedding_function": InstructorEmbeddingFunction(batch_tokens=99)})
    again = await client.get_collection(name)
    assert again.configuration_json["embedding_function"]["config"]["batch_tokens"] == 99
