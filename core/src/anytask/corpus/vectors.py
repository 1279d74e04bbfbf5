"""Reading what `embed_corpus` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from anytask.corpus.rows import EMBEDDING, ID
from anytask.corpus.shards import DESCRIPTION
from anytask.precision import Calibration


def read_vectors(path: str | Path) -> tuple[list[str], npt.NDArray[Any]]:
    """Ids and vectors of a file or a folder of shards, in order; [n, d], of binary vectors uint8 [n, ceil(d / 8)]."""
    table = pq.read_table(path, columns=[ID, EMBEDDING])
    return table[ID].to_pylist(), as_matrix(table[EMBEDDING])


def as_matrix(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column of fixed-size lists as an array [n, width]."""
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    width = column.type.list_size
    values = np.concatenate(parts) if parts else np.empty(0, column.type.value_type.to_pandas_dtype())
    matrix: npt.NDArray[Any] = values.reshape(-1, width)
    return matrix


def read_description(path: str | Path) -> tuple[dict[str, Any], Calibration | None]:
    """What the vectors of a file or a folder are: model, instruction, precision and the like; and their calibration.

    Raises:
        ValueError: the file isn't one that `embed_corpus` wrote.
    """
    path = Path(path)
    file = min(path.glob("*.parquet"), default=path) if path.is_dir() else path
    metadata = pq.read_schema(file).metadata or {}
    if DESCRIPTION not in metadata:
        raise ValueError(f"{file}: holds no description of its vectors; it isn't of `anytask embed`")
    description: dict[str, Any] = json.loads(metadata[DESCRIPTION])
    calibration = description.pop("calibration")
    return description, None if calibration is None else Calibration.from_json(calibration)
