"""The exceptions and the warning that are ours."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint can't be found, read or used; the message names the path, what was found and what to do."""


class WorkerError(RuntimeError):
    """A worker process of several devices ended; the message names the device and the exit code."""


class TruncationWarning(UserWarning):
    """Texts of a call were longer than the model takes.

    Args:
        count: how many.
        texts: of how many.
        max_length: what the model takes.
    """

    def __init__(self, count: int, texts: int, max_length: int) -> None:
        super().__init__(count, texts, max_length)
        self.count, self.texts, self.max_length = count, texts, max_length

    def __str__(self) -> str:
        return (
            f"{self.count} of {self.texts} texts have more tokens with their instruction than max_length "
            f"{self.max_length}; only their beginnings are embedded"
        )
