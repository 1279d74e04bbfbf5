"""What users write, for mypy: see test_typing.py."""

from __future__ import annotations

from pathlib import Path

from llama_index.core import Settings
from llama_index.embeddings.anytask import InstructorEmbedding

from anytask import Instruction


def embed_model(folder: Path) -> InstructorEmbedding:
    model = InstructorEmbedding(
        model_name=folder,
        query_instruction=Instruction(text_type="question", objective="retrieving supporting documents"),
        text_instruction="Represent the document for retrieval: ",
        dtype="bfloat16",
        num_workers=2,
    )
    Settings.embed_model = model
    return model.model_copy(update={"query_instruction": ""})


async def embed(model: InstructorEmbedding, texts: list[str]) -> list[list[float]]:
    name: str = model.model_name
    vectors: list[list[float]] = await model.aget_text_embedding_batch([name, *texts])
    return vectors
