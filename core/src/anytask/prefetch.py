"""Work that is done ahead of time in a thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items; each is made, in a thread of its own, while the one before is used.

    Raises:
        what making an item raises, in its place.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, "anytask-ahead") as thread:
        future = thread.submit(next, source, _END)
        while (item := future.result()) is not _END:
            future = thread.submit(next, source, _END)
            yield item  # type: ignore[misc]


_END = object()
