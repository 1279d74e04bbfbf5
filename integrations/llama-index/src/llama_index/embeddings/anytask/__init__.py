"""INSTRUCTOR embeddings for LlamaIndex."""

from llama_index.embeddings.anytask.base import InstructorEmbedding

__all__ = ["InstructorEmbedding"]
