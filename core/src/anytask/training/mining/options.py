"""What is a hard negative: ranks, margins and scores that keep false negatives out.

The options have the names and, where nothing else is said, the meaning of sentence-transformers'
`mine_hard_negatives`; the margins are those of NV-Retriever (arXiv 2407.15831).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
SamplingStrategy = Literal["top", "random"]


@dataclass(frozen=True, slots=True)
class MiningOptions:
    """Which of a query's nearest candidates become its hard negatives.

    Args:
        num_negatives: most negatives of a record.
        range_min, range_max: ranks of candidates that are looked at, from `range_min` (0 is the nearest) to
            `range_max` - 1, known positives not counted. The filters below act on these; what they drop isn't made up
            for from further ranks.
        absolute_margin: a negative scores at least this much less than the positive.
        relative_margin: a negative scores at least this share of the positive's score less than it. For a query with
            several positives both margins are measured from the lowest score among them.
        max_score: a negative scores at most this.
        sampling_strategy: "top" takes the best ranks, "random" draws from all that passed.
        bm25: candidates by words too: those ranks of both lists, alternately, the filters acting on the model's scores.
        keep_existing: keep a record's negatives, and fill up to `num_negatives` behind them; otherwise they are
            replaced, even where nothing is found.
        seed: of the random draws.

    Raises:
        ValueError: an option out of its range.
    """

    num_negatives: int = 4
    range_min: int = 0
    range_max: int = 100
    absolute_margin: float | None = None
    relative_margin: float | None = None
    max_score: float | None = None
    sampling_strategy: SamplingStrategy = "top"
    bm25: bool = False
    keep_existing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_negatives < 1:
            raise ValueError(f"the number of negatives must be at least 1, got {self.num_negatives}")
        if not 0 <= self.range_min < self.range_max:
            raise ValueError(
                f"the range of ranks must begin at 0 or later and end behind its beginning, "
                f"got {self.range_min} to {self.range_max}"
            )
        if self.sampling_strategy not in get_args(SamplingStrategy):
            raise ValueError(
                f"sampling must be one of {', '.join(get_args(SamplingStrategy))}, got {self.sampling_strategy!r}"
            )
        if self.seed < 0:
            raise ValueError(f"the seed must be at least 0, got {self.seed}")

    def passes(self, scores: Vectors, positive: np.float32) -> npt.NDArray[np.bool_]:
        """Whether candidates of these scores [n] are safe as negatives of a query whose positive has that score."""
        passed = np.ones(len(scores), dtype=np.bool_)
        if self.absolute_margin is not None:
            passed &= scores + self.absolute_margin <= positive
        if self.relative_margin is not None:
            passed &= scores <= positive - abs(positive) * self.relative_margin
        if self.max_score is not None:
            passed &= scores <= self.max_score
        return passed
