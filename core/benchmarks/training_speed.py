"""Training speed and memory beside sentence-transformers' trainer: the same model, batches, loss and dropout.

    python core/benchmarks/training_speed.py [--shape base] [--batch-size 8] [--precision float32] [--loss plain]

`anytask.training` against SentenceTransformerTrainer with MultipleNegativesRankingLoss in both directions, which is
half of ours; and with gradient caching against CachedMultipleNegativesRankingLoss, with several sizes of its
mini-batches. Each trainer is a process of its own, for its peak memory. They take turns of a few steps, in which
everything counts: tokenization, forward, backward, clipping, AdamW. Before the first step their losses are compared.

A record is the first sentence of a docstring of the standard library, a passage of a log-normal length around 90 words
and hard negatives like it, each with an instruction. On a busy machine the ratio by the processor's time is steadier
than the one by the clock. sentence-transformers needs 14 GB for 8 records at base size.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import training_worker
from machine import describe
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rivals import SHAPES, VOCABULARY
from texts import docstrings
from training_worker import Rival, Work

from anytask.checkpoint import load_checkpoint, save_checkpoint
from anytask.hub import resolve
from anytask.instruction import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION
from anytask.training.initialise import Sizes, new_checkpoint
from anytask.training.medi.record_files import write_records
from anytask.training.medi.records import InstructedText, Record

SHAPES_MEASURED = ("mini", "base", "large")
"""`mini` is the bundled model, the others are T5's with random weights."""
MINI_BATCHES = (8, 16, 32)
"""Sizes with which the cached loss of sentence-transformers is tried."""
TOLERANCE = 1e-4
"""Relative, of the losses in float32."""


def records(count: int, negatives: int) -> list[Record]:
    rng = np.random.default_rng(0)
    found = docstrings()
    texts = [found[place] for place in rng.permutation(len(found))]
    words = " ".join(texts).split()
    queries = list(dict.fromkeys(text.split(". ")[0] for text in texts))

    def passage() -> InstructedText:
        length = int(np.clip(rng.lognormal(np.log(90), 0.6), 8, 380))
        start = rng.integers(len(words) - length)
        return InstructedText(DEFAULT_DOCUMENT_INSTRUCTION, " ".join(words[start : start + length]))

    return [
        Record(
            query=InstructedText(DEFAULT_QUERY_INSTRUCTION, queries[place % len(queries)]),
            pos=passage(),
            neg=tuple(passage() for _ in range(negatives)),
            task_id="docstrings",
        )
        for place in range(count)
    ]


def write_model(shape: str, folder: Path) -> Path:
    """A folder with the model, in float32."""
    mini = load_checkpoint(resolve("mini"))
    if shape == "mini":
        mini.encoder.float()
        mini.head.float()
        save_checkpoint(mini, folder)
    else:
        save_checkpoint(new_checkpoint(Sizes(**SHAPES[shape], vocab_size=VOCABULARY), mini.tokenizer, seed=0), folder)
    return folder


class Process:
    """A rival at work, after its first step."""

    def __init__(self, rival: Rival, work: Work, errors: Path) -> None:
        self.name, self.errors = rival.name, errors
        with errors.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, training_worker.__file__, training_worker.message(rival, work)],
                env={**os.environ, "OMP_NUM_THREADS": str(work.threads), "TOKENIZERS_PARALLELISM": "false"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        self.turns: list[dict[str, float]] = []
        self.start = self._hear()
        self._hear()

    def turn(self, steps: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        self.turns.append(self._hear())

    def median(self, name: str) -> float:
        return statistics.median(turn[name] for turn in self.turns)

    def ratio(self, first: Process, name: str) -> float:
        """How many times as long as the first this one takes, turn by turn."""
        pairs = zip(self.turns, first.turns, strict=True)
        return statistics.median(own[name] / other[name] for own, other in pairs)

    def _hear(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}:\n{self.errors.read_text()[-3000:]}")
        return training_worker.heard(line)


@contextmanager
def at_work(rival: Rival, work: Work, folder: Path) -> Iterator[Process]:
    process = Process(rival, work, folder / "errors.txt")
    try:
        yield process
    finally:
        process.process.kill()
        process.process.communicate()


def compare(rivals: Sequence[Rival], work: Work, folder: Path, arguments: argparse.Namespace) -> list[Process]:
    """All rivals, in turns or one after the other; the first is ours."""
    processes = []
    for together in [[rival] for rival in rivals] if arguments.apart else [rivals]:
        with ExitStack() as stack:
            beginning = len(processes)
            for rival in together:
                place = folder / rival.name.replace(" ", "-")
                place.mkdir(exist_ok=True)
                processes.append(stack.enter_context(at_work(rival, work, place)))
            for _ in track(range(arguments.rounds), description=together[0].name):
                for process in processes[beginning:]:
                    process.turn(arguments.steps)
    losses = [process.start["loss"] for process in processes]
    if rivals[0].precision == "float32" and not np.allclose(losses, losses[0], rtol=TOLERANCE, atol=0):
        raise RuntimeError(f"the losses differ: {losses}")
    return processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES_MEASURED, default="base")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--negatives", type=int, default=1)
    parser.add_argument("--precision", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loss", nargs="+", choices=["plain", "cached"], default=["plain", "cached"])
    parser.add_argument("--mini-batch", nargs="+", type=int, default=MINI_BATCHES, help="of their cached loss")
    parser.add_argument("--apart", action="store_true", help="one after the other, where memory doesn't hold all")
    arguments = parser.parse_args()
    console = Console()
    console.print(f"{arguments.shape}, {arguments.threads} thread(s): {describe()}", highlight=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "records.jsonl"
        write_records(
            records(arguments.batch_size * (1 + arguments.steps * arguments.rounds), arguments.negatives), path
        )
        model = write_model(arguments.shape, folder / "model")
        work = Work(str(model), str(path), arguments.batch_size, arguments.threads)
        for precision in arguments.precision:
            for loss in arguments.loss:
                sizes = [None] if loss == "plain" else arguments.mini_batch
                console.print(table(compare(rivals(precision, sizes), work, folder, arguments), arguments))


def rivals(precision: str, sizes: Sequence[int | None]) -> list[Rival]:
    def named(size: int | None) -> str:
        return f"sentence-transformers {precision}" + ("" if size is None else f" cached, {size} at a time")

    ours = Rival(f"anytask {precision}" + ("" if sizes[0] is None else " cached"), True, precision, sizes[0])
    return [ours, *(Rival(named(size), False, precision, size) for size in sizes)]


def table(processes: Sequence[Process], arguments: argparse.Namespace) -> Table:
    examples = arguments.batch_size * arguments.steps
    found = Table("", "examples/s", "time, ours = 1", "CPU time, ours = 1", "peak MB", "of it before", "loss")
    for process in processes:
        found.add_row(
            process.name,
            f"{examples / process.median('wall'):.2f}",
            f"{process.ratio(processes[0], 'wall'):.2f}",
            f"{process.ratio(processes[0], 'cpu'):.2f}",
            f"{process.turns[-1]['peak']:,.0f}",
            f"{process.start['before']:,.0f}",
            f"{process.start['loss']:.5f}",
        )
    return found


if __name__ == "__main__":
    main()
