"""Many callers with one query each: a lock around `encode` beside `encode` in threads and `aencode` in an event loop.

    python core/benchmarks/concurrency.py [--model mini base | FOLDER ...] [--dtype float32 ...] [--callers 64]

Every caller sends its queries one after another; all callers begin at once. The ways take turns within a round, with
the same queries. Printed are the medians over the rounds: queries a second, their ratio to the lock's in the same
round, and how long a query took at the middle and for the slowest twentieth. "one list" hands all queries over in one
call: what nothing can beat. "alone" is a single caller's time for a query: `encode` computed as by a library that has
no queue, with it, and through an event loop. Vectors are compared. Writes build/bench/concurrency.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rivals import write_base
from texts import SHORT, workloads
from timing import in_turns, median_ratio

from anytask import Instructor

LOCK, THREADS, COROUTINES, LIST = "threads with a lock", "threads", "coroutines", "one list"
OUTPUT = Path("build/bench/concurrency.json")

Vectors = list[Any]


@dataclass(frozen=True)
class Row:
    """One way of sending queries."""

    model: str
    dtype: str
    way: str
    queries_per_second: float
    ratio: float
    """Times the lock's, the median over the rounds."""
    lowest_ratio: float
    middle_milliseconds: float
    slow_milliseconds: float
    """95 of 100 queries took less."""


class Load:
    """Callers that each send their share of the queries, and how long each query took."""

    def __init__(self, model: Instructor, queries: list[str], callers: int) -> None:
        self.model, self.queries, self.callers = model, queries, callers
        self.pool = ThreadPoolExecutor(callers)
        self.lock = threading.Lock()
        self.seconds: dict[str, list[float]] = {LOCK: [], THREADS: [], COROUTINES: []}

    def locked(self) -> Vectors:
        def encode(text: str) -> Any:
            with self.lock:
                return self.model.encode_query(text)

        return self._in_threads(LOCK, encode)

    def threads(self) -> Vectors:
        return self._in_threads(THREADS, self.model.encode_query)

    def coroutines(self) -> Vectors:
        async def caller(start: int) -> Vectors:
            vectors = []
            for text in self.queries[start :: self.callers]:
                started = time.perf_counter()
                vectors.append(await self.model.aencode_query(text))
                self.seconds[COROUTINES].append(time.perf_counter() - started)
            return vectors

        parts: list[Vectors] = []

        async def all_callers() -> None:  # gives nothing: asyncio.run formats what its coroutine gave, in full
            parts.extend(await asyncio.gather(*map(caller, range(self.callers))))

        asyncio.run(all_callers())
        return self._in_order(parts)

    def one_list(self) -> Vectors:
        return list(self.model.encode_query(self.queries))

    def _in_threads(self, way: str, encode: Callable[[str], Any]) -> Vectors:
        together = threading.Barrier(self.callers)

        def caller(start: int) -> Vectors:
            together.wait()
            vectors = []
            for text in self.queries[start :: self.callers]:
                started = time.perf_counter()
                vectors.append(encode(text))
                self.seconds[way].append(time.perf_counter() - started)
            return vectors

        return self._in_order(list(self.pool.map(caller, range(self.callers))))

    def _in_order(self, parts: list[Vectors]) -> Vectors:
        vectors: Vectors = [None] * len(self.queries)
        for start, part in enumerate(parts):
            vectors[start :: self.callers] = part
        return vectors


def measure(model: Instructor, name: str, queries: list[str], callers: int, rounds: int) -> list[Row]:
    load = Load(model, queries, callers)
    works = {LOCK: load.locked, THREADS: load.threads, COROUTINES: load.coroutines, LIST: load.one_list}
    expected = np.stack(load.one_list())
    for way, work in works.items():
        lowest = float((np.stack(work()) * expected).sum(1).min())
        if lowest < 0.999:
            raise SystemExit(f"{way}: vectors differ, cosine {lowest:.4f}")
    for seconds in load.seconds.values():
        seconds.clear()
    with Progress() as progress:
        task = progress.add_task(f"{name}, {model.dtype}", total=rounds * len(works))
        times = in_turns(works, rounds, lambda: progress.advance(task))
    return [
        Row(
            name,
            str(model.dtype).removeprefix("torch."),
            way,
            len(queries) / statistics.median(times[way]),
            median_ratio(times[LOCK], times[way]),
            min(lock / ours for lock, ours in zip(times[LOCK], times[way], strict=True)),
            1000 * float(np.quantile(load.seconds.get(way) or times[way], 0.5)),
            1000 * float(np.quantile(load.seconds.get(way) or times[way], 0.95)),
        )
        for way in works
    ]


def alone(model: Instructor, queries: list[str], rounds: int) -> dict[str, float]:
    """Median milliseconds of a query for a single caller."""

    async def one_by_one() -> None:
        for text in queries:
            await model.aencode_query(text)

    works: dict[str, Callable[[], object]] = {
        "without the queue": lambda: [model.encode_query(text, show_progress=lambda _: None) for text in queries],
        "encode": lambda: [model.encode_query(text) for text in queries],
        "aencode": lambda: asyncio.run(one_by_one()),
    }
    times = in_turns(works, rounds, lambda: None)
    return {way: 1000 * statistics.median(seconds) / len(queries) for way, seconds in times.items()}


def table_of(rows: list[Row], title: str) -> Table:
    table = Table(title=title)
    for column in ("model", "dtype", "way", "queries/s", "times the lock's", "lowest", "p50 ms", "p95 ms"):
        table.add_column(column, justify="left" if column in ("model", "dtype", "way") else "right")
    for row in rows:
        figures = f"{row.queries_per_second:,.0f}", f"{row.ratio:.2f}", f"{row.lowest_ratio:.2f}"
        waits = f"{row.middle_milliseconds:.0f}", f"{row.slow_milliseconds:.0f}"
        table.add_row(row.model, row.dtype, row.way, *figures, *waits, end_section=row.way == LIST)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["mini", "base"])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16", "int8"])
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--each", type=int, default=4, help="queries of a caller in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="torch's; by default its own choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    queries = workloads(arguments.callers * arguments.each)[SHORT]
    rows: list[Row] = []
    lone: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.model:
            folder = Path(temporary) / "base" if name == "base" else name
            if name == "base":
                write_base(Path(folder))
            for dtype in arguments.dtype:
                model = Instructor.from_pretrained(folder, device="cpu", dtype=dtype)
                rows += measure(model, Path(name).name, queries, arguments.callers, arguments.rounds)
                lone.append({"model": name, "dtype": dtype, **alone(model, queries[:16], arguments.rounds)})
    title = f"{arguments.callers} callers, torch's threads {torch.get_num_threads()}: {describe()}"
    Console(width=max(Console().width, 110)).print(table_of(rows, title))
    for figures in lone:
        Console().print("alone, ms a query:", figures)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": title, "rows": [asdict(row) for row in rows], "alone": lone}
    OUTPUT.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    Console().print(f"Written: {OUTPUT}")


if __name__ == "__main__":
    main()
