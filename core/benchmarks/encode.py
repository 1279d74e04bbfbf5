"""Texts per second beside sentence-transformers: the same folder, the same texts, in turns within one process.

    python core/benchmarks/encode.py [--model mini] [--threads 1] [--rounds 5]

Short texts are the first sentences of the standard library's docstrings, passages the docstrings cut to a log-normal
length around 90 words. Vectors are compared too: a speed with other vectors is none.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import describe
from rich.console import Console
from rich.progress import track
from rich.table import Table

from anytask import Instructor
from anytask.hub import resolve

INSTRUCTION = "Represent the Python documentation for retrieval: "


def docstrings() -> list[str]:
    """Docstrings of the standard library's modules, classes and functions, in the order of their files."""
    found = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                if text and len(text.split()) >= 5:
                    found.append(" ".join(text.split()))
    return list(dict.fromkeys(found))


def workloads(count: int) -> dict[str, list[str]]:
    rng = np.random.default_rng(0)
    found = docstrings()
    texts = [found[place] for place in rng.permutation(len(found))]
    words = " ".join(texts).split()
    passages = []
    for length in rng.lognormal(np.log(90), 0.6, count).clip(8, 380).astype(int):
        start = rng.integers(len(words) - length)
        passages.append(" ".join(words[start : start + length]))
    return {"short texts": [text.split(". ")[0] for text in texts[:count]], "passages": passages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    from sentence_transformers import SentenceTransformer

    folder = str(resolve(arguments.model))
    peer = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": "float32"})
    peer.set_pooling_include_prompt(False)
    precise = Instructor.from_pretrained(folder, device="cpu")
    half = Instructor.from_pretrained(folder, device="cpu", dtype="bfloat16")
    rivals: dict[str, Callable[[list[str]], np.ndarray]] = {
        "sentence-transformers": lambda texts: peer.encode(texts, prompt=INSTRUCTION, show_progress_bar=False),
        "anytask float32": lambda texts: precise.encode(texts, INSTRUCTION),
        "anytask bfloat16": lambda texts: half.encode(texts, INSTRUCTION),
    }
    title = f"{arguments.model}, {arguments.threads} thread(s): {describe()}"
    table = Table("", "", "texts/s", "ratio", "lowest cosine", title=title)
    for name, texts in workloads(arguments.texts).items():
        reference = rivals["sentence-transformers"](texts[:32])
        cosines = {rival: float((encode(texts[:32]) * reference).sum(-1).min()) for rival, encode in rivals.items()}
        times: dict[str, list[float]] = {rival: [] for rival in rivals}
        for _ in track(range(arguments.rounds), description=name):
            for rival, encode in rivals.items():
                started = time.perf_counter()
                encode(texts)
                times[rival].append(time.perf_counter() - started)
        for rival in rivals:
            pairs = zip(times["sentence-transformers"], times[rival], strict=True)
            ratio = statistics.median(theirs / ours for theirs, ours in pairs)
            speed = len(texts) / statistics.median(times[rival])
            table.add_row(name, rival, f"{speed:,.0f}", f"{ratio:.2f}", f"{cosines[rival]:.6f}")
    Console().print(table)


if __name__ == "__main__":
    main()
