"""The packed encoder of the CPU against the plain one, in every precision and where oneDNN is absent."""

from __future__ import annotations

import copy
import os
import pickle
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from anytask import CheckpointError, Instructor, kernels
from anytask.batching import TokenizedText, pack
from anytask.checkpoint import load_checkpoint
from anytask.cpu_encoder import COMPILED_ROWS_AT_ONCE, CPU_DTYPES, CpuEncoder, _compiled, float_state
from anytask.encoder import ACTIVATIONS, T5Encoder
from anytask.engine import EncodingEngine
from anytask.linear import FloatLinear, Int8Linear, dequantised, quantised
from anytask.products import onednn, panels

from .peak_memory import PEAK, needs_proc

CALM = {"initializer_factor": 1.0, "d_model": 64, "d_ff": 128}
"""Attention as even as a trained model's; the fixtures' default is so sharp that lower precisions pick other tokens."""
LAYOUTS: dict[str, dict[str, Any]] = {
    "calm": {"shape": CALM},
    "safetensors in a folder": {"shape": CALM, "transformer_path": "0_Transformer"},
    "bin": {"shape": CALM, "weights": "bin"},
    "no dense layer": {"shape": CALM, "dense": None},
    "heads that don't fill the model": {"shape": {**CALM, "d_kv": 5, "num_heads": 3}},
    "heads wider than the model": {"shape": {**CALM, "d_kv": 32, "num_heads": 6}},
    "few buckets": {
        "shape": {**CALM, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20},
    },
    "large epsilon": {"shape": {**CALM, "layer_norm_epsilon": 0.1}},
    **{
        f"{gate}{name}": {"shape": {**CALM, "feed_forward_proj": f"{gate}{name}"}}
        for gate in ("", "gated-")
        for name in ("relu", "gelu", "gelu_new", "silu")
    },
}
COSINE = {torch.float32: 0.999999, torch.bfloat16: 0.9999, torch.int8: 0.999}
INSTRUCTION = "Represent the statement: "


