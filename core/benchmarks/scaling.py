"""Two threads beside one, on an idle machine and while another process keeps one core busy.

    python core/benchmarks/scaling.py [--model base | mini | FOLDER] [--rivals float32 ...] [--rounds 5]

The same process embeds the same texts in turns: with one thread, with two, and with two while a program that does
nothing but count is pinned to the last core. Figures are times one thread's speed. Writes
build/bench/scaling-MODEL.json; rivals that are in the file are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from machine import describe
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rivals import OUTPUT, RIVALS, Worker, model_folder
from texts import SHORT, workloads
from timing import median_ratio

BUSY = "import os\nos.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\nwhile True: pass"
Figures = dict[str, float]


def measure(rival: str, folder: str, texts: list[str], queries: list[str], rounds: int) -> Figures:
    """Milliseconds with one thread, and times its speed with two: all texts in a call, and one query."""
    times: dict[str, list[float]] = {}
    one, two = Worker(rival, folder, 1), Worker(rival, folder, 2)
    conditions = {"one": (one, False), "two": (two, False), "busy": (two, True)}
    with Progress() as progress:
        task = progress.add_task(rival, total=rounds * len(conditions))
        for worker in (one, two):
            worker.seconds(texts)
        for _ in range(rounds):
            for name, (worker, is_busy) in conditions.items():
                busy = subprocess.Popen([sys.executable, "-c", BUSY]) if is_busy else None
                times.setdefault(f"texts {name}", []).append(worker.seconds(texts)[0])
                times.setdefault(f"query {name}", []).append(statistics.median(worker.seconds(queries, singly=True)))
                if busy is not None:
                    busy.kill()
                    busy.wait()
                progress.advance(task)
    one.close()
    two.close()
    figures = {}
    for kind in ("texts", "query"):
        alone = times[f"{kind} one"]
        figures[f"{kind} milliseconds"] = statistics.median(alone) * 1000 / (len(texts) if kind == "texts" else 1)
        for name in ("two", "busy"):
            figures[f"{kind} {name}"] = median_ratio(alone, times[f"{kind} {name}"])
    return figures


def table_of(found: dict[str, Figures], title: str) -> Table:
    table = Table(
        "",
        "a text, one thread",
        "two threads",
        "one core busy",
        "one query, one thread",
        "two threads",
        "one core busy",
        title=title,
    )
    for rival, figures in found.items():
        cells = []
        for kind in ("texts", "query"):
            cells.append(f"{figures[f'{kind} milliseconds']:.1f} ms")
            cells += [f"{figures[f'{kind} {name}']:.2f}" for name in ("two", "busy")]
        table.add_row(rival, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--rivals", nargs="+", choices=RIVALS, default=RIVALS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--queries", type=int, default=10)
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("two threads need two cores, this process has one")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    folder = model_folder(arguments.model)
    texts = workloads(max(arguments.texts, arguments.queries))[SHORT]
    path = OUTPUT / f"scaling-{Path(arguments.model).name}.json"
    held = json.loads(path.read_text("utf-8")) if path.exists() else {}
    found = held["figures"] if held.get("machine") == describe() else {}
    for rival in arguments.rivals:
        found[rival] = measure(
            rival, str(folder), texts[: arguments.texts], texts[: arguments.queries], arguments.rounds
        )
        path.write_text(json.dumps({"machine": describe(), "figures": found}, indent=2) + "\n", "utf-8")
    Console(width=max(Console().width, 110)).print(table_of(found, f"{arguments.model}: {describe()}"))
    Console().print(f"Written: {path}")


if __name__ == "__main__":
    main()
