"""A cell is run and its outcome kept as a row of the table."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from .cells import CORE, ROOT, Cell
from .environment import Environment, InstallError

LIMIT = 3600
"""Seconds after which the tests of a cell are given up."""
WORDS = 24
"""Most words of a reason."""


@dataclass
class Outcome:
    """What came of a cell.

    Attributes:
        result: "184 passed, 1 skipped", or what went wrong.
        notes: what a reader of the result has to know.
    """

    cell: Cell
    passed: bool
    result: str
    versions: Mapping[str, str] = field(default_factory=dict)
    python: str = ""
    notes: list[str] = field(default_factory=list)
    day: date = field(default_factory=date.today)

    def row(self) -> list[str]:
        shown = [name for name in self.cell.package.shown if name in self.versions]
        beneath = [name for name in CORE.shown if name in self.versions and self.cell.package is not CORE]
        frameworks, core = (", ".join(f"{name} {self.versions[name]}" for name in names) for names in (shown, beneath))
        result = self.result if self.passed else f"**fails**: {self.result}"
        cell = self.cell
        key = [cell.package.distribution, cell.versions, self.python or cell.python]
        return [*key, frameworks, core, result, "; ".join(self.notes), self.day.isoformat()]


def run_cell(cell: Cell, wheels: Mapping[str, Path]) -> Outcome:
    """Make the cell's environment anew and run its tests there, the long ones too."""
    try:
        environment = Environment(cell, wheels)
    except InstallError as error:
        return Outcome(cell, False, f"can't be installed: {_shortened(str(error))}")
    python = subprocess.run([environment.python, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
    report = environment.folder / "junit.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "-m", "slow or not slow", "-p", "no:cacheprovider", f"--junitxml={report}"]
    with (environment.folder / "log.txt").open("w", encoding="utf-8") as log:
        try:
            subprocess.run(
                [environment.python, "-m", "pytest", *options, *cell.package.tests],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
                timeout=LIMIT,
            )
            passed, result = read_report(report)
        except subprocess.TimeoutExpired:
            passed, result = False, f"the tests didn't end within {LIMIT} s"
    return Outcome(cell, passed, result, environment.versions, python, environment.complaints())


def read_report(path: Path) -> tuple[bool, str]:
    """Whether a JUnit report tells of tests and no failure, and its counts in pytest's words."""
    if not path.is_file():
        return False, "pytest couldn't start, see log.txt beside the environment"
    suite = next(ElementTree.parse(path).iter("testsuite"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    bad = counts["failures"] + counts["errors"]
    good = counts["tests"] - bad - counts["skipped"]
    parts = [f"{good} passed", *([f"{counts['skipped']} skipped"] if counts["skipped"] else [])]
    if not bad:
        return good > 0, ", ".join(parts)
    cases = [(case, trouble) for case in suite for trouble in (*case.findall("failure"), *case.findall("error"))]
    case, trouble = cases[0]
    first = f"{case.get('name')}: {_shortened(trouble.get('message', ''))}"
    return False, ", ".join([f"{bad} failed", *parts]) + f"; the first is {first}"


def _shortened(text: str) -> str:
    words = text.replace("|", "/").split()
    return " ".join(words[:WORDS]) + (" ..." if len(words) > WORDS else "")
