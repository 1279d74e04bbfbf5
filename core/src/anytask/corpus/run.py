"""`embed_corpus`: a whole corpus to vectors, shard by shard, going on where a killed process stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from anytask.corpus.embedding import CorpusModel
from anytask.corpus.formats import STDIN
from anytask.corpus.job import CorpusJob
from anytask.corpus.shards import Counts
from anytask.corpus.windows import Window, by_shard
from anytask.corpus.work import CorpusWork, Loader
from anytask.devices import device_names
from anytask.files.whole import whole_file
from anytask.precision import Calibration
from anytask.prefetch import ahead

BAD_ROWS_TOLD = 5


@dataclass(frozen=True)
class Progress:
    """How far the work is.

    Attributes:
        rows: embedded or left out since this process began.
        position: bytes of the inputs that are done.
        total: their bytes; None for standard input.
    """

    rows: int
    position: int
    total: int | None


@dataclass(frozen=True)
class Summary:
    """What came of a job.

    Attributes:
        counts: of all its rows.
        shards: how many.
        resumed: how many of them an earlier process had finished.
        bad: the first bad rows that this process left out, and why.
    """

    counts: Counts
    shards: int
    resumed: int
    bad: tuple[str, ...] = ()


def embed_corpus(
    job: CorpusJob,
    output: str | Path,
    *,
    overwrite: bool = False,
    loader: Loader | None = None,
    keep: bool = True,
    devices: Sequence[str] = (),
    on_progress: Callable[[Progress], object] = lambda _: None,
) -> Summary:
    """Embed a corpus to Parquet, in the memory of a few windows.

    Killed at any time, the same call goes on at the first shard that isn't finished; finished ones lie in the folder
    `.NAME.work` beside the output. Standard input has to be given again from its beginning, which is checked.

    Args:
        output: one file where its name ends in `.parquet`, else a folder of them, one for each shard.
        overwrite: replace an output that is there.
        loader: is also given each shard.
        keep: False leaves no output, only what `loader` made; `output` names the work then.
        devices: such as ["cuda:0", "cuda:1"], each with a process of its own, that share the work; none, and it is done
            in this process, on the embedder's device. On CPUs the output is the same, and either goes on with the
            other's work.
        on_progress: called after each step of the model.

    Returns:
        counts of rows and shards.

    Raises:
        BadRowError: a row can't be embedded, and `skip_bad` isn't set; finished shards are kept.
        InputError, OSError: an input isn't there, or is damaged.
        ValueError: the work folder is of another job, or there are no rows; a device isn't there.
        WorkerError: a process of `devices` ended; finished shards are kept.
        FileExistsError: the output is there and `overwrite` isn't set.
    """
    devices = device_names(devices) if devices else ()
    with CorpusWork(job, output, overwrite=overwrite, loader=loader, keep=keep) as work:
        resumed = work.finished()
        for number in range(resumed):
            work.load(number)
        model = CorpusModel(job, work.calibration)
        work.check_description(model.description())
        if job.calibrate and model.calibration is None:
            model.calibration = calibrate(model)
            work.keep_calibration(model.calibration)
        return _embed_rest(work, model, resumed, devices, on_progress)


def _embed_rest(
    work: CorpusWork,
    model: CorpusModel,
    resumed: int,
    devices: Sequence[str],
    on_progress: Callable[[Progress], object],
) -> Summary:
    """Make the shards that aren't finished, and the output of all."""
    job, schema, number = work.job, model.schema(), resumed - 1
    from_standard_input = STDIN in job.inputs
    total = None if from_standard_input else sum(source.size for source in job.sources)
    meter = Meter(on_progress, total)
    rows = job.windows_from(0 if from_standard_input else resumed)
    with (
        closing(ahead(rows, join=not from_standard_input)) as windows,
        closing(model.embedded(windows, meter.advance, first=resumed, devices=devices)) as embedded,
    ):
        for number, shard in by_shard(embedded):
            if number < resumed:
                work.check(number, shard)
                continue
            with whole_file(work.part(number)) as partial:
                model.write_shard(partial, schema, meter.watch(shard))
                work.begin()
            work.load(number)
    if number < resumed - 1:
        raise ValueError(f"standard input ended in shard {number + 1} of the {resumed} that were finished")
    return Summary(work.finish(number + 1), number + 1, resumed, tuple(meter.bad))


def calibrate(model: CorpusModel) -> Calibration:
    """The ranges of the vectors of the job's first rows.

    Raises:
        ValueError: there are fewer than two.
    """
    rows = (row for window in model.job.windows_from(0) for row in window.rows)
    return Calibration.of(model.vectors(list(islice(rows, model.job.calibrate)))[0])


@dataclass
class Meter:
    """Tells progress, within a window by the share of its rows; and keeps what is said of the first bad rows."""

    on_progress: Callable[[Progress], object] = lambda _: None
    total: int | None = None
    rows: int = 0
    position: int = 0
    bad: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def watch(self, windows: Iterator[Window]) -> Iterator[Window]:
        for window in windows:
            yield window
            self.bad += [str(error) for error in window.bad[: BAD_ROWS_TOLD - len(self.bad)]]

    def advance(self, window: Window, rows: int) -> None:
        with self.lock:
            before = _bytes_done(window)
            window.done += rows
            self.rows += rows
            self.position += _bytes_done(window) - before
            self.on_progress(Progress(self.rows, self.position, self.total))


def _bytes_done(window: Window) -> int:
    return (window.position - window.start) * window.done // len(window)
