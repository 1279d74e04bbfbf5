"""From the records of a step to tokenized texts and what they are to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from anytask.batching import TokenizedText
from anytask.tokenization import InstructionTokenizer
from anytask.training.augmentation import Augmentation
from anytask.training.batches import TaskBatches
from anytask.training.medi.records import InstructedText, Record
from anytask.training.objective import Roles
from anytask.training.options import TrainingOptions
from anytask.training.pair_store import PairStore, text_key
from anytask.training.teacher import TeacherVectors


@dataclass(frozen=True)
class TextBatch:
    """The texts of a step on this process, and their roles."""

    name: str
    texts: Sequence[TokenizedText]
    roles: Roles

    @property
    def tokens(self) -> int:
        return sum(len(text.ids) for text in self.texts)


class PairBatches:
    """The batch of every step: queries, then positives, then hard negatives.

    Args:
        store: the records.
        plan: rows of each step.
        tokenizer: with the length limit of training.
        options: negatives, augmentation and seed.
        teacher: vectors to learn, of every text.
        process, processes: this one takes every `processes`-th row from `process` on.

    Raises:
        ValueError: a task has fewer records than there are processes.
    """

    def __init__(
        self,
        store: PairStore,
        plan: TaskBatches,
        tokenizer: InstructionTokenizer,
        options: TrainingOptions,
        *,
        teacher: TeacherVectors | None = None,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.store, self.plan, self.tokenizer, self.options, self.teacher = store, plan, tokenizer, options, teacher
        self.process, self.processes = process, processes
        for task, rows in zip(plan.names, plan.rows, strict=True):
            if min(len(rows), plan.batch_size) < processes:
                raise ValueError(
                    f"the task {task} gives batches of {min(len(rows), plan.batch_size)} records, fewer than the "
                    f"{processes} processes; leave it out or join it with another"
                )
        self.augmentation = Augmentation(
            instruction_paraphrase=options.instruction_paraphrase,
            word_dropout=options.word_dropout,
            instruction_dropout=options.instruction_dropout,
        )

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> TextBatch:
        task, rows = self.plan[step]
        rows = rows[self.process :: self.processes]
        records = [self._chosen(self.store[int(row)], step, int(row)) for row in rows]
        varied = [self._vary(record, step, int(row)) for record, row in zip(records, rows, strict=True)]
        texts = _in_roles(records)
        keys = torch.tensor([text_key(side.text) for side in texts], dtype=torch.int64)
        taught, vectors = self._teaching(texts)
        instructed = _in_roles(varied)
        tokenized = self.tokenizer([side.text for side in instructed], [side.instruction for side in instructed])
        return TextBatch(
            task, tokenized, Roles(len(rows), len(texts) - 2 * len(rows), keys, taught=taught, teacher=vectors)
        )

    def _chosen(self, record: Record, step: int, row: int) -> Record:
        """The record with as many of its hard negatives as are taken."""
        if len(record.neg) <= self.options.max_negatives:
            return record
        chosen = np.random.default_rng([self.options.seed, 2, step, row]).permutation(len(record.neg))
        kept = sorted(chosen[: self.options.max_negatives])
        return replace(record, neg=tuple(record.neg[place] for place in kept))

    def _vary(self, record: Record, step: int, row: int) -> Record:
        """The record in the wording that this step sees."""
        rng = np.random.default_rng([self.options.seed, 6, step, row])
        query, pos, *neg = self.augmentation.together([record.query, record.pos, *record.neg], rng)
        return replace(record, query=query, pos=pos, neg=tuple(neg))

    def _teaching(self, texts: Sequence[InstructedText]) -> tuple[Tensor | None, Tensor | None]:
        if self.teacher is None:
            return None, None
        return torch.arange(len(texts)), torch.from_numpy(self.teacher.of(texts))


def _in_roles(records: Sequence[Record]) -> list[InstructedText]:
    """The records' queries, then their positives, then their hard negatives."""
    negatives = [negative for record in records for negative in record.neg]
    return [record.query for record in records] + [record.pos for record in records] + negatives
