"""The distribution of lengths in constant memory."""

from __future__ import annotations

import math
from collections import Counter

EXACT_BITS = 8


class Lengths:
    """Counts of lengths: exact below 256, above it in bins of less than 1% of the length.

    Number, mean, least and greatest are exact; quantiles are within half a bin. The order in which lengths come
    doesn't matter.
    """

    def __init__(self) -> None:
        self.bins: Counter[int] = Counter()
        self.count = self.total = self.greatest = 0
        self.least: int | None = None

    def add(self, length: int) -> None:
        self.bins[_centre(length)] += 1
        self.count += 1
        self.total += length
        self.greatest = max(self.greatest, length)
        self.least = length if self.least is None else min(self.least, length)

    def merge(self, other: Lengths) -> None:
        self.bins.update(other.bins)
        self.count += other.count
        self.total += other.total
        self.greatest = max(self.greatest, other.greatest)
        self.least = min((each for each in (self.least, other.least) if each is not None), default=None)

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> int:
        """The least length that at least `share` (0 to 1) of them don't exceed; 0 where there are none."""
        rank = max(1, math.ceil(share * self.count))
        for centre in sorted(self.bins):
            rank -= self.bins[centre]
            if rank <= 0:
                return max(self.least or 0, min(centre, self.greatest))
        return 0

    def to_json(self) -> dict[str, float]:
        return {
            "count": self.count,
            "mean": round(self.mean, 2),
            "min": self.least or 0,
            "p50": self.quantile(0.5),
            "p95": self.quantile(0.95),
            "max": self.greatest,
        }


def _centre(length: int) -> int:
    """The middle of the bin that `length` falls in; bins keep the 8 leading bits."""
    shift = max(0, length.bit_length() - EXACT_BITS)
    return ((length >> shift) << shift) + (1 << shift) // 2 if shift else length
