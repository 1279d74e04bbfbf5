"""examples/finetune.py as its users run it: its own process, a real run of the trainer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from anytask import Instructor

EXAMPLE = Path(__file__).parents[1] / "examples" / "finetune.py"
PATIENCE = 600
"""Seconds that a run may take on a busy machine."""
SMALL = ("--parts", "8", "--faults", "6", "--epochs", "8")
ESSENCE = 15
"""Lines that fine-tuning on one's own pairs may take."""


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "100", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(output: str) -> dict[str, tuple[float, float]]:
    """Each figure before and after."""
    return {
        name: (float(before), float(after))
        for name, before, after in re.findall(r"(\S+)\s+│\s+(\d\.\d{3})\s+│\s+(\d\.\d{3})", output)
    }


def test_what_is_learnt_carries_over_to_questions_that_were_held_out(tmp_path: Path) -> None:
    output = run(tmp_path, *SMALL, "--output", "tuned")
    found = table(output)
    assert set(found) == {"nDCG@10", "accuracy@1"}
    for before, after in found.values():
        assert after > before + 0.2
    model = Instructor.from_pretrained(tmp_path / "tuned")
    assert model.query_instruction == "Represent the customer's question for retrieving the repair note: "
    assert (tmp_path / "tuned" / "README.md").is_file(), "a model card"
    assert table(run(tmp_path, *SMALL, "--output", "tuned")) == found, "a finished run is not run again"


def test_the_essential_part_is_short() -> None:
    source = EXAMPLE.read_text("utf-8")
    function = source[source.index("def finetune(") : source.index("def figures(")].rstrip()
    assert len(function.splitlines()) <= ESSENCE
