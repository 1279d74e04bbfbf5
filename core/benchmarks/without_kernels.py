"""What the compiled kernels save: the same model with them and with torch's operators alone, in turns.

    python core/benchmarks/without_kernels.py [--model mini base | FOLDER ...] [--dtype int8 ...] [--threads 1 2]

The ratio is the median over the rounds, by the clock. Writes build/bench/without-kernels.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from unittest.mock import patch

import torch
from machine import describe
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rivals import DTYPES, OUTPUT, model_folder
from texts import INSTRUCTION, PASSAGES, QUERY, SHORT, workloads
from timing import in_turns, median_ratio

from anytask import Instructor, kernels

WITH, WITHOUT = "kernels", "torch alone"
QUERIES = 10


@contextmanager
def without_kernels() -> Iterator[None]:
    with patch.object(kernels, "_kernels", lambda: None):
        yield


WAYS: dict[str, Callable[[], AbstractContextManager[None]]] = {WITHOUT: without_kernels, WITH: nullcontext}


def works_of(way: str, folder: Path, dtype: str) -> dict[str, Callable[[], None]]:
    """Each workload as a call, of a model that is loaded in this way too."""
    texts = workloads(64)
    calls = {
        SHORT: [texts[SHORT]],
        PASSAGES: [texts[PASSAGES][:16]],
        QUERY: [[text] for text in texts[SHORT][:QUERIES]],
    }
    with WAYS[way]():
        model = Instructor.from_pretrained(folder, device="cpu", dtype=dtype)

    def work(workload: str) -> None:
        with WAYS[way]():
            for call in calls[workload]:
                model.encode(call, INSTRUCTION)

    return {workload: partial(work, workload) for workload in calls}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["mini", "base"])
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32", "int8"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    if not kernels.available():
        raise SystemExit("no kernels for this processor; python core/src/anytask/kernels/building.py says why")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    cells = list(product(arguments.model, arguments.dtype, arguments.threads))
    table = Table("model", "precision", "threads", "workload", WITHOUT, WITH, "times as fast", title=describe())
    rows = []
    with Progress() as progress:
        task = progress.add_task("measuring", total=len(cells) * 3 * 2 * (arguments.rounds + 1))
        for name, dtype, threads in cells:
            torch.set_num_threads(threads)
            works = {way: works_of(way, model_folder(name), dtype) for way in WAYS}
            for workload in works[WITH]:
                ways = {way: works[way][workload] for way in WAYS}
                times = in_turns(ways, arguments.rounds + 1, lambda: progress.advance(task))
                warm = {way: seconds[1:] for way, seconds in times.items()}
                ratio = median_ratio(warm[WITHOUT], warm[WITH])
                each = QUERIES if workload == QUERY else 1
                milliseconds = {way: statistics.median(seconds) * 1000 / each for way, seconds in warm.items()}
                rows.append(
                    {"model": Path(name).name, "dtype": dtype, "threads": threads, "workload": workload}
                    | {"milliseconds": milliseconds, "ratio": ratio}
                )
                shown = (f"{milliseconds[way]:.1f} ms" for way in ways)
                table.add_row(Path(name).name, dtype, str(threads), workload, *shown, f"{ratio:.2f}")
    Console(width=max(Console().width, 100)).print(table)
    path = OUTPUT / "without-kernels.json"
    path.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
