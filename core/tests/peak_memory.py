"""The most memory of a process, for tests that run programs."""

from __future__ import annotations

import sys

import pytest

needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

PEAK = r"""
import re

def peak():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
"""
"""Begins a program: its most bytes since it began, where `resource` would begin with those of the tests that ran it."""
