"""The batches of `mini`'s stages, each a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from imitation import TaughtBatch
from instructions import FOR_LONG_TEXTS, FOR_SHORT_TEXTS, free_wordings
from numpy.typing import NDArray
from store import NOTHING, Prepared
from teacher import Teacher

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


@dataclass(frozen=True)
class Stage:
    """What a stage's batches hold.

    Args:
        steps: how many there are.
        taught_tokens: of texts that the teacher embeds too, without their instructions.
        instructed: share of those texts that stand behind an instruction.
        task_tokens: of texts of one task, without their instructions.
        pairs: most of one task.
    """

    steps: int
    taught_tokens: int
    instructed: float
    task_tokens: int = 0
    pairs: int = 128


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

    def text(self, index: int, rng: np.random.Generator) -> TokenizedText:
        """A text as it is, or behind an instruction for its kind: its vector is to be the teacher's."""
        if rng.random() >= self.stage.instructed:
            return self.prepared.texts.text(index, NOTHING)
        is_long = int(self.prepared.texts.lengths(np.array([index]))[0]) >= LONG
        if rng.random() < GENERAL:
            pair = DEFAULT_QUERY_INSTRUCTION, DEFAULT_DOCUMENT_INSTRUCTION
        else:
            pool = FOR_LONG_TEXTS if is_long else FOR_SHORT_TEXTS
            pair = (pool[rng.integers(len(pool))],) * 2
        return self.prepared.texts.text(index, self.wordings.draw(pair, rng)[is_long])


class MiniBatches:
    """A stage's batches: pairs of one task first, if any, then texts with what the teacher makes of them."""

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
        name, texts, keys = "distillation", list[TokenizedText](), np.empty((0, 0), dtype=np.int64)
        pairs = 0
        if self.stage.task_tokens:
            number = int(rng.choice(len(self.chances), p=self.chances))
            name = str(self.prepared.tasks[number]["name"])
            columns, keys = self._drawn(number, rng)
            pairs = len(columns[0])
            texts = self._instructed(number, columns, rng)
        negatives = len(texts) - 2 * pairs
        taught = self.taught.batch(step)
        learnt = [self.taught.text(int(index), rng) for index in taught]
        lesson = self.teacher([text.ids[text.pool_start :] for text in learnt])
        texts += learnt
        roles = Roles(
            pairs=pairs,
            negatives=negatives,
            keys=torch.from_numpy(np.concatenate([keys.reshape(-1), -1 - taught]).astype(np.int64)),
            taught=torch.arange(2 * pairs + negatives, len(texts)),
            teacher=lesson.vectors,
        )
        return TaughtBatch(name, texts, roles, lesson)

    def _drawn(self, number: int, rng: np.random.Generator) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
        """Queries, positives and hard negatives of a task, which may be few or none, and all their keys.

        Texts of a labelled task have their label as key, so that none of the same label is taken for a negative.
        """
        rows, store = self.prepared.rows[number], self.prepared.task_texts
        is_labelled = self.prepared.tasks[number]["labelled"]
        if is_labelled:
            drawn = self._of_equal_labels(rows, rng)
        else:
            drawn = rows[rng.permutation(len(rows))[: self.stage.pairs], :3]
        lengths = store.lengths(drawn[:, 0]) + store.lengths(drawn[:, 1])
        lengths[drawn[:, 2] >= 0] += store.lengths(drawn[drawn[:, 2] >= 0, 2])
        count = max(8, int(np.searchsorted(np.cumsum(lengths), self.stage.task_tokens)))
        drawn = drawn[:count]
        columns = [drawn[:, 0], drawn[:, 1], drawn[drawn[:, 2] >= 0, 2]]
        keys = np.concatenate(columns).astype(np.int64)
        if is_labelled:
            labels = dict(rows[:, :2].tolist())
            keys = np.array([labels[text] for text in keys.tolist()])
        return columns, keys

    def _of_equal_labels(self, rows: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int32]:
        """Pairs of texts of one label each and, where the task has several, of two sources, no text twice; and the hard
        negative of the first, or -1.

        Labels and sources are drawn by the square root of the number of their texts.
        """
        labels, counts = np.unique(rows[:, 1], return_counts=True)
        drawn = rng.choice(labels, self.stage.pairs, p=roots(counts))
        by_label = {
            int(label): pools(np.flatnonzero(rows[:, 1] == label), rows[:, 3], rng) for label in np.unique(drawn)
        }
        pairs = []
        for label in drawn:
            left = [pool for pool in by_label[int(label)] if pool]
            if len(left) >= 2:
                chances = roots([len(pool) for pool in left])
                one, other = (left[place] for place in rng.choice(len(left), 2, replace=False, p=chances))
            elif left and len(left[0]) >= 2:
                one = other = left[0]
            else:
                continue
            pairs.append((one.pop(), other.pop()))
        first, second = np.array(pairs).T
        return np.column_stack([rows[first, 0], rows[second, 0], rows[first, 2]])

    def _instructed(self, number: int, columns: list[NDArray[Any]], rng: np.random.Generator) -> list[TokenizedText]:
        """The texts behind the task's instructions or, for some batches of an asymmetric task, the default ones."""
        query, pos = self.prepared.tasks[number]["instructions"]
        if query != pos and rng.random() < GENERAL:
            query, pos = DEFAULT_QUERY_INSTRUCTION, DEFAULT_DOCUMENT_INSTRUCTION
        sides = self.wordings.draw((query, pos), rng)
        return [
            self.prepared.task_texts.text(int(index), sides[min(side, 1)])
            for side, column in enumerate(columns)
            for index in column
        ]


def roots(counts: Sequence[int] | NDArray[Any]) -> NDArray[np.float64]:
    """Chances by the square root of the counts."""
    weights = np.sqrt(np.asarray(counts, dtype=float))
    return weights / weights.sum()


def pools(places: NDArray[np.int64], sources: NDArray[np.int32], rng: np.random.Generator) -> list[list[int]]:
    """The places of each source, shuffled."""
    of_places = sources[places]
    return [rng.permutation(places[of_places == source]).tolist() for source in np.unique(of_places)]
