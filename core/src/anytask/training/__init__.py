"""Training: the paper's recipe (arXiv 2212.09741), from records of labelled tasks to a checkpoint.

>>> from anytask.training import InstructedText, Record, TrainingOptions, train
>>> train("records.jsonl", "my-model", options=TrainingOptions(steps=500, batch_size=128))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anytask.training.contrastive import TextKeys, contrastive_loss
from anytask.training.distillation import distillation_loss
from anytask.training.medi.records import InstructedText, Record, RecordError
from anytask.training.options import TrainingOptions

if TYPE_CHECKING:
    from anytask.training.run import train

__all__ = [
    "InstructedText",
    "Record",
    "RecordError",
    "TextKeys",
    "TrainingOptions",
    "contrastive_loss",
    "distillation_loss",
    "train",
]


def __getattr__(name: str) -> Any:
    """`train`, whose module needs what `anytask[train]` installs, is imported when it is asked for."""
    if name != "train":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from anytask.training.run import train

    return train
