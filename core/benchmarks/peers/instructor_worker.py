"""InstructorEmbedding 1.0.1 with the packages of its time, in a benchmark."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from InstructorEmbedding import INSTRUCTOR

sys.path.insert(0, str(Path(__file__).parents[1]))
from serve import serve
from texts import INSTRUCTION


def main() -> None:
    _, folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model = INSTRUCTOR(folder, device="cpu")
    serve(lambda texts: model.encode([[INSTRUCTION, text] for text in texts], normalize_embeddings=True))


if __name__ == "__main__":
    main()
