"""Speed and memory beside sentence-transformers: the same folder and texts, in turns within one process.

    python core/benchmarks/encode.py [--model base | mini | FOLDER] [--threads 1 2] [--rounds 5]

"base" is T5 base's shape with random weights. Short texts are the first sentences of the standard library's
docstrings, passages runs of their words of a log-normal length around 90, a query one short text at a time. Vectors are
compared too: a speed with other vectors is none. The ceiling is what the processor reaches in large matrix products;
the share of it is that of the model's own matrix products, so everything else the engine does lowers it. Writes
build/bench/encode-MODEL.json and a chart of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from chart import draw
from machine import describe
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rivals import DTYPES, PEER, RIVALS, Encode, load, matrix_ceiling, peak_memory, write_base
from texts import INSTRUCTION, PASSAGES, SHORT, docstrings, workloads
from timing import in_turns, median_ratio

from anytask.checkpoint import load_checkpoint
from anytask.hub import resolve
from anytask.tokenization import InstructionTokenizer

__all__ = ["docstrings"]
QUERY = "one query"
OUTPUT = Path("build/bench")


@dataclass(frozen=True)
class Row:
    """One rival at one workload."""

    threads: int
    workload: str
    rival: str
    seconds: float
    """Median of a round."""
    ratio: float
    """Times sentence-transformers' speed, the median over the rounds."""
    share: float
    """Of the ceiling in the rival's precision."""
    cosine: float
    """The lowest to sentence-transformers' vectors."""
    peak_megabytes: float | None


def work_per_token(folder: str) -> tuple[float, InstructionTokenizer]:
    """GFLOP in the matrices of the encoder for a token, and the tokenizer that counts tokens."""
    checkpoint = load_checkpoint(Path(folder))
    matrices = [p for name, p in checkpoint.encoder.named_parameters() if name.startswith("blocks.") and p.dim() == 2]
    tokenizer = InstructionTokenizer(checkpoint.tokenizer, checkpoint.max_length)
    return 2 * sum(matrix.numel() for matrix in matrices) / 1e9, tokenizer


def measure(folder: str, texts: dict[str, list[str]], threads: list[int], rounds: int, memory: bool) -> list[Row]:
    gigaflop, tokenizer = work_per_token(folder)
    rivals = {rival: load(rival, folder) for rival in RIVALS}
    rows = []
    with Progress() as progress:
        steps = len(threads) * len(texts) * len(RIVALS) * rounds
        task = progress.add_task("measuring", total=steps)
        for count in threads:
            torch.set_num_threads(count)
            ceilings = {rival: matrix_ceiling("float32" if rival == PEER else rival) for rival in RIVALS}
            for workload, chosen in texts.items():
                tokens = sum(len(t.ids) for t in tokenizer(chosen, [INSTRUCTION] * len(chosen), "truncate"))
                vectors = {rival: np.asarray(encode(chosen[:32])) for rival, encode in rivals.items()}
                works = {rival: _work(encode, chosen, workload) for rival, encode in rivals.items()}
                times = in_turns(works, rounds, lambda: progress.advance(task))
                for rival in RIVALS:
                    seconds = statistics.median(times[rival])
                    needed = memory and workload != QUERY
                    rows.append(
                        Row(
                            threads=count,
                            workload=workload,
                            rival=rival,
                            seconds=seconds / len(chosen),
                            ratio=median_ratio(times[PEER], times[rival]),
                            share=tokens * gigaflop / seconds / ceilings[rival],
                            cosine=float((vectors[rival] * vectors[PEER]).sum(-1).min()),
                            peak_megabytes=peak_memory(rival, folder, chosen, count) if needed else None,
                        )
                    )
    return rows


def _work(encode: Encode, texts: list[str], workload: str) -> Encode:
    if workload != QUERY:
        return lambda: encode(texts)
    return lambda: [encode(text) for text in texts]


def table_of(rows: list[Row], title: str) -> Table:
    table = Table(title=title)
    for column in (
        "threads",
        "workload",
        "",
        "texts/s",
        "ratio",
        "of ceiling",
        "lowest cosine",
        "peak MB",
        "of theirs",
    ):
        table.add_column(column, justify="left" if column in ("workload", "") else "right")
    peers = {(row.threads, row.workload): row for row in rows if row.rival == PEER}
    for row in rows:
        theirs, ours = peers[row.threads, row.workload].peak_megabytes, row.peak_megabytes
        speed = f"{row.seconds * 1000:.1f} ms" if row.workload == QUERY else f"{1 / row.seconds:,.1f}"
        memory = (f"{ours:,.0f}", f"{ours / theirs:.0%}") if ours and theirs else ("", "")
        figures = f"{row.ratio:.2f}", f"{row.share:.0%}", f"{row.cosine:.6f}"
        table.add_row(
            str(row.threads), row.workload, row.rival, speed, *figures, *memory, end_section=row.rival == RIVALS[-1]
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--queries", type=int, default=15)
    parser.add_argument("--no-memory", action="store_true", help="leave the peaks out, each of which takes a process")
    arguments = parser.parse_args()
    texts = workloads(max(arguments.texts, arguments.queries))
    chosen = {name: texts[name][: arguments.texts] for name in (SHORT, PASSAGES)}
    chosen[QUERY] = texts[SHORT][: arguments.queries]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "base"
        if arguments.model == "base":
            write_base(folder)
        else:
            folder = resolve(arguments.model)
        rows = measure(str(folder), chosen, arguments.threads, arguments.rounds, not arguments.no_memory)
    name = Path(arguments.model).name
    title = f"{name}: {describe()}"
    Console(width=max(Console().width, 110)).print(table_of(rows, title))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / f"encode-{name}.json"
    path.write_text(
        json.dumps({"machine": describe(), "rows": [asdict(row) for row in rows]}, indent=2) + "\n", "utf-8"
    )
    draw(rows, DTYPES, title, path.with_suffix(".svg"))
    Console().print(f"Written: {path}, {path.with_suffix('.svg')}")


if __name__ == "__main__":
    main()
