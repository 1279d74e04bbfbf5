"""Objects from files of JSON lines, with the checks that texts of foreign files need."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anytask.files.compressed import DamagedFileError, open_compressed
from anytask.training.medi.records import found


def read_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers (from 1) and objects of a JSON-lines file, plain, gzip or Zstandard; blank lines are skipped.

    NaN and the infinities, which aren't JSON, are read as Python's writer leaves them.

    Raises:
        ValueError: a line isn't an object, or the compressed data is damaged; the message names the file and the line.
    """
    path, number = Path(path), 0
    try:
        with open_compressed(path) as stream:
            for number, line in enumerate(stream, 1):
                if not line.isspace():
                    yield number, _object(line)
    except (DamagedFileError, _LineError) as error:
        raise ValueError(f"{path}, line {number if isinstance(error, _LineError) else number + 1}: {error}") from error


class _LineError(ValueError):
    pass


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _LineError(f"not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise _LineError(f"expected an object, found {found(value)}")
    return value


def field(row: Mapping[str, Any], dotted: str) -> Any:
    """The value at a path of keys, such as `meta.author`; None where there is none."""
    value: Any = row
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def matches(row: Mapping[str, Any], where: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether each field of `where` holds one of its values, or a list with one of them in it."""
    for dotted, wanted in where.items():
        value = field(row, dotted)
        if not any(str(item) in wanted for item in (value if isinstance(value, list) else [value])):
            return False
    return True


def check_text(value: object, where: str) -> str:
    """`value`, if it is a string of characters.

    Raises:
        ValueError: it isn't; the message begins with `where`.
    """
    if not isinstance(value, str):
        raise ValueError(f"{where}: expected a string, found {found(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"U+{ord(value[error.start]):04X}"
        raise ValueError(f"{where}: holds {half}, half of a surrogate pair, which is no character") from None
    return value
