"""anytask: INSTRUCTOR embeddings (arXiv 2212.09741). One model, and the embedding that each task needs."""

from anytask.threads import import_torch_without_spinning

import_torch_without_spinning()

from anytask.embedder import Embedder  # noqa: E402
from anytask.errors import CheckpointError, WorkerError  # noqa: E402
from anytask.instruction import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION, Instruction  # noqa: E402
from anytask.model import Instructor  # noqa: E402
from anytask.shared import load_shared, release_shared  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_DOCUMENT_INSTRUCTION",
    "DEFAULT_QUERY_INSTRUCTION",
    "CheckpointError",
    "Embedder",
    "Instruction",
    "Instructor",
    "WorkerError",
    "load_shared",
    "release_shared",
]
