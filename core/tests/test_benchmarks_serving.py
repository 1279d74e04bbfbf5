"""The benchmarks of concurrency and of a GPU: they run, and tell what they need."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_concurrency(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    options = ("--model", make_checkpoint(), "--dtype", "float32", "--callers", 4, "--each", 2, "--rounds", 1)
    ended = run("concurrency.py", tmp_path, *options)
    assert ended.returncode == 0, ended.stderr
    report = json.loads((tmp_path / "build" / "bench" / "concurrency.json").read_text())
    rows = {row["way"]: row for row in report["rows"]}
    assert rows.keys() == {"threads with a lock", "threads", "coroutines", "one list"}
    assert rows["threads with a lock"]["ratio"] == 1.0
    assert all(row["queries_per_second"] > 0 for row in rows.values())
    assert report["alone"][0].keys() == {"model", "dtype", "without the queue", "encode", "aencode"}
    assert "threads with a lock" in ended.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_missing_gpu_is_told(tmp_path: Path) -> None:
    ended = run("gpu.py", tmp_path)
    assert (ended.returncode, ended.stderr) == (1, "torch sees no CUDA GPU here; this benchmark needs one\n")
