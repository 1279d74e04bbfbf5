"""Files that appear whole: written under a temporary name beside their place, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PARTIAL = ".[0-9]*-*"
"""The temporary names, as a pattern: what killed processes leave."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which replaces it at the end of the block and is gone after an error."""
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a .npy file."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.save(file, array)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file."""
    with whole_file(path) as partial:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        partial.write_text(text, "utf-8", errors="backslashreplace")  # half a surrogate pair as JSON's own escape
