"""What embedding costs beyond the model's matrix products: the same products alone, in turns with the whole.

    python core/benchmarks/overhead.py [--model mini | base | FOLDER] [--rounds 15]

One thread, short texts. The products are those of the same steps: every matrix of the packed encoder on as many rows,
in parts as small as its layers take, with the weights where they lie. Writes build/bench/overhead-MODEL.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from machine import describe
from rich.console import Console
from rich.table import Table
from rivals import DTYPES, OUTPUT, model_folder
from texts import INSTRUCTION, SHORT, workloads

from anytask import Instructor
from anytask.batching import plan_batches
from anytask.cpu_encoder import CpuEncoder
from anytask.linear import Int8Linear


class Products:
    """The matrix products of a model's steps, and nothing else."""

    def __init__(self, model: Instructor, texts: list[str]) -> None:
        engine, encoder = model._engine, model._engine.encoder
        assert isinstance(encoder, CpuEncoder)
        lengths = [len(text.ids) for text in model._tokenizer(texts, [INSTRUCTION] * len(texts))]
        steps = [sum(lengths[place] for place in step) for step in plan_batches(lengths, engine.batch_tokens)]
        linears = [
            linear
            for block in encoder._blocks
            for linear in (block._qkv, block._o, block._wi, block._gated, block._wo)
            if linear is not None
        ]
        at_once = max(steps) if encoder._compiled is None else encoder._compiled.rows_at_once
        parts = [len(part) for rows in steps for part in torch.empty(rows).chunk(-(-rows // at_once))]
        self._calls = []
        for linear in linears:
            inner = linear.state()["weight"].shape[1]
            if isinstance(linear, Int8Linear):
                codes = torch.full((at_once, inner), 128, dtype=torch.uint8)
                self._calls += [(linear._product, (codes[:part],)) for part in parts]
            else:
                numbers = torch.randn(at_once, inner)
                self._calls += [(linear, (numbers[:part],)) for part in parts]

    def __call__(self) -> None:
        with torch.inference_mode():
            for product, arguments in self._calls:
                product(*arguments)


def measure(folder: str, dtype: str, texts: list[str], rounds: int) -> dict[str, float]:
    model = Instructor.from_pretrained(folder, device="cpu", dtype=dtype)
    products = Products(model, texts)
    wholes, parts = [], []
    for turn in range(rounds + 1):
        started = time.perf_counter()
        model.encode(texts, INSTRUCTION)
        between = time.perf_counter()
        products()
        if turn:
            wholes.append(between - started)
            parts.append(time.perf_counter() - between)
    return {
        "milliseconds": statistics.median(wholes) * 1000,
        "products": statistics.median(parts) * 1000,
        "overhead": statistics.median(whole / part - 1 for whole, part in zip(wholes, parts, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--texts", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    folder = model_folder(arguments.model)
    texts = workloads(arguments.texts)[SHORT]
    name = Path(arguments.model).name
    table = Table("", "whole", "products", "overhead", title=f"{name}, {len(texts)} short texts: {describe()}")
    found = {}
    for dtype in DTYPES:
        found[dtype] = figures = measure(str(folder), dtype, texts, arguments.rounds)
        whole, part = (f"{figures[key]:.1f} ms" for key in ("milliseconds", "products"))
        table.add_row(dtype, whole, part, f"{figures['overhead']:.0%}")
    Console(width=max(Console().width, 100)).print(table)
    path = OUTPUT / f"overhead-{name}.json"
    path.write_text(json.dumps({"machine": describe(), "figures": found}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
