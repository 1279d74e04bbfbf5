"""Parquet files of vectors: one shard written window by window, and shards joined to one file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from anytask.corpus.rows import EMBEDDING, ID, TEXT, Row
from anytask.files.whole import whole_file

DESCRIPTION, COUNTS = b"anytask", b"anytask.counts"
"""Keys of a file's metadata: what its vectors are, as JSON, and how many."""
CODES = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8(), "binary": pa.uint8()}


@dataclass(frozen=True)
class Counts:
    """What became of a shard's rows.

    Attributes:
        rows: rows in the file.
        bad: rows that were left out.
        cut: texts of which only the beginning was embedded.
        digest: of ids, texts and kept fields, in order.
    """

    rows: int = 0
    bad: int = 0
    cut: int = 0
    digest: str = ""

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.rows + other.rows, self.bad + other.bad, self.cut + other.cut)

    @property
    def read(self) -> int:
        return self.rows + self.bad


def output_schema(
    description: dict[str, Any], precision: str, width: int, kept: Sequence[pa.Field], keep_text: bool
) -> pa.Schema:
    """Columns `id`, `embedding` (a fixed-size list), `text` where it is kept, and the kept fields."""
    columns = [
        pa.field(ID, pa.string(), nullable=False),
        pa.field(EMBEDDING, pa.list_(pa.field("element", CODES[precision], nullable=False), width), nullable=False),
        *([pa.field(TEXT, pa.string(), nullable=False)] if keep_text else []),
        *kept,
    ]
    return pa.schema(columns, metadata={DESCRIPTION: json.dumps(description, ensure_ascii=False).encode()})


class VectorFile:
    """A Parquet file that is written a row group at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        plain = [name for name in schema.names if name != EMBEDDING]
        vectors = f"{EMBEDDING}.list.element"
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression={**dict.fromkeys(plain, "zstd"), vectors: "none"},
            use_dictionary=plain,
            write_statistics=plain,
        )

    def write(self, rows: Sequence[Row], codes: npt.NDArray[Any]) -> None:
        """Append rows and their codes [n, width]."""
        kept = zip(*(row.kept for row in rows), strict=True)
        names = [name for name in self.schema.names if name not in (ID, EMBEDDING)]
        columns: dict[str, pa.Array] = {
            ID: pa.array([row.id for row in rows], pa.string()),
            EMBEDDING: pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(codes).reshape(-1)), type=self.schema.field(EMBEDDING).type
            ),
        }
        if TEXT in names and len(names) > len(rows[0].kept):
            columns[TEXT] = pa.array([row.text for row in rows], pa.string())
            names.remove(TEXT)
        for name, values in zip(names, kept, strict=True):
            columns[name] = _column(values, self.schema.field(name).type)
        self.write_table(pa.Table.from_arrays([columns[name] for name in self.schema.names], schema=self.schema))

    def write_table(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=max(len(table), 1))

    def close(self, counts: Counts) -> None:
        self._writer.add_key_value_metadata({COUNTS: json.dumps(asdict(counts)).encode()})
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Python's values and Arrow's scalars as a column; `pa.array` takes no scalars of lists that are null."""
    if not any(isinstance(value, pa.Scalar) for value in values):
        return pa.array(values, kind)
    scalars = (value if isinstance(value, pa.Scalar) else pa.scalar(value, kind) for value in values)
    return pa.concat_arrays([pa.repeat(scalar, 1) for scalar in scalars])


def read_counts(path: Path) -> Counts:
    """The counts of a file that `VectorFile` wrote."""
    return Counts(**json.loads(pq.read_metadata(path).metadata[COUNTS]))


def join(shards: Iterable[Path], path: Path) -> None:
    """Write the row groups of all shards, which are of one schema, to one file; one at a time is in memory."""
    shards = list(shards)
    total = sum((read_counts(shard) for shard in shards), Counts())
    with whole_file(path) as partial, VectorFile(partial, pq.read_schema(shards[0])) as file:
        for shard in shards:
            with pq.ParquetFile(shard) as source:
                for group in range(source.num_row_groups):
                    file.write_table(source.read_row_group(group))
        file.close(total)
