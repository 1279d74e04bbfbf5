"""One model in memory for all that use the same configuration in a process."""

from __future__ import annotations

import inspect
import os
import threading
from pathlib import Path
from typing import Any

from anytask.model import Instructor, as_device, as_dtype

_Key = tuple[tuple[str, str], ...]

_models: dict[_Key, Instructor] = {}
_locks: dict[_Key, threading.Lock] = {}
_registry = threading.Lock()


def load_shared(name_or_path: str | Path = "mini", **options: Any) -> Instructor:
    """`Instructor.from_pretrained`, loaded once per configuration and process, also when many threads ask at once.

    Takes the same keyword arguments; one that is left out is the same as its default. The model is kept until
    `release_shared`.
    """
    key = _configuration(name_or_path, options)
    with _registry:
        if key in _models:
            return _models[key]
        lock = _locks.setdefault(key, threading.Lock())
    with lock:
        model = _models.get(key)
        if model is None:
            model = _models[key] = Instructor.from_pretrained(name_or_path, **options)
        return model


def release_shared() -> None:
    """Let go of all shared models; those still in use elsewhere live on there."""
    with _registry:
        _models.clear()
        _locks.clear()


_SIGNATURE = inspect.signature(Instructor.from_pretrained)


def _configuration(name_or_path: str | Path, options: dict[str, Any]) -> _Key:
    arguments = _SIGNATURE.bind(name_or_path, **options)
    arguments.apply_defaults()
    values = arguments.arguments
    values["dtype"], values["device"] = as_dtype(values["dtype"]), as_device(values["device"])
    return tuple((name, str(value)) for name, value in values.items())


def _after_fork_in_child() -> None:
    """A lock that another thread held at the fork would never be released here."""
    global _registry
    _registry = threading.Lock()
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
