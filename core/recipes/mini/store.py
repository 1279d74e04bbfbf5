"""What `prepare.py` writes: texts as token ids, the teacher's axes, the tasks' rows.

Texts and rows are Arrow tables, compressed as far as Zstandard goes: 54 MB, so that a run can be carried to another
machine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import feather
from tokenizers import Tokenizer

from anytask.batching import TokenizedText
from anytask.files.whole import whole_file

EOS = 1
MAX_TOKENS = 128
"""Most tokens of a text, with `</s>`; longer ones are cut."""
TEXTS, TASK_TEXTS, TASK_ROWS, TASKS = "texts.arrow", "task_texts.arrow", "task_rows.arrow", "tasks.json"
COLUMNS = ("0", "1", "2", "3")
"""Numbers of a task's row, see `prepare.write_tasks`."""
LEVEL = 19
"""Of the compression."""
NOTHING: NDArray[np.int32] = np.array([], dtype=np.int32)
"""The ids of no instruction."""


def write_texts(file: Path, texts: Sequence[NDArray[np.uint16]]) -> None:
    """Write texts' token ids, without `</s>`, as `TextStore` reads them."""
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    _write(file, {"ids": pa.ListArray.from_arrays(offsets, np.concatenate(texts))})


def write_rows(file: Path, rows: NDArray[np.int32], tasks: NDArray[np.int16]) -> None:
    """Write the rows [n, 4] of all tasks, and which task each is of [n]."""
    _write(file, {"task": tasks, **dict(zip(COLUMNS, rows.T, strict=True))})


def _write(file: Path, columns: dict[str, Any]) -> None:
    with whole_file(file) as path:
        feather.write_feather(pa.table(columns), path, compression="zstd", compression_level=LEVEL)


class TextStore:
    """Packed token ids of some texts."""

    def __init__(self, file: Path, max_tokens: int = MAX_TOKENS) -> None:
        column = feather.read_table(file)["ids"].combine_chunks()
        self.ids: NDArray[np.uint16] = column.values.to_numpy()
        self.ends: NDArray[np.int64] = column.offsets.to_numpy().astype(np.int64)
        self.max_tokens = max_tokens

    def __len__(self) -> int:
        return len(self.ends) - 1

    def lengths(self, indices: NDArray[Any]) -> NDArray[np.int64]:
        """Tokens of each text as batched, without its instruction: cut, with `</s>`."""
        return np.minimum(self.ends[indices + 1] - self.ends[indices], self.max_tokens - 1) + 1

    def own_ids(self, index: int) -> NDArray[np.int32]:
        """A text's ids, cut, without `</s>`."""
        return self.ids[self.ends[index] : self.ends[index + 1]][: self.max_tokens - 1].astype(np.int32)

    def text(self, index: int, instruction: NDArray[np.int32]) -> TokenizedText:
        """A text behind an instruction's ids, which the mean leaves out."""
        return TokenizedText(np.concatenate([instruction, self.own_ids(index), [EOS]]), len(instruction))


class Prepared:
    """The folder that `prepare.py` writes.

    Raises:
        FileNotFoundError: the folder isn't prepared, or is of an earlier form.
    """

    def __init__(self, folder: Path) -> None:
        missing = [name for name in (TEXTS, TASK_TEXTS, TASK_ROWS) if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder} has no {', '.join(missing)}: run prepare.py, which makes what is missing"
            )
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.texts = TextStore(folder / TEXTS)
        self.rotation: NDArray[np.float32] = np.load(folder / "rotation.npy")
        self.task_texts = TextStore(folder / TASK_TEXTS)
        self.tasks: list[dict[str, Any]] = json.loads((folder / TASKS).read_text("utf-8"))
        table = feather.read_table(folder / TASK_ROWS)
        tasks, rows = table["task"].to_numpy(), np.stack([table[name].to_numpy() for name in COLUMNS], axis=1)
        order = np.argsort(tasks, kind="stable")
        starts = np.searchsorted(tasks[order], np.arange(1, len(self.tasks)))
        self.rows: list[NDArray[np.int32]] = np.split(rows[order], starts)

    def instruction_ids(self, instruction: str) -> NDArray[np.int32]:
        return np.array(self.tokenizer.encode(instruction.strip(), add_special_tokens=False).ids, dtype=np.int32)
