"""Compiling the kernels, and what they compute on processors with narrower vectors than this one's."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from anytask import kernels
from anytask.cpu_attention import DistanceBias, step_attention
from anytask.cpu_encoder import CpuEncoder
from anytask.encoder import LengthGroup, T5Config, T5Encoder
from anytask.kernels import building
from anytask.linear import quantised
from anytask.products import byte_product, float_product, onednn
from anytask.row_codes import RowCodes

needs_compiler = pytest.mark.skipif(not kernels.available(), reason="the kernels aren't compiled for this processor")
CORE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    building.build(folder)
    return folder


def numbers() -> list[torch.Tensor]:
    """What every kernel makes of the same rows."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(21 + 2 * 40, 3 * 4 * 24, generator=generator)
    factor = torch.rand(len(rows), 1, generator=generator) + 0.5
    config = T5Config(vocab_size=10, d_model=24, d_kv=24, d_ff=32, num_layers=1, num_heads=4)
    bias = DistanceBias(config, torch.randn(32, 4, generator=generator), 40)
    attention = step_attention(config, [LengthGroup(0, 1, 21), LengthGroup(21, 2, 40)], bias)
    plain, normed = RowCodes(), RowCodes().normed(rows.clone(), rows[0], 1e-6)
    quantised, activated = plain(rows.clone()), RowCodes("gelu").activated(rows.clone(), factor)
    rows_of_codes = (codes * step for codes, step in (quantised, activated, normed))
    few = rows[:20], factor[:20]
    return [
        *(attention(rows.clone(), factor), *rows_of_codes),
        *(*products(rows, factor, generator), *products(*few, generator), *layers(generator)),
    ]


def products(rows: torch.Tensor, factor: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
    matrix = torch.randn(96, rows.shape[1], generator=generator)
    weight, scale = quantised(matrix)
    bytes_of_rows, _ = RowCodes()(rows.clone())
    floats = [
        float_product(weight, activation)(rows.clone(), factor)
        for weight, activation in ((matrix, None), (matrix, "relu"), (matrix, "gelu"), (matrix.bfloat16(), "silu"))
    ]
    return [*floats, byte_product(weight, scale, zero=128, relu=True)(bytes_of_rows)]


def layers(generator: torch.Generator) -> list[torch.Tensor]:
    """In floats: a byte that is rounded the other way changes what follows."""
    config = T5Config(vocab_size=10, d_model=64, d_kv=24, d_ff=160, num_layers=2, num_heads=4, feed_forward_proj="gelu")
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in T5Encoder(config).state_dict().items()}
    state = {name: torch.randn(shape, generator=generator) / 8 for name, shape in shapes.items()}
    ids, groups = torch.arange(63) % 10, [LengthGroup(0, 3, 7), LengthGroup(21, 1, 42)]
    return [CpuEncoder(config, dict(state), dtype)(ids, groups) for dtype in (torch.float32, torch.bfloat16)]


