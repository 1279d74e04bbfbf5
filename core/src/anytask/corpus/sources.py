"""What a corpus is read from: files, folders and standard input, as one stream of numbered rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_args

from anytask.corpus.formats import SOURCES, STDIN, Format, InputError, RawRow, Source, StreamSource
from anytask.files.compressed import SUFFIXES as COMPRESSED

FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
    ".rst": "text",
}


def find_sources(inputs: Iterable[str], fields: Sequence[str], format: Format | None = None) -> list[Source]:
    """The files of the inputs, those of a folder (and of its folders) in the order of their names.

    Args:
        inputs: files, folders, and "-" for standard input.
        fields: the columns that will be asked for.
        format: of every file, and every file of a folder is taken; None goes by the names, and takes of a folder
            the files whose names tell a format. Standard input is then JSON lines.

    Raises:
        InputError: something isn't there, or its format can't be told.
    """
    if format is not None and format not in get_args(Format):
        raise InputError(f"format must be one of {', '.join(get_args(Format))}, got {format!r}")
    sources = []
    for name in inputs:
        paths = _files_of(Path(name), format) if name != STDIN and Path(name).is_dir() else [name]
        sources += [SOURCES[format or _format_of(path)](path, fields) for path in paths]
    return sources


def rows_from(
    sources: Sequence[Source], start: int = 0, counts: Sequence[int | None] | None = None
) -> Iterator[RawRow]:
    """The rows of all sources, one after the other, without the first `start`. `position` counts all files' bytes.

    Args:
        counts: rows of each source, so that files before the first row aren't opened; those that sources tell by
            default.
    """
    before = 0
    for source, count in zip(sources, counts or [source.count() for source in sources], strict=True):
        if count is None:
            for row in source.read():
                if start:
                    start -= 1
                    continue
                row.position += before
                yield row
        elif start < count:
            for row in source.read(start):
                row.position += before
                yield row
            start = 0
        else:
            start -= count
        before += source.size


def count_rows(source: Source) -> int:
    """How many rows there are, by reading them where that isn't known otherwise.

    Raises:
        InputError: the file is damaged, or standard input, which can't be read again.
    """
    if source.path == STDIN:
        raise InputError("standard input can't be read twice; give files")
    count = source.count()
    return sum(1 for _ in source.read()) if count is None else count


def identity(name: str, format: Format | None) -> str:
    """What tells an input from another or a changed one without reading it: sizes and times of its files."""
    path = Path(name)
    if name == STDIN:
        return "standard input"
    if not path.is_dir():
        return _stamp(path)
    files = _files_of(path, format)
    listing = "".join(f"{file}\0{_stamp(Path(file))}\n" for file in files)
    return f"{len(files)} files, {hashlib.sha256(listing.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def _stamp(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} bytes, modified {found.st_mtime_ns}"


def _files_of(folder: Path, format: Format | None) -> list[str]:
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith((".", "_")) and (format is not None or _suffix(name) in FORMATS):
                found.append(str(Path(place) / name))
    if not found:
        suffixes = ", ".join(FORMATS)
        raise InputError(f"{folder}: holds no file of a known name ({suffixes}, of streams also .gz and .zst)")
    return found


def _suffix(path: str) -> str:
    """What tells the format: of a compressed stream the suffix before the last."""
    name = Path(path)
    inner = name.with_suffix("").suffix.lower()
    is_stream = inner in FORMATS and issubclass(SOURCES[FORMATS[inner]], StreamSource)
    return inner if is_stream and name.suffix in COMPRESSED else name.suffix.lower()


def _format_of(path: str) -> Format:
    if path == STDIN:
        return "jsonl"
    if not Path(path).exists():
        raise InputError(f"{path}: no such file or folder")
    suffix = _suffix(path)
    if suffix not in FORMATS:
        raise InputError(f"{path}: its name tells no format; say which, with --format {'|'.join(get_args(Format))}")
    return FORMATS[suffix]
