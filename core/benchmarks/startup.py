"""From nothing to the first vector: import, load and one embedding in a new process, beside sentence-transformers.

    python core/benchmarks/startup.py [--model mini | base | FOLDER] [--rounds 7]

Both load the same folder; the processes take turns. The second figure is the next query's latency in that process.
Writes build/bench/startup-MODEL.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from machine import describe
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rivals import OUTPUT, model_folder

from anytask.hub import resolve

PROGRAM = """
import json, sys, time
started = time.perf_counter()
{load}
embed("How do I read a file line by line?")
first = time.perf_counter() - started
times = []
for query in ("How do I sort a list?", "What is a context manager?", "When is a generator better than a list?"):
    started = time.perf_counter()
    embed(query)
    times.append(time.perf_counter() - started)
print(json.dumps([first, times[0], sorted(times)[1]]))
"""
INSTRUCTION = "Represent the question for retrieving supporting documents: "
PEERS = {
    "anytask": (
        "from anytask import Instructor\nmodel = Instructor.from_pretrained(sys.argv[1], device='cpu')\n"
        f"embed = lambda text: model.encode(text, instruction={INSTRUCTION!r})"
    ),
    "sentence-transformers": (
        "from sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer(sys.argv[1], device='cpu', model_kwargs={'dtype': 'float32'})\n"
        f"embed = lambda text: model.encode(text, prompt={INSTRUCTION!r})"
    ),
}


def measure(peer: str, folder: Path) -> list[float]:
    """Seconds to the first vector, to the next one, and the median of three queries after it."""
    program = PROGRAM.format(load=PEERS[peer])
    command = [sys.executable, "-W", "ignore", "-c", program, str(folder)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    times: list[float] = json.loads(output.splitlines()[-1])
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    readable = model_folder(arguments.model)
    folders = {"anytask": readable if arguments.model == "base" else resolve(arguments.model)}
    runs: dict[str, list[list[float]]] = {peer: [] for peer in PEERS}
    for _ in track(range(arguments.rounds), description="rounds"):
        for peer, times in runs.items():
            times.append(measure(peer, folders.get(peer, readable)))
    table = Table(
        "", "first vector", "next query", "later queries", title=f"{arguments.model}: medians of {describe()}"
    )
    for peer, times in runs.items():
        first, following, later = (statistics.median(column) for column in zip(*times, strict=True))
        table.add_row(peer, f"{first:.2f} s", f"{following * 1000:.1f} ms", f"{later * 1000:.1f} ms")
    pairs = zip(runs["anytask"], runs["sentence-transformers"], strict=True)
    share = statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)
    name = Path(arguments.model).name
    path = OUTPUT / f"startup-{name}.json"
    path.write_text(json.dumps({"machine": describe(), "share": share, "runs": runs}, indent=2) + "\n", "utf-8")
    Console().print(table, f"First vector: {share:.2f} of sentence-transformers' time (median over pairs of runs)")


if __name__ == "__main__":
    main()
