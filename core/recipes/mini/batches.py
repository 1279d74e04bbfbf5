"""The batches of `mini`'s stages, each a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from imitation import TaughtBatch
from instructions import FOR_LONG_TEXTS, FOR_SHORT_TEXTS, FOR_SHORT_TEXTS_WITH_TOPICS, free_wordings
from numpy.typing import NDArray
from store import NOTHING, Prepared, TextStore
from teacher import Teacher
from torch import Tensor

from anytask.batching import TokenizedText
from anytask.instruction import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION
from anytask.training.augmentation import paraphrases
from anytask.training.objective import Roles

Ids = NDArray[np.int32]

SEED = 0
WINDOW = 8192
"""Texts drawn at random that are sorted by length before they are cut into batches."""
LONG = 32
"""Tokens from which on a text gets a document's instruction rather than a query's."""
GENERAL = 0.3
"""Share of the taught texts that get one of the two default instructions, and of the pairs of an asymmetric task."""
REWORDED = 0.5
"""Share of the instructions that are said in other words."""
FREE = 0.5
"""Share of those that don't follow the template."""
STRANGE = 0.3
"""Share of the taught texts that stand behind a text that is no instruction: what the model doesn't understand is to
change nothing."""
STRANGE_TOKENS = 20
"""Most tokens of such a text."""
LABELS = 16
"""Most labels of a batch of labelled texts."""
AGAIN = 3
"""Of so many labelled texts one is taught too: without its task's instruction its vector is to stay the teacher's."""


@dataclass(frozen=True)
class Stage:
    """What a stage's batches hold.

    Args:
        steps: how many there are.
        taught_tokens: of the corpus' texts, which the teacher embeds too, without their instructions.
        instructed: share of taught texts that stand behind an instruction, or behind another text.
        sentence_topics: whether sentences are asked for their topic, too, as tasks ask for it.
        task_tokens: of texts of one task, without their instructions.
        pairs: most of one task; of labelled texts, twice as many.
    """

    steps: int
    taught_tokens: int
    instructed: float
    task_tokens: int = 0
    pairs: int = 128
    sentence_topics: bool = False


class Wordings:
    """The token ids of instructions and of their rewordings."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.known: dict[str, Ids] = {}
        self.reworded: dict[tuple[str, bool], list[str]] = {}

    def ids(self, instruction: str) -> Ids:
        if instruction not in self.known:
            self.known[instruction] = self.prepared.instruction_ids(instruction)
        return self.known[instruction]

    def draw(self, instructions: tuple[str, str], rng: np.random.Generator) -> tuple[Ids, Ids]:
        """Both sides' instruction, as given or reworded; one wording for both if they are equal."""
        reword, free, wording = rng.random() < REWORDED, rng.random() < FREE, rng.random()
        sides = []
        for instruction in instructions:
            key = instruction, free
            if key not in self.reworded:
                self.reworded[key] = free_wordings(instruction) if free else paraphrases(instruction)
            others = self.reworded[key]
            sides.append(self.ids(others[int(wording * len(others))] if reword else instruction))
        return sides[0], sides[1]


