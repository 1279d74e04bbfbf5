"""`embeddings_cache` with keys that say which model, instruction and side a vector is from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_index.core.storage.kvstore.types import DEFAULT_COLLECTION, BaseKVStore

from anytask.background import in_background

Matrix = npt.NDArray[np.float32]
Vectors = list[list[float]]

COLLECTION = "embeddings"
"""The collection that LlamaIndex keeps cached embeddings in."""


class SidedCache(BaseKVStore):
    """The user's key-value store, and how vectors are looked up and kept in it.

    `BaseEmbedding` keys its cache by the text alone, so that a query would be answered with the vector of the document
    of the same words, or with that of another instruction. What it gets and puts by that key is therefore neither found
    nor kept here; it goes on to the hooks, which call `embed` and `aembed`, whose key is "<fingerprint>:<text>".
    """

    def __init__(self, store: BaseKVStore) -> None:
        self.store = store

    def embed(self, fingerprint: str, texts: Sequence[str], embed: Callable[[Sequence[str]], Matrix]) -> Vectors:
        """Vectors of `texts`; those that the store lacks are embedded in one call and kept."""
        keys = _keys(fingerprint, texts)
        known = {key: entry for key in keys if (entry := self.store.get(key, collection=COLLECTION))}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        fresh = _entries(missing, embed(list(missing.values()))) if missing else {}
        for key, entry in fresh.items():
            self.store.put(key, entry, collection=COLLECTION)
        return _vectors(keys, known | fresh)

    async def aembed(
        self, fingerprint: str, texts: Sequence[str], embed: Callable[[Sequence[str]], Awaitable[Matrix]]
    ) -> Vectors:
        """`embed` with the store's asynchronous methods."""
        keys = _keys(fingerprint, texts)
        known = {key: entry for key in keys if (entry := await self.store.aget(key, collection=COLLECTION))}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        fresh = await in_background(_entries, missing, await embed(list(missing.values()))) if missing else {}
        for key, entry in fresh.items():
            await self.store.aput(key, entry, collection=COLLECTION)
        return _vectors(keys, known | fresh)

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> None:
        """Nothing: the text alone doesn't say which vector is meant."""

    async def aget(self, key: str, collection: str = DEFAULT_COLLECTION) -> None:
        """Nothing, as `get`."""

    def put(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """Keep nothing: the hooks have kept the vector already."""

    async def aput(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """Keep nothing, as `put`."""

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        return self.store.get_all(collection=collection)

    async def aget_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        return await self.store.aget_all(collection=collection)

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        return self.store.delete(key, collection=collection)

    async def adelete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        return await self.store.adelete(key, collection=collection)


def as_vectors(matrix: Matrix) -> Vectors:
    """float32 [n, d] as LlamaIndex takes it: lists of Python floats.

    Row by row, so that a thread that does it lets the event loop's run in between.
    """
    return [row.tolist() for row in matrix]


def _keys(fingerprint: str, texts: Sequence[str]) -> list[str]:
    for index, text in enumerate(texts):
        if not isinstance(text, str):  # None must not find the vector of "None"
            raise TypeError(f"text {index} must be a string, got {'None' if text is None else type(text).__name__}")
    return [f"{fingerprint}:{text}" for text in texts]


def _entries(missing: Iterable[str], matrix: Matrix) -> dict[str, dict[str, Any]]:
    return {key: {"embedding": vector} for key, vector in zip(missing, as_vectors(matrix), strict=True)}


def _vectors(keys: Iterable[str], entries: dict[str, dict[str, Any]]) -> Vectors:
    return [entries[key]["embedding"] for key in keys]
