"""Reading a suite's files: JSON lines, plain or gzip."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anytask.files.compressed import DamagedFileError, open_compressed

SUFFIXES = (".jsonl", ".jsonl.gz")
RETRIEVAL_PARTS = ("corpus", "queries", "qrels")

Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """What a field of a row may hold; one that may hold null may be missing."""

    expected: str
    fits: Callable[[Any], bool]


TEXT = Kind("a string", lambda value: isinstance(value, str))
OPTIONAL_TEXT = Kind("a string or null", lambda value: isinstance(value, str | None))
TEXTS = Kind("a list of strings", lambda value: isinstance(value, list) and all(map(TEXT.fits, value)))
ANY_TEXTS = Kind("a list of one string or more", lambda value: TEXTS.fits(value) and len(value) > 0)
NAME = Kind("a string or an integer", lambda value: isinstance(value, str | int))
NUMBER = Kind(
    "a finite number",
    lambda value: isinstance(value, float | int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max,
)
YES_OR_NO = Kind("1 or 0", lambda value: value in (0, 1))


def read_rows(path: Path, fields: Mapping[str, Kind], unique: str | None = None) -> list[Row]:
    """All rows of a `.jsonl` or `.jsonl.gz` file, each a JSON object with at least `fields`.

    Args:
        fields: what each holds.
        unique: a field that no two rows have the same value of.

    Raises:
        ValueError: a line isn't such an object, or there is none; the message names file and line.
    """
    rows: list[Row] = []
    first: dict[Any, int] = {}
    number = 0
    try:
        with open_compressed(path) as stream, io.TextIOWrapper(stream, "utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if problem := _problem(row, fields):
                    raise ValueError(f"{path}, line {number}: {problem}")
                if unique is not None and first.setdefault(row[unique], number) != number:
                    raise ValueError(
                        f"{path}, line {number}: {unique} {row[unique]!r} is already that of line {first[row[unique]]}"
                    )
                rows.append(row)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
    except (DamagedFileError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: can't be read as JSON lines ({error})") from error
    if not rows:
        raise ValueError(f"{path}: holds no rows")
    return rows


def _problem(row: object, kinds: Mapping[str, Kind]) -> str | None:
    """What is wrong with a row."""
    needed = [key for key, kind in kinds.items() if not kind.fits(None)]
    missing = [key for key in needed if key not in row] if isinstance(row, dict) else needed
    if missing or not isinstance(row, dict):
        return f"expected an object with {', '.join(needed)}; {missing} missing"
    for key, kind in kinds.items():
        if not kind.fits(row.get(key)):
            return f"{key} is {json.dumps(row[key], ensure_ascii=False):.60}, expected {kind.expected}"
    return None


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
