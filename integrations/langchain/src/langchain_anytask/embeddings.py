"""`InstructorEmbeddings`: LangChain's `Embeddings` over an INSTRUCTOR model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Literal, Self

import torch
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.load.serializable import Serializable
from pydantic import (
    ConfigDict,
    PositiveInt,
    SecretStr,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from anytask import Embedder, Instruction, Instructor
from anytask.background import in_background
from langchain_anytask.former_names import to_fields


def _formerly(name: str) -> property:
    return property(
        lambda self: getattr(self, name),
        lambda self, value: setattr(self, name, value),
        doc=f"`{name}` under the name that `HuggingFaceInstructEmbeddings` had for it.",
    )


class InstructorEmbeddings(Serializable, Embeddings):
    """INSTRUCTOR embeddings: queries and documents are embedded together with an instruction each.

    The constructor is light; the model is loaded by the first call and shared by all instances and copies with the
    same configuration. `aembed_query` and `aembed_documents` don't block the event loop, and concurrent calls share
    batches.

    ```python
    from langchain_anytask import InstructorEmbeddings

    embeddings = InstructorEmbeddings(
        model="mini",  # bundled; or a hub id such as "hkunlp/instructor-large", or a folder
        query_instruction="Represent the question for retrieving supporting documents: ",
        document_instruction="Represent the document for retrieval: ",
    )
    embeddings.embed_query("How do I copy a folder?")
    ```

    The keyword arguments of langchain-community's `HuggingFaceInstructEmbeddings` are accepted too: `model_name`,
    `embed_instruction`, `cache_folder`, `model_kwargs`, `encode_kwargs`.

    Raises:
        pydantic.ValidationError: an unknown or ill-typed setting; a `ValueError`, like `anytask.CheckpointError`,
            which the first call raises when the model can't be loaded.
    """

    model: str = "mini"
    """A bundled model's name, a folder or a hub id."""
    query_instruction: str | None = None
    """Instruction for queries; None takes the checkpoint's prompt, else anytask's default; "" embeds without one."""
    document_instruction: str | None = None
    """Instruction for documents, likewise."""
    device: str | None = None
    """A torch device; None takes a GPU where there is one."""
    dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None
    """Precision of the matrix products; None takes the checkpoint's."""
    max_length: PositiveInt | None = None
    """Most tokens of a text with its instruction; None takes the checkpoint's."""
    batch_tokens: PositiveInt | None = None
    """Most tokens computed in one step; None suits the device."""
    normalize: bool = True
    """Give unit vectors."""
    truncate_dim: PositiveInt | None = None
    """Keep this many leading dimensions."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    cache_dir: str | None = None
    """Folder for downloads, instead of the hub's own cache."""
    local_files_only: bool = False
    """Never go to the network."""
    token: SecretStr | bool | None = None
    """Hugging Face token of a private repository; a string is left out of every dump, pickles too. None takes
    `HF_TOKEN` or the stored one, True requires it, False takes none."""
    show_progress: bool = False
    """Draw a progress bar on standard error in `embed_documents`."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, hide_input_in_errors=True)

    model_name = _formerly("model")
    embed_instruction = _formerly("document_instruction")
    cache_folder = _formerly("cache_dir")

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, settings: Any) -> Any:
        return to_fields(settings) if isinstance(settings, dict) else settings

    @field_validator(
        "model", "query_instruction", "document_instruction", "device", "dtype", "cache_dir", mode="before"
    )
    @classmethod
    def _as_string(cls, value: Any) -> Any:
        """Instructions, paths and torch's devices and dtypes by their names, so that every field serialises."""
        if isinstance(value, (Instruction, torch.device, torch.dtype)):
            return str(value).removeprefix("torch.")
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    @model_serializer(mode="wrap")
    def _without_secret(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        settings: dict[str, Any] = dump(self)
        if not isinstance(self.token, bool):
            settings.pop("token", None)
        return settings

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """True: `langchain_core.load.dumps` writes the settings, a secret token by the name `HF_TOKEN` only."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        return {} if isinstance(self.token, bool) else {"token": "HF_TOKEN"}

    def load(self) -> Instructor:
        """The model behind, loaded when it isn't yet; the same object for every instance with its configuration.

        Raises:
            anytask.CheckpointError: the model can't be found or read.
        """
        return self._embedder().load()

    def embed_query(self, text: str, *, instruction: str | Instruction | None = None) -> list[float]:
        """Embed a query.

        Args:
            text: The query.
            instruction: Takes the place of `query_instruction` in this call; "" embeds without one.

        Returns:
            The query's vector.

        Raises:
            TypeError: `text` is no string.
        """
        return _as_lists(self._embedder().embed_queries([_query(text)], instruction))[0]

    def embed_documents(self, texts: list[str], *, instruction: str | Instruction | None = None) -> list[list[float]]:
        """Embed documents.

        Args:
            texts: The documents' texts.
            instruction: Takes the place of `document_instruction` in this call; "" embeds without one.

        Returns:
            A vector for each text, in order.

        Raises:
            TypeError: something in `texts` is no string; the message names its index and type.
        """
        documents = _documents(texts)
        vectors = self._embedder().embed_documents(documents, instruction, show_progress=self.show_progress)
        return _as_lists(vectors)

    async def aembed_query(self, text: str, *, instruction: str | Instruction | None = None) -> list[float]:
        """`embed_query` without blocking the event loop; concurrent calls share batches."""
        return _as_lists(await self._embedder().aembed_queries([_query(text)], instruction))[0]

    async def aembed_documents(
        self, texts: list[str], *, instruction: str | Instruction | None = None
    ) -> list[list[float]]:
        """`embed_documents` without blocking the event loop; concurrent calls share batches."""
        vectors = await self._embedder().aembed_documents(_documents(texts), instruction)
        return await in_background(_as_lists, vectors)

    def cache_namespace(self, side: Literal["query", "document"]) -> str:
        """A name for caches of one side's vectors, such as `CacheBackedEmbeddings` keeps them.

        It is fit for folder names and keys, carries the model and changes with everything that side's vectors depend
        on, its instruction above all; so caches of different instructions stay apart in one store.

        Args:
            side: "document" for `embed_documents`, "query" for `embed_query`.
        """
        return self._embedder().fingerprint(side)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other settings, which are validated; it shares the model in memory where the settings allow."""
        copy = super().model_copy(deep=deep)
        for name, value in (update or {}).items():
            setattr(copy, name, value)
        return copy

    def __getstate__(self) -> dict[Any, Any]:
        """Pickles are dumps as well: the one who unpickles takes `HF_TOKEN`. Copies in the process keep the token."""
        state = super().__getstate__()
        if isinstance(self.token, SecretStr):
            state["__dict__"] = {**state["__dict__"], "token": None}
        return state

    def _embedder(self) -> Embedder:
        token = self.token.get_secret_value() if isinstance(self.token, SecretStr) else self.token
        settings = {field.name: getattr(self, field.name) for field in fields(Embedder)}
        return Embedder(**{**settings, "token": token})


def _query(text: object) -> str:
    if isinstance(text, str):
        return text
    raise TypeError(f"embed_query takes one string, got {_kind(text)}; lists of texts go to embed_documents")


def _documents(texts: object) -> list[str]:
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise TypeError(f"embed_documents takes a list of strings, got {_kind(texts)}; one text goes to embed_query")
    documents = []
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            hint = "; give its page_content" if isinstance(text, Document) else ""
            raise TypeError(f"text {index} must be a string, got {_kind(text)}{hint}")
        documents.append(text)
    return documents


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _as_lists(vectors: Any) -> list[list[float]]:
    """Row by row, so that a thread that does it lets the event loop's run in between."""
    return [row.tolist() for row in vectors]
