"""What a corpus is read from: files of many formats, folders and standard input, as one stream of numbered rows."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from anytask.files.compressed import BUFFER, DamagedFileError, open_compressed
from anytask.files.compressed import SUFFIXES as COMPRESSED
from anytask.files.json_stream import (
    VALUE_LIMIT,
    decode_line,
    read_array,
    skip_to_content,
    split_lines,
)

Format = Literal["jsonl", "csv", "tsv", "parquet", "text", "lines"]
STDIN = "-"
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
PARQUET_BATCH = 1024
SHOWN = 10


class InputError(ValueError):
    """An input can't be read; the message names it, and the row where that is known."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it was found; `source.parse(content)` makes values of it."""

    source: Source
    number: int
    """In its file, from 1."""
    content: Any
    line: int | None = None
    position: int = 0
    """Bytes of the file that were read, to tell progress."""

    @property
    def place(self) -> str:
        return f"{self.source.path}, row {self.number}" + ("" if self.line is None else f" (line {self.line})")


class Source:
    """One input file, read row by row.

    Args:
        path: as it was given; "-" is standard input.
        fields: the columns that will be asked for, of files that hold columns apart.
    """

    def __init__(self, path: str, fields: Sequence[str]) -> None:
        self.path = path
        self.fields = fields
        self.size = 0 if path == STDIN else os.stat(path).st_size  # noqa: PTH116

    def count(self) -> int | None:
        """How many rows there are, where that is known without reading them."""
        return None

    def read(self, start: int = 0) -> Iterator[RawRow]:
        """The rows, without the first `start` where `count` knows their number.

        Raises:
            InputError: the file is damaged, or not of its format.
        """
        raise NotImplementedError

    def parse(self, content: Any) -> Mapping[str, Any]:
        """The values of a row's content by the names of their fields.

        Raises:
            ValueError: it can't be read.
        """
        raise NotImplementedError


class _Stream(Source):
    """A file of bytes, plain or compressed."""

    def read(self, start: int = 0) -> Iterator[RawRow]:
        assert not start, "rows of a stream aren't counted"
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count

        number = told = 0
        try:
            with self._open(advance) as stream:
                for number, (line, content) in enumerate(self._contents(stream), 1):
                    told += len(content) if isinstance(content, bytes) else BUFFER
                    yield RawRow(self, number, content, line, min(told, done))
        except DamagedFileError as error:
            where = "" if error.line is None else f" (line {error.line})"
            raise InputError(f"{self.path}, row {number + 1}{where}: {error}") from error

    def _open(self, advance: Any) -> AbstractContextManager[io.BufferedReader]:
        if self.path == STDIN:
            return _standard_input()
        return open_compressed(Path(self.path), advance)

    def _contents(self, stream: io.BufferedReader) -> Iterator[tuple[int | None, Any]]:
        raise NotImplementedError


class JsonSource(_Stream):
    """JSON lines, or a JSON array."""

    def _contents(self, stream: io.BufferedReader) -> Iterator[tuple[int | None, Any]]:
        first, line = skip_to_content(stream)
        if first == b"[":
            return ((None, value) for value in read_array(stream))
        return split_lines(stream, line)

    def parse(self, content: Any) -> Mapping[str, Any]:
        value = decode_line(content) if isinstance(content, bytes) else content
        if not isinstance(value, dict):
            raise ValueError(f"expected a JSON object, found {_kind(value)}")
        return value


class LinesSource(_Stream):
    """A text a line; blank lines are none."""

    def _contents(self, stream: io.BufferedReader) -> Iterator[tuple[int | None, Any]]:
        return split_lines(stream)

    def parse(self, content: Any) -> Mapping[str, Any]:
        return {"text": _decode(content).strip()}


class CsvSource(_Stream):
    """Comma-separated values with a header, as RFC 4180 and Python's `csv` have them; of tabs where `separator` is."""

    separator = ","
    header: list[str]

    def _contents(self, stream: io.BufferedReader) -> Iterator[tuple[int | None, Any]]:
        csv.field_size_limit(VALUE_LIMIT)
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        rows = csv.reader(text, delimiter=self.separator, strict=True)
        try:
            self.header = next(rows, [])
            if len(set(self.header)) < len(self.header):
                raise DamagedFileError(f"its header names a column twice: {', '.join(self.header)}")
            for row in rows:
                if row:
                    yield rows.line_num, row
        except csv.Error as error:
            raise DamagedFileError(f"not valid CSV ({error})", rows.line_num) from error
        finally:
            text.detach()

    def parse(self, content: Any) -> Mapping[str, Any]:
        if len(content) != len(self.header):
            raise ValueError(f"has {len(content)} values, the header {len(self.header)} columns")
        return dict(zip(self.header, content, strict=True))


