"""Speed on a GPU beside sentence-transformers: T5's base, large and XL shapes, mixed lengths, bfloat16 and float16.

    python core/benchmarks/gpu.py [--shapes base large xl] [--dtypes bfloat16 float16] [--texts 8192] [--rounds 3]

Weights are random: speed doesn't depend on them. Texts are runs of words of the standard library's docstrings, of a
log-normal length (see texts.py), and single queries for the latency. sentence-transformers runs as fast as it goes:
weights in the same precision, sdpa attention, the best of several batch sizes, which is found beforehand; it sorts
texts by length by itself. All take turns within a round. Peak is what the GPU reaches in a large product of matrices in
bfloat16 or float16; the share of it is that of the matrix products that the texts need, so that padding lowers it.
Where sentence-transformers isn't installed or runs out of memory, only ours is measured. Writes build/bench/gpu.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rivals import SHAPES, VOCABULARY
from texts import INSTRUCTION, PASSAGES, SHORT, workloads
from timing import best_seconds, in_turns, median_ratio

from anytask import Instructor
from anytask.checkpoint import read_tokenizer, save_checkpoint
from anytask.device_memory import is_out_of_memory
from anytask.hub import resolve
from anytask.training.initialise import Sizes, new_checkpoint

PEER, OURS = "sentence-transformers", "anytask"
PEER_BATCH_SIZES = (32, 128, 512)
OUTPUT = Path("build/bench/gpu.json")

Encode = Callable[[list[str]], Any]


@dataclass(frozen=True)
class Row:
    """One rival with one shape and precision."""

    shape: str
    dtype: str
    rival: str
    texts_per_second: float
    ratio: float | None
    """Times sentence-transformers' speed, the median over the rounds."""
    share_of_peak: float
    query_milliseconds: float
    """The median of single queries."""
    peak_gigabytes: float
    first_call_seconds: float
    """Loading excluded, compilation included."""


def write(shape: str, folder: Path) -> int:
    """A checkpoint with random weights; gives the floating-point operations of a token in its matrices."""
    checkpoint = new_checkpoint(Sizes(**SHAPES[shape], vocab_size=VOCABULARY), read_tokenizer(resolve("mini")), seed=0)
    save_checkpoint(checkpoint, folder)
    weights = checkpoint.encoder.named_parameters()
    return 2 * sum(weight.numel() for name, weight in weights if name.startswith("blocks.") and weight.dim() == 2)


def ours(folder: Path, dtype: str) -> tuple[Encode, Instructor]:
    model = Instructor.from_pretrained(folder, device="cuda", dtype=dtype)
    model._engine.encoder._uncompiled_tokens_left = 0  # compiled in the first call, not in the timed rounds
    return lambda texts: model.encode(texts, INSTRUCTION), model


def peer(folder: Path, dtype: str, sample: list[str]) -> Encode | None:
    """sentence-transformers at the batch size that suits it; None where none fits into the memory."""
    from sentence_transformers import SentenceTransformer

    kwargs = {"dtype": dtype, "attn_implementation": "sdpa"}
    model = SentenceTransformer(str(folder), device="cuda", model_kwargs=kwargs)
    model.set_pooling_include_prompt(False)

    def encode(texts: list[str], batch_size: int) -> Any:
        return model.encode(texts, prompt=INSTRUCTION, batch_size=batch_size, show_progress_bar=False)

    seconds = {}
    for size in PEER_BATCH_SIZES:
        try:
            encode(sample[:size], size)
            started = time.perf_counter()
            encode(sample, size)
            seconds[size] = time.perf_counter() - started
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
    if not seconds:
        Console().print(f"{PEER}, {dtype}: out of memory at every batch size of {PEER_BATCH_SIZES}; left out")
        return None
    best = min(seconds, key=seconds.__getitem__)
    Console().print(f"{PEER}, {dtype}: batch size {best} of {PEER_BATCH_SIZES}")
    return lambda texts: encode(texts, best)


def matrix_peak(dtype: str) -> float:
    """Operations a second in a product of large matrices."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=getattr(torch, dtype)) for _ in range(2))

    def product() -> None:
        for _ in range(10):
            torch.mm(a, b)
        torch.cuda.synchronize()

    product()
    return 10 * 2 * 8192**3 / best_seconds(product, repeats=5)


def measure(shape: str, dtype: str, folder: Path, work: int, texts: dict[str, list[str]], rounds: int) -> list[Row]:
    passages, queries = texts[PASSAGES], texts[SHORT][:64]
    encode, model = ours(folder, dtype)
    tokens = sum(len(text.ids) for text in model._tokenizer(passages, [INSTRUCTION] * len(passages)))
    other = peer(folder, dtype, passages[:2048]) if find_spec("sentence_transformers") else None
    rivals: dict[str, Encode] = {OURS: encode} if other is None else {PEER: other, OURS: encode}
    first, memory = {}, {}
    for name, run in rivals.items():
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        for _ in range(2):  # the second decides whether anything was left to compile
            run(passages)
        first[name] = time.perf_counter() - started
        memory[name] = torch.cuda.max_memory_allocated() / 1e9
    times = in_turns({name: lambda run=run: run(passages) for name, run in rivals.items()}, rounds, lambda: None)
    single = in_turns(
        {name: lambda run=run: [run([text]) for text in queries] for name, run in rivals.items()}, rounds, lambda: None
    )
    peak = matrix_peak(dtype)
    return [
        Row(
            shape=shape,
            dtype=dtype,
            rival=name,
            texts_per_second=len(passages) / statistics.median(times[name]),
            ratio=median_ratio(times[PEER], times[name]) if PEER in times else None,
            share_of_peak=tokens * work / statistics.median(times[name]) / peak,
            query_milliseconds=1000 * statistics.median(single[name]) / len(queries),
            peak_gigabytes=memory[name],
            first_call_seconds=first[name],
        )
        for name in rivals
    ]


def describe() -> str:
    import platform

    return f"{torch.cuda.get_device_name()}, Python {platform.python_version()}, torch {torch.__version__}"


def table_of(rows: list[Row]) -> Table:
    table = Table(title=describe())
    for column in ("shape", "dtype", "", "texts/s", "ratio", "of peak", "a query, ms", "GB", "first two calls, s"):
        table.add_column(column, justify="left" if column in ("shape", "dtype", "") else "right")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        figures = f"{row.texts_per_second:,.0f}", ratio, f"{row.share_of_peak:.0%}", f"{row.query_milliseconds:.1f}"
        table.add_row(
            row.shape, row.dtype, row.rival, *figures, f"{row.peak_gigabytes:.1f}", f"{row.first_call_seconds:.1f}"
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", choices=("bfloat16", "float16"), default=["bfloat16", "float16"])
    parser.add_argument("--texts", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA GPU here; this benchmark needs one")
    texts = workloads(arguments.texts)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for shape in track(arguments.shapes, description="measuring"):
            folder = Path(temporary) / shape
            work = write(shape, folder)
            for dtype in arguments.dtypes:
                rows += measure(shape, dtype, folder, work, texts, arguments.rounds)
                Console(width=110).print(table_of(rows))  # a run that is cut short has told something
                OUTPUT.parent.mkdir(parents=True, exist_ok=True)
                report = {"machine": describe(), "rows": [asdict(row) for row in rows]}
                OUTPUT.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
                torch.cuda.empty_cache()
    Console().print(f"Written: {OUTPUT}")


if __name__ == "__main__":
    main()
