"""Work that is done ahead of time in a thread."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The same items; each is made, in a thread of its own, while the one before is used.

    The thread ends with the items, or when the generator is closed (`contextlib.closing`) or collected.

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
