"""Named tensors in one block of memory that several processes see."""

from __future__ import annotations

import math
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import torch
from torch import Tensor

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps it: a file system of limited size, 64 MB in a container of Docker's."""
ALIGNMENT = 64
"""Bytes: a cache line, and what vector instructions like."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in the block."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Layout:
    """What another process needs to attach."""

    name: str
    places: Mapping[str, Place]


class SharedTensors:
    """Tensors by name, in shared memory. Whoever creates them removes them with `close`.

    The tensors must not be used any more after `close`; it is an error to keep one.
    """

    def __init__(self, block: SharedMemory, places: Mapping[str, Place], owner: bool) -> None:
        self._block = block
        self._owner = owner
        self.layout = Layout(block.name, places)
        self.tensors: dict[str, Tensor] = {
            name: torch.frombuffer(block.buf, dtype=p.dtype, count=math.prod(p.shape), offset=p.offset).view(p.shape)
            if math.prod(p.shape)
            else torch.empty(p.shape, dtype=p.dtype, device="cpu")
            for name, p in places.items()
        }

    @classmethod
    def create(cls, shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> SharedTensors:
        """Uninitialised tensors of these types and shapes.

        The block's name has this process's number in it, so that one left behind tells whose it was: the system keeps
        it if the process and Python's resource tracker are both killed.

        Raises:
            OSError: no room in the system's shared memory.
        """
        places, end = {}, 0
        for name, (dtype, shape) in shapes.items():
            places[name] = Place(dtype, shape, end)
            end += math.ceil(math.prod(shape) * dtype.itemsize / ALIGNMENT) * ALIGNMENT
        block = SharedMemory(f"anytask-{os.getpid()}-{secrets.token_hex(6)}", create=True, size=max(end, ALIGNMENT))
        try:
            _reserve(block)
        except BaseException as error:
            block.close()
            block.unlink()
            if not isinstance(error, OSError):
                raise
            free = shutil.disk_usage(SHARED_MEMORY).free
            raise OSError(
                error.errno,
                f"{block.size / 1e6:,.0f} MB of shared memory are needed, {SHARED_MEMORY} has {free / 1e6:,.0f}; give "
                "it more (a container: docker run --shm-size) or name fewer texts or one device",
            ) from None
        return cls(block, places, owner=True)

    @classmethod
    def attach(cls, layout: Layout) -> SharedTensors:
        """The tensors that another process has created."""
        return cls(SharedMemory(layout.name), layout.places, owner=False)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def remove(self) -> None:
        """Give up the block's name: those who have attached keep the memory, nobody else gets it."""
        if self._owner:
            self._owner = False
            self._block.unlink()

    def close(self) -> None:
        self.remove()
        self.tensors = {}
        self._block.close()


def _reserve(block: SharedMemory) -> None:
    """Have all pages now: where there is no room, Linux else kills who first writes to one.

    Raises:
        OSError: no room.
    """
    file = SHARED_MEMORY / block.name
    if file.exists():
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, block.size)
