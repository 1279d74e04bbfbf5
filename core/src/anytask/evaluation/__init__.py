"""How good an embedder is: a suite of eight task families measured with and without instructions.

>>> from anytask import Instructor
>>> from anytask.evaluation import evaluate, overall
>>> results = evaluate(Instructor.from_pretrained("mini"), "suite")  # doctest: +SKIP
>>> print(f"{overall(results):.3f}")  # doctest: +SKIP
"""

from __future__ import annotations

try:
    import scipy  # noqa: F401
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        f'anytask.evaluation needs scikit-learn and scipy ({error}); install them with: pip install "anytask[eval]"'
    ) from error

from anytask.evaluation.embedder import Embedder, SentenceTransformerEmbedder, TruncatedEmbedder
from anytask.evaluation.families import FAMILIES, Instructions
from anytask.evaluation.report import check_target, family_means, overall, summary, table, write_json
from anytask.evaluation.suite import InstructionChoice, Result, Task, evaluate, evaluate_task, find_tasks

__all__ = [
    "FAMILIES",
    "Embedder",
    "InstructionChoice",
    "Instructions",
    "Result",
    "SentenceTransformerEmbedder",
    "Task",
    "TruncatedEmbedder",
    "check_target",
    "evaluate",
    "evaluate_task",
    "family_means",
    "find_tasks",
    "overall",
    "summary",
    "table",
    "write_json",
]