class TsvSource(CsvSource):
    separator = "\t"


class TextSource(Source):
    """A file that is one text; its fields are `text` and `path`."""

    def count(self) -> int:
        return 1

    def read(self, start: int = 0) -> Iterator[RawRow]:
        if not start:
            yield RawRow(self, 1, self.path, position=self.size)

    def parse(self, content: Any) -> Mapping[str, Any]:
        if self.size > VALUE_LIMIT:
            raise ValueError(f"has {self.size:,} bytes, a text may have {VALUE_LIMIT:,}")
        return {"text": _decode(Path(content).read_bytes()), "path": Path(content).as_posix()}


class ParquetSource(Source):
    """Rows of a Parquet file; values are Arrow scalars."""

    def __init__(self, path: str, fields: Sequence[str]) -> None:
        super().__init__(path, fields)
        with self._open() as file:
            self.schema: pa.Schema = file.schema_arrow
            self.groups = [file.metadata.row_group(place).num_rows for place in range(file.metadata.num_row_groups)]
        missing = [name for name in fields if name not in self.schema.names]
        if missing:
            raise InputError(f"{path}: has no column {', '.join(missing)}; it has {', '.join(self.schema.names)}")

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.path, memory_map=False, buffer_size=1 << 20)
        except pa.ArrowInvalid as error:
            raise InputError(f"{self.path}: no Parquet file, or damaged ({error})") from error

    def count(self) -> int:
        return sum(self.groups)

    def read(self, start: int = 0) -> Iterator[RawRow]:
        first, before = 0, 0
        while first < len(self.groups) and before + self.groups[first] <= start:
            before += self.groups[first]
            first += 1
        rows = self.count()
        with self._open() as file:
            number = before
            try:
                for batch in file.iter_batches(
                    PARQUET_BATCH, row_groups=range(first, len(self.groups)), columns=list(self.fields)
                ):
                    for place in range(max(0, start - number), batch.num_rows):
                        row = number + place + 1
                        yield RawRow(self, row, (batch, place), position=self.size * row // rows)
                    number += batch.num_rows
            except (OSError, pa.ArrowException) as error:
                raise InputError(f"{self.path}, row {number + 1}: the data is damaged ({error})") from error

    def parse(self, content: Any) -> Mapping[str, Any]:
        batch, place = content
        return {name: batch.column(name)[place] for name in self.fields}


SOURCES: dict[Format, type[Source]] = {
    "jsonl": JsonSource,
    "csv": CsvSource,
    "tsv": TsvSource,
    "parquet": ParquetSource,
    "text": TextSource,
    "lines": LinesSource,
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


def rows_from(sources: Sequence[Source], start: int = 0) -> Iterator[RawRow]:
    """The rows of all sources, one after the other, without the first `start`. `position` counts all files' bytes."""
    before = 0
    for source in sources:
        count = source.count()
        if count is None:
            for row in source.read():
                if start:
                    start -= 1
                    continue
                yield _moved(row, before)
        elif start < count:
            for row in source.read(start):
                yield _moved(row, before)
            start = 0
        else:
            start -= count
        before += source.size


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


@contextmanager
def _standard_input() -> Iterator[io.BufferedReader]:
    stream: Any = io.BufferedReader(sys.stdin.buffer, BUFFER)
    try:
        yield stream
    finally:
        with suppress(ValueError):  # somebody closed it
            stream.detach()


def _stamp(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} bytes, modified {found.st_mtime_ns}"


def _moved(row: RawRow, before: int) -> RawRow:
    return RawRow(row.source, row.number, row.content, row.line, row.position + before) if before else row


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
    name = Path(path)
    return (name.with_suffix("").suffix if name.suffix in COMPRESSED else name.suffix).lower()


def _format_of(path: str) -> Format:
    if path == STDIN:
        return "jsonl"
    if not Path(path).exists():
        raise InputError(f"{path}: no such file or folder")
    suffix = _suffix(path)
    if suffix not in FORMATS:
        raise InputError(f"{path}: its name tells no format; say which, with --format {'|'.join(get_args(Format))}")
    return FORMATS[suffix]


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"isn't UTF-8 ({error.reason} at byte {error.start})") from None


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
