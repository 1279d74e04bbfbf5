"""Who is measured: anytask in each precision and sentence-transformers, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PEER = "sentence-transformers"
DTYPES = ("float32", "bfloat16", "int8")
RIVALS = (PEER, *DTYPES)
OUTPUT = Path("build/bench")
SHAPES: dict[str, dict[str, int]] = {
    "base": {"d_model": 768, "num_layers": 12, "num_heads": 12, "d_kv": 64, "d_ff": 3072, "dimension": 768},
    "large": {"d_model": 1024, "num_layers": 24, "num_heads": 16, "d_kv": 64, "d_ff": 4096, "dimension": 768},
    "xl": {"d_model": 1024, "num_layers": 24, "num_heads": 32, "d_kv": 128, "d_ff": 16_384, "dimension": 768},
}
"""Of T5 as GTR and INSTRUCTOR have it."""
VOCABULARY = 32_128
"""T5 base; its embedding table has 32,128 rows."""
HERE = Path(__file__).parent
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Worker:
    """A rival's process: it loads the folder, then embeds when asked, and sleeps between.

    Args:
        command: of the process, see `serve.py`; None takes `worker.py`.
        threads: that it computes with.
        clock: "wall", or "cpu" for the seconds that the process computes, which other processes hardly change.
    """

    def __init__(
        self, rival: str, folder: str, threads: int, command: Sequence[str] | None = None, clock: str = "wall"
    ) -> None:
        self._clock = clock
        given = command or (sys.executable, "-W", "ignore", str(HERE / "worker.py"))
        environment = {name: value for name, value in os.environ.items() if name not in THREAD_SETTINGS}
        self._process = subprocess.Popen(
            [*given, rival, folder, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"},
        )
        self.peak_megabytes = 0.0

    def seconds(self, texts: Sequence[str], *, singly: bool = False) -> list[float]:
        """Time of one call with all texts, or of a call for each."""
        found: list[float] = self._ask({"texts": list(texts), "singly": singly})[self._clock]
        return found

    def vectors(self, texts: Sequence[str], path: Path) -> npt.NDArray[np.float32]:
        """Their vectors, unit length; they go through a file."""
        self._ask({"texts": list(texts), "vectors": str(path)})
        found: npt.NDArray[np.float32] = np.load(path)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with status {self._process.wait()}; its errors are above")
        answer: dict[str, Any] = json.loads(line)
        self.peak_megabytes = answer["peak_megabytes"]
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def write_base(folder: Path) -> None:
    """A checkpoint of T5 base's shape with random weights and the bundled model's tokenizer."""
    from anytask.checkpoint import read_tokenizer, save_checkpoint
    from anytask.hub import resolve
    from anytask.training.initialise import Sizes, new_checkpoint

    sizes = Sizes(**SHAPES["base"], vocab_size=VOCABULARY)
    save_checkpoint(new_checkpoint(sizes, read_tokenizer(resolve("mini")), seed=0), folder)


def model_folder(model: str) -> Path:
    """A folder that all can read: T5 base's shape ("base"), or a model's, copied in float32 where it holds bytes."""
    import torch

    from anytask.checkpoint import load_checkpoint, save_checkpoint
    from anytask.configuration import is_int8
    from anytask.hub import resolve

    if model == "base":
        folder = OUTPUT / "base"
        if not (folder / "modules.json").exists():
            write_base(folder)
        return folder
    folder = resolve(model)
    checkpoint = load_checkpoint(folder)
    if not is_int8(checkpoint.config):
        return folder
    copy = OUTPUT / f"{folder.name}-float32"
    save_checkpoint(checkpoint.in_precision(torch.float32), copy)
    return copy


def matrix_ceiling(dtype: str, threads: int, clock: str = "wall") -> float:
    """GFLOP/s of a large product by the CPU engine in this precision."""
    import torch
    from timing import CLOCKS, best_seconds

    from anytask.linear import FloatLinear, Int8Linear, quantised

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    rows, inner, columns = 1024, 1024, 4096
    weight = torch.randn(columns, inner)
    if dtype == "int8":
        integers = Int8Linear(*quantised(weight))
        x = torch.randint(0, 256, (rows, inner), dtype=torch.uint8)
        seconds = best_seconds(lambda: integers._product(x), clock=CLOCKS[clock])
    else:
        floats = FloatLinear(weight.to(getattr(torch, dtype)))
        x = torch.randn(rows, inner)
        seconds = best_seconds(lambda: floats(x), clock=CLOCKS[clock])
    torch.set_num_threads(before)
    return 2 * rows * inner * columns / seconds / 1e9
