"""The folder that a run keeps for itself: whose it is, and what a killed process has left there."""

from __future__ import annotations

import glob
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anytask.files.whole import PARTIAL, write_json
from anytask.training.report.run_log import EVALUATION, EVENTS, LOG
from anytask.training.trainer import STATE

WORK = "training"
"""Folder inside the output for what only the run needs: records, log, curves, checkpoints."""
LEFTOVERS = (PARTIAL, ".best.new", "..best.new-*", ".step-*.new", "..step-*.new-*")
"""Temporary names: those of `whole_file`, and of checkpoint folders."""
DIGEST = re.compile("[0-9a-f]{64}")
MAY_CHANGE = frozenset({"log_every", "keep"})
"""Options that may differ when a run is resumed."""


def check_settings(work: Path, settings: Mapping[str, Any]) -> None:
    """Keep the settings of a new run; ValueError where `work` is of a run with others.

    One that came to an end before it could log anything is no run: what it has made of other settings is removed.
    """
    path = work / "settings.json"
    work.mkdir(parents=True, exist_ok=True)
    now = json.loads(json.dumps(settings))
    before = json.loads(path.read_text("utf-8")) if path.is_file() else now
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name) and name not in MAY_CHANGE]
    if changed and not any((work / name).is_file() for name in (STATE, LOG)):
        _begin_anew(work, keep_teacher=not {"records", "teacher"} & set(changed))
        changed = []
    if changed:
        differences = "; ".join(_difference(name, before.get(name), now.get(name)) for name in changed)
        raise ValueError(
            f"{work.parent} holds a run with other settings ({differences}); go on with the same, choose another "
            "output, or remove the folder"
        )
    if not path.is_file():
        write_json(path, settings)


def _difference(name: str, before: object, now: object) -> str:
    """What a message says of a setting that differs; of a digest nothing more."""
    if any(isinstance(value, str) and DIGEST.fullmatch(value) for value in (before, now)):
        return f"{name} differ"
    return f"{name} was {before!r}, is {now!r}"


def _begin_anew(work: Path, *, keep_teacher: bool) -> None:
    """Remove what was made by other settings; the teacher's vectors may be of use."""
    made = ["settings.json", "tokenizer.json", EVALUATION, EVENTS, "best", *([] if keep_teacher else ["teacher"])]
    for name in made:
        _remove(work / name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(output: Path) -> None:
    """Remove what a killed process had written half of."""
    patterns = (*LEFTOVERS, f".{glob.escape(output.name)}-????????")
    for path in [*output.glob(PARTIAL), *(path for name in patterns for path in (output / WORK).rglob(name))]:
        _remove(path)
