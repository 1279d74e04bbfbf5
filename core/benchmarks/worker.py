"""The process of anytask or sentence-transformers in a benchmark: `python worker.py RIVAL FOLDER THREADS`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from serve import serve
from texts import INSTRUCTION


def load(rival: str, folder: str) -> Callable[[list[str]], Any]:
    """What embeds texts with `INSTRUCTION`: sentence-transformers in float32, or anytask in the dtype named."""
    if rival == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        peer = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": "float32"})
        peer.set_pooling_include_prompt(False)
        return lambda texts: peer.encode(texts, prompt=INSTRUCTION, show_progress_bar=False)
    from anytask import Instructor

    model = Instructor.from_pretrained(folder, device="cpu", dtype=rival)
    return lambda texts: model.encode(texts, INSTRUCTION)


def main() -> None:
    rival, folder, threads = sys.argv[1:]
    embed = load(rival, folder)
    import torch

    torch.set_num_threads(int(threads))
    serve(embed)


if __name__ == "__main__":
    main()
