"""Further candidates for hard negatives: a JSON-lines file of documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from anytask.files.compressed import open_compressed
from anytask.training.building.json_rows import check_text


def read_corpus(path: str | Path, task_id: str | int) -> Iterator[str]:
    """The documents of `path` that belong to a task, one by one.

    A line is `{"text": ..., "title": ..., "task_id": ...}`. A title, if there is one, is put before the text with
    a space. A document without `task_id` belongs to every task. The file is plain, gzip or Zstandard.

    Raises:
        ValueError: a line isn't such an object, or the compressed data is damaged; the message names file and line.
    """
    path = Path(path)
    number = 1
    try:
        with open_compressed(path) as lines:
            for line in lines:
                if line.strip():
                    text, owner = _document(line)
                    if owner is None or owner == task_id:
                        yield text
                number += 1
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from error


def _document(line: bytes) -> tuple[str, str | int | None]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(row, dict) or "text" not in row:
        raise ValueError('expected an object with a string "text"')
    text, title = check_text(row["text"], '"text"'), check_text(row.get("title") or "", '"title"')
    owner = row.get("task_id")
    if isinstance(owner, bool) or not isinstance(owner, str | int | None):
        raise ValueError(f'"task_id" must be a string or an integer, got {owner!r}')
    return f"{title} {text}".strip(), owner
