"""A teacher's vectors of all texts of a run, computed once and kept on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anytask.evaluation.embedder import Embedder, embed
from anytask.files.whole import write_array
from anytask.progress import progress
from anytask.training.medi.records import InstructedText, Record
from anytask.training.pair_store import text_key

BLOCK = 16_384
"""Texts of a file."""
SAME = 0.999
"""Least cosine of one text's vectors by the same teacher, on whatever device."""


class TeacherVectors:
    """Unit vectors, float16 in memory-mapped blocks, found by text.

    Args:
        folder: where `of_records` has put them.
    """

    def __init__(self, folder: Path) -> None:
        keys = np.load(folder / "keys.npy")
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._blocks = [np.load(_block(folder, start), mmap_mode="r") for start in range(0, len(keys), BLOCK)]

    @staticmethod
    def of_records(records: Iterable[Record], teacher: Embedder, folder: Path) -> TeacherVectors:
        """Embed every distinct text of `records`, without an instruction, or open what is there.

        A run that was killed goes on after the last whole block.

        Raises:
            ValueError: what is there is of another teacher.
        """
        if _block(folder, 0).is_file():
            _check_same(teacher, next(_distinct(records, {})), folder)
        if not (folder / "keys.npy").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            seen: dict[int, None] = {}
            texts = _distinct(records, seen)
            start = 0
            with progress("teacher's vectors", None) as advance:
                while block := list(islice(texts, BLOCK)):
                    path = _block(folder, start)
                    if not path.is_file():
                        write_array(path, embed(teacher, block, None).astype(np.float16))
                    start += len(block)
                    advance(len(block))
            write_array(folder / "keys.npy", np.fromiter(seen, dtype=np.int64, count=len(seen)))
        return TeacherVectors(folder)

    def of(self, texts: Sequence[InstructedText]) -> npt.NDArray[np.float32]:
        """The vectors of `texts`, float32 [n, d]."""
        keys = np.array([text_key(side.text) for side in texts], dtype=np.int64)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        if not np.array_equal(self._keys[places], keys):
            missing = texts[int(np.flatnonzero(self._keys[places] != keys)[0])]
            raise KeyError(f"the teacher's vectors lack the text {missing.text[:80]!r}")
        rows = self._order[places]
        return np.stack([self._blocks[row // BLOCK][row % BLOCK] for row in rows]).astype(np.float32)


def _check_same(teacher: Embedder, first: str, folder: Path) -> None:
    there, now = np.load(_block(folder, 0), mmap_mode="r")[0].astype(np.float32), embed(teacher, [first], None)[0]
    if there.shape != now.shape or there @ now < SAME:
        raise ValueError(
            f"the vectors in {folder} are of another teacher; go on with that one, choose another output, or remove "
            "the folder"
        )


def _distinct(records: Iterable[Record], seen: dict[int, None]) -> Iterator[str]:
    for record in records:
        for side in (record.query, record.pos, *record.neg):
            key = text_key(side.text)
            if key not in seen:
                seen[key] = None
                yield side.text.strip()


def _block(folder: Path, start: int) -> Path:
    return folder / f"{start // BLOCK:06d}.npy"
