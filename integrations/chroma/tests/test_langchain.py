"""One collection, LangChain on one side and Chroma on the other."""

from __future__ import annotations

import chromadb
import numpy as np
import pytest
from chromadb.api import ClientAPI
from chromadb.utils.embedding_functions.chroma_langchain_embedding_function import create_langchain_embedding

from chroma_anytask import InstructorEmbeddingFunction

langchain_anytask = pytest.importorskip("langchain_anytask")
langchain_chroma = pytest.importorskip("langchain_chroma")

pytestmark = [
    pytest.mark.usefixtures("no_network"),
    pytest.mark.filterwarnings("ignore:legacy embedding function config"),
]

TEXTS = [
    "The mitral valve lies between the left atrium and the left ventricle.",
    "Basalt forms from lava that cools quickly at the surface.",
    "A sonnet has fourteen lines.",
]
SETTINGS = {
    "document_instruction": "Represent the sentence for clustering by its topic: ",
    "query_instruction": "Represent the question for retrieving sentences: ",
}


def distances(collection: chromadb.Collection, text: str) -> list[float]:
    answer = collection.query(query_texts=[text], n_results=len(TEXTS))
    assert answer["distances"] is not None
    return answer["distances"][0]


def test_a_langchain_store_opens_a_collection_of_chromas(ephemeral: ClientAPI) -> None:
    collection = ephemeral.create_collection("texts", embedding_function=InstructorEmbeddingFunction(**SETTINGS))
    collection.add(ids=["one", "two"], documents=TEXTS[:2])
    store = langchain_chroma.Chroma(
        "texts", embedding_function=langchain_anytask.InstructorEmbeddings(**SETTINGS), client=ephemeral
    )
    store.add_texts(TEXTS[2:])
    found = store.similarity_search_with_score(TEXTS[0], k=len(TEXTS))
    assert [round(score, 4) for _, score in found] == [round(score, 4) for score in distances(collection, TEXTS[0])]
    again = ephemeral.get_collection("texts")
    assert again.configuration_json["embedding_function"]["name"] == "anytask_instructor"


def test_chroma_opens_a_collection_of_a_langchain_store(ephemeral: ClientAPI) -> None:
    store = langchain_chroma.Chroma(
        "texts",
        embedding_function=langchain_anytask.InstructorEmbeddings(**SETTINGS),
        client=ephemeral,
        collection_configuration={"hnsw": {"space": "cosine"}},
    )
    store.add_texts(TEXTS)
    function = InstructorEmbeddingFunction(**SETTINGS)
    ephemeral.get_collection("texts", embedding_function=None).modify(configuration={"embedding_function": function})
    cosine = np.stack(function(TEXTS)) @ function.embed_query(TEXTS[:1])[0]
    found = distances(ephemeral.get_collection("texts"), TEXTS[0])
    np.testing.assert_allclose(found, sorted(1 - cosine), atol=1e-4)


def test_chromas_bridge_takes_langchain_embeddings_with_vectors_for_queries(ephemeral: ClientAPI) -> None:
    """`create_langchain_embedding` embeds documents; its `embed_query` isn't that of Chroma's protocol."""
    embeddings = langchain_anytask.InstructorEmbeddings(**SETTINGS)
    bridged = create_langchain_embedding(embeddings)
    collection = ephemeral.create_collection(
        "texts", embedding_function=bridged, configuration={"hnsw": {"space": "cosine"}}
    )
    collection.add(ids=["one", "two", "three"], documents=TEXTS)
    answer = collection.query(query_embeddings=[embeddings.embed_query(TEXTS[0])], n_results=len(TEXTS))
    function = InstructorEmbeddingFunction(**SETTINGS)
    cosine = np.stack(function(TEXTS)) @ function.embed_query(TEXTS[:1])[0]
    assert answer["distances"] is not None
    np.testing.assert_allclose(answer["distances"][0], sorted(1 - cosine), atol=1e-4)
