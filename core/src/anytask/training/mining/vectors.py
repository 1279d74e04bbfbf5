"""Vectors of many texts in a file, as a memory map that a killed process goes on with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anytask.evaluation.embedder import Embedder, embed
from anytask.training.medi.records import InstructedText

Vectors = npt.NDArray[np.float32]
CHUNK = 4096
"""Texts embedded in one call and written together."""


def embed_to_file(
    embedder: Embedder, texts: Sequence[InstructedText], path: str | Path, advance: Callable[[int], None] | None = None
) -> Vectors:
    """Unit-length vectors of `texts`, each embedded with its own instruction, as a read-only memory map of `path`.

    What an earlier call of the same arguments left in the file is kept, but for a chunk it didn't finish.

    Args:
        texts: at least one; an empty instruction is none.
        path: raw float32 rows, little-endian or big-endian as the machine is.
        advance: called with the number of vectors that were found or made.

    Returns:
        float32 [n, d].

    Raises:
        ValueError: the embedder returned something else than one finite vector per text.
    """
    path = Path(path)
    dimension = embed_each(embedder, texts[:1]).shape[1]
    row = dimension * np.dtype(np.float32).itemsize
    with path.open("ab") as file:
        size = file.tell()
        done = len(texts) if size == len(texts) * row else size // (CHUNK * row) * CHUNK
        file.truncate(done * row)
        if advance is not None:
            advance(done)
        for start in range(done, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            file.write(embed_each(embedder, chunk).tobytes())
            file.flush()
            if advance is not None:
                advance(len(chunk))
    return np.memmap(path, dtype=np.float32, mode="r", shape=(len(texts), dimension))


def embed_each(embedder: Embedder, texts: Sequence[InstructedText]) -> Vectors:
    """Unit-length vectors of `texts`, float32 [n, d], with one call of the embedder per instruction."""
    rows: dict[str, list[int]] = {}
    for row, (instruction, _) in enumerate(texts):
        rows.setdefault(instruction, []).append(row)
    parts = [
        embed(embedder, [texts[row].text for row in places], instruction or None)
        for instruction, places in rows.items()
    ]
    vectors = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
    for places, part in zip(rows.values(), parts, strict=True):
        vectors[places] = part
    return vectors
