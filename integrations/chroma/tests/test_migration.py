"""Collections copied from Chroma's own function, and from none, into this package's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from chromadb.api import ClientAPI
from chromadb.api.types import Documents, EmbeddingFunction

from anytask import Instructor
from chroma_anytask import InstructorEmbeddingFunction, copy_collection
from chroma_anytask.migration import PAGE

pytestmark = [
    pytest.mark.usefixtures("no_network"),
    pytest.mark.filterwarnings("ignore:legacy embedding function config", "ignore:Could not reconstruct"),
]

TEXTS = [
    "The mitral valve lies between the left atrium and the left ventricle.",
    "Basalt forms from lava that cools quickly at the surface.",
    "A sonnet has fourteen lines.",
]
IDS = ["valve", "basalt", "sonnet"]
TOPIC = "Represent the sentence for clustering by its topic: "
EVERYTHING: Any = ["embeddings", "documents", "metadatas", "uris"]


def records(client: ClientAPI, name: str) -> dict[str, dict[str, Any]]:
    """Everything that a collection holds, by id; without metadata is without metadata, empty or None."""
    page: Any = client.get_collection(name, embedding_function=None).get(include=EVERYTHING)
    columns = zip(page["ids"], page["embeddings"], page["documents"], page["metadatas"], page["uris"], strict=True)
    return {
        id: {"vector": vector.tolist(), "document": document, "metadata": metadata or None, "uri": uri}
        for id, vector, document, metadata, uri in columns
    }


@pytest.mark.parametrize("instruction", [TOPIC, None])
def test_model_and_instruction_are_those_that_chroma_stored(
    ephemeral: ClientAPI, chromas_own: Callable[..., EmbeddingFunction[Documents]], instruction: str | None
) -> None:
    old = ephemeral.create_collection("old", embedding_function=chromas_own(instruction))
    old.add(ids=IDS, documents=TEXTS, metadatas=[{"number": number} for number in range(len(TEXTS))])
    expected = old.query(query_texts=TEXTS, n_results=3)

    copy_collection(ephemeral, "old", "new")
    moved = ephemeral.get_collection("new").query(query_texts=TEXTS, n_results=3)
    assert moved["ids"] == expected["ids"]
    assert moved["metadatas"] == expected["metadatas"]
    np.testing.assert_allclose(np.asarray(moved["distances"]), np.asarray(expected["distances"]), atol=1e-5)
    copies, originals = records(ephemeral, "new"), records(ephemeral, "old")
    for id in IDS:  # an index by cosine makes vectors unit length, once more, which may change the last bit
        pair = (np.array(record[id].pop("vector"), dtype=np.float32) for record in (copies, originals))
        np.testing.assert_array_almost_equal_nulp(*pair, nulp=2)
    assert copies == originals


def test_records_that_lack_something(ephemeral: ClientAPI, mini: Instructor) -> None:
    old = ephemeral.create_collection("old", embedding_function=None)
    vectors = mini.encode(TEXTS)
    old.add(ids=IDS[:1], embeddings=vectors[:1])
    old.add(
        ids=IDS[1:],
        embeddings=vectors[1:],
        documents=["Basalt", None],  # type: ignore[list-item]
        metadatas=[None, {"page": 7}],  # type: ignore[list-item]
        uris=["file:///basalt.png", None],  # type: ignore[list-item]
    )
    copy_collection(ephemeral, "old", "new", InstructorEmbeddingFunction(instruction=""))
    assert records(ephemeral, "new") == records(ephemeral, "old")
    assert records(ephemeral, "new")["basalt"]["uri"] == "file:///basalt.png"


def test_more_records_than_a_page(ephemeral: ClientAPI) -> None:
    old = ephemeral.create_collection("old", embedding_function=None)
    vectors = np.random.default_rng(0).normal(size=(2 * PAGE + 1, 4)).astype(np.float32)
    old.add(ids=[str(number) for number in range(len(vectors))], embeddings=vectors)
    copy_collection(ephemeral, "old", "new", InstructorEmbeddingFunction())
    assert records(ephemeral, "new") == records(ephemeral, "old")


@pytest.mark.parametrize(
    "given",
    [
        {"configuration": {"hnsw": {"space": "ip", "ef_search": 37, "ef_construction": 90, "max_neighbors": 9}}},
        {"metadata": {"hnsw:space": "ip", "hnsw:search_ef": 37, "about": "sentences"}},
        {"metadata": {"about": "sentences"}},
        {},
    ],
    ids=["configuration", "former metadata", "metadata", "defaults"],
)
def test_index_settings_and_metadata_are_kept(ephemeral: ClientAPI, given: dict[str, Any]) -> None:
    old = ephemeral.create_collection("old", embedding_function=None, **given)
    copy_collection(ephemeral, "old", "new", InstructorEmbeddingFunction(instruction=""))
    new = ephemeral.get_collection("new")
    assert new.configuration_json["hnsw"] == old.configuration_json["hnsw"]
    assert new.metadata == old.metadata


@pytest.mark.parametrize("stored", ["nothing", "legacy", "default"])
def test_the_function_is_asked_for_where_chroma_has_not_stored_its_own(
    ephemeral: ClientAPI, mini: Instructor, stored: str
) -> None:
    given: dict[str, Any] = {"nothing": {"embedding_function": None}, "default": {}}.get(
        stored, {"embedding_function": None, "configuration": {"hnsw": {"space": "cosine"}}}
    )
    old = ephemeral.create_collection("old", **given)
    old.add(ids=IDS, embeddings=mini.encode(TEXTS, TOPIC), documents=TEXTS)
    found = "'default'" if stored == "default" else "none"
    with pytest.raises(ValueError, match=f"'instructor' stored, and has {found}; give the function"):
        copy_collection(ephemeral, "old", "new")
    assert [collection.name for collection in ephemeral.list_collections()] == ["old"]

    function = InstructorEmbeddingFunction("mini", instruction=TOPIC)
    copy_collection(ephemeral, "old", "new", function)
    moved = ephemeral.get_collection("new")
    assert moved.configuration_json["embedding_function"]["config"] == function.get_config()
    answer = moved.query(query_texts=TEXTS, n_results=1)
    assert answer["ids"] == [[id] for id in IDS]
    np.testing.assert_allclose(np.asarray(answer["distances"]), 0, atol=1e-5)
