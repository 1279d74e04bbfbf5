"""JSON values read one by one from a stream: the elements of an array, or lines."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from types import ModuleType
from typing import Any, NoReturn

from anytask.files.compressed import DamagedFileError

VALUE_LIMIT = 1 << 26
"""Bytes of the longest value: a file where none ends is not read into memory whole."""
CHUNK = 1 << 16
LONGEST_ESCAPE = len(r"\ud83d\ude00")
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
WHOLE = re.compile(rb"(?:[^\\]++|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\(?!u[dD][89a-fA-F]).)*+", re.S)
"""Everything up to half of a surrogate pair, or the end."""
BOM = b"\xef\xbb\xbf"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def skip_to_content(stream: io.BufferedReader) -> tuple[bytes, int]:
    """Skip a byte-order mark and blanks; the first byte after them, empty at the end, and the number of its line."""
    if stream.peek(len(BOM)).startswith(BOM):
        stream.read(len(BOM))
    line = 1
    while blank := (head := stream.peek(1))[: len(head) - len(head.lstrip())]:
        line += stream.read(len(blank)).count(b"\n")
    return stream.peek(1)[:1], line


def split_lines(stream: io.BufferedReader, line: int = 1) -> Iterator[tuple[int, bytes]]:
    """The number and the bytes of each line that isn't blank.

    Args:
        line: the number of the stream's first line.

    Raises:
        DamagedFileError: a line is too long.
    """
    while text := stream.readline(VALUE_LIMIT + 1):
        if len(text) > VALUE_LIMIT:
            raise DamagedFileError(f"no line ends within {VALUE_LIMIT >> 20} MiB", line)
        if not text.isspace():
            yield line, text
        line += 1


def read_lines(stream: io.BufferedReader, line: int = 1) -> Iterator[tuple[int, Any | DamagedFileError]]:
    """The number and the value of each line that isn't blank; what is wrong with it, where it isn't one JSON value.

    Args:
        line: the number of the stream's first line.

    Raises:
        DamagedFileError: a line is too long.
    """
    for number, text in split_lines(stream, line):
        try:
            yield number, decode_line(text)
        except DamagedFileError as error:
            error.line = number
            yield number, error


def decode_line(text: bytes) -> Any:
    """The one JSON value of a line.

    Raises:
        DamagedFileError: it isn't one, or isn't UTF-8.
    """
    try:
        return DECODER.decode(text.decode("utf-8").strip())
    except json.JSONDecodeError as error:
        raise DamagedFileError(f"not valid JSON ({error.msg.removesuffix(' at')} at character {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"not valid JSON ({error})") from None


def read_array(stream: io.BufferedReader) -> Iterator[Any]:
    """The elements of the array that the stream holds; those before an error are yielded first.

    Raises:
        DamagedFileError: the stream isn't one JSON array in UTF-8, or an element is too long.
        ImportError: ijson isn't installed.
    """
    ijson = _ijson()
    values: list[Any] = ijson.sendable_list()
    parser = ijson.items_coro(values, "item")
    pending = 0
    while chunk := _read_chunk(stream, max(CHUNK, pending)):
        half = _half_pair(chunk)
        problem = None
        try:
            parser.send(chunk if half is None else chunk[:half])
        except (ijson.JSONError, ValueError) as error:
            problem = f"not valid JSON ({_told(error)})"
        else:
            if half is not None:
                escape = chunk[half : half + 6].decode("ascii")
                problem = f"{escape} is half of a surrogate pair, which is no character; repair the text"
        pending = 0 if values else pending + len(chunk)
        if pending > VALUE_LIMIT:
            problem = problem or f"no element ends within {VALUE_LIMIT >> 20} MiB"
        _decimals_to_floats(values)
        yield from values
        values.clear()
        if problem is not None:
            raise DamagedFileError(problem)
    try:
        parser.close()
    except ijson.JSONError:
        raise DamagedFileError("the file ends before its JSON array does: it was cut off") from None


def _decimals_to_floats(values: list[Any]) -> None:
    """Replace ijson's decimals, however deep, by the numbers that `json` reads."""
    unvisited: list[Any] = [values]
    while unvisited:
        holder = unvisited.pop()
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(value, Decimal):
                holder[key] = float(value)
            elif isinstance(value, dict | list):
                unvisited.append(value)


def _read_chunk(stream: io.BufferedReader, size: int) -> bytes:
    """Bytes that don't end within an escape sequence; empty at the end."""
    parts = [stream.read1(size)]
    tail = parts[0][-LONGEST_ESCAPE:]
    while b"\\" in tail and (more := stream.read1(LONGEST_ESCAPE)):
        parts.append(more)
        tail = (tail + more)[-LONGEST_ESCAPE:]
    return b"".join(parts)


def _half_pair(chunk: bytes) -> int | None:
    """Where half of a surrogate pair is escaped, if it is: ijson's C parser would read it as a question mark."""
    if SURROGATE.search(chunk) is None:
        return None
    whole = WHOLE.match(chunk)
    end = 0 if whole is None else whole.end()
    return end if SURROGATE.match(chunk, end) else None


def _told(error: Exception) -> str:
    """The first line of a parser's message, and what it points at."""
    message = error.args[0] if error.args else error
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(error)
    reason, *context = (" ".join(line.split()) for line in text.splitlines() or [type(error).__name__])
    return f"{reason.rstrip('.')}, near {context[0]!r}" if context and context[0] else reason


def _ijson() -> ModuleType:
    try:
        import ijson
    except ImportError as error:
        raise ImportError('JSON arrays are read with ijson: pip install "anytask[embed]"') from error
    module: ModuleType = ijson
    return module
