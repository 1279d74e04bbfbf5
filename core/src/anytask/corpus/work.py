"""The finished shards of a job, and the output they become."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq

from anytask.corpus.formats import STDIN
from anytask.corpus.job import CorpusJob
from anytask.corpus.shards import DESCRIPTION, Counts, join, read_counts
from anytask.corpus.windows import Digest, Window
from anytask.files.whole import write_json
from anytask.files.work_folder import SETTINGS, WorkFolder
from anytask.precision import Calibration

CALIBRATION, WHOLE = "calibration.json", "whole.parquet"
SHARDS = "part-*.parquet"


class Loader(Protocol):
    """Takes finished shards in, such as into a database; after a kill one may come again."""

    name: str
    """What it loads into, for messages."""

    def load(self, shard: Path) -> object: ...


class CorpusWork(WorkFolder):
    """The folder of a job's finished shards.

    Args:
        output: one file where its name ends in `.parquet`, else a folder of the shards.
        loader: is given each shard.
        keep: whether shards stay, and become the output, once they are loaded.

    Raises:
        ValueError: the folder is of another job, or another process works in it; the output is one of the inputs, or is
            there and no such output as would replace it.
        FileExistsError: the output is there and may not be replaced.
    """

    def __init__(
        self, job: CorpusJob, output: str | Path, *, overwrite: bool, loader: Loader | None = None, keep: bool = True
    ) -> None:
        self.job, self.output, self.loader, self.keep = job, Path(output), loader, keep
        if any(source.path != STDIN and _same(Path(source.path), self.output) for source in job.sources):
            raise ValueError(f"{self.output} is an input; name another output")
        if keep:
            _check_replaceable(self.output)
        settings = {**job.settings(), "loaded into": None if loader is None else loader.name, "kept": keep}
        super().__init__(output, settings, overwrite=overwrite)

    def _check(self, found: dict[str, Any], given: dict[str, Any]) -> None:
        """Shards made without a bad row are those that leaving bad rows out makes: the rest may be made so."""
        super()._check({**found, "skip_bad": found.get("skip_bad") or given["skip_bad"]}, given)
        if found != given:
            write_json(self.path(SETTINGS), given)

    def check_description(self, description: Mapping[str, Any]) -> None:
        """Whether the finished shards hold what this process makes: a precision may be the device's.

        Raises:
            ValueError: they don't.
        """
        part = self.part(0)
        if not part.is_file():
            return
        before = json.loads(pq.read_metadata(part).metadata[DESCRIPTION])["dtype"]
        if before != description["dtype"]:
            raise ValueError(
                f"the finished shards in {self.folder} were computed in {before}, this device takes "
                f"{description['dtype']}; go on where they were made, or remove the folder to begin anew"
            )

    def part(self, number: int) -> Path:
        """The file of a shard."""
        return shard_path(self.folder, number)

    def counts(self, number: int) -> Counts | None:
        """Of a finished shard; None as long as it isn't."""
        note = _note(number)
        if self.has(note):
            return Counts(**next(self.read(note)))
        return read_counts(self.part(number)) if self.part(number).is_file() else None

    def finished(self) -> int:
        """How many shards are, from the first one on."""
        return next(number for number in count() if self.counts(number) is None)

    def load(self, number: int) -> None:
        """Give a finished shard to the loader, unless it was; note that, and drop the shard where it isn't kept."""
        if self.loader is not None and not self.has(_note(number)):
            self.loader.load(self.part(number))
            self.write(_note(number), [asdict(read_counts(self.part(number)))])
        if not self.keep:
            self.part(number).unlink(missing_ok=True)

    def check(self, number: int, windows: Iterator[Window]) -> None:
        """Whether a finished shard was made of these rows.

        Raises:
            ValueError: it wasn't.
        """
        digest, read, counts = Digest(), 0, self.counts(number)
        for window in windows:
            digest.add(window.rows)
            read += len(window)
        if counts is None or (counts.digest, counts.read) != (str(digest), read):
            raise ValueError(
                f"standard input isn't what the finished shards in {self.folder} were made of; give the same again, "
                "from its beginning, or remove the folder to begin anew"
            )

    @property
    def calibration(self) -> Calibration | None:
        """The one that was made for this job."""
        return Calibration.load(self.path(CALIBRATION)) if self.has(CALIBRATION) else None

    def keep_calibration(self, calibration: Calibration) -> None:
        calibration.save(self.path(CALIBRATION))
        self.begin()

    def finish(self, shards: int) -> Counts:
        """Make the output of the shards and remove the folder.

        Raises:
            ValueError: there are none.
        """
        found = [self.counts(number) for number in range(shards)]
        if not shards:
            raise ValueError("the inputs hold no rows")
        parts = [self.part(number) for number in range(shards)]
        if self.keep and _is_file(self.output):
            whole = self.path(WHOLE)
            join(parts, whole)
            whole.replace(self.output)
        elif self.keep:
            self._become_output(parts)
        if self.folder.exists():
            self.remove()
        return sum((counts for counts in found if counts is not None), Counts())

    def _become_output(self, parts: list[Path]) -> None:
        self.release()
        for path in self.folder.iterdir():
            if path not in parts and path.name != SETTINGS:
                path.unlink()
        if self.output.is_dir():
            shutil.rmtree(self.output)
        self.folder.rename(self.output)
        (self.output / SETTINGS).unlink()


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard in a folder of them."""
    return folder / f"part-{number:06d}.parquet"


def _is_file(output: Path) -> bool:
    return output.suffix == ".parquet"


def _check_replaceable(output: Path) -> None:
    """
    Raises:
        ValueError: what is there isn't an earlier output, or not of the same kind.
    """
    if _is_file(output):
        if output.is_dir():
            raise ValueError(f"{output} is a folder; an output of that name is one file")
    elif output.is_file():
        raise ValueError(f"{output} is a file; an output whose name doesn't end in .parquet is a folder of shards")
    elif output.is_dir():
        others = [path.name for path in output.iterdir() if not path.match(SHARDS) and path.name != SETTINGS]
        if others:
            raise ValueError(
                f"{output} holds {others[0]!r}, which is no shard, and a new output would take the folder's place; "
                "name another output, or one that ends in .parquet for a single file"
            )


def _note(number: int) -> str:
    return f"part-{number:06d}.loaded"


def _same(path: Path, output: Path) -> bool:
    return path.resolve() == output.resolve() or output.resolve() in path.resolve().parents
