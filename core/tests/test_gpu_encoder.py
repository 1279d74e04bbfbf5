"""What runs on a GPU, on a CPU: attention over packed texts, transfers, step sizes; on a GPU too, if there is one.

Uncompiled, FlexAttention computes all scores of a step, so that steps are small here.
"""

from __future__ import annotations

import logging
import pickle
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anytask import Instructor, device_memory, gpu_encoder
from anytask.encoder import LengthGroup, T5Config, T5Encoder
from anytask.gpu_encoder import TILE, GpuEncoder, bias_by_distance, text_means, text_of_each_token, tiles_to_look_at
from anytask.pooling import mean_pool
from anytask.transfers import in_flight, to_device

pytestmark = pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile")
LENGTHS = [300, 257, 129, 128, 128, 127, 40, 40, 39, 17, 9, 5, 2, 1, 1]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def encoder_of(dtype: torch.dtype = torch.float32, **shape: Any) -> T5Encoder:
    config = T5Config(
        **{"vocab_size": 50, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 3, **shape}
    )
    torch.manual_seed(0)
    encoder = T5Encoder(config)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return encoder.to_precision(dtype).eval().requires_grad_(False)


def groups_of(lengths: Sequence[int]) -> list[LengthGroup]:
    groups, start = [], 0
    for length, same in groupby(lengths):
        count = len(list(same))
        groups.append(LengthGroup(start, count, length))
        start += count * length
    return groups


def batch_of(lengths: Sequence[int]) -> tuple[torch.Tensor, list[LengthGroup]]:
    return torch.randint(50, (sum(lengths),), generator=torch.Generator().manual_seed(1)), groups_of(lengths)


@pytest.fixture
def uncompiling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile traces layers and runs them as they are."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    gpu_encoder._compiled_layer.cache_clear()
    yield
    gpu_encoder._compiled_layer.cache_clear()
    torch._dynamo.reset()


