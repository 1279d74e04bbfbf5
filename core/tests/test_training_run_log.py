"""The log of a run: CSV files and TensorBoard events read back, nothing twice after a resumed run, curves drawn."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from anytask.training.report.curves import draw_curves
from anytask.training.report.metrics_file import MetricsFile
from anytask.training.report.run_log import RunLog


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each tag, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }


def write_run(folder: Path, steps: range, *, resume: int | None = None, total: int = 100) -> None:
    log = RunLog(folder, total, console=False)
    if resume is not None:
        log.resume(resume)
    with log:
        for step in steps:
            if step:
                log.log(step, {"loss": 4 / step, "learning_rate": 2e-5, "tokens": 1_234_567 * step})
            if step % 2 == 0:
                log.evaluation(step, {"held out nDCG@10": step / 100})


def test_files_of_a_run(tmp_path: Path) -> None:
    write_run(tmp_path, range(5), resume=0)
    log = rows(tmp_path / "log.csv")
    assert list(log[0]) == ["step", "loss", "learning_rate", "tokens", "seconds"]
    assert [row["step"] for row in log] == ["1", "2", "3", "4"]
    assert log[2]["loss"] == "1.33333"
    assert log[2]["learning_rate"] == "2e-05"
    assert log[2]["tokens"] == "3703701"
    assert rows(tmp_path / "evaluation.csv") == [
        {"step": str(step), "held out nDCG@10": value} for step, value in ((0, "0"), (2, "0.02"), (4, "0.04"))
    ]
    found = events(tmp_path)
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3, 4]
    assert found["train/loss"][3][1] == pytest.approx(1.0)
    assert {tag.split("/")[0] for tag in found} == {"train", "evaluation"}


def test_a_resumed_run_has_nothing_twice(tmp_path: Path) -> None:
    write_run(tmp_path, range(9), resume=0)
    write_run(tmp_path, range(5, 11), resume=4)
    assert [row["step"] for row in rows(tmp_path / "log.csv")] == [str(step) for step in range(1, 11)]
    assert [row["step"] for row in rows(tmp_path / "evaluation.csv")] == ["0", "2", "4", "6", "8", "10"]
    found = events(tmp_path)
    assert [step for step, _ in found["train/loss"]] == list(range(1, 11))
    evaluated = next(values for tag, values in found.items() if tag.startswith("evaluation/"))
    assert [step for step, _ in evaluated] == [0, 2, 4, 6, 8, 10]


def test_what_was_logged_after_the_step_goes_at_once(tmp_path: Path) -> None:
    write_run(tmp_path, range(9), resume=0)
    RunLog(tmp_path, 100, console=False).resume(4)
    assert rows(tmp_path / "log.csv")[-1]["step"] == "4"
    assert rows(tmp_path / "evaluation.csv")[-1]["step"] == "4"


@pytest.mark.parametrize("resume", [0, None])
def test_a_run_from_the_beginning_drops_another_one(tmp_path: Path, resume: int | None) -> None:
    write_run(tmp_path, range(9), resume=0)
    write_run(tmp_path, range(3), resume=resume)
    assert [row["step"] for row in rows(tmp_path / "log.csv")] == ["1", "2"]
    assert [row["step"] for row in rows(tmp_path / "evaluation.csv")] == ["0", "2"]
    assert [step for step, _ in events(tmp_path)["train/loss"]] == [1, 2]


def test_seconds_go_on(tmp_path: Path) -> None:
    write_run(tmp_path, range(3), resume=0)
    path = tmp_path / "log.csv"
    path.write_text(path.read_text().rsplit(",", 1)[0] + ",500.5\n")
    write_run(tmp_path, range(3, 4), resume=2)
    assert float(rows(path)[-1]["seconds"]) >= 500.5


def test_a_killed_process_has_written_every_row(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from anytask.training.report.run_log import RunLog

        with RunLog(Path(sys.argv[1]), 100) as log:
            for step in range(1, 8):
                log.log(step, {"loss": 1 / step})
                log.evaluation(step, {"accuracy": step / 10})
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    killed = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [row["step"] for row in rows(tmp_path / "log.csv")] == list("1234567")
    assert [step for step, _ in events(tmp_path)["evaluation/accuracy"]] == list(range(1, 8))
    lines = [line for line in killed.stderr.splitlines() if line.startswith("step")]
    assert lines[0].startswith("step 1/100: loss 1.0000, 0:")
    assert lines[0].endswith(" left")
    assert lines[1] == "step 1: accuracy 0.1000"

    with (tmp_path / "log.csv").open("a") as file:
        file.write("8,0.1")  # cut off in the middle of a row
    write_run(tmp_path, range(7, 9), resume=6)
    assert [row["step"] for row in rows(tmp_path / "log.csv")] == list("12345678")


def test_figures_that_come_later_get_a_column(tmp_path: Path) -> None:
    with RunLog(tmp_path, 10, console=False) as log:
        log.evaluation(1, {"a": 0.5})
        log.evaluation(2, {"b": 0.25, "a": 0.75})
        log.evaluation(3, {"b": float("nan")})
    assert rows(tmp_path / "evaluation.csv") == [
        {"step": "1", "a": "0.5", "b": ""},
        {"step": "2", "a": "0.75", "b": "0.25"},
        {"step": "3", "a": "", "b": "nan"},
    ]


def test_a_log_that_is_only_held_writes_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "run", range(5), resume=0)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with RunLog(tmp_path / "run", 100, console=False), RunLog(tmp_path / "other", 100, console=False):
        pass
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    assert not (tmp_path / "other").exists()


def test_on_a_terminal_it_is_a_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    with RunLog(tmp_path, 50) as log:
        log.log(10, {"loss": 2.5, "examples_per_second": 31.25})
        log.evaluation(10, {"accuracy": 0.5})
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "10/50" in shown
    assert "loss 2.5000, 31.2 examples/s" in shown
    assert "left" in shown
    assert "step 10: accuracy 0.5000" in shown


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("epoch,loss\n1,0.5\n")
    with pytest.raises(ValueError, match=r"log\.csv is no log of steps and figures"):
        RunLog(tmp_path, 10).resume(1)


class TestCurves:
    def write(self, folder: Path, figures: Mapping[str, float], steps: int) -> None:
        log, evaluation = MetricsFile(folder / "log.csv"), MetricsFile(folder / "evaluation.csv")
        for step in range(1, steps + 1):
            log.append(step, {"loss": 1 / step, "contrastive": 0.5 / step, "learning_rate": 1e-4, "seconds": step})
        for step in (0, steps):
            if figures:
                evaluation.append(step, figures)

    def pixels(self, path: Path) -> tuple[tuple[int, int], int]:
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            return image.size, len(image.convert("RGB").getcolors(1 << 24) or [])

    def test_are_a_picture(self, tmp_path: Path) -> None:
        self.write(tmp_path, {"accuracy": 0.5, "nDCG@10": 0.25}, steps=60)
        path = draw_curves(tmp_path)
        assert path == tmp_path / "curves.png"
        (width, height), colours = self.pixels(path)
        assert width == 960
        assert height == 3 * 360
        assert colours > 50
        assert [file.name for file in tmp_path.iterdir() if file.suffix == ".png"] == ["curves.png"]

    def test_many_figures_get_more_plots_and_no_evaluation_none(self, tmp_path: Path) -> None:
        (tmp_path / "many").mkdir()
        self.write(tmp_path / "many", {f"figure {number}": number / 20 for number in range(17)}, steps=3)
        assert self.pixels(draw_curves(tmp_path / "many"))[0] == (960, 5 * 360)
        (tmp_path / "none").mkdir()
        self.write(tmp_path / "none", {}, steps=1)
        assert self.pixels(draw_curves(tmp_path / "none"))[0] == (960, 2 * 360)

    def test_are_drawn_again_after_more_steps(self, tmp_path: Path) -> None:
        self.write(tmp_path, {}, steps=2)
        first = draw_curves(tmp_path).read_bytes()
        MetricsFile(tmp_path / "log.csv").append(3, {"loss": 9.0})
        assert draw_curves(tmp_path).read_bytes() != first

    def test_of_nothing_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"nothing to draw.*log\.csv has no rows"):
            draw_curves(tmp_path)

    def test_leave_matplotlibs_windows_alone(self, tmp_path: Path) -> None:
        self.write(tmp_path, {}, steps=2)
        script = "import sys, pathlib; from anytask.training.report.curves import draw_curves;"
        script += "draw_curves(pathlib.Path(sys.argv[1])); print('matplotlib.pyplot' in sys.modules)"
        run = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
        assert run.stdout == "False\n"
