"""What `prepare.py` wrote: texts as token ids, the teacher's axes, the tasks' rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from anytask.batching import TokenizedText

EOS = 1
COLUMNS = 4
"""Numbers of a task's row, see `prepare.write_tasks`."""
NOTHING: NDArray[np.int32] = np.array([], dtype=np.int32)
"""The ids of no instruction."""


class TextStore:
    """Packed token ids of some texts."""

    def __init__(self, file: Path, max_tokens: int) -> None:
        packed = np.load(file)
        self.ids: NDArray[np.uint16] = packed["ids"]
        self.ends: NDArray[np.int64] = np.concatenate([[0], packed["ends"]])
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

    Args:
        max_tokens: of a text, without its instruction.

    Raises:
        ValueError: the folder is of an earlier form.
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.texts = TextStore(folder / "tokens.npz", max_tokens)
        self.rotation: NDArray[np.float32] = np.load(folder / "rotation.npy")
        self.task_texts = TextStore(folder / "task_tokens.npz", max_tokens)
        self.tasks: list[dict[str, Any]] = json.loads((folder / "tasks.json").read_text("utf-8"))
        rows = np.load(folder / "task_rows.npz")
        if rows["rows"].shape[1] != COLUMNS:
            raise ValueError(f"{folder} is of an earlier form: delete its tasks.json and run prepare.py again")
        order = np.argsort(rows["task"], kind="stable")
        starts = np.searchsorted(rows["task"][order], np.arange(1, len(self.tasks)))
        self.rows: list[NDArray[np.int32]] = np.split(rows["rows"][order], starts)

    def instruction_ids(self, instruction: str) -> NDArray[np.int32]:
        return np.array(self.tokenizer.encode(instruction.strip(), add_special_tokens=False).ids, dtype=np.int32)
