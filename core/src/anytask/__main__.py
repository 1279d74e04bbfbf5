"""`python -m anytask` is the `anytask` command."""

from __future__ import annotations

from anytask.cli import app

app(prog_name="anytask")
