"""What every framework adapter is configured with, and the four calls it makes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from anytask.background import in_background
from anytask.files.work_folder import digest
from anytask.hub import BUNDLED, MODEL_CARD, bundled_models, folder_identity
from anytask.inputs import InstructionLike
from anytask.model import Instructor
from anytask.shared import load_shared

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """A model with the instructions for its queries and documents; light: the model is loaded by the first call.

    A token is shown nowhere, and left out of pickles: who unpickles gets the hub's own (`HF_TOKEN`, the stored login).
    Copies in the process keep it.

    Args:
        model: bundled name, folder or hub id.
        query_instruction, document_instruction: None takes the checkpoint's prompts, else the defaults; "" embeds
            without an instruction.
        device, dtype, max_length, revision, token, cache_dir, local_files_only: as in `Instructor.from_pretrained`.
        batch_tokens, normalize, truncate_dim: as in `Instructor.encode`.
    """

    model: str = "mini"
    query_instruction: str | None = None
    document_instruction: str | None = None
    device: str | None = None
    dtype: str | None = None
    max_length: int | None = None
    batch_tokens: int | None = None
    normalize: bool = True
    truncate_dim: int | None = None
    revision: str | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    token: str | bool | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "token": None if isinstance(self.token, str) else self.token}

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def load(self) -> Instructor:
        """The model, one in memory for all embedders of the process that lead to the same (see `load_shared`)."""
        return load_shared(
            self.model,
            device=self.device,
            dtype=self.dtype,
            max_length=self.max_length,
            revision=self.revision,
            token=self.token,
            cache_dir=self.cache_dir,
            local_files_only=self.local_files_only,
        )

    def embed_queries(
        self, texts: Sequence[str], instruction: InstructionLike | None = None, *, show_progress: bool = False
    ) -> Matrix:
        """Vectors of queries, float32 [n, d]; `instruction` takes the place of the configured one."""
        instruction = self.query_instruction if instruction is None else instruction
        model = self.load()
        return self._matrix(
            model.encode_query(_as_list(texts), instruction, show_progress=show_progress, **self._options())
        )

    def embed_documents(
        self, texts: Sequence[str], instruction: InstructionLike | None = None, *, show_progress: bool = False
    ) -> Matrix:
        """Vectors of documents, float32 [n, d]; `instruction` takes the place of the configured one."""
        instruction = self.document_instruction if instruction is None else instruction
        model = self.load()
        return self._matrix(
            model.encode_document(_as_list(texts), instruction, show_progress=show_progress, **self._options())
        )

    async def aembed_queries(self, texts: Sequence[str], instruction: InstructionLike | None = None) -> Matrix:
        """`embed_queries` without blocking the event loop; concurrent calls share batches."""
        instruction = self.query_instruction if instruction is None else instruction
        model = await in_background(self.load)
        return self._matrix(await model.aencode_query(_as_list(texts), instruction, **self._options()))

    async def aembed_documents(self, texts: Sequence[str], instruction: InstructionLike | None = None) -> Matrix:
        """`embed_documents` without blocking the event loop; concurrent calls share batches."""
        instruction = self.document_instruction if instruction is None else instruction
        model = await in_background(self.load)
        return self._matrix(await model.aencode_document(_as_list(texts), instruction, **self._options()))

    def fingerprint(self, side: str) -> str:
        """A short name of what the vectors of one side depend on, for the keys of caches.

        Args:
            side: "query" or "document".

        Returns:
            model name, side and a hash, in ASCII letters, digits, ".", "_" and "-"; it changes with the model, its
            revision, the side's instruction, precision, length limit, truncation or normalisation, and doesn't with
            device, batch size, cache folder or token. It also changes with the files of a bundled model (by their
            content) and of a folder (by their sizes and times); a hub model's are told apart by `revision` alone.
        """
        if side not in ("query", "document"):
            raise ValueError(f'side must be "query" or "document", got {side!r}')
        relevant = ("model", "revision", "dtype", "max_length", "normalize", "truncate_dim", f"{side}_instruction")
        settings = {name: value for name, value in asdict(self).items() if name in relevant}
        settings["files"] = _files_identity(self.model)
        whole = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.model.replace("/", "--"))[-64:]
        return f"anytask-{name}-{side}-{whole}"

    def _options(self) -> dict[str, Any]:
        return {"batch_tokens": self.batch_tokens, "normalize": self.normalize, "truncate_dim": self.truncate_dim}

    @staticmethod
    def _matrix(vectors: Any) -> Matrix:
        matrix: Matrix = vectors
        return matrix


def _as_list(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError("texts must be a list of strings, got one string; put it into a list")
    return list(texts)


def _files_identity(model: str) -> str | tuple[str, ...]:
    if model in bundled_models():
        return _content_hash(BUNDLED / model)
    return folder_identity(Path(model).expanduser())


@cache
def _content_hash(folder: Path) -> str:
    return digest(folder, without=[MODEL_CARD])
