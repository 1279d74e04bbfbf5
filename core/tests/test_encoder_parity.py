"""The encoder and the whole model against transformers' T5EncoderModel and sentence-transformers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import MT5Config, MT5EncoderModel, T5Config, T5EncoderModel, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from anytask import Instructor
from anytask.batching import TokenizedText, pack
from anytask.checkpoint import load_checkpoint
from anytask.encoder import ACTIVATIONS, relative_position_bucket

INSTRUCTION = "Represent the statement: "
LENGTHS = (1, 2, 3, 8, 31, 129, 300, 700)
CALM = {"initializer_factor": 1.0}
"""Attention as even as a trained model's; the fixtures' default is so sharp that bfloat16 picks other tokens."""
LAYOUTS: dict[str, dict[str, Any]] = {
    "base": {},
    "calm": {"shape": CALM},
    "calm, gated": {"shape": {**CALM, "feed_forward_proj": "gated-gelu"}},
    "calm, wide heads": {"shape": {**CALM, "d_kv": 32, "num_heads": 6}},
    "safetensors in a folder": {"transformer_path": "0_Transformer"},
    "bin": {"weights": "bin"},
    "bin in a folder": {"weights": "bin", "transformer_path": "0_Transformer"},
    "no dense layer": {"dense": None},
    "wider dense layer": {"dense": 80},
    "heads that don't fill the model": {"shape": {"d_kv": 5, "num_heads": 3}},
    "heads wider than the model": {"shape": {"d_kv": 32, "num_heads": 6}},
    "one layer, one head": {"shape": {"num_layers": 1, "num_heads": 1}},
    "few buckets": {"shape": {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20}},
    "many buckets": {"shape": {"relative_attention_num_buckets": 64, "relative_attention_max_distance": 300}},
    "large epsilon": {"shape": {"layer_norm_epsilon": 0.1}},
    **{
        f"{gate}{name}": {"shape": {"feed_forward_proj": f"{gate}{name}"}}
        for gate, name in itertools.product(("", "gated-"), ACTIVATIONS)
    },
}


@pytest.fixture(scope="session")
def texts(sentences: list[str]) -> list[str]:
    """From no word to far beyond 512 tokens."""
    everything = " ".join(sentences[:80])
    return ["", "the", "How", *sentences[::400][:4], everything[:600], everything[:2900]]


def random_ids(lengths: Sequence[int], vocab_size: int = 1100) -> list[TokenizedText]:
    generator = np.random.default_rng(0)
    return [TokenizedText(generator.integers(3, vocab_size, length).astype(np.int32), 0) for length in lengths]


@torch.inference_mode()
def states(folder: Path, texts: Sequence[TokenizedText], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Our token states, all texts in one packed batch."""
    encoder = load_checkpoint(folder).encoder.to_precision(dtype).eval()
    packed = pack(texts)
    hidden = encoder(packed.token_ids, packed.groups)
    return list(hidden.split([len(text.ids) for text in texts]))


@torch.inference_mode()
def transformers_states(
    folder: Path, texts: Sequence[TokenizedText], kind: type[T5EncoderModel] = T5EncoderModel
) -> list[torch.Tensor]:
    """transformers' token states, one text at a time."""
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    return [model(torch.from_numpy(text.ids.astype(np.int64))[None]).last_hidden_state[0] for text in texts]


