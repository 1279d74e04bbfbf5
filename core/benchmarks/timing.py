"""Times that can be compared on a noisy machine: rivals take turns, ratios are of neighbours, medians are told."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def best_seconds(
    work: Callable[[], object], repeats: int = 15, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The shortest time of several."""
    times = []
    for _ in range(repeats):
        started = clock()
        work()
        times.append(clock() - started)
    return min(times)


def in_turns(
    works: Mapping[str, Callable[[], object]], rounds: int, advance: Callable[[], object]
) -> dict[str, list[float]]:
    """Seconds that each work took in each round, one after the other within a round."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - started)
            advance()
    return times


def median_ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times as fast ours are: the median over the rounds."""
    return statistics.median(their / our for their, our in zip(theirs, ours, strict=True))
