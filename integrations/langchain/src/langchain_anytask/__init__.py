"""INSTRUCTOR embeddings for LangChain."""

from langchain_anytask.embeddings import InstructorEmbeddings

__version__ = "0.1.0"

__all__ = ["InstructorEmbeddings"]
