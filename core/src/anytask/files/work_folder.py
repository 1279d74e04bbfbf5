"""Long work in parts that a killed process goes on with: a folder of finished parts beside the output."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from anytask.files.whole import PARTIAL, whole_file, write_json

SETTINGS = ".settings.json"
"""Hidden, as `LOCK` is: a folder of Parquet files may become the output with them in it."""
LOCK = ".lock"
"""Held by the process at work in a folder."""


class WorkFolder:
    """The finished parts of one output, each a JSON-lines file written whole, in `.NAME.work` beside it.

    The same command finds the parts of its killed predecessor and makes only those that are missing. A folder in which
    no part is finished is begun anew. One process at a time works in it.

    >>> with WorkFolder("out.jsonl", {"seed": 0}) as work:  # doctest: +SKIP
    ...     for name in tasks:
    ...         if not work.has(name):
    ...             work.write(name, rows_of(name))
    ...     write_rows((row for name in tasks for row in work.read(name)), "out.jsonl")
    ...     work.remove()

    Args:
        output: the file that the parts will make.
        settings: all that the parts depend on, as JSON values: options, and the `digest` of every input.
        overwrite: whether an output that is already there may be replaced.

    Raises:
        FileExistsError: the output is there and may not be replaced, and there is no unfinished work.
        ValueError: the folder is there, of work with other settings; the message names them. Or another process works
            in it.
    """

    def __init__(self, output: str | Path, settings: Mapping[str, Any], *, overwrite: bool = True) -> None:
        output = Path(output)
        self.folder = output.with_name(f".{output.name}.work")
        self._settings = json.loads(json.dumps(settings))
        present = FileExistsError(f"{output} is already there; name another output, or say --overwrite to replace it")
        is_refused = output.exists() and not overwrite
        if is_refused and not self.folder.exists():
            raise present
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder)
        try:
            if self.has(SETTINGS):
                self._check(json.loads(self.path(SETTINGS).read_text("utf-8")), self._settings)
                for path in self.folder.glob(PARTIAL):
                    path.unlink()
            elif is_refused:
                self.remove()  # left by a process that was killed after the output was there
                raise present
            else:
                self._clear()
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """The folder stays, for the next process; one in which nothing is finished goes."""
        if self.folder.exists() and not self.has(SETTINGS):
            self.remove()
        self.release()

    def release(self) -> None:
        """Let others work in the folder."""
        self._lock.release()

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()

    def _check(self, found: dict[str, Any], given: dict[str, Any]) -> None:
        names = [name for name in {**found, **given} if found.get(name) != given.get(name)]
        if names:
            differences = "; ".join(f"{name} was {found.get(name)!r}, is {given.get(name)!r}" for name in names)
            raise ValueError(
                f"{self.folder} holds unfinished work with other settings ({differences}); finish it with those, "
                "or remove the folder to begin anew"
            )

    def path(self, name: str) -> Path:
        """The file of a part, or any other file that the work keeps in the folder."""
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether the part is finished."""
        return self.path(name).is_file()

    def begin(self) -> None:
        """Note the settings: from here on the folder is of this work. Called before a part that is no JSON lines."""
        if not self.has(SETTINGS):
            write_json(self.path(SETTINGS), self._settings)

    def write(self, name: str, rows: Iterable[Any]) -> None:
        """Finish a part: its rows as JSON, a line each; they may be made while they are written."""
        self.begin()
        _write_lines(self.path(name), (json.dumps(row) for row in rows))

    def read(self, name: str) -> Iterator[Any]:
        """The rows of a finished part, one at a time."""
        with self.path(name).open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    def remove(self) -> None:
        """Delete the folder, once the output is there. Killed meanwhile, it is none that could be gone on with."""
        self.path(SETTINGS).unlink(missing_ok=True)
        self.release()
        shutil.rmtree(self.folder)


def _locked(folder: Path) -> FileLock:
    """
    Raises:
        ValueError: another process works in the folder.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"another process works in {folder}; wait for its end, or name another output") from None
    return lock


def digest(path: str | Path, without: Container[str] = ()) -> str:
    """SHA-256 of a file's content, or of the names and contents of all files of a folder but those `without`."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    whole = hashlib.sha256()
    for inner in sorted(found for found in path.rglob("*") if found.is_file() and found.name not in without):
        whole.update(f"{inner.relative_to(path).as_posix()}\0{digest(inner)}\n".encode())
    return whole.hexdigest()


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
