"""What can be evaluated: anything that embeds texts, with or without an instruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """`anytask.Instructor` is one; so is any object with this method."""

    def encode(self, texts: Sequence[str], instruction: str | None = None) -> Any:
        """The texts' vectors, array-like [n, dimension]; their length doesn't matter."""
        ...


class SentenceTransformerEmbedder:
    """A sentence-transformers model as an `Embedder`; the instruction becomes its `prompt`.

    Args:
        name_or_path: what `SentenceTransformer` takes, a folder or a hub id.
        device: "cpu", "cuda", ...; None leaves the choice to sentence-transformers.
        dtype: the weights' type, such as "bfloat16"; None keeps the model's own.

    Raises:
        ImportError: sentence-transformers isn't installed.
    """

    def __init__(self, name_or_path: str, *, device: str | None = None, dtype: str | None = None) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ImportError(
                f"evaluating a sentence-transformers model needs that package ({error}); "
                "install it with: pip install sentence-transformers"
            ) from error
        self.model = SentenceTransformer(name_or_path, device=device)
        if dtype is not None:
            self.model.to(dtype=getattr(torch, dtype))

    def encode(self, texts: Sequence[str], instruction: str | None = None) -> Vectors:
        vectors = self.model.encode(list(texts), prompt=instruction, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)


class TruncatedEmbedder:
    """An embedder of which only the leading dimensions are used, as `truncate_dim` does (Matryoshka embeddings).

    Args:
        embedder: what embeds.
        dimension: how many dimensions of its vectors are kept.

    Raises:
        ValueError: fewer than one dimension; when embedding, more than the vectors have.
    """

    def __init__(self, embedder: Embedder, dimension: int) -> None:
        if dimension < 1:
            raise ValueError(f"the dimensions to keep must be at least 1, got {dimension}")
        self.embedder = embedder
        self.dimension = dimension

    def encode(self, texts: Sequence[str], instruction: str | None = None) -> Vectors:
        vectors = np.asarray(self.embedder.encode(texts, instruction=instruction), dtype=np.float32)
        if self.dimension > vectors.shape[1]:
            raise ValueError(f"can't keep {self.dimension} dimensions of vectors that have {vectors.shape[1]}")
        kept: Vectors = vectors[:, : self.dimension]
        return kept


def embed(embedder: Embedder, texts: Sequence[str], instruction: str | None) -> Vectors:
    """Unit-length vectors of `texts`, float32 [n, dimension]; a text that comes twice is embedded once.

    Raises:
        ValueError: the embedder returned something else than one finite vector per text.
    """
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    vectors = np.asarray(embedder.encode(list(places), instruction=instruction), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(places):
        raise ValueError(f"the embedder returned an array of shape {vectors.shape} for {len(places)} texts")
    if not np.isfinite(vectors).all():
        raise ValueError("the embedder returned vectors that are not finite")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(lengths, np.finfo(np.float32).tiny))[[places[text] for text in texts]]
    return unit
