"""Every test runs without a network, on the bundled model."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest_socket
from haystack import Document

from anytask import Instructor, load_shared, release_shared
from anytask.coalescing import Coalescer
from anytask.engine import EncodingEngine

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds after which a test gives up waiting for what must happen; nothing waits so long when all is well."""


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    pytest_socket.disable_socket(allow_unix_socket=True)  # an event loop wakes itself by a Unix socket
    yield
    pytest_socket.enable_socket()


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_API_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def model() -> Instructor:
    """The model that components with default settings share."""
    return load_shared("mini")


@pytest.fixture
def documents() -> list[Document]:
    return [
        Document(content="Basalt forms when lava cools at the surface.", meta={"title": "Rocks", "page": 7}),
        Document(content="A sonata has three or four movements.", meta={"title": "Music"}),
        Document(content="Yeast turns sugar into carbon dioxide.", meta={"title": None}),
    ]


class Ticker:
    """A coroutine beside the others; it comes to a stand when something blocks the event loop."""

    def __init__(self) -> None:
        self.ticks = 0
        self._advanced = threading.Condition()

    async def _run(self) -> None:
        while True:
            with self._advanced:
                self.ticks += 1
                self._advanced.notify_all()
            await asyncio.sleep(0)

    async def beside(self, work: Awaitable[T]) -> T:
        ticking = asyncio.create_task(self._run())
        try:
            return await work
        finally:
            ticking.cancel()

    def wait_for_ticks(self, count: int = 20) -> None:
        """Block the calling thread, which must not be the event loop's, until the loop has gone round."""
        with self._advanced:
            goal = self.ticks + count
            if not self._advanced.wait_for(lambda: self.ticks >= goal, timeout=PATIENCE):
                raise AssertionError("the event loop stood still")


@pytest.fixture
def ticker() -> Ticker:
    return Ticker()


class Engine:
    """What reaches the engine of a fresh model, and a hold on it.

    Attributes:
        runs: number of texts of each run of the engine.
        submitted: calls that have been queued for a shared run.
    """

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.submitted = 0
        self._queued = threading.Condition()
        self._hold: Callable[[], None] | None = None

    def hold_first_run_until(self, calls: int, ticker: Ticker) -> None:
        """Let no run begin before so many calls are queued and the event loop has kept turning meanwhile."""

        def hold() -> None:
            with self._queued:
                if not self._queued.wait_for(lambda: self.submitted >= calls, timeout=PATIENCE):
                    raise AssertionError(f"{self.submitted} of {calls} calls came while the first was at work")
            ticker.wait_for_ticks()

        self._hold = hold

    def note_call(self) -> None:
        with self._queued:
            self.submitted += 1
            self._queued.notify_all()

    def note_run(self, texts: Sequence[Any]) -> None:
        self.runs.append(len(texts))
        hold, self._hold = self._hold, None
        if hold is not None:
            hold()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    watched, embed, arun = Engine(), EncodingEngine.embed, Coalescer.arun

    def watched_embed(self: EncodingEngine, texts: Sequence[Any], *args: Any, **options: Any) -> Any:
        watched.note_run(texts)
        return embed(self, texts, *args, **options)

    def watched_arun(self: Coalescer, *args: Any, **options: Any) -> Any:
        watched.note_call()
        return arun(self, *args, **options)

    monkeypatch.setattr(EncodingEngine, "embed", watched_embed)
    monkeypatch.setattr(Coalescer, "arun", watched_arun)
    release_shared()
    yield watched
    release_shared()
