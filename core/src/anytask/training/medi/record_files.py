"""Files of training records, as streams: the released JSON array and JSON lines, plain, `.gz` or `.zst`.

A few records at a time are held in memory, so files may be larger than it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from anytask.files.compressed import SUFFIXES, DamagedFileError, open_compressed, write_compressed
from anytask.files.json_stream import read_array, read_lines, skip_to_content
from anytask.training.medi.records import Record, RecordError


def read_records(path: str | Path, advance: Callable[[int], None] | None = None) -> Iterator[Record]:
    """Read the records of a file one by one.

    The content tells the format, whatever the name: a JSON array as released, or JSON lines (blank lines are skipped);
    plain, gzip or Zstandard; UTF-8.

    Args:
        advance: called with each number of bytes read (compressed ones, where they are), for a progress bar.

    Raises:
        RecordError: a record isn't valid, the JSON is malformed, or the compressed data is damaged. It names the file,
            the number of the record (from 1), in JSON lines the line, and the field; the records before were yielded.
        OSError: the file can't be opened or read.
        ImportError: the extra `train` is missing, which JSON arrays and Zstandard need.
    """
    for record in scan_records(path, advance):
        if isinstance(record, RecordError):
            raise record
        yield record


def scan_records(path: str | Path, advance: Callable[[int], None] | None = None) -> Iterator[Record | RecordError]:
    """As `read_records`, but errors are yielded, and what follows them is read where that is possible: after a record
    that isn't valid and, in JSON lines, after a line that isn't JSON."""
    path = Path(path)
    number = 0
    try:
        with open_compressed(path, advance) as stream:
            for line, value in _values(stream, path):
                number += 1
                if isinstance(value, DamagedFileError):
                    yield RecordError(str(value), path=path, record=number, line=line)
                    continue
                try:
                    yield Record.from_json(value)
                except RecordError as error:
                    yield error.at(path, number, line)
    except DamagedFileError as error:
        yield RecordError(str(error), path=path, record=number + 1, line=error.line)


def read_many(paths: Iterable[str | Path], advance: Callable[[int], None] | None = None) -> Iterator[Record]:
    """The records of several files, one file after the other; see `read_records`."""
    for path in paths:
        yield from read_records(path, advance)


def write_records(records: Iterable[Record], path: str | Path) -> int:
    """Write records one by one to `path`, which appears (or is replaced) when the last one is written.

    Args:
        path: `.json` for an array, a record a line; `.jsonl` for JSON lines; with `.gz` or `.zst` after it, compressed.

    Returns:
        how many.

    Raises:
        ValueError: another suffix. RecordError: a record's string isn't valid Unicode.
    """
    path = Path(path)
    begin, between, end, none = (b"[\n", b",\n", b"\n]\n", b"[]\n") if is_array_name(path) else (b"", b"\n", b"\n", b"")
    count = 0
    with write_compressed(path) as file:
        for count, record in enumerate(records, 1):
            try:
                line = json.dumps(record.to_json(), ensure_ascii=False).encode("utf-8")
            except UnicodeEncodeError as error:
                raise RecordError(f"holds half of a surrogate pair ({error})", path=path, record=count) from None
            file.write(begin if count == 1 else between)
            file.write(line)
        file.write(end if count else none)
    return count


def is_array_name(path: Path) -> bool:
    """Whether `write_records` writes an array to a file of this name, or lines.

    Raises:
        ValueError: the name tells neither.
    """
    format = path.with_suffix("").suffix if path.suffix in SUFFIXES else path.suffix
    if format not in (".json", ".jsonl"):
        raise ValueError(f"{path}: expected a name that ends in .json or .jsonl, and with .gz or .zst to compress it")
    return format == ".json"


def _values(stream: io.BufferedReader, path: Path) -> Iterator[tuple[int | None, Any | DamagedFileError]]:
    """The values of an array or of lines, the latter with their number."""
    first, line = skip_to_content(stream)
    if first == b"[":
        for value in read_array(stream):
            yield None, value
    elif first == b"{":
        yield from read_lines(stream, line)
    elif first:
        raise DamagedFileError(f"begins with {first!r}, expected '[' (a JSON array) or '{{' (JSON lines) in UTF-8")
    elif ".json" in path.suffixes:
        raise DamagedFileError("holds nothing, expected a JSON array")
