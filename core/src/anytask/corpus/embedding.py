"""From rows to codes, with the model in memory; and one shard after the other made of windows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import anytask
from anytask.corpus.rows import Row
from anytask.corpus.shards import Counts, VectorFile, output_schema
from anytask.corpus.windows import Digest, Window, in_order
from anytask.devices import DevicePool
from anytask.errors import TruncationWarning
from anytask.output import Output
from anytask.precision import Calibration, Matrix, quantize

if TYPE_CHECKING:
    from anytask.corpus.job import CorpusJob

Advance = Callable[[int], object]
AdvanceWindow = Callable[[Window, int], object]
"""Called with a window and the number of its rows that are done or left out since; by several threads, perhaps."""
Vectors = Callable[[list[Row], Advance], tuple[Matrix, int]]
WINDOWS_PER_DEVICE = 2
"""One at work and one that is tokenized meanwhile, or waits to be written."""


class CorpusModel:
    """The model of a job, loaded, and what its vectors are written as."""

    def __init__(self, job: CorpusJob, calibration: Calibration | None = None) -> None:
        self.job = job
        self.calibration = job.calibration if calibration is None else calibration
        self.model = job.embedder.load()
        self.instruction = job.instruction_for(self.model)

    def schema(self) -> pa.Schema:
        """Of the output; its metadata tells what the vectors are."""
        precision = self.job.precision
        probe = quantize(np.zeros((1, self.dimension), np.float32), precision, self.calibration)
        return output_schema(
            self.description(), precision, probe.shape[1], self.job.kept, keep_text=self.job.columns.keep_text
        )

    def description(self) -> dict[str, Any]:
        """What the vectors are, as JSON values."""
        embedder, columns = self.job.embedder, self.job.columns
        return {
            "anytask": anytask.__version__,
            "model": embedder.model,
            "revision": embedder.revision,
            "fingerprint": embedder.fingerprint(self.job.role),
            "role": self.job.role,
            "instruction": self.instruction,
            "dimension": self.dimension,
            "precision": self.job.precision,
            "normalize": embedder.normalize,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "max_length": self.model.max_length,
            "text": list(columns.text),
            "separator": columns.separator,
            "calibration": None if self.calibration is None else self.calibration.to_json(),
        }

    @property
    def dimension(self) -> int:
        return self.job.embedder.truncate_dim or self.model.dimension

    def vectors(self, rows: list[Row], advance: Advance = lambda _: None) -> tuple[Matrix, int]:
        """Vectors of the rows' texts, float32 [n, d], and how many texts were cut."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", TruncationWarning)
            embedder = self.job.embedder
            vectors: Matrix = self.model.encode(
                [row.text for row in rows],
                self.instruction,
                batch_tokens=embedder.batch_tokens,
                normalize=embedder.normalize,
                truncate_dim=embedder.truncate_dim,
                show_progress=advance,
            )
        cut = 0
        for warning in caught:
            if isinstance(warning.message, TruncationWarning):
                cut += warning.message.count
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return vectors, cut

    def embedded(
        self, windows: Iterator[Window], advance: AdvanceWindow, *, first: int = 0, devices: Sequence[str] = ()
    ) -> Generator[Window]:
        """The same windows, in their order, with the codes of their rows.

        Args:
            first: the shard from which on they are embedded; those before come as they are.
            devices: where they are computed, each window by one of them, with a process for each device that ends with
                the iterator; none, and the model itself computes them. The codes are the same.

        Raises:
            WorkerError: one of the processes ended.
        """

        def embed(window: Window, vectors: Vectors) -> Window:
            if window.shard >= first:
                advance(window, len(window.bad))
            if window.shard >= first and window.rows:
                found, window.cut = vectors(window.rows, lambda done: advance(window, done))
                window.codes = quantize(found, self.job.precision, self.calibration)
            return window

        if not devices:
            yield from (embed(window, self.vectors) for window in windows)
            return
        upcoming = next(windows, None)
        if upcoming is None:
            return
        count = WINDOWS_PER_DEVICE * len(devices)
        # processes end before the threads that wait for them
        with ThreadPoolExecutor(count, "anytask-window") as threads, DevicePool(self.model._engine, devices) as pool:
            vectors = partial(self._vectors_on, pool)
            yield from in_order(chain([upcoming], windows), lambda window: embed(window, vectors), threads, count)

    def _vectors_on(self, pool: DevicePool, rows: list[Row], advance: Advance) -> tuple[Matrix, int]:
        """`vectors` by a process of the pool."""
        embedder = self.job.embedder
        output = Output(embedder.normalize, embedder.truncate_dim)
        call = self.model._call(
            [row.text for row in rows], [self.instruction] * len(rows), output, embedder.batch_tokens, "truncate"
        )
        tokenized = self.model._tokenizer(call.texts, call.instructions)
        vectors: Any = output.finish(pool.embed(tokenized, call.batch_tokens, advance, alone=True))
        return vectors, sum(text.truncated for text in tokenized)

    def write_shard(self, path: Path, schema: pa.Schema, shard: Iterable[Window]) -> Counts:
        """Write a shard's embedded windows to a file; each is written while the next is embedded."""
        counts, digest = Counts(), Digest()
        with VectorFile(path, schema) as file, ThreadPoolExecutor(1) as pool:
            writing: Future[None] | None = None
            for window in shard:
                counts += Counts(len(window.rows), len(window.bad), window.cut)
                digest.add(window.rows)
                if writing is not None:
                    writing.result()
                writing = None if window.codes is None else pool.submit(file.write, window.rows, window.codes)
            if writing is not None:
                writing.result()
            file.close(Counts(counts.rows, counts.bad, counts.cut, str(digest)))
        return counts
