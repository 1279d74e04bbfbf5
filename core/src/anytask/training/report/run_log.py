"""What a training run tells while it runs: on the console, in CSV files, in TensorBoard's event files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from anytask.training.report.metrics_file import MetricsFile

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG, EVALUATION, EVENTS = "log.csv", "evaluation.csv", "tensorboard"
"""Names in the run's folder."""
SPEED = "examples_per_second"
"""The figure that the console shows beside the loss."""


class RunLog:
    """The log of a run, a context manager.

    `log.csv` has a row for each `log`, with the seconds spent so far (resumed runs included), `evaluation.csv` one for
    each `evaluation`, `tensorboard/` both. Nothing is written before the first of them, so that processes that never
    call them may hold one.

    Args:
        folder: where the files go.
        total_steps: of the whole run.
        console: draw a bar on standard error, or print lines where that is no terminal.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, total_steps: int, *, console: bool = True) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f'the log of a run needs tensorboard ({error}); install it with: pip install "anytask[train]"'
            ) from error
        self.folder, self.total_steps = folder, total_steps
        self._log, self._evaluation = MetricsFile(folder / LOG), MetricsFile(folder / EVALUATION)
        self._writer: SummaryWriter | None = None
        self._resumed = False
        self._first, self._before, self._started = 0, 0.0, time.monotonic()
        self._console = Console(stderr=True) if console else None
        self._bar = _bar(self._console) if self._console is not None and self._console.is_terminal else None

    def resume(self, step: int) -> None:
        """Go on from a step: what was logged after it is dropped. From 0, all is, for nothing of that run is left."""
        kept = step if step else -1
        for file in (self._log, self._evaluation):
            file.truncate(kept)
        rows = self._log.read()
        self._before = rows[-1].get("seconds", 0.0) if rows else 0.0
        self._first, self._resumed = step, True

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write figures of training, and show the loss, the speed and the time left."""
        self._open()
        seconds = time.monotonic() - self._started
        self._log.append(step, {**values, "seconds": round(self._before + seconds, 1)})
        self._add_scalars("train", step, values)
        left = timedelta(seconds=round(seconds / max(1, step - self._first) * (self.total_steps - step)))
        shown = f"loss {values['loss']:.4f}" if "loss" in values else ""
        if SPEED in values:
            shown += f", {values[SPEED]:.1f} examples/s"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, shown=shown, left=f"{left} left")
        else:
            self._print(f"step {step}/{self.total_steps}: {shown}, {left} left")

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Write and show figures of an evaluation."""
        self._open()
        self._evaluation.append(step, values)
        self._add_scalars("evaluation", step, values)
        self._print(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))

    def __enter__(self) -> RunLog:
        self._started = time.monotonic()
        if self._bar is not None:
            self._bar.add_task("training", total=self.total_steps, completed=self._first, shown="", left="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> None:
        if self._writer is not None:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._resumed:
            self.resume(0)
        purged = self._first + 1 if self._first else 0
        self._writer = SummaryWriter(str(self.folder / EVENTS), purge_step=purged)

    def _add_scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        assert self._writer is not None
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.flush()

    def _print(self, line: str) -> None:
        if self._console is not None:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[shown]}"),
        TextColumn("{task.fields[left]}"),
        console=console,
    )
