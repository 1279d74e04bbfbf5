"""Speed, memory and vectors beside sentence-transformers: the same folder and texts, in turns within one run.

    python core/benchmarks/encode.py [--model base | mini | FOLDER] [--threads 1 2] [--rounds 5] [--peers ...]

"base" is T5 base's shape with random weights. Short texts are the first sentences of the standard library's
docstrings, passages runs of their words of a log-normal length around 120 tokens, a query one short text at a time.
Each rival is a process of its own, which sleeps while the others are measured. The lowest cosine is to
sentence-transformers' vectors: a speed with other vectors is none. The ceiling is what the processor reaches in a large
product by oneDNN; the share of it is that of the model's own matrix products, so that everything else lowers it.

Every workload is written to build/bench/encode-MODEL.json when it is measured, with a chart at the end. The same
command goes on where an earlier one stopped; --again measures anew. `--peers` adds what core/benchmarks/peers has, and
writes encode-MODEL-peers.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from chart import draw
from machine import describe
from peers import PEERS, command_of
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rivals import DTYPES, OUTPUT, PEER, RIVALS, Worker, matrix_ceiling, model_folder
from texts import INSTRUCTION, PASSAGES, QUERY, SHORT, workloads
from timing import CLOCKS, median_ratio

from anytask.checkpoint import load_checkpoint
from anytask.tokenization import InstructionTokenizer

WORKLOADS = (SHORT, PASSAGES, QUERY)
COMPARED = 32
"""Texts whose vectors are compared, in a call that also warms up."""


@dataclass(frozen=True)
class Row:
    """One rival at one workload."""

    threads: int
    workload: str
    rival: str
    tokens: float
    """Of a text, the instruction's included; the mean."""
    seconds: float
    """For a text: the median of the rounds, or of single queries."""
    ratio: float
    """Times sentence-transformers' speed, the median over the rounds."""
    spread: tuple[float, float]
    """The lowest and the highest ratio of a round."""
    share: float
    """Of the ceiling in the rival's precision."""
    ceiling: float
    """GFLOP/s."""
    cosine: float
    """The lowest to sentence-transformers' vectors."""
    peak_megabytes: float


class Bench:
    """The workloads of one checkpoint."""

    def __init__(
        self, folder: Path, texts: dict[str, list[str]], rivals: Sequence[str], rounds: int, clock: str
    ) -> None:
        self.folder, self.texts, self.rivals, self.rounds, self.clock = folder, texts, rivals, rounds, clock
        checkpoint = load_checkpoint(folder)
        named = checkpoint.encoder.named_parameters()
        matrices = [weight for name, weight in named if name.startswith("blocks.") and weight.dim() == 2]
        self.gigaflop = 2 * sum(matrix.numel() for matrix in matrices) / 1e9
        """Of the encoder's matrices for a token."""
        tokenizer = InstructionTokenizer(checkpoint.tokenizer, checkpoint.max_length)
        self.tokens = {
            name: statistics.mean(len(text.ids) for text in tokenizer(chosen, [INSTRUCTION] * len(chosen)))
            for name, chosen in texts.items()
        }

    def measure(self, threads: int, workload: str) -> list[Row]:
        """A row for each rival."""
        texts, singly = self.texts[workload], workload == QUERY
        dtypes = {rival: rival.split()[-1] if rival.split()[-1] in DTYPES else "float32" for rival in self.rivals}
        ceilings = {dtype: matrix_ceiling(dtype, threads, self.clock) for dtype in dict.fromkeys(dtypes.values())}
        vectors, times, peaks = {}, {rival: [] for rival in self.rivals}, {}
        with TemporaryDirectory() as scratch, Progress() as progress:
            task = progress.add_task(f"{workload}, threads: {threads}", total=len(self.rivals) * (self.rounds + 1))
            workers = {
                rival: Worker(rival, str(self.folder), threads, command_of(rival), self.clock) for rival in self.rivals
            }
            for rival, worker in workers.items():
                vectors[rival] = worker.vectors(texts[:COMPARED], Path(scratch) / "vectors.npy")
                progress.advance(task)
            for _ in range(self.rounds):
                for rival, worker in workers.items():
                    times[rival].append(statistics.median(worker.seconds(texts, singly=singly)))
                    progress.advance(task)
            for rival, worker in workers.items():
                peaks[rival] = worker.peak_megabytes
                worker.close()
        rows = []
        for rival in self.rivals:
            seconds = statistics.median(times[rival]) / (1 if singly else len(texts))
            ratios = [theirs / ours for theirs, ours in zip(times[PEER], times[rival], strict=True)]
            ceiling = ceilings[dtypes[rival]]
            rows.append(
                Row(
                    threads=threads,
                    workload=workload,
                    rival=rival,
                    tokens=self.tokens[workload],
                    seconds=seconds,
                    ratio=median_ratio(times[PEER], times[rival]),
                    spread=(min(ratios), max(ratios)),
                    share=self.tokens[workload] * self.gigaflop / seconds / ceiling,
                    ceiling=ceiling,
                    cosine=float((vectors[rival] * vectors[PEER]).sum(-1).min()),
                    peak_megabytes=peaks[rival],
                )
            )
        return rows


