"""64 queries at once: `aembed_query` in one event loop beside threads that call `embed_query`.

    python integrations/langchain/benchmarks/async_throughput.py [--model mini] [--calls 64] [--rounds 15]

Queries are the first sentences of the standard library's docstrings, other ones in each round; both ways take turns
and embed the same. Printed are the median throughput; its ratio to the threads' in the same round, as median and range
over the rounds; and the longest time for which a coroutine that does nothing but `asyncio.sleep(0.001)` wasn't resumed,
also for an event loop that calls `embed_query` itself. Vectors are compared too.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import os
import platform
import statistics
import sysconfig
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from langchain_anytask import InstructorEmbeddings

Vectors = list[list[float]]
Way = Callable[[list[str]], tuple[Vectors, float | None]]


def queries() -> list[str]:
    found = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                sentence = " ".join((ast.get_docstring(node) or "").split()).split(". ")[0]
                if 4 <= len(sentence.split()) <= 24:
                    found.append(sentence)
    return list(dict.fromkeys(found))


async def longest_pause(work: Coroutine[Any, Any, Vectors]) -> tuple[Vectors, float]:
    """The result of `work`, and the longest time in seconds between two ticks of a coroutine beside it."""
    pauses: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            pauses.append(time.perf_counter() - before)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    result = await work
    await asyncio.sleep(0)
    ticker.cancel()
    return result, max(pauses, default=0.0)


def ways(embeddings: InstructorEmbeddings, calls: int) -> dict[str, Way]:
    pool = ThreadPoolExecutor(calls)

    async def together(texts: list[str]) -> Vectors:
        return list(await asyncio.gather(*map(embeddings.aembed_query, texts)))

    async def one_by_one(texts: list[str]) -> Vectors:
        vectors = []
        for text in texts:
            vectors.append(embeddings.embed_query(text))
            await asyncio.sleep(0)
        return vectors

    return {
        f"{calls} x await": lambda texts: asyncio.run(longest_pause(together(texts))),
        f"{calls} threads": lambda texts: (list(pool.map(embeddings.embed_query, texts)), None),
        "sync in the loop": lambda texts: asyncio.run(longest_pause(one_by_one(texts))),
    }


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    packages = ", ".join(f"{name} {version(name)}" for name in ("anytask", "langchain-core", "torch"))
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {cores} cores, {load}, Python {platform.python_version()}, {packages}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--calls", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="torch's threads within one computation")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    embeddings = InstructorEmbeddings(model=arguments.model, device="cpu")
    found = queries()
    rivals = ways(embeddings, arguments.calls)
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    pauses: dict[str, list[float]] = {name: [] for name in rivals}
    embeddings.embed_query("load and warm up")
    for number in track(range(arguments.rounds), description="measuring"):
        texts = [found[(number * arguments.calls + place) % len(found)] for place in range(arguments.calls)]
        reference = embeddings.embed_documents(texts, instruction=embeddings.load().query_instruction)
        for name, run in rivals.items():
            start = time.perf_counter()
            vectors, pause = run(texts)
            seconds[name].append(time.perf_counter() - start)
            np.testing.assert_allclose(vectors, reference, atol=1e-4)
            if pause is not None:
                pauses[name].append(pause)
    table = Table("", "queries/s", "times the threads'", "longest pause", title=f"{arguments.model}, {machine()}")
    for name, times in seconds.items():
        rate = arguments.calls / statistics.median(times)
        ratios = sorted(
            theirs / ours for theirs, ours in zip(seconds[f"{arguments.calls} threads"], times, strict=True)
        )
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        pause = f"{1000 * statistics.median(pauses[name]):.0f} ms" if pauses[name] else ""
        table.add_row(name, f"{rate:.0f}", ratio, pause)
    Console().print(table)


if __name__ == "__main__":
    main()
