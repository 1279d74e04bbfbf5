"""One model in memory for all that use the same configuration in a process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from anytask.model import Instructor

_models: dict[tuple[object, ...], Instructor] = {}
_locks: dict[tuple[object, ...], threading.Lock] = {}
_registry = threading.Lock()


def load_shared(name_or_path: str | Path = "mini", **options: Any) -> Instructor:
    """`Instructor.from_pretrained`, loaded once per configuration and process, also when many threads ask at once.

    Takes the same keyword arguments. The model is kept until `release_shared`.
    """
    key = (
        str(name_or_path),
        *sorted((name, str(value)) for name, value in options.items() if value is not None),
    )
    with _registry:
        if key in _models:
            return _models[key]
        lock = _locks.setdefault(key, threading.Lock())
    with lock:
        if key not in _models:
            _models[key] = Instructor.from_pretrained(name_or_path, **options)
        return _models[key]


def release_shared() -> None:
    """Let go of all shared models; those still in use elsewhere live on there."""
    with _registry:
        _models.clear()
        _locks.clear()
