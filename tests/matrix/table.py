"""The table in the documentation, of which a run replaces the rows of its own cells."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

from packaging.version import Version

from .cells import PACKAGES, ROOT

PATH = ROOT / "docs" / "compatibility.md"
HEADER = ["package", "versions", "Python", "framework", "beneath", "result", "notes", "date"]
KEY = 3
"""Columns that say which cell a row is of."""
INTRODUCTION = """\
# Compatibility

Each package's tests, run in fresh environments: once with the lowest versions that its metadata admits (of its direct
dependencies and the core's, all else as new as goes with them), once with the newest that the package index has. The
packages are installed from wheels. What the tests are run with (pytest and its plugins, mypy) is as new as goes with
that. All tests run, the long ones and the type check of a user's file among them. torch is the same everywhere.

`make matrix` runs it and rewrites this page, `make matrix ARGS="langchain haystack"` only the rows of these packages,
`ARGS=core` the core's own tests.
`tests/matrix/` is the program. A row that failed says why.
"""


def read_rows(path: Path = PATH) -> list[list[str]]:
    """The rows of the table as it is; none if there is no table."""
    if not path.is_file():
        return []
    lines = [line for line in path.read_text("utf-8").splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if len(row) == len(HEADER) and row[0] not in (HEADER[0], "---")]


def merged(rows: Iterable[list[str]], fresh: Iterable[list[str]]) -> list[list[str]]:
    """All rows in the packages' order, fresh ones in place of those of the same cell."""
    by_cell = {_cell(row): row for row in (*rows, *fresh)}
    order = [package.distribution for package in PACKAGES]
    known = [row for row in by_cell.values() if row[0] in order]
    return sorted(known, key=lambda row: (order.index(row[0]), Version(_cell(row)[2]), row[1]))


def write(rows: list[list[str]], path: Path = PATH) -> None:
    """Write the page, whole."""
    ranges = [[package.distribution, ", ".join(map(str, package.ranges))] for package in PACKAGES]
    page = "\n".join(
        [
            INTRODUCTION,
            *_markdown(HEADER, rows),
            "",
            f"The last rows were measured on {_machine()}.",
            "",
            "## What the metadata asks for",
            "",
            *_markdown(["package", "requirements"], [[name, f"`{asked}`"] for name, asked in ranges]),
            "",
        ]
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(page, "utf-8")
    partial.replace(path)


def minor_release(python: str) -> str:
    """The minor release: 3.13 of "3.13.0", and of a path that ends in "python3.13"."""
    return ".".join(re.findall(r"\d+", Path(python).name)[:2])


def _cell(row: list[str]) -> tuple[str, ...]:
    package, versions, python = row[:KEY]
    return package, versions, minor_release(python)


def _markdown(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def _machine() -> str:
    return f"{platform.system()}, {platform.machine()}, CPU only"