class TaughtTexts:
    """The corpus in batches of similar length."""

    def __init__(self, prepared: Prepared, stage: Stage, wordings: Wordings, seed: int) -> None:
        self.prepared, self.stage, self.wordings, self.seed = prepared, stage, wordings, seed
        lengths = prepared.texts.lengths(np.arange(len(prepared.texts)))
        self.strange = np.flatnonzero(lengths <= STRANGE_TOKENS)
        self.planned: list[NDArray[np.int64]] = []
        self.epochs = 0

    def batch(self, step: int) -> NDArray[np.int64]:
        while len(self.planned) <= step:
            self.planned += self._plan(self.epochs)
            self.epochs += 1
        return self.planned[step]

    def _plan(self, epoch: int) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng([SEED, self.seed, epoch])
        order = rng.permutation(len(self.prepared.texts))
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), WINDOW):
            window = order[start : start + WINDOW]
            lengths = self.prepared.texts.lengths(window)
            window, lengths = window[np.argsort(lengths, kind="stable")], np.sort(lengths)
            cuts = np.flatnonzero(np.diff(np.cumsum(lengths) // self.stage.taught_tokens)) + 1
            pieces = np.split(window, cuts)
            batches += [pieces[place] for place in rng.permutation(len(pieces))]
        return batches

    def text(self, store: TextStore, index: int, rng: np.random.Generator) -> TokenizedText:
        """A text of a store as it is, behind an instruction for its kind, or behind another text: its vector is to be
        the teacher's.
        """
        if rng.random() >= self.stage.instructed:
            return store.text(index, NOTHING)
        if rng.random() < STRANGE:
            return store.text(index, self.prepared.texts.own_ids(int(rng.choice(self.strange))))
        is_long = int(store.lengths(np.array([index]))[0]) >= LONG
        if rng.random() < GENERAL:
            pair = DEFAULT_QUERY_INSTRUCTION, DEFAULT_DOCUMENT_INSTRUCTION
        else:
            short = FOR_SHORT_TEXTS_WITH_TOPICS if self.stage.sentence_topics else FOR_SHORT_TEXTS
            pool = FOR_LONG_TEXTS if is_long else short
            pair = (pool[rng.integers(len(pool))],) * 2
        return store.text(index, self.wordings.draw(pair, rng)[is_long])


@dataclass(frozen=True)
class TaskTexts:
    """A task's part of a batch: pairs and their hard negatives, or labelled texts.

    Args:
        keys: [texts], which texts of the store they are.
        labels: [texts] of labelled ones.
        parts: [2, m] places of labelled texts and of their parts that have the label, which are texts too.
    """

    name: str
    texts: Sequence[TokenizedText] = ()
    keys: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    pairs: int = 0
    negatives: int = 0
    labels: Tensor | None = None
    parts: NDArray[np.int64] | None = None


class MiniBatches:
    """A stage's batches: texts of one task first, if any, then texts with what the teacher makes of them: the corpus'
    and some of the labelled ones.
    """

    def __init__(self, prepared: Prepared, stage: Stage, seed: int, teacher: Teacher) -> None:
        self.prepared, self.stage, self.seed, self.teacher = prepared, stage, seed, teacher
        self.wordings = Wordings(prepared)
        self.taught = TaughtTexts(prepared, stage, self.wordings, seed)
        weights = np.array([len(rows) for rows in prepared.rows], dtype=float) ** 0.5
        weights *= [task["weight"] for task in prepared.tasks]
        self.chances = weights / weights.sum()

    def __len__(self) -> int:
        return self.stage.steps

    def __getitem__(self, step: int) -> TaughtBatch:
        rng = np.random.default_rng([SEED, self.seed, step, 1])
        task = self._task_texts(rng) if self.stage.task_tokens else TaskTexts("distillation")
        taught = self.taught.batch(step)
        again = task.keys[::AGAIN] if task.labels is not None else task.keys[:0]
        learnt = [self.taught.text(self.prepared.texts, int(index), rng) for index in taught]
        learnt += [self.taught.text(self.prepared.task_texts, int(index), rng) for index in again]
        lesson = self.teacher([text.ids[text.pool_start :] for text in learnt])
        roles = Roles(
            pairs=task.pairs,
            negatives=task.negatives,
            keys=torch.from_numpy(np.concatenate([task.keys, -1 - taught, again])),
            taught=torch.arange(len(task.texts), len(task.texts) + len(learnt)),
            teacher=lesson.vectors,
        )
        return TaughtBatch(task.name, [*task.texts, *learnt], roles, lesson, task.labels, task.parts)

    def _task_texts(self, rng: np.random.Generator) -> TaskTexts:
        """Texts of a task that is drawn by its weight and the square root of its size."""
        number = int(rng.choice(len(self.chances), p=self.chances))
        task, rows = self.prepared.tasks[number], self.prepared.rows[number]
        if task["labelled"]:
            drawn = self._within_budget(balanced(rows, 2 * self.stage.pairs, rng), columns=[0, 3])
            partly = np.flatnonzero(drawn[:, 3] >= 0)
            places = np.concatenate([drawn[:, 0], drawn[partly, 3]])
            labels = np.concatenate([drawn[:, 1], drawn[partly, 1]]).astype(np.int64)
            parts = np.stack([partly, len(drawn) + np.arange(len(partly))])
            texts, keys = self._instructed(number, [places], rng)
            return TaskTexts(task["name"], texts, keys, labels=torch.from_numpy(labels), parts=parts)
        drawn = self._within_budget(rows[rng.permutation(len(rows))[: self.stage.pairs]], columns=[0, 1, 2])
        negatives = drawn[drawn[:, 2] >= 0, 2]
        texts, keys = self._instructed(number, [drawn[:, 0], drawn[:, 1], negatives], rng)
        return TaskTexts(task["name"], texts, keys, pairs=len(drawn), negatives=len(negatives))

    def _within_budget(self, rows: NDArray[np.int32], columns: Sequence[int]) -> NDArray[np.int32]:
        """The first rows, as many as the stage has tokens for, whose texts are in some columns."""
        places = rows[:, columns]
        lengths = np.where(places >= 0, self.prepared.task_texts.lengths(np.maximum(places, 0)), 0).sum(1)
        return rows[: max(8, int(np.searchsorted(np.cumsum(lengths), self.stage.task_tokens)))]

    def _instructed(
        self, number: int, columns: Sequence[NDArray[np.int32]], rng: np.random.Generator
    ) -> tuple[list[TokenizedText], NDArray[np.int64]]:
        """The texts behind the task's instructions or, for some batches of an asymmetric task, the default ones; and
        their keys.
        """
        query, pos = self.prepared.tasks[number]["instructions"]
        if query != pos and rng.random() < GENERAL:
            query, pos = DEFAULT_QUERY_INSTRUCTION, DEFAULT_DOCUMENT_INSTRUCTION
        sides = self.wordings.draw((query, pos), rng)
        texts = [
            self.prepared.task_texts.text(int(index), sides[min(side, 1)])
            for side, column in enumerate(columns)
            for index in column
        ]
        return texts, np.concatenate(columns).astype(np.int64)


def balanced(rows: NDArray[np.int32], most: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Random rows of some labels: each label as often as the others and, of each, a source by the square root of the
    number of its texts.

    Args:
        rows: text, label, source and part.
        most: how many are drawn, if there are as many.
    """
    labels, counts = np.unique(rows[:, 1], return_counts=True)
    weights = counts**0.5
    chosen = rng.choice(labels, min(LABELS, len(labels)), replace=False, p=weights / weights.sum())
    rows = rows[np.isin(rows[:, 1], chosen)]
    groups, of_row, sizes = np.unique(rows[:, 1:3], axis=0, return_inverse=True, return_counts=True)
    of_label = np.unique(groups[:, 0], return_inverse=True)[1]
    roots = sizes**0.5
    chances = (roots / np.bincount(of_label, roots)[of_label] / sizes)[of_row.reshape(-1)]
    return rows[rng.choice(len(rows), min(most, len(rows)), replace=False, p=chances / chances.sum())]
