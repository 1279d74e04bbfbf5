"""Run the compatibility matrix: all integrations, or the packages that are named.

    python -m tests.matrix [core] [chroma] [haystack] [langchain] [llama-index] [--versions lowest] [--python 3.12]

The exit status is 1 when a cell fails. The table is written after each cell, so that an interrupted run keeps what it
has; `--resume` goes on where it stopped, leaving out what has passed today.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import date

from rich.console import Console

from . import table
from .cells import CORE, PACKAGES, RESOLUTIONS, Cell
from .environment import build_wheels, default_python
from .outcome import run_cell


def main() -> int:
    names = [package.name for package in PACKAGES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", choices=[*names, []], metavar="PACKAGE", help=", ".join(names))
    parser.add_argument("--versions", choices=list(RESOLUTIONS), help="only these")
    parser.add_argument("--python", default=default_python(), help="version or path of another Python")
    parser.add_argument("--resume", action="store_true", help="leave out the cells that have passed today")
    arguments = parser.parse_args()
    cells = [
        Cell(package, versions, arguments.python)
        for package in PACKAGES
        if package.name in (arguments.packages or [name for name in names if name != CORE.name])
        for versions in RESOLUTIONS
        if arguments.versions in (None, versions)
    ]
    console = Console(highlight=False)
    console.print("building the wheels")
    wheels = build_wheels()
    failed = 0
    for number, cell in enumerate(cells, 1):
        if arguments.resume and _passed_today(cell):
            continue
        start = time.monotonic()
        with console.status(f"{number}/{len(cells)} {cell.name}"):
            outcome = run_cell(cell, wheels)
        failed += not outcome.passed
        table.write(table.merged(table.read_rows(), [outcome.row()]))
        console.print(f"{number}/{len(cells)} {cell.name}: {outcome.result} ({time.monotonic() - start:.0f} s)")
    console.print(f"{failed} of {len(cells)} cells failed; {table.PATH}")
    return bool(failed)


def _passed_today(cell: Cell) -> bool:
    return any(
        row[:2] == [cell.package.distribution, cell.versions]
        and table.minor_release(row[2]) == table.minor_release(cell.python)
        and "**fails**" not in row[5]
        and row[-1] == date.today().isoformat()
        for row in table.read_rows()
    )


if __name__ == "__main__":
    sys.exit(main())
