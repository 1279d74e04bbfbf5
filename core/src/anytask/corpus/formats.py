"""Formats of a corpus' files, each read row by row."""

from __future__ import annotations

import csv
import io
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from anytask.files.compressed import BUFFER, DamagedFileError, open_compressed
from anytask.files.json_stream import VALUE_LIMIT, decode_line, read_array, skip_to_content, split_lines

Format = Literal["jsonl", "csv", "tsv", "parquet", "text", "lines"]
STDIN = "-"
PARQUET_BATCH = 1024


class InputError(ValueError):
    """An input can't be read; the message names it, and the row where that is known."""


@dataclass(slots=True)
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


class Source(ABC):
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

    @abstractmethod
    def read(self, start: int = 0) -> Iterator[RawRow]:
        """The rows, without the first `start`, which a stream has to read all the same.

        Raises:
            InputError: the file is damaged, or not of its format.
        """

    @abstractmethod
    def parse(self, content: Any) -> Mapping[str, Any]:
        """The values of a row's content by the names of their fields.

        Raises:
            ValueError: it can't be read.
        """


class StreamSource(Source):
    """A file of bytes, plain or compressed."""

    def read(self, start: int = 0) -> Iterator[RawRow]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count

        number = told = 0
        try:
            with self._open(advance) as stream:
                for number, (line, content) in enumerate(self._contents(stream), 1):
                    told += len(content) if isinstance(content, bytes) else BUFFER
                    if number > start:
                        yield RawRow(self, number, content, line, min(told, done))
        except DamagedFileError as error:
            where = "" if error.line is None else f" (line {error.line})"
            raise InputError(f"{self.path}, row {number + 1}{where}: {error}") from error

    def _open(self, advance: Any) -> AbstractContextManager[io.BufferedReader]:
        if self.path == STDIN:
            return _standard_input()
        return open_compressed(Path(self.path), advance)

    @abstractmethod
    def _contents(self, stream: io.BufferedReader) -> Iterator[tuple[int | None, Any]]:
        """Each row's line, where it has one of its own, and its content."""


class JsonSource(StreamSource):
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


class LinesSource(StreamSource):
    """A text a line; blank lines are none."""

    def _contents(self, stream: io.BufferedReader) -> Iterator[tuple[int | None, Any]]:
        return split_lines(stream)

    def parse(self, content: Any) -> Mapping[str, Any]:
        return {"text": _decode(content).strip()}


class CsvSource(StreamSource):
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
    """Rows of a Parquet file; values of other types than strings and numbers are Arrow scalars."""

    def __init__(self, path: str, fields: Sequence[str]) -> None:
        super().__init__(path, fields)
        with self._open() as file:
            self.schema: pa.Schema = file.schema_arrow
            self.groups = [file.metadata.row_group(place).num_rows for place in range(file.metadata.num_row_groups)]
        missing = [name for name in fields if name not in self.schema.names]
        if missing:
            raise InputError(f"{path}: has no column {', '.join(missing)}; it has {', '.join(self.schema.names)}")
        self.types = {name: self.schema.field(name).type for name in fields}

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
                    columns = [_values(batch.column(name)) for name in self.fields]
                    for place in range(max(0, start - number), batch.num_rows):
                        row = number + place + 1
                        yield RawRow(self, row, (columns, place), position=self.size * row // rows)
                    number += batch.num_rows
            except (OSError, pa.ArrowException) as error:
                raise InputError(f"{self.path}, row {number + 1}: the data is damaged ({error})") from error

    def parse(self, content: Any) -> Mapping[str, Any]:
        columns, place = content
        return {name: column[place] for name, column in zip(self.fields, columns, strict=True)}


SOURCES: dict[Format, type[Source]] = {
    "jsonl": JsonSource,
    "csv": CsvSource,
    "tsv": TsvSource,
    "parquet": ParquetSource,
    "text": TextSource,
    "lines": LinesSource,
}


@contextmanager
def _standard_input() -> Iterator[io.BufferedReader]:
    """A reader of its own where that can be: that of `sys.stdin` is locked while a thread waits for input, and the
    interpreter couldn't end then."""
    try:
        source: Any = io.FileIO(sys.stdin.fileno(), closefd=False)
    except (OSError, ValueError):
        source = sys.stdin.buffer
    stream: Any = io.BufferedReader(source, BUFFER)
    try:
        yield stream
    finally:
        with suppress(ValueError):  # somebody closed it
            stream.detach()


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"isn't UTF-8 ({error.reason} at byte {error.start})") from None


def _values(column: pa.Array) -> list[Any]:
    """A column's values; those that Python's types don't hold without loss as Arrow scalars."""
    types = pa.types
    if any(test(column.type) for test in (types.is_string, types.is_integer, types.is_float64, types.is_boolean)):
        with suppress(UnicodeDecodeError):  # told row by row
            values: list[Any] = column.to_pylist()
            return values
    return list(column)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
