"""What a benchmark's process answers: embed these texts, and how long it took. Runs in every peer's environment.

Requests and answers are lines of JSON on standard input and output; needs the standard library and numpy alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from peak import peak_megabytes

Embed = Callable[[list[str]], Any]


def serve(load: Callable[[], Embed]) -> None:
    """Load what embeds, and answer until standard input ends.

    A request holds "texts"; "singly" asks for a call for each of them, "vectors" names a file to save the vectors to.
    The answer's "wall" and "cpu" are the seconds of each call by the clock and of the process's computing,
    "peak_megabytes" its most memory so far.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed must not pass for an answer
    embed = load()
    for line in sys.stdin:
        request = json.loads(line)
        texts = request["texts"]
        calls = [[text] for text in texts] if request.get("singly") else [texts]
        wall, cpu, vectors = [], [], []
        for call in calls:
            started, computed = time.perf_counter(), time.process_time()
            vectors.append(np.asarray(embed(call), dtype=np.float32))
            wall.append(time.perf_counter() - started)
            cpu.append(time.process_time() - computed)
        if request.get("vectors"):
            np.save(request["vectors"], np.concatenate(vectors))
        print(json.dumps({"wall": wall, "cpu": cpu, "peak_megabytes": peak_megabytes()}), file=answers, flush=True)
