"""What `mini` is to reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from development import HALF, NONE, PARAPHRASES, RIGHT, WRONG

Report = Mapping[str, Any]

BM25 = {"retrieval/cacm": 0.346, "retrieval/covid_faq": 0.509}
"""nDCG@10 of BM25, which came with the development suite."""


@dataclass(frozen=True)
class Target:
    """A bound that a figure is to keep.

    Args:
        name: what is measured.
        bound: its limit.
        least: whether the limit is the least; else the most.
        value: the figure; None if it was not measured.
        unit: of both.
        strict: whether the limit itself is not enough.
    """

    name: str
    bound: float
    least: bool
    value: float | None
    unit: str = ""
    strict: bool = False

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        if self.value == self.bound:
            return not self.strict
        return (self.value > self.bound) == self.least

    @property
    def condition(self) -> str:
        sign = (">" if self.least else "<") + ("" if self.strict else "=")
        return f"{sign} {self.bound:.4g} {self.unit}".strip()

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.met}


def targets(report: Report) -> list[Target]:
    """All of them, whether their figures were measured or not."""
    size, suite, controlled = report["size"], report["suite"], report["controlled"]
    right = suite.get(RIGHT)
    teacher = None if report["teacher"] is None else 100 * report["teacher"]["overall"]

    def above(setting: str) -> float | None:
        return None if right is None or setting not in suite else 100 * (right["overall"] - suite[setting]["overall"])

    def against_bm25(task: str) -> float | None:
        return None if right is None or task not in right["tasks"] else right["tasks"][task]["score"] / BM25[task]

    mean = None if right is None or teacher is None else 100 * right["overall"] - teacher
    return [
        Target("parameters", 25, False, size and size["parameters"] / 1e6, "M"),
        Target("size on disk", 40, False, size and size["bytes"] / 1e6, "MB"),
        Target("development mean, above all-MiniLM-L6-v2's", 0, True, mean, "points"),
        Target("development mean, above that with no instruction", 1.5, True, above(NONE), "points"),
        Target("development mean, above that with a wrong instruction", 0, True, above(WRONG), "points", strict=True),
        Target("loss by half the dimensions", 2, False, above(HALF), "points"),
        Target("range of the mean over five paraphrases", 1, False, paraphrase_range(report), "points", strict=True),
        *(Target(f"{task}, of BM25's nDCG@10", 1.15, True, against_bm25(task), "times") for task in BM25),
        *(
            Target(f"neighbour of the same {name}", 85, True, controlled and controlled["plain"][name][name], "%")
            for name in ("topic", "sentiment")
        ),
        *speed_targets(report),
    ]


def paraphrase_range(report: Report) -> float | None:
    """Points between the best and the worst of the paraphrases' means."""
    if any(setting not in report["suite"] for setting in PARAPHRASES):
        return None
    means = [report["suite"][setting]["overall"] for setting in PARAPHRASES]
    return 100 * (max(means) - min(means))


def speed_targets(report: Report) -> Iterator[Target]:
    """On two cores, in the precision that is loaded by default."""
    rows = [] if report["speed"] is None else report["speed"]["rows"]
    for workload in ("short texts", "passages"):
        found = [
            r["ratio"] for r in rows if (r["threads"], r["workload"], r["rival"]) == (2, workload, "default precision")
        ]
        yield Target(f"speed, {workload}, of all-MiniLM-L6-v2's", 3, True, found[0] if found else None, "times")
