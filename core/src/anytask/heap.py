"""Memory that is freed: some is soon wanted again, some not for long."""

from __future__ import annotations

import ctypes
import sys

import torch

BLOCK = 30 << 20
"""Bytes; glibc learns from blocks of up to 32 MiB."""


def keep_freed_memory() -> None:
    """Have up to twice `BLOCK` of freed memory kept by the process.

    glibc gives the end of its heap back to the system once more is free there than twice the largest block that it has
    mapped on its own and freed (mallopt(3) on M_MMAP_THRESHOLD and M_TRIM_THRESHOLD). A process whose activations are
    its largest blocks then gets zeroed pages anew for each of them, which takes a third of a small model's time. One
    such block, never written to, lifts that bound, unless the user has set another. Other C libraries don't mind.
    """
    torch.empty(BLOCK, dtype=torch.uint8, device="cpu")


def give_back_freed_memory() -> None:
    """Have the system take back what is free in glibc's heap, also between what is in use (malloc_trim(3))."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
