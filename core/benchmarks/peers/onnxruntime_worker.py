"""ONNX Runtime in a benchmark: float32, or dynamically quantised with weights by output channel."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from export import Batches, Floats, exported, whole_file
from serve import Embed, serve


def quantised(folder: Path) -> Path:
    """The int8 graph beside the float one."""
    path = exported(folder).with_suffix(".int8.onnx")
    if not path.exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with whole_file(path) as partial:
            quantize_dynamic(exported(folder), partial, per_channel=True, weight_type=QuantType.QInt8)
    return path


def load(rival: str, name: str, threads: str) -> Embed:
    folder = Path(name)
    batches = Batches(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    path = quantised(folder) if rival.endswith("int8") else exported(folder)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def embed(texts: list[str]) -> Floats:
        found = [(places, session.run(None, inputs)[0]) for places, inputs in batches(texts)]
        vectors = np.empty((len(texts), found[0][1].shape[1]), np.float32)
        for places, part in found:
            vectors[places] = part
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return embed


if __name__ == "__main__":
    serve(lambda: load(*sys.argv[1:]))
