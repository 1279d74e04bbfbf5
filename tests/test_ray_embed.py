"""The example of a Ray cluster runs, on two workers of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "ray_embed.py"


@pytest.mark.slow
def test_two_workers_write_the_same_bytes() -> None:
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, EXAMPLE, "--passages", "160", "--shard-rows", "40"],
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["one process", "1 workers", "2 workers"]
    assert all(line.endswith(", the same bytes") for line in lines[1:])
