"""Who is measured: anytask in each precision, and sentence-transformers in float32, all on the same folder."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from texts import INSTRUCTION

PEER = "sentence-transformers"
DTYPES = ("float32", "bfloat16", "int8")
RIVALS = (PEER, *DTYPES)
BASE = {"d_model": 768, "num_layers": 12, "num_heads": 12, "d_kv": 64, "d_ff": 3072, "dimension": 768}
"""T5 base; its embedding table has 32,128 rows."""

Encode = Callable[[Any], Any]


def load(rival: str, folder: str) -> Encode:
    """What embeds a text or a list of texts with `INSTRUCTION`."""
    if rival == PEER:
        from sentence_transformers import SentenceTransformer

        peer = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": "float32"})
        peer.set_pooling_include_prompt(False)
        return lambda texts: peer.encode(texts, prompt=INSTRUCTION, show_progress_bar=False)
    from anytask import Instructor

    model = Instructor.from_pretrained(folder, device="cpu", dtype=rival)
    return lambda texts: model.encode(texts, INSTRUCTION)


def write_base(folder: Path) -> None:
    """A checkpoint of T5 base's shape with random weights and the bundled model's tokenizer."""
    from anytask.checkpoint import read_tokenizer, save_checkpoint
    from anytask.hub import resolve
    from anytask.training.initialise import Sizes, new_checkpoint

    sizes = Sizes(**BASE, vocab_size=32_128)
    save_checkpoint(new_checkpoint(sizes, read_tokenizer(resolve("mini")), seed=0), folder)


def matrix_ceiling(dtype: str) -> float:
    """GFLOP/s of a large product by oneDNN in this precision, with torch's present number of threads."""
    from timing import best_seconds

    from anytask.linear import FloatLinear, Int8Linear, quantised

    rows, inner, columns = 1024, 1024, 4096
    weight = torch.randn(columns, inner)
    if dtype == "int8":
        integers = Int8Linear(*quantised(weight))
        x = torch.randint(0, 256, (rows, inner), dtype=torch.uint8)
        seconds = best_seconds(lambda: integers._product(x, "none"))
    else:
        floats = FloatLinear(weight.to(getattr(torch, dtype)))
        x = torch.randn(rows, inner).to(getattr(torch, dtype))
        seconds = best_seconds(lambda: floats(x))
    return 2 * rows * inner * columns / seconds / 1e9


def peak_memory(rival: str, folder: str, texts: list[str], threads: int) -> float:
    """MB that a process of its own took at most to load the model and embed `texts`."""
    command = [sys.executable, "-W", "ignore", __file__, rival, folder, str(threads)]
    given = json.dumps(texts)
    return float(subprocess.run(command, input=given, check=True, capture_output=True, text=True).stdout.split()[-1])


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    load(sys.argv[1], sys.argv[2])(json.load(sys.stdin))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
