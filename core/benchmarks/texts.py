"""Texts to measure with, from the docstrings of Python's standard library: the same on every machine, tuned to none."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

import numpy as np

INSTRUCTION = "Represent the Python documentation for retrieval: "
SHORT, PASSAGES, QUERY = "short texts", "passages", "one query"


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
    """`count` first sentences of docstrings, and as many passages of a log-normal length around 120 tokens."""
    rng = np.random.default_rng(0)
    found = docstrings()
    texts = [found[place] for place in rng.permutation(len(found))]
    words = " ".join(texts).split()
    passages = []
    for length in rng.lognormal(np.log(65), 0.6, count).clip(5, 260).astype(int):
        start = rng.integers(len(words) - length)
        passages.append(" ".join(words[start : start + length]))
    return {SHORT: [text.split(". ")[0] for text in texts[:count]], PASSAGES: passages}
