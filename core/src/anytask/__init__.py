"""anytask: INSTRUCTOR embeddings (arXiv 2212.09741). One model, and the embedding that each task needs."""

from anytask.embedder import Embedder
from anytask.errors import CheckpointError
from anytask.instruction import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION, Instruction
from anytask.model import Instructor
from anytask.shared import load_shared, release_shared

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_DOCUMENT_INSTRUCTION",
    "DEFAULT_QUERY_INSTRUCTION",
    "CheckpointError",
    "Embedder",
    "Instruction",
    "Instructor",
    "load_shared",
    "release_shared",
]
