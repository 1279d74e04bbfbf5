"""Other ways to compute the same vectors, each in its own environment: see docs/speed.md for how to install them."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = Path("build/peers")
PEERS = {
    "openvino float32": ("onnx", "openvino_worker.py"),
    "openvino bfloat16": ("onnx", "openvino_worker.py"),
    "openvino int8": ("onnx", "openvino_worker.py"),
    "onnxruntime float32": ("onnx", "onnxruntime_worker.py"),
    "onnxruntime int8": ("onnx", "onnxruntime_worker.py"),
    "InstructorEmbedding": ("instructor", "instructor_worker.py"),
}
"""The environment and the program of each; its name ends with its precision, float32 where it says none."""


def command_of(rival: str) -> list[str] | None:
    """How a peer's process is started, None for rivals that aren't peers.

    Raises:
        SystemExit: its environment isn't there.
    """
    if rival not in PEERS:
        return None
    environment, program = PEERS[rival]
    python = ENVIRONMENTS / environment / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"{python} isn't there; make it with: make peers")
    return [str(python), "-W", "ignore", str(HERE / program)]
