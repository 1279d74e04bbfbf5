"""One model in memory for all that use the same one in a process."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

import torch

from anytask.checkpoint import stored_precision
from anytask.errors import CheckpointError
from anytask.hub import BUNDLED, folder_identity, resolve
from anytask.model import Instructor, as_device, as_dtype

logger = logging.getLogger(__name__)

UNAUTHORISED = (401, 403)
"""HTTP status with which the hub answers those who may not see a repository, or not yet."""

V = TypeVar("V")


class _Once(Generic[V]):
    """Values that are made once per key, also when many threads ask at once; a failure isn't kept.

    Of a key's values only that of one version is kept, the one that was made last.
    """

    def __init__(self) -> None:
        self._values: dict[Hashable, tuple[Hashable, V]] = {}
        self.forget_locks()

    def get(self, key: Hashable, make: Callable[[], V], version: Hashable = None) -> V:
        with self._registry:
            found = self._values.get(key)
            if found is not None and found[0] == version:
                return found[1]
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            found = self._values.get(key)
            if found is None or found[0] != version:
                found = self._values[key] = (version, make())
            return found[1]

    def clear(self) -> None:
        with self._registry:
            self._values.clear()
            self._locks.clear()

    def forget_locks(self) -> None:
        self._registry = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}


_folders: _Once[Path] = _Once()
_precisions: _Once[torch.dtype] = _Once()
_models: _Once[Instructor] = _Once()


def load_shared(
    name_or_path: str | Path = "mini",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Instructor:
    """`Instructor.from_pretrained`, loaded once per process for all that ask for the same model.

    The same are those whose files lie in the same folder, wherever the name, the revision, the cache or the token
    led there, and that agree in device, dtype and max_length. A hub model is looked up once for each way of asking,
    and then kept until `release_shared`, as models are; a folder is loaded anew when its files have changed. Safe to
    call from many threads.

    Without a token, a private model that is in the cache already is taken from there.

    Args:
        name_or_path, device, dtype, max_length, revision, token, cache_dir, local_files_only: as in
            `Instructor.from_pretrained`. Relative paths are those of the moment.

    Raises:
        CheckpointError, ValueError: as `Instructor.from_pretrained`.
    """
    place, wanted = as_device(device), None if dtype is None else as_dtype(dtype)
    where = (revision, token, None if cache_dir is None else str(Path(cache_dir).absolute()), local_files_only)
    asked = (name_or_path, _real_folder(name_or_path), *where)
    folder = _folders.get(asked, lambda: _find(name_or_path, *where))
    version = None if folder.parent == BUNDLED else folder_identity(folder)
    precision = wanted or _precisions.get((folder, place), lambda: stored_precision(folder, place), version)

    def load() -> Instructor:
        model = Instructor.from_pretrained(folder, device=place, dtype=precision, max_length=max_length)
        model.name_or_path = str(name_or_path)
        return model

    return _models.get((folder, place, precision, max_length), load, version)


def release_shared() -> None:
    """Let go of all shared models; those still in use elsewhere live on there."""
    _models.clear()
    _precisions.clear()
    _folders.clear()


def _real_folder(name_or_path: str | Path) -> str | None:
    """Where a folder is now, whatever the working folder and symbolic links become; None for other names."""
    path = os.path.expanduser(name_or_path)  # noqa: PTH111 (pathlib raises for names that can't be paths)
    return os.path.realpath(path) if os.path.isdir(path) else None  # noqa: PTH112


def _find(
    name_or_path: str | Path, revision: str | None, token: str | bool | None, cache_dir: str | None, offline: bool
) -> Path:
    """The folder of a model, without symbolic links on the way to it."""
    try:
        folder = resolve(name_or_path, revision=revision, token=token, cache_dir=cache_dir, local_files_only=offline)
    except CheckpointError as error:
        if isinstance(token, str) or not _is_unauthorised(error.__cause__):
            raise
        try:
            folder = resolve(name_or_path, revision=revision, cache_dir=cache_dir, local_files_only=True)
        except CheckpointError:
            raise CheckpointError(
                f"{error}. For a private or gated model give a token, or set the environment variable HF_TOKEN; "
                "pickles and other dumps carry no token"
            ) from error.__cause__
        logger.warning("%s: the hub wants a token (HF_TOKEN); the copy in the cache is used", name_or_path)
    return folder.resolve()


def _is_unauthorised(error: BaseException | None) -> bool:
    from huggingface_hub.errors import HfHubHTTPError

    return (
        isinstance(error, HfHubHTTPError)
        and error.response is not None
        and (error.response.status_code in UNAUTHORISED)
    )


def _after_fork_in_child() -> None:
    """A lock that another thread held at the fork would never be released here."""
    for once in (_folders, _precisions, _models):
        once.forget_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