class TestPackedAttention:
    @pytest.mark.parametrize(
        "shape", [{}, {"feed_forward_proj": "gated-gelu"}, {"relative_attention_max_distance": 20}]
    )
    def test_hidden_states_are_those_of_the_encoder(self, shape: dict[str, Any]) -> None:
        encoder, batch = encoder_of(**shape), batch_of(LENGTHS)
        with torch.inference_mode():
            packed = GpuEncoder(encoder, compile_after=0, compiled=False)(*batch)
            torch.testing.assert_close(packed, encoder(*batch), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.005)])
    def test_lower_precisions(self, dtype: torch.dtype, tolerance: float) -> None:
        encoder, batch = encoder_of(dtype), batch_of(LENGTHS)
        with torch.inference_mode():
            packed = GpuEncoder(encoder, compile_after=0, compiled=False)(*batch)
            torch.testing.assert_close(packed, encoder(*batch), atol=tolerance, rtol=0)

    def test_a_text_does_not_see_its_neighbours(self) -> None:
        encoder = GpuEncoder(encoder_of(), compile_after=0, compiled=False)
        token_ids, groups = batch_of(LENGTHS)
        with torch.inference_mode():
            before = encoder(token_ids, groups)
            changed = token_ids.clone()
            changed[:300] = 7  # the first text
            after = encoder(changed, groups)
        assert (before[:300] - after[:300]).abs().max() > 0.1
        torch.testing.assert_close(after[300:], before[300:], atol=1e-6, rtol=0)

    def test_compilation_waits_until_it_pays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        encoder, few, many = encoder_of(), batch_of([9] * 4), batch_of(LENGTHS)
        compiled: list[int] = []
        monkeypatch.setattr(gpu_encoder, "_compiled_layer", lambda: compiled.append(1) or gpu_encoder._layer)
        gpu = GpuEncoder(encoder, compile_after=2 * sum(LENGTHS))
        with torch.inference_mode():
            for batch in (few, many, few, many, few):
                gpu(*batch)
            assert not compiled
            gpu(*many)
            gpu(*few)
        assert len(compiled) == 1

    def test_a_compiler_that_fails_costs_speed_alone(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("no compiler found\nat great length")

        monkeypatch.setattr(gpu_encoder, "_compiled_layer", lambda: fail)
        encoder, batch = encoder_of(), batch_of(LENGTHS)
        gpu = GpuEncoder(encoder, compile_after=0)
        with torch.inference_mode(), caplog.at_level(logging.WARNING):
            for _ in range(2):
                torch.testing.assert_close(gpu(*batch), encoder(*batch))
        (record,) = caplog.records
        assert record.getMessage().endswith("slower: RuntimeError: no compiler found at great length")

    @pytest.mark.parametrize(
        ("error", "reported"),
        [
            (RuntimeError(), "RuntimeError"),
            (ValueError("\n\nbackend raised:\nno compiler"), "ValueError: backend raised: no compiler"),
        ],
    )
    def test_what_the_compiler_says_is_reported(
        self,
        error: Exception,
        reported: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("Hard failure due to fullgraph=True") from error

        monkeypatch.setattr(gpu_encoder, "_compiled_layer", lambda: fail)
        with torch.inference_mode(), caplog.at_level(logging.WARNING):
            GpuEncoder(encoder_of(), compile_after=0)(*batch_of(LENGTHS))
        assert caplog.messages[0].endswith(f"slower: {reported}")

    def test_the_failed_attempt_is_forgotten_before_the_next(self, monkeypatch: pytest.MonkeyPatch) -> None:
        attempts: list[weakref.ref[torch.Tensor]] = []
        by_length = GpuEncoder._by_length

        def fail(x: torch.Tensor, *_: object) -> None:
            attempts.append(weakref.ref(x))
            raise RuntimeError("no compiler found")

        def watched(encoder: GpuEncoder, *batch: Any) -> torch.Tensor:
            assert attempts[0]() is None
            return by_length(encoder, *batch)

        monkeypatch.setattr(gpu_encoder, "_compiled_layer", lambda: fail)
        monkeypatch.setattr(GpuEncoder, "_by_length", watched)
        with torch.inference_mode():
            GpuEncoder(encoder_of(), compile_after=0)(*batch_of(LENGTHS))

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("tried to allocate"), RuntimeError("CUDA out of memory")])
    def test_running_out_of_memory_is_not_taken_for_a_failing_compiler(
        self, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(gpu_encoder, "_compiled_layer", lambda: fail)
        gpu = GpuEncoder(encoder_of(), compile_after=0)
        for _ in range(2):
            with pytest.raises(type(error), match=str(error)):
                gpu(*batch_of(LENGTHS))

    @pytest.mark.usefixtures("uncompiling")
    def test_more_models_than_torch_keeps_versions_of_a_function(self) -> None:
        with torch.inference_mode(), torch._dynamo.config.patch(cache_size_limit=1):  # by default it is 8
            for width in (32, 48, 64):
                encoder, batch = encoder_of(d_model=width, num_layers=1), batch_of(LENGTHS)
                gpu = GpuEncoder(encoder, compile_after=0)
                torch.testing.assert_close(gpu(*batch), encoder(*batch), atol=1e-5, rtol=1e-5)
                assert gpu._packs

    @pytest.mark.usefixtures("uncompiling")
    def test_compilation_that_is_switched_off(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """All scores of a step would be computed."""
        monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
        encoder, batch = encoder_of(), batch_of(LENGTHS)
        gpu = GpuEncoder(encoder, compile_after=0)
        with torch.inference_mode(), caplog.at_level(logging.WARNING):
            torch.testing.assert_close(gpu(*batch), encoder(*batch))
        assert not gpu._packs
        assert "torch.compile is switched off" in caplog.text

    def test_attention_by_length_is_not_cudnns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        encoder, used = encoder_of(), []
        backends = torch.backends.cuda
        forward = encoder.forward

        def watched(*batch: Any) -> torch.Tensor:
            used.append((backends.cudnn_sdp_enabled(), backends.flash_sdp_enabled()))
            return forward(*batch)

        monkeypatch.setattr(encoder, "forward", watched)
        with torch.inference_mode():
            GpuEncoder(encoder)(*batch_of(LENGTHS))
        assert used == [(False, True)]  # flash is a CPU's
        assert backends.cudnn_sdp_enabled()

    @pytest.mark.slow
    def test_compiled(self) -> None:
        encoder, batch = encoder_of(), batch_of(LENGTHS)
        gpu = GpuEncoder(encoder, compile_after=0)
        with torch.inference_mode():
            torch.testing.assert_close(gpu(*batch), encoder(*batch), atol=1e-5, rtol=1e-5)
        assert gpu._packs

    def test_pickling(self) -> None:
        gpu, batch = GpuEncoder(encoder_of(), compile_after=0, compiled=False), batch_of(LENGTHS)
        with torch.inference_mode():
            assert torch.equal(pickle.loads(pickle.dumps(gpu))(*batch), gpu(*batch))


class TestParts:
    def test_the_bias_is_the_encoders(self) -> None:
        encoder = encoder_of()
        whole = encoder._compute_position_bias(300)  # [H, query, key]
        by_distance = bias_by_distance(encoder.config, encoder.relative_attention_bias.weight)
        furthest = by_distance.shape[1] // 2
        for query, key in [(0, 0), (0, 1), (5, 0), (0, 127), (0, 128), (0, 299), (299, 0), (150, 20)]:
            place = min(max(key - query, -furthest), furthest) + furthest
            assert torch.equal(by_distance[:, place], whole[:, query, key])

    @pytest.mark.parametrize("lengths", [LENGTHS, [1] * 300, [1000], [TILE] * 3, [3 * TILE, TILE, 1]])
    def test_tiles_cover_what_texts_share_and_no_more(self, lengths: list[int]) -> None:
        text_of = text_of_each_token(groups_of(lengths), -sum(lengths) % TILE)
        counts, indices = tiles_to_look_at(text_of)
        tiles = text_of.reshape(-1, TILE)
        for query, texts in enumerate(tiles):
            shared = [key for key, others in enumerate(tiles) if np.isin(texts, others).any()]
            assert indices[query][: counts[query]].tolist() == shared

    def test_pooling(self) -> None:
        hidden, groups = torch.randn(sum(LENGTHS), 8), groups_of(LENGTHS)
        mask = (torch.rand(sum(LENGTHS)) < 0.7).float()
        mask[torch.tensor(LENGTHS).cumsum(0) - 1] = 1.0  # the end token
        torch.testing.assert_close(text_means(hidden, mask, groups), mean_pool(hidden, mask, groups))

    def test_steps_are_launched_before_the_first_is_waited_for(self) -> None:
        launched: list[int] = []

        def launch(step: int) -> torch.Tensor:
            launched.append(step)
            return torch.tensor([step])

        returned = []
        for step, result in in_flight(launch, range(6)):
            returned.append((step, int(result)))
            assert len(launched) == min(step + 3, 6)
        assert returned == [(step, step) for step in range(6)]
        assert list(in_flight(launch, [])) == []

    def test_a_copy_to_a_cpu_is_no_copy(self) -> None:
        tensor = torch.arange(3)
        assert to_device(tensor, torch.device("cpu")) is tensor


class TestStepSize:
    BASE = T5Config(vocab_size=32_128, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
    XL = T5Config(vocab_size=32_128, d_model=1024, d_kv=128, d_ff=16_384, num_layers=24, num_heads=32)

    def tokens(self, monkeypatch: pytest.MonkeyPatch, free: int | None, config: T5Config, dtype: torch.dtype) -> int:
        monkeypatch.setattr(device_memory, "_free_bytes", lambda _: free)
        return device_memory.batch_tokens(config, torch.device("cuda"), dtype)

    def test_follows_the_free_memory_and_the_shape(self, monkeypatch: pytest.MonkeyPatch) -> None:
        half = 1 << 29
        base = self.tokens(monkeypatch, half, self.BASE, torch.bfloat16)
        large = self.tokens(monkeypatch, half, self.XL, torch.bfloat16)
        assert 1024 < large < base < 65_536
        assert base * device_memory.bytes_per_token(self.BASE, torch.bfloat16) < half
        assert self.tokens(monkeypatch, half // 2, self.BASE, torch.bfloat16) == pytest.approx(base / 2, rel=0.01)
        assert self.tokens(monkeypatch, half, self.BASE, torch.float32) < base
        assert self.tokens(monkeypatch, half, self.XL, torch.float16) < large

    def test_its_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.tokens(monkeypatch, 0, self.XL, torch.float32) == 1024
        assert self.tokens(monkeypatch, 1 << 40, self.BASE, torch.bfloat16) == 65_536
        assert self.tokens(monkeypatch, None, self.BASE, torch.bfloat16) == 16_384

    def test_on_a_cpu_it_follows_the_widest_activation(self) -> None:
        sizes = [
            device_memory.batch_tokens(config, torch.device("cpu"), torch.float32) for config in (self.BASE, self.XL)
        ]
        assert sizes == [704, 256]

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (torch.OutOfMemoryError("tried to allocate"), True),
            (RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, max allowed: 9.07 GB)"), True),
            (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
            (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
            (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
            (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
            (RuntimeError("CUDA error: device-side assert triggered"), False),
            (RuntimeError("out of resource: shared memory, Required: 232448, Hardware limit: 101376"), False),
            (ValueError("out of memory"), False),
        ],
    )
    def test_what_says_that_it_was_too_large(self, error: Exception, expected: bool) -> None:
        assert device_memory.is_out_of_memory(error) is expected


class TestEngine:
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, make_checkpoint: Callable[..., Path]) -> Path:
        return make_checkpoint(shape={"d_kv": 16, "initializer_factor": 1.0})

    def test_on_the_cpu(self, folder: Path, sentences: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """The engine's way of a GPU, on a device that is none."""
        expected = Instructor.from_pretrained(folder, device="cpu")
        model = Instructor.from_pretrained(folder, device="cpu")
        wide = T5Encoder(model._engine.encoder.config)
        wide.load_state_dict(model._engine.encoder.state_dict())
        model._engine.encoder = GpuEncoder(wide.eval().requires_grad_(False), compile_after=0, compiled=False)
        packed: list[int] = []
        packs = GpuEncoder._packed

        def watched(encoder: GpuEncoder, token_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
            packed.append(len(token_ids))
            return packs(encoder, token_ids, *rest)

        monkeypatch.setattr(GpuEncoder, "_packed", watched)
        texts = ["", "the", *sentences[:60]]
        np.testing.assert_allclose(
            model.encode(texts, "Represent: ", batch_tokens=700), expected.encode(texts, "Represent: "), atol=1e-5
        )
        assert len(packed) > 1

    @needs_gpu
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    def test_on_a_gpu(self, folder: Path, sentences: list[str], dtype: str) -> None:
        expected = Instructor.from_pretrained(folder, device="cpu").encode(sentences[:300])
        model = Instructor.from_pretrained(folder, device="cuda", dtype=dtype)
        for compile_after in (1 << 40, 0):
            assert isinstance(model._engine.encoder, GpuEncoder)
            model._engine.encoder._uncompiled_tokens_left = compile_after
            for batch_tokens in (None, 2000):
                vectors = model.encode(sentences[:300], batch_tokens=batch_tokens)
                assert (vectors * expected).sum(1).min() > (0.99999 if dtype == "float32" else 0.999)
            assert model._engine.encoder._packs

    @needs_gpu
    def test_many_threads(self, folder: Path, sentences: list[str]) -> None:
        model = Instructor.from_pretrained(folder, device="cuda")
        expected = model.encode(sentences[:300])
        with ThreadPoolExecutor(8) as threads:
            large = [threads.submit(model.encode, sentences[:300], batch_tokens=2000) for _ in range(8)]
            small = [threads.submit(model.encode, text) for text in sentences[:50]]
            for call in large:
                np.testing.assert_allclose(call.result(), expected, atol=1e-4)
            np.testing.assert_allclose(np.stack([call.result() for call in small]), expected[:50], atol=1e-4)

    @needs_gpu
    def test_every_gpu(self, folder: Path, sentences: list[str]) -> None:
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        with Instructor.from_pretrained(folder, device="cuda") as model:
            vectors = model.encode(sentences[:300], device=devices)
            np.testing.assert_allclose(vectors, model.encode(sentences[:300]), atol=1e-4)
