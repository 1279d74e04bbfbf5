"""INSTRUCTOR embeddings for Chroma; importing this package registers the embedding function "anytask_instructor"."""

from chroma_anytask import guard
from chroma_anytask.embedding_function import InstructorEmbeddingFunction
from chroma_anytask.migration import copy_collection

__version__ = "0.1.0"

__all__ = ["InstructorEmbeddingFunction", "copy_collection"]

guard.install()
