"""Reading a suite's files: JSON lines, plain or gzip."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SUFFIXES = (".jsonl", ".jsonl.gz")
RETRIEVAL_PARTS = ("corpus", "queries", "qrels")

Row = dict[str, Any]


def read_rows(path: Path, keys: Sequence[str]) -> list[Row]:
    """All rows of a `.jsonl` or `.jsonl.gz` file, each a JSON object with at least `keys`.

    Raises:
        ValueError: a line isn't such an object, or there is none; the message names file and line.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    rows: list[Row] = []
    number = 0
    with opener(path, "rt", encoding="utf-8") as lines:
        try:
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
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
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
