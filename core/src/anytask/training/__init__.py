"""Training: the paper's recipe (arXiv 2212.09741), from records of labelled tasks to a checkpoint.

>>> from anytask.training import InstructedText, Record, TrainingOptions, train
>>> train("records.jsonl", "my-model", options=TrainingOptions(steps=500, batch_size=128))  # doctest: +SKIP
"""

from anytask.training.contrastive import TextKeys, contrastive_loss
from anytask.training.distillation import distillation_loss
from anytask.training.medi.records import InstructedText, Record, RecordError
from anytask.training.options import TrainingOptions

__all__ = [
    "InstructedText",
    "Record",
    "RecordError",
    "TextKeys",
    "TrainingOptions",
    "contrastive_loss",
    "distillation_loss",
]
