"""Work that is done ahead of time in a thread."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item], *, join: bool = True) -> Generator[Item, None, None]:
    """The same items; each is made, in a thread of its own, while the one before is used.

    The thread ends with the items, or when the generator is closed (`contextlib.closing`) or collected. Where no thread
    can be started any more, as when the interpreter ends, the items are made when they are asked for.

    Args:
        join: whether closing waits for the item that is being made; one that is read from standard input may never be.

    Raises:
        what making an item raises, in its place.
    """
    source = iter(items)
    wanted: SimpleQueue[bool] = SimpleQueue()
    made: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    thread = Thread(target=_make, args=(source, wanted, made), name="anytask-ahead", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        yield from source
        return
    try:
        wanted.put(True)
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            wanted.put(True)
            yield item
    finally:
        wanted.put(False)
        if join:
            thread.join()


def _make(source: Any, wanted: SimpleQueue[bool], made: SimpleQueue[tuple[Any, BaseException | None]]) -> None:
    while wanted.get():
        try:
            made.put((next(source, _END), None))
        except BaseException as error:
            made.put((None, error))


_END = object()
