"""From Chroma's own `InstructorEmbeddingFunction` to this package's, without embedding anything again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection

from chroma_anytask.embedding_function import InstructorEmbeddingFunction

CHROMAS_OWN = "instructor"
"""The name of `chromadb.utils.embedding_functions.InstructorEmbeddingFunction` in stored collections."""
PAGE = 1000


def copy_collection(
    client: ClientAPI, old: str, new: str, function: InstructorEmbeddingFunction | None = None
) -> Collection:
    """Copy a collection into a new one with this package's function, vectors included.

    Records keep their ids, vectors, documents, metadata and URIs, the collection its metadata and index settings. The
    old collection stays as it is.

    Args:
        client: of the database of both.
        old: name of the collection to copy.
        new: name of the one to make.
        function: what the vectors were computed with; None takes the model and the instruction that Chroma's own
            `InstructorEmbeddingFunction` was stored with.

    Raises:
        ValueError: `function` is None, and no function of that kind is stored.
    """
    source = client.get_collection(old, embedding_function=None)
    index: Any = {kind: settings for kind in ("hnsw", "spann") if (settings := source.configuration_json.get(kind))}
    target = client.create_collection(
        new,
        embedding_function=function or _of_chromas_own(source),
        configuration=index,
        metadata=source.metadata or None,
    )
    for start in range(0, source.count(), PAGE):
        page: Any = source.get(include=["embeddings", "metadatas", "documents", "uris"], limit=PAGE, offset=start)
        metadatas: Any = [metadata or None for metadata in page["metadatas"]]  # Chroma gives {} back, and refuses it
        target.add(page["ids"], page["embeddings"], metadatas, page["documents"], uris=page["uris"])
    return target


def _of_chromas_own(collection: Collection) -> InstructorEmbeddingFunction:
    stored: Mapping[str, Any] = collection.configuration_json.get("embedding_function") or {}
    if stored.get("name") != CHROMAS_OWN:
        found = f"{stored['name']!r}" if "name" in stored else "none"
        raise ValueError(
            f"collection {collection.name!r} should have Chroma's own embedding function {CHROMAS_OWN!r} stored, and "
            f"has {found}; give the function that its vectors are from, such as "
            "function=InstructorEmbeddingFunction('hkunlp/instructor-large', instruction='')"
        )
    config = stored["config"]
    return InstructorEmbeddingFunction(**{**config, "instruction": config.get("instruction") or ""})