def smallest_cosine(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return min(float(torch.cosine_similarity(a.double(), b.double(), dim=-1).min()) for a, b in pairs)


def assert_same_states(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> None:
    assert smallest_cosine(ours, theirs) >= 0.99999
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=2e-4)


def their_vectors(model: SentenceTransformer, texts: Sequence[str], instruction: str) -> npt.NDArray[np.float32]:
    vectors: npt.NDArray[np.float32] = model.encode(
        [text.strip() for text in texts], prompt=instruction, batch_size=4, normalize_embeddings=True
    )
    return vectors


def assert_same_vectors(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> None:
    assert ours.shape == theirs.shape
    assert (ours.astype(np.float64) * theirs).sum(axis=1).min() >= 0.99999
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


class TestTokenStates:
    @pytest.mark.parametrize("name", LAYOUTS)
    def test_of_every_layout(self, layout: Callable[[str], Path], name: str) -> None:
        folder, texts = layout(name), random_ids(sorted(LENGTHS) if "buckets" in name else (1, 2, 9, 40, 40, 180))
        transformer = folder / LAYOUTS[name].get("transformer_path", "")
        assert_same_states(states(folder, texts), transformers_states(transformer, texts))

    @pytest.mark.parametrize("length", LENGTHS)
    def test_of_every_length(self, layout: Callable[[str], Path], length: int) -> None:
        texts = random_ids([length, length])
        assert_same_states(states(layout("base"), texts), transformers_states(layout("base"), texts))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("name", ["calm", "calm, gated", "calm, wide heads"])
    def test_in_half_precision(self, layout: Callable[[str], Path], name: str, dtype: torch.dtype) -> None:
        texts = random_ids((1, 5, 60, 200))
        ours = states(layout(name), texts, dtype)
        assert all(state.dtype == torch.float32 for state in ours)
        assert smallest_cosine(ours, transformers_states(layout(name), texts)) >= 0.999

    def test_with_the_decoder_in_the_file(self, tmp_path: Path) -> None:
        torch.manual_seed(1)
        config = T5Config(vocab_size=1128, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
        T5ForConditionalGeneration(config).save_pretrained(tmp_path)
        assert any(name.startswith("decoder.") for name in load_file(tmp_path / "model.safetensors"))
        self.add_tokenizer(tmp_path)
        texts = random_ids((3, 20))
        assert_same_states(states(tmp_path, texts), transformers_states(tmp_path, texts))

    def test_of_mt5(self, tmp_path: Path) -> None:
        torch.manual_seed(2)
        config = MT5Config(vocab_size=1128, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
        MT5EncoderModel(config).save_pretrained(tmp_path)
        self.add_tokenizer(tmp_path)
        texts = random_ids((3, 20))
        assert_same_states(states(tmp_path, texts), transformers_states(tmp_path, texts, MT5EncoderModel))

    @pytest.fixture(autouse=True)
    def _tokenizer(self, tokenizer_folder: Path) -> None:
        self.tokenizer = (tokenizer_folder / "tokenizer.json").read_bytes()

    def add_tokenizer(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_bytes(self.tokenizer)


class TestEmbeddingNames:
    """Published files name the token embeddings once, twice, or differently in the encoder."""

    @pytest.mark.parametrize("names", [["shared"], ["encoder.embed_tokens"], ["shared", "encoder.embed_tokens"]])
    def test_tied(self, make_checkpoint: Callable[..., Path], names: list[str]) -> None:
        folder = make_checkpoint()
        tensors = load_file(folder / "model.safetensors")
        embeddings = tensors.pop("shared.weight")
        tensors |= {f"{name}.weight": embeddings.clone() for name in names}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        texts = random_ids((4, 30))
        assert_same_states(states(folder, texts), transformers_states(folder, texts))

    def test_untied(self, make_checkpoint: Callable[..., Path]) -> None:
        folder = make_checkpoint()
        tensors = load_file(folder / "model.safetensors")
        tensors["encoder.embed_tokens.weight"] = torch.randn_like(tensors["shared.weight"])
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        texts = random_ids((4, 30))
        assert_same_states(states(folder, texts), transformers_states(folder, texts))


class TestShards:
    @pytest.fixture
    def sharded(self, layout: Callable[[str], Path], tmp_path: Path) -> Path:
        """The base checkpoint's encoder in several safetensors files."""
        source = layout("base")
        T5EncoderModel.from_pretrained(source).save_pretrained(tmp_path, max_shard_size="40KB")
        assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
        (tmp_path / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
        return tmp_path

    def test_of_safetensors(self, sharded: Path, layout: Callable[[str], Path]) -> None:
        texts = random_ids((4, 30))
        for ours, whole in zip(states(sharded, texts), states(layout("base"), texts), strict=True):
            assert torch.equal(ours, whole)

    def test_of_bin(self, sharded: Path, layout: Callable[[str], Path]) -> None:
        index = json.loads((sharded / "model.safetensors.index.json").read_text())
        renamed = {}
        for shard in sorted(sharded.glob("model-*.safetensors")):
            renamed[shard.name] = shard.name.replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
            torch.save(load_file(shard), sharded / renamed[shard.name])
            shard.unlink()
        (sharded / "model.safetensors.index.json").unlink()
        index["weight_map"] = {name: renamed[shard] for name, shard in index["weight_map"].items()}
        (sharded / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        texts = random_ids((4, 30))
        for ours, whole in zip(states(sharded, texts), states(layout("base"), texts), strict=True):
            assert torch.equal(ours, whole)


@pytest.mark.parametrize("num_buckets", [4, 8, 16, 32, 33, 64, 128])
@pytest.mark.parametrize("max_distance", [33, 64, 100, 127, 128, 129, 256, 1000])
def test_buckets_of_all_distances(num_buckets: int, max_distance: int) -> None:
    distances = torch.arange(-3000, 3001)
    theirs = T5Attention._relative_position_bucket(distances, True, num_buckets, max_distance)
    assert torch.equal(relative_position_bucket(distances, num_buckets, max_distance), theirs)


class TestVectors:
    @pytest.mark.parametrize("name", LAYOUTS)
    def test_of_every_layout(self, layout: Callable[[str], Path], texts: list[str], name: str) -> None:
        theirs = SentenceTransformer(str(layout(name)), device="cpu")
        theirs.set_pooling_include_prompt(False)
        ours = Instructor.from_pretrained(layout(name), device="cpu")
        short = texts[:6]
        assert_same_vectors(ours.encode(short, INSTRUCTION), their_vectors(theirs, short, INSTRUCTION))

    @pytest.mark.parametrize(
        "instruction",
        [
            "",
            INSTRUCTION,
            "Represent the statement:",
            "the ",
            "  Represent the statement for retrieval;\n",
            "Represent the Python statement for retrieving the documentation of a class or of a function: " * 3,
            "Represent 漢字: ",
        ],
    )
    @pytest.mark.parametrize("max_length", [128, 1000])
    @pytest.mark.filterwarnings("ignore:.* have more tokens")
    def test_of_every_instruction_and_length(
        self, layout: Callable[[str], Path], texts: list[str], instruction: str, max_length: int
    ) -> None:
        theirs = SentenceTransformer(str(layout("base")), device="cpu")
        theirs.set_pooling_include_prompt(False)
        theirs.max_seq_length = max_length
        ours = Instructor.from_pretrained(layout("base"), device="cpu", max_length=max_length)
        assert len(ours._tokenizer.tokenizer.encode(texts[-1]).ids) > 512
        vectors = ours.encode(texts, instruction)
        assert_same_vectors(vectors, their_vectors(theirs, texts, instruction))
        np.testing.assert_array_equal(ours.encode([[instruction, text] for text in texts]), vectors)
        np.testing.assert_array_equal(ours.encode([(instruction, text) for text in texts]), vectors)
        np.testing.assert_array_equal(ours.encode(texts, instruction=[instruction] * len(texts)), vectors)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_in_half_precision(self, layout: Callable[[str], Path], texts: list[str], dtype: str) -> None:
        full = Instructor.from_pretrained(layout("calm"), device="cpu", max_length=1000)
        half = Instructor.from_pretrained(layout("calm"), device="cpu", max_length=1000, dtype=dtype)
        cosines = (full.encode(texts, INSTRUCTION) * half.encode(texts, INSTRUCTION)).sum(axis=1)
        assert cosines.min() >= 0.999

    def test_pooling_the_instruction_too_gives_other_vectors(
        self, layout: Callable[[str], Path], texts: list[str]
    ) -> None:
        # what sentence-transformers does with a folder whose configuration doesn't say otherwise
        theirs = SentenceTransformer(str(layout("base")), device="cpu")
        ours = Instructor.from_pretrained(layout("base"), device="cpu").encode(texts[:6], INSTRUCTION)
        assert (ours * their_vectors(theirs, texts[:6], INSTRUCTION)).sum(axis=1).min() < 0.99


@pytest.mark.slow
def test_base_size(make_checkpoint: Callable[..., Path], texts: list[str]) -> None:
    shape = {"vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
    folder = make_checkpoint(shape={**shape, "initializer_factor": 1.0}, dense=768)
    tokens = random_ids((1, 20, 200, 512), vocab_size=32128)
    assert_same_states(states(folder, tokens), transformers_states(folder, tokens))
    half = states(folder, tokens[:3], torch.bfloat16)
    assert smallest_cosine(half, transformers_states(folder, tokens[:3])) >= 0.999

    theirs = SentenceTransformer(str(folder), device="cpu")
    theirs.set_pooling_include_prompt(False)
    ours = Instructor.from_pretrained(folder, device="cpu")
    texts = texts[:-1]
    assert_same_vectors(ours.encode(texts, INSTRUCTION), their_vectors(theirs, texts, INSTRUCTION))
