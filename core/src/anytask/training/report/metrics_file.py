"""A CSV file of figures by step: written row by row, cut back to a step when a run is resumed, read to be drawn."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from anytask.files.whole import whole_file

STEP = "step"


class MetricsFile:
    """The file and its columns: `step`, then the figures in the order of their first appearance.

    Args:
        path: created with the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Write a row, and through to the operating system. A new figure adds a column to the rows before."""
        if not self._columns or not values.keys() <= set(self._columns):
            rows = self.read()
            self._columns = list(dict.fromkeys([STEP, *(name for row in rows for name in row), *values]))
            self._write(rows)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(self._cells({STEP: step, **values}))

    def truncate(self, step: int) -> None:
        """Drop the rows after `step`, and one that was cut off in the middle."""
        if self.path.is_file():
            rows = self.read()
            self._columns = list(dict.fromkeys([STEP, *(name for row in rows for name in row)]))
            self._write([row for row in rows if row[STEP] <= step])

    def read(self) -> list[dict[str, float]]:
        """The rows in order, each with the figures that it has; none where there is no file.

        Raises:
            ValueError: the file holds something else.
        """
        if not self.path.is_file():
            return []
        lines = self.path.read_text("utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        try:
            return [
                {name: float(cell) for name, cell in row.items() if cell} | {STEP: int(row[STEP])}
                for row in csv.DictReader(whole)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path} is no log of steps and figures ({error!r}); remove it") from error

    def _write(self, rows: list[dict[str, float]]) -> None:
        with whole_file(self.path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self._columns)
            writer.writerows(map(self._cells, rows))

    def _cells(self, row: Mapping[str, float]) -> list[str]:
        return [_text(row[name]) if name in row else "" for name in self._columns]


def _text(value: float) -> str:
    """Six significant digits; whole numbers in full."""
    if math.isfinite(value) and value == int(value):
        return str(int(value))
    return f"{value:.6g}"
