"""The exception that is ours."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint can't be found, read or used; the message names the path, what was found and what to do."""
