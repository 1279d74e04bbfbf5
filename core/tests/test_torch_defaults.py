"""A program's defaults for new tensors don't reach a model in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anytask import Instructor
from anytask.encoder import T5Encoder
from anytask.gpu_encoder import GpuEncoder

INSTRUCTION = "Represent the statement: "


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(params=["float32", "float16", "packed"])
def model(request: pytest.FixtureRequest, make_checkpoint: Callable[..., Path]) -> Instructor:
    """Of each encoder; that of a GPU on the CPU."""
    packed = request.param == "packed"
    folder = make_checkpoint(shape={"d_kv": 16, "initializer_factor": 1.0})
    model = Instructor.from_pretrained(folder, device="cpu", dtype="float32" if packed else request.param)
    if packed:
        encoder = T5Encoder(model._engine.encoder.config)
        encoder.load_state_dict(model._engine.encoder.state_dict())
        model._engine.encoder = GpuEncoder(encoder.eval().requires_grad_(False), compile_after=0, compiled=False)
    return model


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
@pytest.mark.parametrize(
    "defaults", [lambda: default_dtype(torch.bfloat16), lambda: torch.device("meta")], ids=["dtype", "device"]
)
async def test_calls(
    model: Instructor, sentences: list[str], defaults: Callable[[], AbstractContextManager[object]]
) -> None:
    texts = sentences[:150]  # more than share a run

    def same(vectors: Any, expected: Any) -> None:
        np.testing.assert_allclose(vectors, expected, atol=1e-5 if model.dtype == torch.float32 else 1e-3)

    expected = model.encode(texts, INSTRUCTION, batch_tokens=700)
    with defaults():
        same(model.encode(texts, INSTRUCTION, batch_tokens=700), expected)
        same(await model.aencode(texts, INSTRUCTION, batch_tokens=700), expected)
        same(model.encode(texts[:8], INSTRUCTION, as_tensor=True), expected[:8])
        same(model.encode(texts[0], INSTRUCTION), expected[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(
    "defaults", [lambda: default_dtype(torch.bfloat16), lambda: torch.device("meta")], ids=["dtype", "device"]
)
def test_loading(
    make_checkpoint: Callable[..., Path],
    sentences: list[str],
    dtype: str,
    defaults: Callable[[], AbstractContextManager[object]],
) -> None:
    folder = make_checkpoint(shape={"initializer_factor": 1.0})
    texts = ["short", " ".join(sentences[:12])]
    expected = Instructor.from_pretrained(folder, device="cpu", dtype=dtype).encode(texts, INSTRUCTION)
    with defaults():
        vectors = Instructor.from_pretrained(folder, device="cpu", dtype=dtype).encode(texts, INSTRUCTION)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