def table_of(rows: Sequence[Row], title: str) -> Table:
    table = Table(title=title)
    for column in (
        "threads",
        "workload",
        "",
        "speed",
        "ratio",
        "rounds",
        "of ceiling",
        "lowest cosine",
        "peak MB",
        "%",
    ):
        table.add_column(column, justify="left" if column in ("workload", "") else "right")
    peers = {(row.threads, row.workload): row for row in rows if row.rival == PEER}
    for row in rows:
        speed = f"{row.seconds * 1000:.1f} ms" if row.workload == QUERY else f"{1 / row.seconds:,.1f} texts/s"
        memory = f"{row.peak_megabytes / peers[row.threads, row.workload].peak_megabytes:.0%}"
        table.add_row(
            str(row.threads),
            f"{row.workload} ({row.tokens:.0f} tokens)",
            row.rival,
            speed,
            f"{row.ratio:.2f}",
            "{:.2f}-{:.2f}".format(*row.spread),
            f"{row.share:.0%} of {row.ceiling:,.0f}",
            f"{row.cosine:.6f}",
            f"{row.peak_megabytes:,.0f}",
            memory,
            end_section=row.rival == rows[-1].rival,
        )
    return table


def _earlier(path: Path, about: dict[str, Any]) -> list[Row]:
    """Rows of a file that was measured on the same machine with the same options."""
    if not path.exists():
        return []
    held = json.loads(path.read_text("utf-8"))
    return [Row(**row) for row in held["rows"]] if {name: held.get(name) for name in about} == about else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--passages", type=int, default=32)
    parser.add_argument("--queries", type=int, default=15)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=[])
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: seconds of computing, for a machine with other work; right for one thread alone",
    )
    parser.add_argument("--again", action="store_true", help="measure workloads anew that are in the file")
    arguments = parser.parse_args()
    found = workloads(max(arguments.texts, arguments.queries, arguments.passages))
    texts = {
        SHORT: found[SHORT][: arguments.texts],
        PASSAGES: found[PASSAGES][: arguments.passages],
        QUERY: found[SHORT][: arguments.queries],
    }
    name = Path(arguments.model).name + ("-peers" if arguments.peers else "")
    name += "-cpu" if arguments.clock == "cpu" else ""
    rivals = [*RIVALS, *arguments.peers]
    path = OUTPUT / f"encode-{name}.json"
    about = {"machine": describe(), "texts": {kind: len(chosen) for kind, chosen in texts.items()}, "rivals": rivals}
    about["clock"] = arguments.clock
    rows = _earlier(path, about)
    if arguments.again:
        rows = [row for row in rows if not (row.threads in arguments.threads and row.workload in arguments.workloads)]
    bench = Bench(model_folder(arguments.model), texts, rivals, arguments.rounds, arguments.clock)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for threads in arguments.threads:
        for workload in arguments.workloads:
            if any((row.threads, row.workload) == (threads, workload) for row in rows):
                continue
            rows += bench.measure(threads, workload)
            rows.sort(key=lambda row: (row.threads, WORKLOADS.index(row.workload), rivals.index(row.rival)))
            path.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=2) + "\n", "utf-8")
    title = f"{name}: {describe()}"
    Console(width=max(Console().width, 140)).print(table_of(rows, title))
    draw(rows, rivals[1:], title, path.with_suffix(".svg"))
    Console().print(f"Written: {path}, {path.with_suffix('.svg')}")


if __name__ == "__main__":
    main()
