"""From rows to codes, with the model in memory; and one shard after the other made of windows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import anytask
from anytask.corpus.rows import Row
from anytask.corpus.shards import Counts, VectorFile, output_schema
from anytask.corpus.windows import Digest, Window
from anytask.errors import TruncationWarning
from anytask.precision import Calibration, Matrix, quantize

if TYPE_CHECKING:
    from anytask.corpus.job import CorpusJob

Advance = Callable[[int], object]


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

    def write_shard(
        self, path: Path, schema: pa.Schema, shard: Iterable[Window], advance: Callable[[Window, int], object]
    ) -> Counts:
        """Embed a shard's windows to a file; each is written while the next is embedded.

        Args:
            advance: called with the window and the number of its rows done since.
        """
        counts, digest = Counts(), Digest()
        with VectorFile(path, schema) as file, ThreadPoolExecutor(1) as pool:
            writing: Future[None] | None = None
            for window in shard:
                codes, cut = self._codes(window, advance)
                counts += Counts(len(window.rows), len(window.bad), cut)
                digest.add(window.rows)
                if writing is not None:
                    writing.result()
                writing = pool.submit(file.write, window.rows, codes) if window.rows else None
            if writing is not None:
                writing.result()
            file.close(Counts(counts.rows, counts.bad, counts.cut, str(digest)))
        return counts

    def _codes(self, window: Window, advance: Callable[[Window, int], object]) -> tuple[npt.NDArray[Any], int]:
        advance(window, len(window.bad))
        vectors, cut = self.vectors(window.rows, lambda done: advance(window, done))
        return quantize(vectors, self.job.precision, self.calibration), cut
