"""What was measured, kept in a JSON file as soon as it is, so that the same command goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anytask.files.whole import write_json


class Figures:
    """Figures by name, each with all that it depends on; one whose dependencies changed is measured anew.

    Args:
        path: the JSON file; what it holds is gone on with if it was measured of the same.
        about: what all figures depend on, as JSON values, such as the digest of the model.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.about = json.loads(json.dumps(about))
        self.measured: dict[str, dict[str, Any]] = {}
        if path.exists():
            found = json.loads(path.read_text("utf-8"))
            if found["about"] == self.about:
                self.measured = found["figures"]

    def has(self, name: str, given: Mapping[str, Any]) -> bool:
        """Whether the figure is there, measured of the same."""
        return name in self.measured and self.measured[name]["given"] == given

    def measure(self, name: str, given: Mapping[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
        """Measure and keep the figure unless it is there.

        Args:
            name: the figure's.
            given: all that this figure depends on beside `about`, as JSON values.
            measure: gives the figure, as JSON values.
        """
        if self.has(name, given):
            return
        started = time.perf_counter()
        found = measure()
        seconds, now = round(time.perf_counter() - started, 2), datetime.now(UTC).isoformat(timespec="seconds")
        self.measured[name] = {"given": dict(given), "found": found, "seconds": seconds, "at": now}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"about": self.about, "figures": self.measured})

    def get(self, name: str, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """The figure, or None if it was not measured of the same."""
        return self.measured[name]["found"] if self.has(name, given) else None
