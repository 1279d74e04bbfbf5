"""What users write, for mypy: see test_typing.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chromadb
from chromadb.api.types import Embeddings
from chromadb.utils.embedding_functions import register_embedding_function

from anytask import Instruction, Instructor
from chroma_anytask import InstructorEmbeddingFunction

function = InstructorEmbeddingFunction(
    "mini", document_instruction=Instruction("recipe", objective="retrieval"), query_instruction="", truncate_dim=64
)
former = InstructorEmbeddingFunction(model_name=Path("folder"), device="cpu", instruction="Represent the recipe: ")
client = chromadb.EphemeralClient()
collection: chromadb.Collection = client.get_or_create_collection("recipes", embedding_function=function)
collection.add(ids=["1"], documents=["Boil the eggs."])
collection.modify(configuration={"embedding_function": former})
model: Instructor = function.load()
vectors: Embeddings = function(["Boil the eggs."])
queries: Embeddings = function.embed_query(["How long do eggs boil?"])
config: dict[str, Any] = function.get_config()
again: InstructorEmbeddingFunction = InstructorEmbeddingFunction.build_from_config(config)


async def ask(question: str) -> Embeddings:
    return await function.aembed_query([question])


@register_embedding_function
class Louder(InstructorEmbeddingFunction):
    @staticmethod
    def name() -> str:
        return "louder"


InstructorEmbeddingFunction(token="hf_word")  # type: ignore[call-arg]
InstructorEmbeddingFunction(normalize="yes")  # type: ignore[arg-type]
function(["Boil the eggs."], "Represent the recipe: ")  # type: ignore[call-arg]
