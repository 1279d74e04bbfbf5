"""The same job on a Ray cluster: each actor holds a model and makes whole shards of it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anytask.corpus.embedding import CorpusModel
from anytask.corpus.job import CorpusJob
from anytask.corpus.run import BAD_ROWS_TOLD, Meter, Progress, Summary
from anytask.corpus.sources import count_rows
from anytask.corpus.windows import by_shard
from anytask.corpus.work import CorpusWork, shard_path
from anytask.files.whole import whole_file
from anytask.prefetch import ahead

try:
    import ray
    from ray.data import ActorPoolStrategy
except ImportError as error:
    raise ImportError(
        f'the Ray job needs Ray Data ({error}); install it on every machine with: pip install "anytask[ray]"'
    ) from error


@dataclass(frozen=True)
class Workers:
    """The actors: how many, and what each takes of a machine.

    Args:
        count: actors, each with a model of its own.
        cpus: cores of an actor; torch computes with as many threads.
        gpus: GPUs of an actor; 0.5 puts two on one.
        address: of the cluster: "auto" for that of this machine, "ray://HOST:10001" from outside; None starts one on
            this machine, unless the process has joined one.
    """

    count: int = 1
    cpus: float = 1
    gpus: float = 0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"at least one worker is needed, got {self.count}")


def embed_corpus_on_ray(
    job: CorpusJob,
    output: str | Path,
    workers: Workers,
    *,
    overwrite: bool = False,
    on_progress: Callable[[Progress], object] = lambda _: None,
) -> Summary:
    """`anytask.corpus.embed_corpus` on a Ray cluster, with the same output.

    On CPUs to the byte, where machines are of one kind and processes have as many threads: else the last bits may
    differ.

    Inputs and output lie where every machine sees them under the same path. Shards are made in any order; killed, the
    same call makes those that are missing. In Parquet a shard's rows are found without reading those before; JSON
    lines and CSV are read once to count their rows, and by an actor from the beginning of the file to its shard.

    Args:
        job: its calibration is given, not made.
        workers: the actors.
        output, overwrite, on_progress: as of `embed_corpus`; progress is told by shards.

    Raises:
        ValueError: as `embed_corpus`; standard input; a calibration that is to be made.
        ray.exceptions.RayError: an actor died more often than Ray makes up for.
    """
    if job.calibrate:
        raise ValueError("on Ray, give a calibration that was made before: --calibration FILE")
    with CorpusWork(job, output, overwrite=overwrite) as work:
        counts = [count_rows(source) for source in job.sources]
        rows = sum(counts)
        shards = -(-rows // job.shard_rows)
        missing = [number for number in range(shards) if work.counts(number) is None]
        done = Progress(0, 0, sum(source.size for source in job.sources))
        bad: list[str] = []
        if missing:
            work.begin()
            for made in _make(job, counts, work.folder.absolute(), missing, workers):
                bad += made.bad[: BAD_ROWS_TOLD - len(bad)]
                before = (shards - len(missing)) * job.shard_rows
                done = replace(done, rows=done.rows + made.rows)
                on_progress(replace(done, position=(done.total or 0) * min(before + done.rows, rows) // rows))
        return Summary(work.finish(shards), shards, shards - len(missing), tuple(bad))


def _make(job: CorpusJob, counts: list[int], folder: Path, missing: list[int], workers: Workers) -> Iterator[Made]:
    """What each shard's actor gave, as the shards are done."""
    if not ray.is_initialized():
        ray.init(workers.address, log_to_driver=False, include_dashboard=False if workers.address is None else None)
    ray.data.DataContext.get_current().enable_progress_bars = False
    size = min(workers.count, len(missing))
    made = ray.data.from_items([{"shard": number} for number in missing], override_num_blocks=len(missing)).map_batches(
        ShardMaker,
        fn_constructor_args=(job, counts, Path.cwd(), folder),
        batch_size=1,
        compute=ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
    )
    for batch in made.iter_batches(batch_size=1):
        shard: Made = pickle.loads(batch["made"][0])
        if shard.error is not None:
            raise shard.error
        yield shard


@dataclass
class Made:
    """What became of a shard. An error comes as it was raised; of one that Ray carries only the text is left."""

    rows: int = 0
    bad: list[str] = field(default_factory=list)
    error: Exception | None = None


class ShardMaker:
    """An actor: the model, loaded once, and the shards it is asked for.

    Args:
        counts: rows of each of its sources.
        directory: where relative paths begin.
        folder: of the finished shards.
    """

    def __init__(self, job: CorpusJob, counts: list[int], directory: Path, folder: Path) -> None:
        with suppress(OSError):  # it may be there on the driver's machine alone; absolute paths don't mind
            os.chdir(directory)
        self.counts = counts
        self.folder = folder
        self.model = CorpusModel(job)
        self.schema = self.model.schema()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        (number,) = batch["shard"].tolist()
        meter, made = Meter(), Made()
        try:
            _, shard = next(by_shard(self.model.job.windows_from(number, self.counts)))
            with whole_file(shard_path(self.folder, number)) as partial, closing(ahead(shard)) as rows:
                windows = self.model.embedded(rows, meter.advance)
                made.rows = self.model.write_shard(partial, self.schema, meter.watch(windows)).read
        except (ValueError, OSError, RuntimeError) as error:
            made.error = error
        made.bad = meter.bad
        return {"made": [pickle.dumps(made)]}
