"""Reading a suite's files: JSON lines, plain or gzip."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anytask.files.compressed import DamagedFileError, open_compressed

SUFFIXES = (".jsonl", ".jsonl.gz")
RETRIEVAL_PARTS = ("corpus", "queries", "qrels")

Row = dict[str, Any]


def read_rows(path: Path, keys: Sequence[str]) -> list[Row]:
    """All rows of a `.jsonl` or `.jsonl.gz` file, each a JSON object with at least `keys`.

    Raises:
        ValueError: a line isn't such an object, or there is none; the message names file and line.
    """
    rows: list[Row] = []
    number = 0
    try:
        with open_compressed(path) as stream, io.TextIOWrapper(stream, "utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                missing = [key for key in keys if key not in row] if isinstance(row, dict) else list(keys)
                if missing:
                    raise ValueError(
                        f"{path}, line {number}: expected an object with {', '.join(keys)}; {missing} missing"
                    )
                rows.append(row)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
    except (DamagedFileError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: can't be read as JSON lines ({error})") from error
    if not rows:
        raise ValueError(f"{path}: holds no rows")
    return rows


def find_file(folder: Path, stem: str) -> Path | None:
    """`folder/stem.jsonl` or `folder/stem.jsonl.gz`, whichever is there."""
    return next((path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()), None)


def stems(folder: Path) -> list[str]:
    """Names of the JSON-lines files of `folder` without their suffixes, sorted."""
    found = {
        path.name.removesuffix(".gz").removesuffix(".jsonl")
        for path in folder.glob("*.jsonl*")
        if path.name.endswith(SUFFIXES)
    }
    return sorted(found)
