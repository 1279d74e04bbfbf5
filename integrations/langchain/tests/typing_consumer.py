"""What users write, for mypy: see test_typing.py."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from anytask import Instruction, Instructor
from langchain_anytask import InstructorEmbeddings

embeddings = InstructorEmbeddings(model="mini", query_instruction=str(Instruction("question")), token="hf_word")
former = InstructorEmbeddings(model_name="mini", embed_instruction="Represent it: ", model_kwargs={"device": "cpu"})
base: Embeddings = embeddings
store = InMemoryVectorStore(embeddings)
model: Instructor = embeddings.load()
instruction: str | None = embeddings.query_instruction
vector: list[float] = embeddings.embed_query("a question", instruction=Instruction("question"))
vectors: list[list[float]] = embeddings.embed_documents(["a text"], instruction="Represent the text: ")
namespace: str = embeddings.cache_namespace("document")


async def together() -> list[float]:
    documents: list[list[float]] = await embeddings.aembed_documents(["a text"])
    return documents[0] + await embeddings.aembed_query("a question")


embeddings.embed_query(["a list"])  # type: ignore[arg-type]
embeddings.embed_documents([None])  # type: ignore[list-item]
embeddings.cache_namespace("both")  # type: ignore[arg-type]
