"""`InstructorEmbeddingFunction`: Chroma's `EmbeddingFunction` over an INSTRUCTOR model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from chromadb.api.types import (
    Embeddable,
    EmbeddingFunction,
    Embeddings,
    Space,
    normalize_embeddings,
    validate_embeddings,
)
from chromadb.utils.embedding_functions import register_embedding_function

from anytask import Embedder, Instruction, Instructor
from anytask.embedder import Matrix
from anytask.hub import bundled_models
from chroma_anytask import config as schema


@register_embedding_function
class InstructorEmbeddingFunction(EmbeddingFunction[Embeddable]):
    """INSTRUCTOR embeddings: documents and queries are embedded together with an instruction each.

    The constructor is light, for Chroma builds the function anew many times; the model is loaded by the first text
    and is one in memory for all functions of the process with the same configuration.

    >>> import chromadb
    >>> from chroma_anytask import InstructorEmbeddingFunction
    >>> client = chromadb.EphemeralClient()
    >>> collection = client.create_collection("notes", embedding_function=InstructorEmbeddingFunction())

    Args:
        model: a bundled model's name, the folder of a checkpoint, or a hub id such as "hkunlp/instructor-large".
        device: a torch device; None takes a GPU where there is one, else the CPU.
        instruction: for documents and queries alike, where the two below don't say otherwise.
        document_instruction: instruction for documents; None takes the checkpoint's prompt, else anytask's default,
            and "" embeds without one. Part of what a collection is: it can't change once there are documents.
        query_instruction: instruction for queries, likewise; may change at any time.
        dtype: "float32", "bfloat16", "float16" or "int8": precision of the matrix products; None takes the
            checkpoint's and, in an existing collection, the stored one.
        max_length: most tokens of a text with its instruction; None takes the checkpoint's.
        batch_tokens: most tokens computed in one step; None suits the device.
        normalize: give unit vectors.
        truncate_dim: keep this many leading dimensions (then normalise).
        revision: branch, tag or commit on the hub.
        cache_dir: instead of the hub's cache folder.
        local_files_only: never go to the network.
        token_env_var: the environment variable with the token of a private repository. Its name is stored with the
            collection, the token never is; None leaves it to the hub's own `HF_TOKEN` or stored login.
        model_name: what Chroma's own `InstructorEmbeddingFunction` calls `model`.

    Raises:
        ValueError: a setting of the wrong type or out of its range.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        device: str | None = None,
        instruction: str | Instruction | None = None,
        *,
        document_instruction: str | Instruction | None = None,
        query_instruction: str | Instruction | None = None,
        dtype: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        normalize: bool = True,
        truncate_dim: int | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token_env_var: str | None = None,
        model_name: str | os.PathLike[str] | None = None,
    ) -> None:
        if None not in (model, model_name) and model != model_name:
            raise ValueError(f"model={model!r} and model_name={model_name!r} are two names of one setting; give one")
        if str(token_env_var).startswith("hf_"):
            raise ValueError("token_env_var takes the name of an environment variable, and was given a token")
        self._settings = Embedder(
            model=_model_name(next((name for name in (model, model_name) if name is not None), Embedder.model)),
            device=None if device is None else str(device),
            document_instruction=_as_string(instruction if document_instruction is None else document_instruction),
            query_instruction=_as_string(instruction if query_instruction is None else query_instruction),
            dtype=dtype,
            max_length=max_length,
            batch_tokens=batch_tokens,
            normalize=normalize,
            truncate_dim=truncate_dim,
            revision=revision,
            cache_dir=None if cache_dir is None else str(Path(cache_dir).expanduser().absolute()),
            local_files_only=local_files_only,
        )
        self._token_env_var = token_env_var
        problem = schema.problem(self.get_config())
        if problem is not None:
            raise ValueError(problem)

    def load(self) -> Instructor:
        """The model behind, loaded when it isn't yet; the same object for every function with its configuration.

        Raises:
            anytask.CheckpointError: the model can't be found or read.
        """
        return self._embedder().load()

    def __call__(self, input: Embeddable) -> Embeddings:
        """Vectors of documents: float32, of unit length unless `normalize` is off.

        Args:
            input: a list of strings. The type is as wide as that of Chroma's clients; images are refused.

        Raises:
            TypeError: something in `input` is no string; the message names its index and type.
            ValueError: `input` is empty, as with all of Chroma's functions.
        """
        return _embeddings(self._embedder().embed_documents(_documents(input)))

    def embed_query(self, input: Embeddable) -> Embeddings:
        """Vectors of queries, otherwise as for documents."""
        return _embeddings(self._embedder().embed_queries(_documents(input)))

    async def aembed_documents(self, input: Embeddable) -> Embeddings:
        """Vectors of documents without blocking the event loop; concurrent calls share batches.

        Chroma's own `AsyncCollection` computes embeddings on the loop. Hand it these instead:
        `await collection.add(ids, embeddings=await function.aembed_documents(texts), documents=texts)`.
        """
        return _embeddings(await self._embedder().aembed_documents(_documents(input)))

    async def aembed_query(self, input: Embeddable) -> Embeddings:
        """Vectors of queries, for `query_embeddings` of `AsyncCollection.query`."""
        return _embeddings(await self._embedder().aembed_queries(_documents(input)))

    @staticmethod
    def name() -> str:
        return schema.NAME

    def default_space(self) -> Space:
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        return ["cosine", "l2", "ip"]

    def get_config(self) -> dict[str, Any]:
        """The settings as JSON values, all of them, without any secret."""
        config = {name: value for name, value in asdict(self._settings).items() if name != "token"}
        return config | {"token_env_var": self._token_env_var}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> InstructorEmbeddingFunction:
        """The function that `get_config` described.

        Raises:
            jsonschema.ValidationError: `config` isn't such a description.
        """
        InstructorEmbeddingFunction.validate_config(config)
        return InstructorEmbeddingFunction(**config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Check a configuration against `schemas/anytask_instructor.json`.

        Raises:
            jsonschema.ValidationError: it doesn't match.
        """
        schema.validate(config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse what would change the vectors of documents: they are stored, and only queries are embedded anew.

        Raises:
            ValueError: with each setting that differs, and what can be done.
        """
        schema.refuse_other_vectors(old_config, new_config)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self.get_config()), ()

    def __repr__(self) -> str:
        settings = self.get_config().items()
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in settings)})"

    def _embedder(self) -> Embedder:
        """The settings with the token as the environment has it now."""
        variable = self._token_env_var
        if variable is None:
            return self._settings
        if variable not in os.environ:
            warnings.warn(f"the environment variable {variable} (token_env_var) is not set", stacklevel=3)
        return replace(self._settings, token=os.getenv(variable))


def _model_name(model: str | os.PathLike[str]) -> str:
    """A folder by its absolute path, so that a process that works elsewhere finds it; other names as they are."""
    if isinstance(model, os.PathLike) or (isinstance(model, str) and model not in bundled_models()):
        folder = Path(model).expanduser()
        if isinstance(model, os.PathLike) or os.path.isdir(folder):  # noqa: PTH112 (no OSError for what can't be read)
            return os.path.abspath(folder)  # noqa: PTH100 (pathlib keeps "..")
    return model


def _as_string(instruction: str | Instruction | None) -> str | None:
    return str(instruction) if isinstance(instruction, Instruction) else instruction


def _documents(input: object) -> list[str]:
    if isinstance(input, (str, bytes)) or not isinstance(input, Iterable):
        raise TypeError(f"expected a list of strings, got {type(input).__name__}")
    return list(input)


def _embeddings(vectors: Matrix) -> Embeddings:
    """A vector for each text, checked as Chroma checks those of `__call__` alone."""
    return validate_embeddings(cast(Embeddings, normalize_embeddings(cast(Any, vectors))))
