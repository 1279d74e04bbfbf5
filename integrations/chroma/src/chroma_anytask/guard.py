"""What Chroma lets through, refused in time.

Chroma (1.1 to 1.5) compares embedding functions by name only when a collection is opened, so that one with another
document instruction would search and add vectors of another kind without a word. And `modify` stores a changed
embedding function first and asks `validate_config_update` second, so that the refused one is what everybody gets who
opens the collection afterwards. An embedding function never learns which collection it works for; the two checks are
therefore made where collections are opened and modified, and concern no other embedding function.

There, too, a function that leaves its dtype open gets the stored one, and a folder that takes the place of one that
isn't on this machine is mentioned.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from chromadb.api.models.AsyncCollection import AsyncCollection
from chromadb.api.models.Collection import Collection
from chromadb.api.models.CollectionCommon import CollectionCommon

from chroma_anytask.config import NAME, refuse_other_vectors
from chroma_anytask.embedding_function import InstructorEmbeddingFunction


def install() -> None:
    """Let every collection of this process be checked; called once, by the import of the package."""
    CollectionCommon.__init__ = _checked_open(CollectionCommon.__init__)  # type: ignore[method-assign]
    Collection.modify = _checked_modify(Collection.modify)  # type: ignore[method-assign]
    AsyncCollection.modify = _checked_modify(AsyncCollection.modify)  # type: ignore[method-assign]


def _checked_open(open_collection: Callable[..., None]) -> Callable[..., None]:
    @wraps(open_collection)
    def __init__(self: CollectionCommon[Any], *args: Any, **kwargs: Any) -> None:
        open_collection(self, *args, **kwargs)
        function = self._embedding_function
        persisted = _persisted(self)
        if isinstance(function, InstructorEmbeddingFunction) and persisted.get("name") == NAME:
            self._embedding_function = _accepted(self, function)

    return __init__


def _checked_modify(modify: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(modify)
    def checked(
        self: CollectionCommon[Any],
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        configuration: Mapping[str, Any] | None = None,
    ) -> Any:
        function = (configuration or {}).get("embedding_function")
        before = _persisted(self).get("name")
        if function is not None and before is not None and NAME in (before, function.name()):
            if before != function.name():
                raise ValueError(
                    f"the embedding function of collection {self.name!r} is {before!r} and can't be replaced by "
                    f"{function.name()!r}; copy the collection into a new one"
                )
            configuration = {**(configuration or {}), "embedding_function": _accepted(self, function)}
        return modify(self, name=name, metadata=metadata, configuration=configuration)

    return checked


def _accepted(collection: CollectionCommon[Any], function: InstructorEmbeddingFunction) -> InstructorEmbeddingFunction:
    """The function that works for a collection: the given one, with the stored dtype where it leaves that open.

    Raises:
        ValueError: its vectors are of another kind.
    """
    stored, given = _persisted(collection)["config"], function.get_config()
    label = f"collection {collection.name!r}"
    refuse_other_vectors(stored, given, label)
    model, dtype = stored["model"], stored.get("dtype")
    if given["model"] != model:
        warnings.warn(
            f"{label} was built with the model in {model}, which isn't on this machine; {given['model']} takes its "
            "place. The two must hold the same weights, or vectors can't be compared",
            stacklevel=2,
        )
    return function if given["dtype"] == dtype else type(function)(**{**given, "dtype": dtype})


def _persisted(collection: CollectionCommon[Any]) -> Mapping[str, Any]:
    """Name and configuration of the embedding function that a collection is stored with; empty for none."""
    stored: Mapping[str, Any] | None = (collection.configuration_json or {}).get("embedding_function")
    return stored or {}
