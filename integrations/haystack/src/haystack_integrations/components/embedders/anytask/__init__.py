"""INSTRUCTOR embedders (arXiv 2212.09741) for Haystack: one for queries, one for documents."""

from haystack_integrations.components.embedders.anytask.document_embedder import InstructorDocumentEmbedder
from haystack_integrations.components.embedders.anytask.text_embedder import InstructorTextEmbedder

__all__ = ["InstructorDocumentEmbedder", "InstructorTextEmbedder"]
