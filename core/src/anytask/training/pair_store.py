"""The records of a run in a memory-mapped Arrow file: any one at once, however many there are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anytask.files.whole import whole_file
from anytask.training.medi.records import InstructedText, Record, task_label

try:
    import pyarrow as pa
    import pyarrow.compute as pc
except ImportError as error:
    raise ImportError(
        f'training keeps its records with pyarrow ({error}); install it with: pip install "anytask[train]"'
    ) from error

ROWS = 8192
"""Records of an Arrow batch."""
TEXT = pa.struct([("instruction", pa.string()), ("text", pa.string())])
SCHEMA = pa.schema([("task", pa.string()), ("query", TEXT), ("pos", TEXT), ("neg", pa.list_(TEXT))])


class PairStore:
    """Records by row number.

    Made by `write`; opened by its path. It can be shared by threads and processes; a pickled one opens the same file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(place) for place in range(reader.num_record_batches)]
        self._length = sum(len(batch) for batch in self._batches)

    @staticmethod
    def write(records: Iterable[Record], path: str | Path) -> PairStore:
        """Write the records, the file whole or not at all, and open it.

        Raises:
            ValueError: there are none.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        count = 0
        with whole_file(path) as partial:
            with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
                for rows in _chunks(records):
                    writer.write_batch(pa.RecordBatch.from_pylist([_row(record) for record in rows], schema=SCHEMA))
                    count += len(rows)
            if not count:
                raise ValueError("there are no records to train on")
        return PairStore(path)

    def __reduce__(self) -> tuple[type[PairStore], tuple[Path]]:
        return PairStore, (self.path,)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, row: int) -> Record:
        if not 0 <= row < self._length:
            raise IndexError(row)
        return _record(self._batches[row // ROWS].slice(row % ROWS, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Record]:
        for batch in self._batches:
            yield from map(_record, batch.to_pylist())

    def tasks(self) -> dict[str, npt.NDArray[np.int64]]:
        """The rows of each task, tasks by their first record."""
        column = pa.chunked_array([batch.column("task") for batch in self._batches]).combine_chunks()
        encoded = column.dictionary_encode()
        codes = encoded.indices.to_numpy()
        order = np.argsort(codes, kind="stable").astype(np.int64)
        ends = np.cumsum(np.bincount(codes))
        return dict(zip(encoded.dictionary.to_pylist(), np.split(order, ends[:-1]), strict=True))

    def instructions(self) -> list[str]:
        """All instructions of the queries, positives and negatives, each once."""
        found: set[str] = set()
        for batch in self._batches:
            sides = [batch.column("query"), batch.column("pos"), batch.column("neg").flatten()]
            found.update(*(pc.unique(side.field("instruction")).to_pylist() for side in sides))
        return sorted(found)


def text_key(text: str) -> int:
    """A 64-bit integer that equal texts (but for white space around them) share."""
    digest = hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    remaining = iter(records)
    while chunk := list(islice(remaining, ROWS)):
        yield chunk


def _row(record: Record) -> dict[str, Any]:
    return {
        "task": task_label(record.task_id),
        "query": record.query._asdict(),
        "pos": record.pos._asdict(),
        "neg": [negative._asdict() for negative in record.neg],
    }


def _record(row: dict[str, Any]) -> Record:
    return Record(
        query=InstructedText(**row["query"]),
        pos=InstructedText(**row["pos"]),
        neg=tuple(InstructedText(**negative) for negative in row["neg"]),
        task_id=row["task"],
    )
