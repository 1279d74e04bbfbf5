"""A job: which corpus is embedded, and as what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa

from anytask.calls import WINDOW
from anytask.corpus.formats import STDIN, Format, RawRow, Source
from anytask.corpus.rows import Columns, Row
from anytask.corpus.sources import find_sources, identity, rows_from
from anytask.corpus.windows import Window, windows
from anytask.embedder import Embedder
from anytask.precision import Calibration, Precision

if TYPE_CHECKING:
    from anytask.model import Instructor

Role = Literal["document", "query"]


@dataclass(frozen=True)
class CorpusJob:
    """What is embedded, and as what. Its output depends on it alone, wherever it runs.

    Args:
        inputs: files, folders, or "-" for standard input; see `anytask.corpus.sources.find_sources`.
        embedder: the model, its instructions and its settings.
        columns: which fields are embedded and kept.
        role: whose instruction is used, "document" or "query".
        precision: of the vectors: "float32", "float16", "int8" or "binary".
        calibration: of int8 and binary vectors.
        calibrate: make the calibration from this many of the first rows instead.
        format: of the inputs; None goes by their names.
        shard_rows: rows of all inputs that make a shard; what a kill costs at most.
        window_rows: rows in memory, whose texts are batched by length; 8,192 at most have an effect.
        skip_bad: leave bad rows out instead of stopping at the first.
    """

    inputs: Sequence[str]
    embedder: Embedder = field(default_factory=Embedder)
    columns: Columns = field(default_factory=Columns)
    role: Role = "document"
    precision: Precision = "float32"
    calibration: Calibration | None = None
    calibrate: int = 0
    format: Format | None = None
    shard_rows: int = 16_384
    window_rows: int = 2_048
    skip_bad: bool = False

    def __post_init__(self) -> None:
        for name, kinds in (("role", Role), ("precision", Precision)):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kinds))}, got {getattr(self, name)!r}")
        for name in ("shard_rows", "window_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.inputs:
            raise ValueError("name an input")
        calibrated = self.calibration is not None or self.calibrate
        if calibrated and self.precision not in ("int8", "binary"):
            raise ValueError(f"a calibration is for int8 and binary vectors, not for {self.precision}")
        if self.calibrate and STDIN in self.inputs:
            raise ValueError("standard input can't be read twice: make the calibration from a file")
        if self.calibration is not None and self.calibrate:
            raise ValueError("give a calibration or have one made, not both")
        if self.calibrate == 1 or self.calibrate < 0:
            raise ValueError(f"a calibration is made from two rows or more, got {self.calibrate}")

    @cached_property
    def sources(self) -> list[Source]:
        return find_sources(self.inputs, self.columns.fields, self.format)

    def check_inputs(self) -> None:
        """
        Raises:
            InputError: they aren't there, or lack a field.
        """
        _ = self.sources, self.kept

    @cached_property
    def kept(self) -> list[pa.Field]:
        return self.columns.kept_types(self.sources)

    def settings(self) -> dict[str, Any]:
        """All that the output depends on, as JSON values."""
        columns = asdict(self.columns)
        calibration = None if self.calibration is None else json.dumps(self.calibration.to_json())
        return {
            "inputs": [[name, identity(name, self.format)] for name in self.inputs],
            "model": self.embedder.fingerprint(self.role),
            **columns,
            "keep": list(self.columns.keep.items()),
            **{name: getattr(self, name) for name in ("role", "precision", "calibrate", "format", "skip_bad")},
            **{name: getattr(self, name) for name in ("shard_rows", "window_rows")},
            "calibration": None if calibration is None else hashlib.sha256(calibration.encode()).hexdigest()[:16],
        }

    def instruction_for(self, model: Instructor) -> str:
        """The instruction of the job's role: the embedder's, else the checkpoint's, else the default."""
        given = getattr(self.embedder, f"{self.role}_instruction")
        return str(getattr(model, f"{self.role}_instruction") if given is None else given)

    def windows_from(self, shard: int, counts: Sequence[int] | None = None) -> Iterator[Window]:
        """The corpus from the first row of a shard on.

        Args:
            counts: rows of each source, where they are known; files before the shard are then left unread.
        """
        types = [kept.type for kept in self.kept]

        def parse(row: RawRow, number: int) -> Row:
            return self.columns.row(row, number, types)

        return windows(
            rows_from(self.sources, shard * self.shard_rows, counts),
            parse,
            shard=shard,
            shard_rows=self.shard_rows,
            window_rows=min(self.window_rows, self.shard_rows, WINDOW),
            skip_bad=self.skip_bad,
        )
