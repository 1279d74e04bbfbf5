"""The compatibility matrix: what is asked of uv, how results are read, and that the page agrees with the metadata."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from .matrix.cells import CORE, PACKAGES, RESOLUTIONS, TOOLS, Cell, Package
from .matrix.environment import pip_settings, torch_pin
from .matrix.outcome import Outcome, read_report
from .matrix.table import HEADER, PATH, merged, read_rows, write

PASSED = '<testsuites><testsuite tests="5" failures="0" errors="0" skipped="1"/></testsuites>'
FAILED = """<testsuites><testsuite tests="5" failures="1" errors="1" skipped="0">
<testcase name="test_one"/><testcase name="test_two"><failure message="assert 1 | 2&#10; where">...</failure></testcase>
<testcase name="test_three"><error message="no fixture">...</error></testcase></testsuite></testsuites>"""
EMPTY = '<testsuites><testsuite tests="0" failures="0" errors="0" skipped="0"/></testsuites>'


def cells() -> list[Cell]:
    return [Cell(package, versions, "3.11") for package in PACKAGES for versions in RESOLUTIONS]


class TestCells:
    @pytest.mark.parametrize("cell", cells(), ids=lambda cell: cell.name)
    def test_direct_requirements_are_those_of_the_metadata(self, cell: Cell) -> None:
        asked = {line.name for line in cell.under_test}
        assert {line.name for line in (*CORE.ranges, *cell.package.ranges)} <= asked
        assert asked.isdisjoint(TOOLS)
        assert all(line.specifier for line in cell.under_test), "without a lower bound the lowest is version 0"
        assert cell.own[:1] == ["anytask"]
        assert cell.package.distribution in cell.own
        assert {"pytest", "mypy"} <= {line.name for line in cell.tools}
        assert all(path.exists() for path in cell.package.tests)

    def test_what_is_shown_is_installed(self) -> None:
        for cell in cells():
            assert set(cell.package.shown) <= {line.name for line in cell.under_test}

    def test_torch_is_pinned(self) -> None:
        import torch

        assert torch_pin("3.99") == f"torch=={torch.__version__.partition('+')[0]}"


class TestIndexes:
    def test_as_pip_has_them(self) -> None:
        lines = [
            ":env:.index-url='https://mine.example/simple'",
            "global.cert='/certificates'",
            "global.extra-index-url='https://one.example/simple\\nfile:///two/simple'",
            "global.find-links='/wheels /more'",
            "global.index-url='https://theirs.example/simple'",
        ]
        assert pip_settings(lines) == {
            "UV_DEFAULT_INDEX": "https://mine.example/simple",
            "UV_INDEX": "https://one.example/simple file:///two/simple",
            "UV_FIND_LINKS": "/wheels,/more",
        }
        assert pip_settings([]) == {}


class TestReports:
    @pytest.mark.parametrize(
        ("report", "passed", "result"),
        [
            (PASSED, True, "4 passed, 1 skipped"),
            (FAILED, False, "2 failed, 3 passed; the first is test_two: assert 1 / 2 where"),
            (EMPTY, False, "0 passed"),
        ],
    )
    def test_counts(self, tmp_path: Path, report: str, passed: bool, result: str) -> None:
        (tmp_path / "junit.xml").write_text(report)
        assert read_report(tmp_path / "junit.xml") == (passed, result)

    def test_none(self, tmp_path: Path) -> None:
        passed, result = read_report(tmp_path / "junit.xml")
        assert not passed
        assert "log.txt" in result


class TestTable:
    def test_rows_are_replaced_by_those_of_the_same_cell(self, tmp_path: Path) -> None:
        path = tmp_path / "page.md"
        outcomes = [
            Outcome(cell, True, "1 passed", {"torch": "2", "chromadb": "1.1.0"}, "3.11.7") for cell in cells()[:4]
        ]
        write(merged([], [outcome.row() for outcome in outcomes]), path)
        before = read_rows(path)
        assert [row[:3] for row in before] == [outcome.row()[:3] for outcome in outcomes]
        again = Outcome(cells()[2], False, "can't be installed: no such release", python="3.11.9", notes=["a note"])
        other = Outcome(Cell(PACKAGES[1], "lowest", "3.13"), True, "2 passed", python="3.13.0")
        write(merged(before, [again.row(), other.row()]), path)
        after = read_rows(path)
        assert after[:2] == before[:2]
        assert after[2] == again.row()
        assert after[2][5] == "**fails**: can't be installed: no such release"
        assert after[3] == before[3]
        assert after[4] == other.row()
        assert [path.name for path in tmp_path.iterdir()] == ["page.md"]

    def test_the_page_has_every_cell_and_the_ranges_of_today(self) -> None:
        rows = read_rows()
        wanted = {(cell.package.distribution, cell.versions) for cell in cells() if cell.package is not CORE}
        assert wanted <= {(row[0], row[1]) for row in rows}
        assert all(len(row) == len(HEADER) for row in rows)
        page = PATH.read_text("utf-8")
        for package in PACKAGES:
            assert f"| {package.distribution} | `{', '.join(map(str, package.ranges))}` |" in page

    @pytest.mark.parametrize("package", PACKAGES[1:], ids=lambda package: package.name)
    def test_the_lowest_versions_are_the_lower_ends_of_the_ranges(self, package: Package) -> None:
        """All but torch, of which every cell has the same build."""
        rows = [row[3] for row in read_rows() if row[:2] == [package.distribution, "lowest"]]
        assert rows
        for requirement in package.ranges:
            [lower] = [bound.version for bound in requirement.specifier if bound.operator == ">="]
            for versions in rows:
                found = dict(entry.split(" ") for entry in versions.split(", "))[requirement.name]
                assert requirement.name == "torch" or Version(found) in SpecifierSet(f"=={lower}.*"), requirement
