"""Compile the kernels: `python core/src/anytask/kernels/building.py`, which installing the package does too.

Imports nothing but the standard library, since that happens where torch isn't installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = Path(__file__).parent
SOURCES = ("rows.c", "attention.c", "products.c", "layers.c")
HEADERS = ("vector.h", "activation.h", "kernels.h")
LEVELS = ("x86-64-v4", "x86-64-v3")
"""The processors that are compiled for: with AVX-512, and with AVX2 and FMA."""
FLAGS = (
    *("-std=gnu11", "-O3", "-mprefer-vector-width=512", "-fopenmp", "-ffp-contract=fast"),
    *("-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-fPIC", "-shared", "-Wall", "-Wno-psabi"),
)
LIBRARIES = ("-nodefaultlibs", "-lm", "-lc")
"""Without OpenMP's, so that its functions are those which torch has loaded for all: its threads, not others."""


def library(level: str, folder: Path = FOLDER) -> Path:
    """Where the kernels for a level are, if they are compiled: its name tells the sources' digest."""
    digest = hashlib.sha256(" ".join(FLAGS + LIBRARIES).encode())
    for name in (*SOURCES, *HEADERS):
        digest.update((FOLDER / name).read_bytes())
    return folder / f"_kernels-{level}-{digest.hexdigest()[:12]}.so"


def build(folder: Path = FOLDER) -> list[Path]:
    """Compile the kernels for each of `LEVELS` into `folder` and remove those of other sources from it.

    The compiler is `CC`, `gcc` or `cc`.

    Raises:
        OSError: this system's processors aren't compiled for, there is no compiler, or it fails; says what it said.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise OSError(f"the kernels are for Linux on x86-64 processors, not {platform.platform()}")
    names = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "cc"]
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        raise OSError(f"no C compiler; looked for {', '.join(names)}")
    libraries = [library(level, folder) for level in LEVELS]
    with TemporaryDirectory(prefix="_kernels-", dir=folder) as scratch:
        for level, path in zip(LEVELS, libraries, strict=True):
            compiled = Path(scratch, path.name)
            command = [compiler, f"-march={level}", *FLAGS, *SOURCES, "-o", str(compiled), *LIBRARIES]
            done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True)
            if done.returncode:
                raise OSError(f"{compiler} can't compile the kernels:\n{done.stderr}")
            compiled.replace(path)
    for path in folder.glob("_kernels-*.so"):
        if path not in libraries:
            path.unlink()
    return libraries


if __name__ == "__main__":
    try:
        print(*build(), sep="\n")
    except OSError as error:
        sys.exit(str(error))
