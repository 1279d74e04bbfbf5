"""What users write, for mypy: see test_typing.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anytask import CheckpointError, Embedder, Instruction, Instructor, load_shared

model: Instructor = Instructor.from_pretrained("mini", device="cpu", dtype="bfloat16", max_length=64)
same: Instructor = load_shared(Path("folder"), token=True)
instruction = Instruction(text_type="question", objective="retrieving supporting documents")
vectors: npt.NDArray[np.float32] = model.encode(["a text", "another"], instruction, truncate_dim=64, precision="int8")
pairs: Any = model.encode([["Represent the text: ", "a text"]])
dimension: int = model.dimension
embedder = Embedder(model="mini", query_instruction=str(instruction))
matrix: npt.NDArray[np.float32] = embedder.embed_documents(["a text"], instruction="")
name: str = embedder.fingerprint("document")


async def together() -> npt.NDArray[np.float32]:
    try:
        return await embedder.aembed_queries(["a question"], instruction)
    except CheckpointError as error:
        raise ValueError(str(error)) from error


model.encode(3)  # type: ignore[arg-type]
model.encode("a text", precision="int4")  # type: ignore[arg-type]
load_shared("mini", batch_size=3)  # type: ignore[call-arg]
Embedder("mini")  # type: ignore[call-arg]
