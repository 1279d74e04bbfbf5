"""The process of anytask or sentence-transformers in a benchmark: `python worker.py RIVAL FOLDER THREADS`."""

from __future__ import annotations

import sys

from serve import Embed, serve
from texts import INSTRUCTION


def load(rival: str, folder: str, threads: int) -> Embed:
    """What embeds texts with `INSTRUCTION`: sentence-transformers in float32, or anytask in the dtype named."""
    import torch

    torch.set_num_threads(threads)
    if rival == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        peer = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": "float32"})
        peer.set_pooling_include_prompt(False)
        return lambda texts: peer.encode(texts, prompt=INSTRUCTION, show_progress_bar=False)
    from anytask import Instructor

    model = Instructor.from_pretrained(folder, device="cpu", dtype=rival)
    return lambda texts: model.encode(texts, INSTRUCTION)


if __name__ == "__main__":
    serve(lambda: load(sys.argv[1], sys.argv[2], int(sys.argv[3])))