@needs_compiler
@pytest.mark.parametrize("level", building.LEVELS)
def test_processors_of_every_level_get_the_same_numbers(
    level: str, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if level == "x86-64-v4" and not torch.cpu._is_avx512_supported():
        pytest.skip("this processor has no AVX-512")
    monkeypatch.setattr(onednn, "packs_bfloat16", lambda: False)
    monkeypatch.setattr(kernels, "multiplies_bytes", lambda: level == "x86-64-v4" and torch.cpu._is_vnni_supported())
    found = kernels.bound(ctypes.CDLL(str(building.library(level, built))))
    monkeypatch.setattr(kernels, "_kernels", lambda: found)
    compiled = numbers()
    monkeypatch.setattr(kernels, "_kernels", lambda: None)
    monkeypatch.setattr(kernels, "multiplies_bytes", lambda: False)
    for ours, theirs in zip(compiled, numbers(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@needs_compiler
def test_threads_share_the_work_of_large_calls() -> None:
    """In a process of its own, which may have more threads than processors."""
    script = """
import torch
from anytask import kernels
from anytask.cpu_attention import DistanceBias, step_attention
from anytask.cpu_encoder import CpuEncoder
from anytask.encoder import LengthGroup, T5Config, T5Encoder
from anytask.kernels.structures import Codes

assert kernels.available()
config = T5Config(vocab_size=10, d_model=64, d_kv=32, d_ff=96, num_layers=2, num_heads=5)
state = {name: torch.randn(weight.shape) / 8 for name, weight in T5Encoder(config).state_dict().items()}
encoders = [CpuEncoder(config, dict(state), dtype) for dtype in (torch.float32, torch.int8)]
bias = DistanceBias(config, torch.randn(32, 5), 203)
rows = torch.randn(203 + 3 * 40 + 7, 480)
ids = torch.randint(10, (len(rows),))
groups = [LengthGroup(0, 1, 203), LengthGroup(203, 3, 40), LengthGroup(323, 1, 7)]

def numbers():
    factor = torch.linspace(0.5, 1.5, len(rows)).view(-1, 1)
    return [
        step_attention(config, groups, bias)(rows, factor), *kernels.quantise(rows, Codes(128, 1e-30)),
        *kernels.quantise_gelu(rows, factor, Codes(32, 0.005)),
        *kernels.quantise_normed(rows, rows[0], 1e-6, Codes(128, 1e-30)),
        *(encoder(ids, groups) for encoder in encoders),
    ]

torch.set_num_threads(1)
alone = numbers()
torch.set_num_threads(7)
assert all(map(torch.equal, numbers(), alone))
with open("/proc/self/status") as status:
    print(next(line for line in status if line.startswith("Threads:")).split()[1])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 7


@needs_compiler
def test_those_of_other_sources_are_not_used_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    building.build(tmp_path)
    first = set(tmp_path.iterdir())
    (tmp_path / "other").touch()
    monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, "-DCHANGED"))
    assert not building.library("x86-64-v3", tmp_path).exists()
    again = building.build(tmp_path)
    assert set(tmp_path.iterdir()) == {*again, tmp_path / "other"}
    assert not first & set(again)


def test_what_a_compiler_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho no such option >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(building.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(OSError, match="compiler can't compile the kernels:\nno such option"):
        building.build(tmp_path)
    monkeypatch.setenv("CC", "missing-compiler")
    with pytest.raises(OSError, match="no C compiler; looked for missing-compiler"):
        building.build(tmp_path)
    monkeypatch.setattr(building.platform, "machine", lambda: "arm64")
    with pytest.raises(OSError, match="for Linux on x86-64 processors, not"):
        building.build(tmp_path)
    assert list(tmp_path.iterdir()) == [compiler]


@needs_compiler
def test_a_library_that_cannot_be_loaded_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(kernels, "library", lambda _: broken)
    assert kernels._kernels.__wrapped__() is None
    assert "the compiled kernels can't be used, which costs speed: " in caplog.text


class TestPackage:
    def built(self, tmp_path: Path, **environment: str) -> tuple[str, list[str]]:
        copy = tmp_path / "core"
        shutil.copytree(CORE, copy, ignore=shutil.ignore_patterns("_kernels-*", "tests", "benchmarks", "models"))
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
        subprocess.run(command, cwd=copy, check=True, capture_output=True, env={**os.environ, **environment})
        (wheel,) = (tmp_path / "dist").iterdir()
        return wheel.name, zipfile.ZipFile(wheel).namelist()

    @needs_compiler
    def test_has_the_kernels(self, tmp_path: Path) -> None:
        name, files = self.built(tmp_path)
        assert "-py3-none-" in name
        assert not name.endswith("-any.whl")
        compiled = [Path(file).name for file in files if "_kernels-" in file]
        assert sorted(compiled) == sorted(building.library(level).name for level in building.LEVELS)

    def test_works_without_a_compiler(self, tmp_path: Path) -> None:
        name, files = self.built(tmp_path, CC="missing-compiler")
        assert name.endswith("-py3-none-any.whl")
        assert not any("_kernels-" in file for file in files)
        assert "anytask/kernels/rows.c" in files
