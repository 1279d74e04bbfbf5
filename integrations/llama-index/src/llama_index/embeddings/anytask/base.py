"""`InstructorEmbedding`: an embed model for LlamaIndex with an instruction for queries and one for documents."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, Literal, Self

from llama_index.core.base.embeddings.base import BaseEmbedding, mean_agg
from llama_index.core.bridge.pydantic import (
    ConfigDict,
    Field,
    SecretStr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.storage.kvstore.types import BaseKVStore
from llama_index.embeddings.anytask.cache import Matrix, SidedCache, Vectors, as_vectors

from anytask import CheckpointError, Embedder, Instruction
from anytask.background import in_background

OTHER_NAMES = {"model": "model_name", "text_instruction": "document_instruction", "cache_folder": "cache_dir"}
"""Names of other adapters and of llama-index-embeddings-instructor, and the field each stands for."""


def _other_name(field: str) -> property:
    return property(lambda self: getattr(self, field), lambda self, value: setattr(self, field, value))


class InstructorEmbedding(BaseEmbedding):
    """INSTRUCTOR embeddings (arXiv 2212.09741): queries and documents are each embedded with an instruction.

    The constructor is light: the model is loaded by the first embedding, and once per process for all instances with
    the same configuration. Asynchronous calls never block the event loop; those that run at the same time share
    batches.

    Args:
        model_name: "mini" (bundled, no network), a checkpoint folder, or a hub id such as "hkunlp/instructor-large".
            `model` means the same.
        query_instruction: for queries; None takes the checkpoint's prompt, else "Represent the question for retrieving
            supporting documents: ", and "" embeds without an instruction.
        document_instruction: for nodes and texts, likewise, by default "Represent the document for retrieval: ".
            `text_instruction` means the same.
        embed_batch_size: texts of one call and of one pair of events.
        cache_dir: instead of the hub's cache folder. `cache_folder` means the same.
        device: a torch device; None takes a GPU where there is one.
        callback_manager: LlamaIndex' callbacks.
        **settings: the other fields.

    Raises:
        pydantic.ValidationError: an unknown or unsuitable setting.
        anytask.CheckpointError: by the first embedding, when the model can't be found or read.

    Examples:
        `pip install llama-index-embeddings-anytask`

        ```python
        from llama_index.core import Settings
        from llama_index.embeddings.anytask import InstructorEmbedding

        Settings.embed_model = InstructorEmbedding(
            query_instruction="Represent the Wikipedia question for retrieving supporting documents: ",
            document_instruction="Represent the Wikipedia document for retrieval: ",
        )
        ```
    """

    # An input shown in a validation error could be the token. Validated assignment keeps every cache a SidedCache.
    model_config = ConfigDict(extra="forbid", validate_assignment=True, hide_input_in_errors=True)

    model_name: str = Field(default="mini", description="Bundled name, checkpoint folder or hub id.")
    query_instruction: str | None = Field(default=None, description="Instruction that queries are embedded with.")
    document_instruction: str | None = Field(default=None, description="Instruction that nodes are embedded with.")
    embed_batch_size: int = Field(default=256, description="Texts of one embedding call.", gt=0, le=2048)
    device: str | None = Field(default=None, description="Torch device; None takes a GPU where there is one.")
    dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = Field(
        default=None, description="Precision of the matrix products; None takes the checkpoint's."
    )
    max_length: int | None = Field(default=None, description="Most tokens of a text with its instruction.", gt=0)
    batch_tokens: int | None = Field(default=None, description="Most tokens computed in one step.", gt=0)
    normalize: bool = Field(default=True, description="Give unit vectors.")
    truncate_dim: int | None = Field(default=None, description="Leading dimensions to keep.", gt=0)
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    cache_dir: str | None = Field(default=None, description="Instead of the hub's cache folder.")
    local_files_only: bool = Field(default=False, description="Never go to the network.")
    token: SecretStr | bool | None = Field(
        default=None,
        description="For private repositories; True takes the stored one, False none. A string is in no dump.",
        repr=False,
    )
    embeddings_cache: Any | None = Field(
        default=None,
        description="Key-value store for vectors, kept apart by model, instruction and side. In no dict or JSON.",
        exclude=True,
    )

    model = _other_name("model_name")
    text_instruction = _other_name("document_instruction")
    cache_folder = _other_name("cache_dir")

    def __init__(
        self,
        model_name: str | Path | None = None,
        query_instruction: str | Instruction | None = None,
        document_instruction: str | Instruction | None = None,
        embed_batch_size: int | None = None,
        cache_dir: str | Path | None = None,
        device: str | None = None,
        callback_manager: CallbackManager | None = None,
        **settings: Any,
    ) -> None:
        named: dict[str, Any] = {
            "model_name": model_name,
            "query_instruction": query_instruction,
            "document_instruction": document_instruction,
            "embed_batch_size": embed_batch_size,
            "cache_dir": cache_dir,
            "device": device,
            "callback_manager": callback_manager,
        }
        settings.pop("class_name", None)  # in every dump
        given = {name: value for name, value in named.items() if value is not None}
        for other, name in OTHER_NAMES.items():
            value = settings.pop(other, None)
            if value is None:
                continue
            if given.get(name, value) != value:
                raise ValueError(
                    f"{other}={value!r} and {name}={given[name]!r} mean the same setting; give one of them"
                )
            given[name] = value
        super().__init__(**given, **settings)

    @field_validator("model_name", "cache_dir", "query_instruction", "document_instruction", mode="before")
    @classmethod
    def _as_string(cls, value: object) -> object:
        return str(value) if isinstance(value, (PurePath, Instruction)) else value

    @field_validator("embeddings_cache")
    @classmethod
    def _keep_sides_apart(cls, store: Any) -> Any:
        return SidedCache(store) if isinstance(store, BaseKVStore) and not isinstance(store, SidedCache) else store

    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """LlamaIndex' dump, without a secret."""
        data = super().custom_model_dump(handler, info)
        if not isinstance(self.token, bool):
            data.pop("token", None)
        return data

    @classmethod
    def class_name(cls) -> str:
        return "InstructorEmbedding"

    @property
    def _embedder(self) -> Embedder:
        token = self.token.get_secret_value() if isinstance(self.token, SecretStr) else self.token
        return Embedder(
            model=self.model_name,
            query_instruction=self.query_instruction,
            document_instruction=self.document_instruction,
            device=self.device,
            dtype=self.dtype,
            max_length=self.max_length,
            batch_tokens=self.batch_tokens,
            normalize=self.normalize,
            truncate_dim=self.truncate_dim,
            revision=self.revision,
            cache_dir=self.cache_dir,
            local_files_only=self.local_files_only,
            token=token,
        )

    def _get_query_embeddings(self, queries: list[str]) -> Vectors:
        """Vectors of queries, [n, d]."""
        return self._embed("query", queries, self._embedder.embed_queries)

    def _get_text_embeddings(self, texts: list[str]) -> Vectors:
        """Vectors of documents, [n, d]."""
        return self._embed("document", texts, self._embedder.embed_documents)

    async def _aget_query_embeddings(self, queries: list[str]) -> Vectors:
        """Vectors of queries, [n, d], without blocking the event loop."""
        return await self._aembed("query", queries, self._embedder.aembed_queries)

    async def _aget_text_embeddings(self, texts: list[str]) -> Vectors:
        """Vectors of documents, [n, d], without blocking the event loop."""
        return await self._aembed("document", texts, self._embedder.aembed_documents)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embeddings([query])[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._aget_query_embeddings([query]))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., list[float]] | None = None
    ) -> list[float]:
        """One vector for several queries, their mean unless `agg_fn` is given; the queries share batches."""
        vectors = await asyncio.gather(*(self.aget_query_embedding(query) for query in queries))
        return (agg_fn or mean_agg)(list(vectors))

    def _embed(self, side: str, texts: Sequence[str], embed: Callable[[Sequence[str]], Matrix]) -> Vectors:
        with _explained(texts):
            if self.embeddings_cache is None:
                return as_vectors(embed(texts))
            cache: SidedCache = self.embeddings_cache
            return cache.embed(self._embedder.fingerprint(side), texts, embed)

    async def _aembed(
        self, side: str, texts: Sequence[str], embed: Callable[[Sequence[str]], Awaitable[Matrix]]
    ) -> Vectors:
        with _explained(texts):
            if self.embeddings_cache is None:
                return await in_background(as_vectors, await embed(texts))
            cache: SidedCache = self.embeddings_cache
            fingerprint = await in_background(self._embedder.fingerprint, side)  # may read the model's files
            return await cache.aembed(fingerprint, texts, embed)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other settings, which are validated; it shares the model in memory where the settings allow."""
        copy = super().model_copy(deep=deep)
        for name, value in (update or {}).items():
            setattr(copy, name, value)
        return copy

    def __getstate__(self) -> dict[str, Any]:
        """Everything but a token; taken of a copy, since the base class deletes what it can't pickle."""
        copy = self.model_copy(update={"token": None} if isinstance(self.token, SecretStr) else None)
        return super(InstructorEmbedding, copy).__getstate__()


@contextmanager
def _explained(texts: Sequence[str]) -> Iterator[None]:
    """Say what the index in an error about one of several texts counts."""
    try:
        yield
    except CheckpointError:
        raise
    except (TypeError, ValueError) as error:
        if len(texts) > 1:
            error.add_note(
                f"The index counts within one call's {len(texts)} texts (embed_batch_size), cached ones left out."
            )
        raise
