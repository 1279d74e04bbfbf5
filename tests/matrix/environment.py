"""A fresh virtual environment for a cell, made by uv from the indexes that pip is configured with."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from .cells import PACKAGES, RESOLUTIONS, ROOT, Cell

BUILD = ROOT / "build" / "matrix"
UV = Path(sys.executable).with_name("uv")
SETTINGS = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS"}
"""Options of pip that say where packages come from, and the variables by which uv is told."""
RELAXED = ("certifi",)
"""Taken as new as the index has it where a newest release asks for more: root certificates, published every few weeks,
of which an index may lack the last. What isn't as asked for is in the table."""


class InstallError(RuntimeError):
    """No such environment can be made; the message is uv's."""


def pip_settings(lines: Iterable[str]) -> dict[str, str]:
    """Variables for uv from the lines of `pip config list`; the environment's settings come last there and win."""
    found: dict[str, str] = {}
    for line in sorted(lines, key=lambda line: line.startswith(":env:")):
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2]
        if option in SETTINGS:
            found[SETTINGS[option]] = " ".join(str(ast.literal_eval(value)).split())
    if "UV_FIND_LINKS" in found:
        found["UV_FIND_LINKS"] = found["UV_FIND_LINKS"].replace(" ", ",")
    return found


def uv_environment() -> dict[str, str]:
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    return {"UV_PYTHON_DOWNLOADS": "never", **pip_settings(listed.stdout.splitlines()), **os.environ}


def run_uv(*arguments: str | Path) -> str:
    done = subprocess.run([UV, *arguments], capture_output=True, text=True, env=uv_environment(), cwd=ROOT)
    if done.returncode:
        raise InstallError(" ".join(done.stderr.split()).rpartition("error: ")[2] or f"uv ended with {done.returncode}")
    return done.stdout


def build_wheels() -> dict[str, Path]:
    """This project's distributions as users get them, by name."""
    wheels = {}
    for package in PACKAGES:
        folder = BUILD / "wheels" / package.name
        run_uv("build", "--quiet", "--wheel", "--clear", "--out-dir", folder, package.folder)
        (wheels[package.distribution],) = folder.glob("*.whl")
    return wheels


def torch_pin(python: str) -> str:
    """The build of torch that is installed here, for another Python the same release: never one the resolver picks."""
    here = version("torch")
    return f"torch=={here if python == default_python() else here.partition('+')[0]}"


def default_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


class Environment:
    """The installed versions of a cell."""

    def __init__(self, cell: Cell, wheels: Mapping[str, Path]) -> None:
        self.cell = cell
        self.folder = BUILD / cell.name
        self._venv = self.folder / "venv"
        run_uv("venv", "--quiet", "--clear", "--python", cell.python, self._venv)
        relaxed = RELAXED if cell.versions == "newest" else ()
        self._overrides = self._write("overrides.txt", [torch_pin(cell.python), *relaxed])
        own = [f"{name} @ {wheels[name].as_uri()}" for name in cell.own]
        self._install([*own, *map(str, cell.under_test)], "--resolution", RESOLUTIONS[cell.versions])
        self.versions = self._list()
        frozen = [f"{name}=={version}" for name, version in self.versions.items() if name not in cell.own]
        self._install(list(map(str, cell.tools)), "--constraint", str(self._write("frozen.txt", frozen)))

    @property
    def python(self) -> Path:
        return self._venv / "bin" / "python"

    def complaints(self) -> list[str]:
        """Installed packages whose requirements aren't met, as uv words it."""
        done = subprocess.run([UV, "pip", "check", "--python", self.python], capture_output=True, text=True)
        return [line for line in done.stderr.splitlines() if line.startswith("The package")]

    def _install(self, requirements: Sequence[str], *options: str) -> None:
        listed = self._write("requirements.txt", requirements)
        order = ("--index-strategy", "unsafe-best-match")  # as pip does: all indexes are one
        python = ("--python", str(self.python))
        run_uv("pip", "install", "-q", *python, *order, "--override", self._overrides, *options, "-r", listed)

    def _list(self) -> dict[str, str]:
        rows = json.loads(run_uv("pip", "list", "--python", self.python, "--format", "json"))
        return {row["name"]: row["version"] for row in rows}

    def _write(self, name: str, lines: Iterable[str]) -> Path:
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return path
