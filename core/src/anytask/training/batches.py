"""Which records a step sees: batches of one task, mixed over tasks, a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


class TaskBatches:
    """The row numbers of every step's batch.

    A step's task is drawn with probability size^(1/mixing). A task's records come in a new shuffle each time it is
    through; what doesn't fill its last batch waits for the next shuffle, and a task smaller than a batch is a batch.
    Nothing is remembered from step to step, so that a run resumes at any of them.

    Args:
        tasks: rows of each task, [n] each.
        batch_size: most rows of a batch.
        steps: number of batches.
        mixing: 1 draws tasks by size; the larger, the more evenly.
        seed: of both draws.

    Raises:
        ValueError: no task, or one without rows.
    """

    def __init__(
        self, tasks: Mapping[str, Rows], batch_size: int, steps: int, *, mixing: float = 1.0, seed: int = 0
    ) -> None:
        if not tasks:
            raise ValueError("there is no task to draw batches from")
        empty = [name for name, rows in tasks.items() if len(rows) == 0]
        if empty:
            raise ValueError(f"there is nothing to draw batches from in {', '.join(empty)}: no records")
        self.names: Sequence[str] = list(tasks)
        self.rows = [np.asarray(rows, dtype=np.int64) for rows in tasks.values()]
        self.batch_size = batch_size
        self.seed = seed
        shares = _shares([len(rows) for rows in self.rows], mixing)
        drawn = np.random.default_rng([seed, 0]).choice(len(shares), size=steps, p=shares)
        self.task_of_step = drawn.astype(np.int64)
        self.turn_of_step = _turns(self.task_of_step)
        self._shuffled = lru_cache(maxsize=max(64, 2 * len(self.names)))(self._shuffle)

    def __len__(self) -> int:
        return len(self.task_of_step)

    def __getitem__(self, step: int) -> tuple[str, Rows]:
        """The task of `step` and the rows of its batch."""
        task = int(self.task_of_step[step])
        rows = self.rows[task]
        per_pass = max(1, len(rows) // self.batch_size)
        turn, place = divmod(int(self.turn_of_step[step]), per_pass)
        start = place * self.batch_size
        return self.names[task], self._shuffled(task, turn)[start : start + self.batch_size]

    def _shuffle(self, task: int, turn: int) -> Rows:
        return np.random.default_rng([self.seed, 1, task, turn]).permutation(self.rows[task])


def expected_batch_size(tasks: Mapping[str, Rows], batch_size: int, mixing: float = 1.0) -> float:
    """Mean number of rows of the batches of `TaskBatches`, of which a task smaller than `batch_size` gives fewer."""
    sizes = np.array([len(rows) for rows in tasks.values()])
    return float(_shares(sizes, mixing) @ np.minimum(sizes, batch_size))


def _shares(sizes: npt.ArrayLike, mixing: float) -> npt.NDArray[np.float64]:
    """The probability with which a step draws each task."""
    weights = np.asarray(sizes, dtype=np.float64) ** (1 / mixing)
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def _turns(tasks: Rows) -> Rows:
    """How often each step's task has come before it."""
    turns = np.empty_like(tasks)
    order = np.argsort(tasks, kind="stable")
    counts = np.bincount(tasks)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    turns[order] = np.arange(len(tasks)) - starts
    return turns