@pytest.fixture
def with_plain_products(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("packs_float", "packs_bfloat16", "packs_int8"):
        monkeypatch.setattr(onednn, name, lambda: False)
    for name in ("fits", "fits_bytes"):
        monkeypatch.setattr(panels, name, lambda _: False)


def random_ids(*lengths: int) -> list[TokenizedText]:
    generator = np.random.default_rng(0)
    return [TokenizedText(generator.integers(3, 1100, length).astype(np.int32), 0) for length in lengths]


def packed_encoder(folder: Path, dtype: torch.dtype) -> CpuEncoder:
    encoder = load_checkpoint(folder, pack=dtype).packed
    assert encoder is not None
    assert encoder.dtype == dtype
    return encoder


def states(encoder: CpuEncoder | T5Encoder, texts: Sequence[TokenizedText]) -> torch.Tensor:
    batch = pack(texts)
    with torch.inference_mode():
        out: torch.Tensor = encoder(batch.token_ids, batch.groups)
    return out


def vectors(folder: Path, texts: Sequence[str], dtype: torch.dtype) -> Any:
    return Instructor.from_pretrained(folder, device="cpu", dtype=dtype).encode(texts, INSTRUCTION)


class TestNumbers:
    @pytest.mark.parametrize("name", LAYOUTS)
    @pytest.mark.usefixtures("with_and_without_kernels")
    def test_of_every_layout(self, layout: Callable[[str], Path], sentences: list[str], name: str) -> None:
        folder, texts = layout(name), ["", "the", *sentences[::300]]
        plain = load_checkpoint(folder)
        reference = plain.encoder.float().eval()
        ids = random_ids(1, 2, 9, 40, 40, 180)
        exact = states(reference, ids)
        torch.testing.assert_close(states(packed_encoder(folder, torch.float32), ids), exact, atol=1e-5, rtol=1e-5)
        expected = vectors(folder, texts, torch.float32)
        for dtype in (torch.bfloat16, torch.int8):
            cosines = (vectors(folder, texts, dtype) * expected).sum(1)
            assert cosines.mean() >= COSINE[dtype], dtype
            assert cosines.min() >= COSINE[dtype] - 1e-3, dtype

    @pytest.mark.parametrize("dtype", CPU_DTYPES)
    @pytest.mark.parametrize("name", ["calm", "gated-gelu_new", "silu"])
    @pytest.mark.usefixtures("with_plain_products")
    def test_with_plain_products(
        self, layout: Callable[[str], Path], name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = random_ids(1, 9, 40, 40, 180)
        fallen_back = states(packed_encoder(layout(name), dtype), ids)
        monkeypatch.undo()
        packed = states(packed_encoder(layout(name), dtype), ids)
        cosine = torch.cosine_similarity(fallen_back.double(), packed.double(), dim=-1).min()
        assert cosine >= {torch.float32: 0.9999999, torch.bfloat16: 0.9999, torch.int8: 0.99999}[dtype]

    @pytest.mark.parametrize("dtype", CPU_DTYPES)
    def test_of_a_text_do_not_depend_on_its_company(self, layout: Callable[[str], Path], dtype: torch.dtype) -> None:
        encoder = packed_encoder(layout("calm"), dtype)
        texts = random_ids(7, 7, 30, 120)
        together = states(encoder, texts).split([7, 7, 30, 120])
        alone = [states(encoder, [text]) for text in texts]
        for a, b in zip(together, alone, strict=True):
            if kernels.available() and not (dtype == torch.bfloat16 and onednn.packs_bfloat16()):
                assert torch.equal(a, b)
            elif dtype == torch.float32:
                torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
            assert torch.cosine_similarity(a, b, dim=-1).min() >= COSINE[dtype]

    @pytest.mark.parametrize("dtype", CPU_DTYPES)
    @pytest.mark.parametrize("name", ["calm", "gelu", "silu", "gated-gelu"])
    def test_of_one_call_for_all_layers_are_those_of_the_blocks(
        self, layout: Callable[[str], Path], name: str, dtype: torch.dtype
    ) -> None:
        encoder = packed_encoder(layout(name), dtype)
        by_kernels = {torch.int8: panels.ByteProduct}.get(dtype, panels.FloatProduct)
        whole = name in ("calm", "gelu") and isinstance(encoder._blocks[0]._qkv._product, by_kernels)
        assert (encoder._compiled is not None) == whole
        for lengths in ((1,), (300,), (COMPILED_ROWS_AT_ONCE,) * 2, (*range(30), *(50,) * 10, 200)):
            texts = random_ids(*lengths)
            encoder._compiled = _compiled(encoder.config, encoder._blocks)
            found = states(encoder, texts)
            encoder._compiled = None
            expected = states(encoder, texts)
            if dtype == torch.int8:
                assert torch.equal(found, expected)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    def test_of_a_row_of_zeros_and_of_one_large_element(self) -> None:
        weight, scale = quantised(torch.randn(6, 16))
        rows = torch.zeros(2, 16)
        rows[1, 3] = 1e30
        values, factor = Int8Linear(weight, scale)(rows.clone())
        assert factor is not None
        expected = rows @ dequantised(weight, scale).T
        torch.testing.assert_close(values * factor, expected, rtol=1e-3, atol=0)

    @pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_new", "silu"])
    def test_after_an_activation_have_more_levels(self, activation: str) -> None:
        torch.manual_seed(0)
        weight, scale = quantised(torch.randn(50, 300))
        before = torch.randn(40, 300) * 2
        rows = ACTIVATIONS[activation](before)
        exact = rows.double() @ dequantised(weight, scale).double().T
        errors = []
        for follows in (None, activation):
            values, factor = Int8Linear(weight, scale, follows=follows)(
                before.clone() if follows not in (None, "relu") else rows.clone()
            )
            assert factor is not None
            errors.append(float((values * factor - exact).square().mean().sqrt()))
        assert errors[1] < 0.7 * errors[0]


class TestState:
    @pytest.mark.parametrize("name", ["calm", "gated-gelu_new"])
    @pytest.mark.parametrize("dtype", CPU_DTYPES)
    @pytest.mark.usefixtures("with_and_without_kernels")
    def test_gives_back_the_weights(self, layout: Callable[[str], Path], name: str, dtype: torch.dtype) -> None:
        original = load_checkpoint(layout(name)).encoder.state_dict()
        state = packed_encoder(layout(name), dtype).state_dict()
        widened = float_state(state)
        assert widened.keys() == original.keys()
        for key, weight in original.items():
            tolerance = {torch.float32: 0.0, torch.bfloat16: 0.01, torch.int8: 0.01}[dtype] * float(weight.abs().max())
            assert float((widened[key] - weight).abs().max()) <= tolerance, key
        again = CpuEncoder(load_checkpoint(layout(name)).encoder.config, dict(state), dtype).state_dict()
        assert all(torch.equal(again[key], tensor) for key, tensor in state.items())

    @pytest.mark.parametrize("dtype", CPU_DTYPES)
    def test_survives_pickling_and_copying(self, layout: Callable[[str], Path], dtype: torch.dtype) -> None:
        encoder, ids = packed_encoder(layout("calm"), dtype), random_ids(5, 12)
        for other in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
            assert torch.equal(states(other, ids), states(encoder, ids))

    def test_of_a_module_is_left_alone(self, layout: Callable[[str], Path], sentences: list[str]) -> None:
        checkpoint = load_checkpoint(layout("calm"))
        before = {name: tensor.clone() for name, tensor in checkpoint.encoder.state_dict().items()}
        checkpoint.encoder.train()
        Instructor.from_checkpoint(checkpoint, device="cpu", dtype="int8").encode(sentences[:3])
        assert checkpoint.encoder.training
        assert all(parameter.requires_grad for parameter in checkpoint.encoder.parameters())
        assert all(torch.equal(before[name], tensor) for name, tensor in checkpoint.encoder.state_dict().items())


class TestNotFinite:
    def test_weights_are_refused_by_int8(self, layout: Callable[[str], Path]) -> None:
        checkpoint = load_checkpoint(layout("calm"))
        checkpoint.encoder.get_parameter("blocks.1.feed_forward.wi.weight").data[3, 3] = float("nan")
        with pytest.raises(CheckpointError, match="hold inf or NaN, which int8 can't"):
            Instructor.from_checkpoint(checkpoint, device="cpu", dtype="int8")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.usefixtures("with_and_without_kernels")
    def test_weights_are_not_hidden_by_a_fused_relu(self, value: float) -> None:
        weight = torch.randn(32, 16)
        weight[2, 5] = value
        out, _ = FloatLinear(weight, "relu")(torch.zeros(3, 16))
        assert out[:, 2].isnan().all()


def test_int8_elsewhere_than_on_a_cpu(layout: Callable[[str], Path]) -> None:
    checkpoint = load_checkpoint(layout("calm"))
    with pytest.raises(ValueError, match='"int8" is for CPUs; on meta take "bfloat16"'):
        EncodingEngine(checkpoint.encoder, checkpoint.head, torch.device("meta"), torch.int8)


class TestSaved:
    @pytest.fixture
    def model(self, layout: Callable[[str], Path]) -> Instructor:
        return Instructor.from_pretrained(layout("calm"), device="cpu", dtype="bfloat16")

    def test_bfloat16_and_float32_are_the_published_layout(
        self, layout: Callable[[str], Path], sentences: list[str], tmp_path: Path
    ) -> None:
        for name in ("float32", "bfloat16"):
            model = Instructor.from_pretrained(layout("gated-gelu_new"), device="cpu", dtype=name)
            model.save_pretrained(tmp_path / name)
            stored = load_file(tmp_path / name / "model.safetensors")
            assert str(stored["encoder.block.0.layer.0.SelfAttention.q.weight"].dtype) == f"torch.{name}"
            again = Instructor.from_pretrained(tmp_path / name, device="cpu", dtype=name)
            np.testing.assert_array_equal(again.encode(sentences[:5]), model.encode(sentences[:5]))


@needs_proc
@pytest.mark.parametrize(
    ("dtype", "share"), [("float32", 1.0), ("bfloat16", 0.75 if onednn.packs_bfloat16() else 1.25), ("int8", 0.5)]
)
def test_loading_takes_the_memory_of_the_packed_matrices(
    make_checkpoint: Callable[..., Path], dtype: str, share: float
) -> None:
    folder = make_checkpoint(shape={"d_model": 512, "d_kv": 64, "num_heads": 8, "d_ff": 2048, "num_layers": 10})
    script = """
import sys
from anytask import Instructor

Instructor.from_pretrained(sys.argv[2], device="cpu", dtype=sys.argv[1])
before = peak()
Instructor.from_pretrained(sys.argv[3], device="cpu", dtype=sys.argv[1])
print(peak() - before)
"""
    small = make_checkpoint()
    done = subprocess.run(
        [sys.executable, "-c", PEAK + script, dtype, small, folder], capture_output=True, text=True, check=True
    )
    stored = (folder / "model.safetensors").stat().st_size
    on_the_way = 4 * 512 * 2048 * 4
    assert int(done.stdout) < share * stored + on_the_way


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's heap")
@pytest.mark.parametrize("threads", [1, 2])
def test_steps_take_the_memory_of_those_before(threads: int) -> None:
    script = """
import resource, sys
import torch
from anytask import Instructor

torch.set_num_threads(int(sys.argv[1]))
model = Instructor.from_pretrained("mini", device="cpu")
texts = [f"Text {n} of a few words, which is not long" for n in range(64)]
for _ in range(5):
    model.encode(texts)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    model.encode(texts)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
"""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", script, str(threads)], env=plain, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 2500
