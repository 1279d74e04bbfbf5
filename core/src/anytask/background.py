"""Threads for what asynchronous calls do besides the model's work: loading, tokenizing, conversions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

THREADS = 8
_threads: ThreadPoolExecutor


async def in_background(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """`asyncio.to_thread`, in threads of anytask's own.

    The event loop's are few and everybody's: where an application fills them with work that waits, such as searches in
    a database, a query would wait as long though the model is idle.
    """
    call = partial(copy_context().run, work, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_threads, call)


def _begin_anew() -> None:
    """Also in a forked child, where the threads are its parent's."""
    global _threads
    _threads = ThreadPoolExecutor(THREADS, "anytask-background")


_begin_anew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
