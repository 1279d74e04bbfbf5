"""Rows in windows: those that are read while others are computed, and whose lengths are batched together."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, TypeVar

import numpy.typing as npt

from anytask.corpus.formats import RawRow
from anytask.corpus.rows import BadRowError, Row

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Window:
    """Consecutive rows of one shard."""

    shard: int
    rows: list[Row] = field(default_factory=list)
    bad: list[BadRowError] = field(default_factory=list)
    start: int = 0
    position: int = 0
    """Bytes of all inputs that were read before it, and with it."""
    last: bool = False
    """The shard is full."""
    done: int = 0
    """Rows that are computed, or left out."""
    codes: npt.NDArray[Any] | None = None
    """The rows' vectors [n, width], once they are computed."""
    cut: int = 0
    """Texts of which only the beginning was embedded."""

    def __len__(self) -> int:
        return len(self.rows) + len(self.bad)


def windows(
    raw: Iterator[RawRow],
    parse: Callable[[RawRow, int], Row],
    *,
    shard: int,
    shard_rows: int,
    window_rows: int,
    skip_bad: bool,
) -> Iterator[Window]:
    """The rows from the first one of `shard` on, in windows that end where their shard ends.

    Args:
        parse: a raw row and its number among those of all inputs to a row.
        skip_bad: put bad rows aside.

    Raises:
        BadRowError: a bad row, where they aren't skipped.
    """
    number = shard * shard_rows
    position, upcoming = 0, next(raw, None)
    while upcoming is not None:
        window = Window(number // shard_rows, start=position)
        count = min(window_rows, shard_rows - number % shard_rows)
        for found in islice(chain([upcoming], raw), count):
            try:
                window.rows.append(parse(found, number))
            except BadRowError as error:
                if not skip_bad:
                    raise
                window.bad.append(error)
            window.position = position = found.position
            number += 1
        window.last = number % shard_rows == 0
        yield window
        upcoming = next(raw, None)


def by_shard(stream: Iterator[Window]) -> Iterator[tuple[int, Iterator[Window]]]:
    """The number of each shard and its windows, all of which have to be taken before the next shard.

    A shard ends without a look at what comes after it, which may be a bad row.
    """
    for first in stream:
        yield first.shard, _until_last(first, stream)


def _until_last(window: Window, rest: Iterator[Window]) -> Iterator[Window]:
    yield window
    while not window.last and (following := next(rest, None)) is not None:
        window = following
        yield window


def in_order(items: Iterator[T], work: Callable[[T], R], pool: Executor, count: int) -> Iterator[R]:
    """What `work` makes of each item in the pool, in the items' order; no more than `count` wait or are made at a time.

    Raises:
        what `work` or the items raise, in its place: after what comes before it.
    """
    pending: deque[Future[R]] = deque()
    failed: Exception | None = None
    try:
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            except Exception as error:
                failed = error
                break
            pending.append(pool.submit(work, item))
            if len(pending) == count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
    if failed is not None:
        raise failed


class Digest:
    """Of ids, texts and the fields that are kept."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, rows: list[Row]) -> None:
        for row in rows:
            self._hash.update(f"{row.id}\0{row.text}\0".encode())
            if row.kept:
                self._hash.update(repr(row.kept).encode("utf-8", "backslashreplace"))

    def __str__(self) -> str:
        return self._hash.hexdigest()
