"""OpenVINO in a benchmark, fed with the ONNX graph: float32, bfloat16, or quantised by NNCF after training."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import openvino as ov
from export import Batches, Floats, exported
from serve import Embed, serve
from texts import docstrings

CALIBRATION = 64


def quantised(folder: Path, batches: Batches) -> Path:
    """NNCF's int8 graph beside the float one, calibrated on other texts than those measured."""
    path = exported(folder).with_suffix(".int8.xml")
    if not path.exists():
        import nncf

        inputs = [inputs for text in docstrings()[-CALIBRATION:] for _, inputs in batches([text])]
        data = nncf.Dataset(inputs)
        model = nncf.quantize(
            ov.Core().read_model(exported(folder)), data, subset_size=CALIBRATION, model_type=nncf.ModelType.TRANSFORMER
        )
        ov.save_model(model, path)
    return path


def load(rival: str, name: str, threads: str) -> Embed:
    folder, dtype = Path(name), rival.split()[-1]
    batches = Batches(folder)
    model = ov.Core().read_model(quantised(folder, batches) if dtype == "int8" else exported(folder))
    settings = {
        "INFERENCE_NUM_THREADS": int(threads),
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = ov.compile_model(model, "CPU", settings)

    def embed(texts: list[str]) -> Floats:
        vectors = np.empty((len(texts), compiled.output(0).partial_shape[1].get_length()), np.float32)
        for places, inputs in batches(texts):
            vectors[places] = compiled(inputs)[0]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return embed


if __name__ == "__main__":
    serve(lambda: load(*sys.argv[1:]))
