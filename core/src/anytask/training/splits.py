"""Which records are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from anytask.training.batches import Rows

LARGEST_SHARE = 10
"""Of a task, at most one record in this many is held out."""
SMALLEST_TASK = 2
"""A task of fewer records has nothing to contrast."""


def hold_out(tasks: Mapping[str, Rows], total: int, seed: int) -> tuple[dict[str, Rows], Rows]:
    """Take up to `total` records out of training, as evenly from all tasks as their sizes allow.

    Returns:
        the rows of each task that are left, and the rows held out, in order.
    """
    limits = np.array([len(rows) // LARGEST_SHARE for rows in tasks.values()])
    shares = _even_shares(limits, total)
    left, held = {}, [np.empty(0, dtype=np.int64)]
    for place, ((name, rows), share) in enumerate(zip(tasks.items(), shares, strict=True)):
        shuffled = np.random.default_rng([seed, 4, place]).permutation(rows)
        held.append(shuffled[:share])
        left[name] = np.sort(shuffled[share:])
    return left, np.sort(np.concatenate(held))


def _even_shares(limits: Rows, total: int) -> Rows:
    """`total`, or as much of it as there is, dealt out evenly, to each at most its limit."""
    shares = np.zeros_like(limits)
    while (open_ := np.flatnonzero(shares < limits)).size and (rest := total - int(shares.sum())) > 0:
        each = max(1, rest // open_.size)
        taken = open_[:rest] if each == 1 else open_
        shares[taken] = np.minimum(shares[taken] + each, limits[taken])
    return shares
