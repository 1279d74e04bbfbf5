"""Checkpoints of int8 matrices: written, read without float weights, refused by others, damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import T5EncoderModel

from anytask import CheckpointError, Embedder, Instructor
from anytask.checkpoint import load_checkpoint
from anytask.hub import needed_files
from anytask.weights import INT8_FILE

INSTRUCTION = "Represent the statement: "
MATRIX = "encoder.block.1.layer.1.DenseReluDense.wo.weight"


@pytest.fixture(scope="module", params=["relu", "gated-gelu"])
def source(request: pytest.FixtureRequest, make_checkpoint: Callable[..., Path]) -> Path:
    shape = {"initializer_factor": 1.0, "d_model": 64, "d_ff": 128, "feed_forward_proj": request.param}
    return make_checkpoint(shape=shape, prompts={"query": "Represent the test question: "})


@pytest.fixture(scope="module")
def model(source: Path) -> Instructor:
    return Instructor.from_pretrained(source, device="cpu", dtype="int8")


@pytest.fixture(scope="module")
def saved(model: Instructor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / INT8_FILE)
    change(tensors)
    save_file(tensors, folder / INT8_FILE)


def assert_refused(folder: Path, *parts: str) -> None:
    for dtype in ("float32", "float16"):
        with pytest.raises(CheckpointError) as refused:
            Instructor.from_pretrained(folder, device="cpu", dtype=dtype)
        assert all(part in str(refused.value) for part in parts), refused.value


class TestSaved:
    def test_holds_bytes_and_scales(self, saved: Path) -> None:
        assert not (saved / "model.safetensors").exists()
        stored = load_file(saved / INT8_FILE)
        matrices = [name for name in stored if f"{name}_scale" in stored]
        assert len(matrices) in (3 * 6, 3 * 7)
        assert all(stored[name].dtype == torch.int8 for name in matrices)
        assert not any(stored[name].dtype == torch.int8 for name in stored if name not in matrices)
        assert json.loads((saved / "config.json").read_text())["quantization_config"] == {
            "quant_method": "anytask-int8"
        }
        assert INT8_FILE in needed_files([INT8_FILE, "config.json", "openvino_model.bin"])

    @pytest.mark.parametrize("dtype", [None, "int8"])
    def test_loads_as_it_was(self, saved: Path, model: Instructor, sentences: list[str], dtype: str | None) -> None:
        again = Instructor.from_pretrained(saved, device="cpu", dtype=dtype)
        assert again.dtype == torch.int8
        assert again.query_instruction == model.query_instruction
        np.testing.assert_array_equal(
            again.encode(sentences[:20], INSTRUCTION), model.encode(sentences[:20], INSTRUCTION)
        )

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    def test_loads_in_a_float(self, saved: Path, model: Instructor, sentences: list[str], dtype: str) -> None:
        wide = Instructor.from_pretrained(saved, device="cpu", dtype=dtype)
        assert wide.dtype == getattr(torch, dtype)
        cosines = (wide.encode(sentences[:20]) * model.encode(sentences[:20])).sum(1)
        assert cosines.min() >= 0.999
        plain = load_checkpoint(saved).encoder
        assert {parameter.dtype for parameter in plain.parameters()} <= {torch.float32, torch.bfloat16}
        assert plain.blocks[0].attention.qkv.weight.dtype == torch.float32  # type: ignore[union-attr]

    def test_saves_again(self, saved: Path, tmp_path: Path) -> None:
        Instructor.from_pretrained(saved, device="cpu").save_pretrained(tmp_path / "again")
        for name in (INT8_FILE, "config.json"):
            assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()

    def test_saves_in_a_float(self, saved: Path, tmp_path: Path, sentences: list[str]) -> None:
        wide = Instructor.from_pretrained(saved, device="cpu", dtype="float16")
        wide.save_pretrained(tmp_path / "wide")
        assert "quantization_config" not in json.loads((tmp_path / "wide" / "config.json").read_text())
        theirs = SentenceTransformer(str(tmp_path / "wide"), device="cpu", model_kwargs={"dtype": "float32"})
        cosines = (theirs.encode(sentences[:5], normalize_embeddings=True) * wide.encode(sentences[:5])).sum(1)
        assert cosines.min() >= 0.999

    def test_through_an_embedder(self, source: Path, model: Instructor, sentences: list[str]) -> None:
        embedder = Embedder(model=str(source), device="cpu", dtype="int8")
        expected = model.encode_document(sentences[:3])
        np.testing.assert_array_equal(embedder.embed_documents(sentences[:3]), expected)

    def test_is_refused_by_others(self, saved: Path) -> None:
        with pytest.raises(OSError, match=r"no file named model\.safetensors"):
            T5EncoderModel.from_pretrained(saved)
        with pytest.raises(OSError, match=r"no file named model\.safetensors"):
            SentenceTransformer(str(saved), device="cpu")


class TestDamaged:
    @pytest.mark.parametrize("kept", [0, 7, 500, -1, -400])
    def test_truncated(self, folder: Path, kept: int) -> None:
        path = folder / INT8_FILE
        path.write_bytes(path.read_bytes()[:kept])
        assert_refused(folder, INT8_FILE, "can't be read as weights", "Download it again")

    def test_missing(self, folder: Path) -> None:
        (folder / INT8_FILE).unlink()
        assert_refused(folder, f"no {INT8_FILE} in", "download the folder again")

    def test_without_its_mark(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        del config["quantization_config"]
        (folder / "config.json").write_text(json.dumps(config))
        assert_refused(folder, "no weights of the encoder", "expected model.safetensors")
        (folder / INT8_FILE).rename(folder / "model.safetensors")
        assert_refused(folder, "as torch.int8", "as it was before quantisation")

    def test_float_matrices(self, folder: Path) -> None:
        edit_weights(folder, lambda tensors: tensors.update({MATRIX: tensors[MATRIX].float()}))
        assert_refused(folder, f"holds {MATRIX} as torch.float32", "says that its matrices are int8")

    @pytest.mark.parametrize("name", [MATRIX, f"{MATRIX}_scale", "shared.weight"])
    def test_a_tensor_is_missing(self, folder: Path, name: str) -> None:
        edit_weights(folder, lambda tensors: tensors.pop(name))
        assert_refused(folder, "lacks the tensor", name)

    @pytest.mark.parametrize(
        "scale",
        [
            torch.ones(()),
            torch.ones(3),
            torch.ones(64, 1),
            torch.full((64,), float("nan")),
            torch.ones(64, dtype=torch.int8),
        ],
    )
    def test_other_scales(self, folder: Path, scale: torch.Tensor) -> None:
        edit_weights(folder, lambda tensors: tensors.update({f"{MATRIX}_scale": scale}))
        assert_refused(folder, "_scale")

    def test_matrices_of_another_shape(self, folder: Path) -> None:
        edit_weights(folder, lambda tensors: tensors.update({MATRIX: tensors[MATRIX][:, :-1].contiguous()}))
        assert_refused(folder, "size mismatch")


def test_saved_in_floats_others_load_an_int8_model(model: Instructor, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "floats", dtype="float32")
    texts = ["a statement", "another one that is longer than the first"]
    ours = Instructor.from_pretrained(tmp_path / "floats", device="cpu")
    assert ours.dtype == torch.float32
    theirs = SentenceTransformer(str(tmp_path / "floats"), device="cpu")
    vectors = ours.encode(texts, instruction=INSTRUCTION)
    np.testing.assert_allclose(theirs.encode(texts, prompt=INSTRUCTION), vectors, atol=1e-5)
    assert (vectors * model.encode(texts, instruction=INSTRUCTION)).sum(axis=1).min() > 0.99


def test_a_float_model_saved_in_int8_is_the_one_loaded_so(source: Path, model: Instructor, tmp_path: Path) -> None:
    Instructor.from_pretrained(source, device="cpu").save_pretrained(tmp_path / "int8", dtype="int8")
    again = Instructor.from_pretrained(tmp_path / "int8", device="cpu")
    assert again.dtype == torch.int8
    np.testing.assert_array_equal(
        again.encode("a statement", instruction=INSTRUCTION), model.encode("a statement", instruction=INSTRUCTION)
    )
