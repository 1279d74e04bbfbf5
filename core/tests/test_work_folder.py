"""The folder of finished parts that long work leaves beside its output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from anytask.files.work_folder import SETTINGS, WorkFolder, digest


def test_finished_parts_are_found_again(tmp_path: Path) -> None:
    output, settings = tmp_path / "deep/out.jsonl", {"seed": 0, "names": ("a", "b")}
    with WorkFolder(output, settings) as work:
        assert not work.has("first")
        work.write("first", [{"text": "naïve 模型"}, 3])
    with WorkFolder(output, settings) as again:
        assert again.has("first")
        assert list(again.read("first")) == [{"text": "naïve 模型"}, 3]
        again.remove()
    assert list(output.parent.iterdir()) == []


def test_a_part_that_fails_is_not_there(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "out.jsonl", {})
    with pytest.raises(ZeroDivisionError):
        work.write("part", (1 // (2 - number) for number in range(5)))
    assert not work.has("part")


def test_other_settings_are_told_by_name(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "out.jsonl", {"seed": 0, "margin": 0.1, "gone": 1}) as work:
        work.write("part", [])
    with pytest.raises(ValueError, match=r"margin was 0\.1, is 0\.2; gone was 1, is None") as raised:
        WorkFolder(tmp_path / "out.jsonl", {"seed": 0, "margin": 0.2})
    assert ".out.jsonl.work" in str(raised.value)
    assert "seed" not in str(raised.value)


def test_a_folder_without_a_finished_part_is_begun_anew(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "out.jsonl", {"seed": 0})
    work.path("leftover").write_text("half")
    work.release()  # as when the process is killed
    assert not WorkFolder(tmp_path / "out.jsonl", {"seed": 1}).has("leftover")


def test_an_output_is_not_replaced_unasked(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("precious")
    with pytest.raises(FileExistsError, match="already there"):
        WorkFolder(output, {}, overwrite=False)
    assert list(tmp_path.iterdir()) == [output]
    with WorkFolder(output, {}, overwrite=True) as work:
        work.write("part", [])
    with WorkFolder(output, {}, overwrite=False) as work:
        assert work.has("part"), "unfinished work goes on"


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with WorkFolder(output, {}) as work:
        work.write("part", [1])
        with pytest.raises(ValueError, match=r"another process works in .*\.out\.jsonl\.work; wait"):
            WorkFolder(output, {})
        code = f"from anytask.files.work_folder import WorkFolder; WorkFolder({str(output)!r}, {{}})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another process works in" in other.stderr
        assert work.has("part")
    with WorkFolder(output, {}) as again:
        assert again.has("part")


def test_what_a_killed_process_has_half_written_goes(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "out.jsonl", {}) as work:
        work.write("part", [1])
        work.path(".4711-next").write_text("half")
    with WorkFolder(tmp_path / "out.jsonl", {}) as again:
        assert again.has("part")
        assert not again.path(".4711-next").exists()


def test_a_process_killed_while_it_removes_the_folder_leaves_no_work(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with WorkFolder(output, {}) as work:
        work.write("part", [1])
        output.write_text("done")
        work.path(SETTINGS).unlink()  # what goes first
        work.release()
        with pytest.raises(FileExistsError):
            WorkFolder(output, {}, overwrite=False)
        assert list(tmp_path.iterdir()) == [output]


def test_digests_follow_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner/a").write_text("1")
    (folder / "b").write_text("2")
    first = digest(folder)
    assert digest(folder) == first
    (folder / "b").rename(folder / "c")
    renamed = digest(folder)
    (folder / "c").write_text("3")
    assert len({first, renamed, digest(folder), digest(folder / "c")}) == 4


def test_digest_without_a_file_does_not_follow_it(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("1")
    alone = digest(tmp_path)
    (tmp_path / "README.md").write_text("a model")
    assert digest(tmp_path) != alone
    assert digest(tmp_path, without=["README.md"]) == alone
