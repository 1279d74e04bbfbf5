"""What `prepare.py` wrote: texts as token ids, the teacher's vectors, pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from anytask.batching import TokenizedText

EOS = 1


class TextStore:
    """Packed token ids of all texts, the teacher's vectors of the first ones, and the pairs of each task."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        tokens = np.load(folder / "tokens.npz")
        self.ids = tokens["ids"]
        self.ends = np.concatenate([[0], tokens["ends"]])
        self.max_tokens = max_tokens
        self.teacher = np.concatenate([np.load(path) for path in sorted((folder / "teacher").glob("????.npy"))])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tasks = json.loads((folder / "tasks.json").read_text("utf-8"))
        pairs = np.load(folder / "pairs.npz")
        self.pairs = [
            np.stack([pairs["query"], pairs["pos"]], axis=1)[pairs["task"] == task] for task in range(len(self.tasks))
        ]

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Tokens of each text as batched, without its instruction: cut, with `</s>`."""
        return np.minimum(self.ends[indices + 1] - self.ends[indices], self.max_tokens - 1) + 1

    def instruction_ids(self, instruction: str) -> np.ndarray:
        return np.array(self.tokenizer.encode(instruction, add_special_tokens=False).ids, dtype=np.int32)

    def text(self, index: int, instruction: np.ndarray) -> TokenizedText:
        """A text behind an instruction's ids, which the mean leaves out."""
        body = self.ids[self.ends[index] : self.ends[index + 1]][: self.max_tokens - 1].astype(np.int32)
        return TokenizedText(np.concatenate([instruction, body, [EOS]]), len(instruction))
