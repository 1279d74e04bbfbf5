"""New models: their sizes, T5's own initialisation beside transformers', and folders that every library loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from anytask import Instructor
from anytask.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from anytask.training.initialise import Sizes, new_checkpoint, parse_sizes, with_dense
from anytask.training.vocabulary import read_tokenizer, train_tokenizer
from anytask.weights import published_state

MakeCheckpoint = Callable[..., Path]
SMALL = Sizes(d_model=32, num_layers=2, num_heads=4, d_kv=8, d_ff=64, dimension=48)
INSTRUCTION = "Represent the manual's sentence for retrieval: "


@pytest.fixture(scope="module")
def tokenizer(sentences: list[str]) -> Tokenizer:
    return train_tokenizer(sentences[:800], 600)


class TestSizes:
    def test_all_named(self) -> None:
        text = "d_model=256,num_layers=4,num_heads=4,d_kv=64,d_ff=1024,feed_forward_proj=relu,dimension=384,"
        sizes = parse_sizes(text + "vocab_size=20480")
        assert asdict(sizes) == {
            "d_model": 256,
            "num_layers": 4,
            "num_heads": 4,
            "d_kv": 64,
            "d_ff": 1024,
            "feed_forward_proj": "relu",
            "dimension": 384,
            "vocab_size": 20480,
        }

    def test_nothing_named_is_t5_small(self) -> None:
        assert parse_sizes("") == Sizes()
        assert asdict(Sizes()).items() >= {"d_model": 512, "num_layers": 6, "num_heads": 8, "d_ff": 2048}.items()

    def test_the_width_gives_the_rest_as_in_t5_base_and_large(self) -> None:
        base, large = parse_sizes("d_model=768, num_layers=12"), parse_sizes("num_layers=24, d_model=1024")
        assert (base.num_heads, base.d_kv, base.d_ff, base.dimension, base.vocab_size) == (12, 64, 3072, 768, None)
        assert (large.num_heads, large.d_kv, large.d_ff, large.dimension, large.num_layers) == (16, 64, 4096, 1024, 24)

    def test_no_dense_layer(self) -> None:
        assert parse_sizes("d_model=64,dimension=0").dimension == 0

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("d_model=wide", "d_model must be an integer, got 'wide'"),
            ("d_model=0", "d_model must be an integer of at least 1, got 0"),
            ("d_kv=-8", "d_kv must be an integer of at least 1, got -8"),
            ("vocab_size=0", "vocab_size must be an integer of at least 1"),
            ("dimension=-1", "dimension must be an integer of at least 0"),
            ("width=3", "there is no size 'width'; there are d_model, num_layers"),
            ("d_model=64,d_model=128", "d_model is given twice"),
            ("d_model", "name=value"),
            ("feed_forward_proj=swish", "feed_forward_proj must be one of relu, gelu.*'swish'"),
            ("d_model=100", "num_heads must be given: d_model 100 is no multiple of d_kv 64"),
        ],
    )
    def test_wrong_ones(self, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            parse_sizes(text)


@pytest.mark.parametrize("projection", ["relu", "gated-gelu"])
def test_weights_are_distributed_as_transformers_draws_them(tokenizer: Tokenizer, projection: str) -> None:
    from transformers import T5Config, T5EncoderModel

    sizes = Sizes(d_model=96, num_layers=2, num_heads=6, d_kv=32, d_ff=320, feed_forward_proj=projection)
    checkpoint = new_checkpoint(sizes, tokenizer, seed=0)
    ours = published_state(checkpoint.encoder.state_dict(), checkpoint.encoder.config)
    torch.manual_seed(1)
    theirs = T5EncoderModel(T5Config(**{**checkpoint.config, "architectures": None})).state_dict()
    theirs.pop("encoder.embed_tokens.weight", None)
    assert set(ours) == set(theirs)
    for name, weight in theirs.items():
        assert ours[name].shape == weight.shape, name
        assert ours[name].dtype == torch.float32, name
        if "layer_norm" in name:
            assert torch.equal(ours[name], weight), name
        else:
            tolerance = 5 / (2 * weight.numel()) ** 0.5  # five standard errors, of both
            assert ours[name].std().item() == pytest.approx(weight.std().item(), rel=2 * tolerance), name
            assert abs(ours[name].mean().item()) < 5 * weight.std().item() / weight.numel() ** 0.5, name


def test_the_seed_decides_and_the_global_generator_is_left_alone(tokenizer: Tokenizer) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (new_checkpoint(SMALL, tokenizer, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), expected)
    one, same, different = (checkpoint.encoder.state_dict() for checkpoint in (first, again, other))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["embed_tokens.weight"], different["embed_tokens.weight"])
    assert first.head.dense is not None
    assert again.head.dense is not None
    assert torch.equal(first.head.dense.weight, again.head.dense.weight)


@pytest.fixture(scope="module")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "model"
    save_checkpoint(new_checkpoint(SMALL, tokenizer, seed=0, max_length=64), folder)
    return folder


@pytest.fixture(scope="module")
def vectors(folder: Path, sentences: list[str]) -> np.ndarray:
    model = Instructor.from_pretrained(folder, device="cpu")
    found: np.ndarray = model.encode(sorted(sentences, key=len)[:40], instruction=INSTRUCTION)
    return found


class TestSavedFolder:
    def test_in_instructor(self, folder: Path, vectors: np.ndarray) -> None:
        model = Instructor.from_pretrained(folder, device="cpu")
        assert (model.dimension, model.max_length) == (48, 64)
        assert model.query_instruction == "Represent the question for retrieving supporting documents: "
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        cosines = vectors @ vectors.T
        assert np.abs(cosines - np.eye(40)).max() < 0.999  # different texts, different vectors

    def test_in_sentence_transformers(self, folder: Path, vectors: np.ndarray, sentences: list[str]) -> None:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu")
        assert model.max_seq_length == 64
        found = model.encode(sorted(sentences, key=len)[:40], prompt=INSTRUCTION)
        assert np.abs(found - vectors).max() < 1e-5

    def test_in_transformers(self, folder: Path, sentences: list[str]) -> None:
        from transformers import AutoConfig, AutoTokenizer, T5EncoderModel

        tokens = AutoTokenizer.from_pretrained(folder)
        assert (tokens.pad_token_id, tokens.eos_token_id, tokens.unk_token_id) == (0, 1, 2)
        assert tokens.model_max_length == 64
        loaded = load_checkpoint(folder)
        text = min(sentences, key=len)
        assert tokens(text)["input_ids"] == loaded.tokenizer.encode(text).ids
        config = AutoConfig.from_pretrained(folder)
        assert (config.model_type, config.d_kv, config.dropout_rate, config.eos_token_id) == ("t5", 8, 0.1, 1)
        encoder, report = T5EncoderModel.from_pretrained(folder, output_loading_info=True)
        assert not any(report.values()), report
        batch = tokens([text], return_tensors="pt")
        with torch.no_grad():
            mean = encoder.eval()(**batch).last_hidden_state.mean(1)
        assert loaded.head.dense is not None
        expected = torch.nn.functional.normalize(mean @ loaded.head.dense.weight.T, dim=-1)[0].detach().numpy()
        found = Instructor.from_pretrained(folder, device="cpu").encode(text)
        assert np.abs(found - expected).max() < 1e-5


def test_a_larger_table_than_the_tokenizer_needs(tokenizer: Tokenizer) -> None:
    checkpoint = new_checkpoint(replace(SMALL, vocab_size=640), tokenizer, seed=0)
    assert checkpoint.encoder.embed_tokens.weight.shape == (640, 32)
    assert checkpoint.config["vocab_size"] == 640
    with pytest.raises(ValueError, match="the tokenizer has 600 token ids, more than vocab_size 500"):
        new_checkpoint(replace(SMALL, vocab_size=500), tokenizer, seed=0)


def test_a_t5_vocabulary_with_sentinels(tokenizer_folder: Path, tmp_path: Path) -> None:
    checkpoint = new_checkpoint(SMALL, read_tokenizer(tokenizer_folder), seed=0)
    assert checkpoint.encoder.config.vocab_size == 1100
    save_checkpoint(checkpoint, tmp_path / "model")
    assert Instructor.from_pretrained(tmp_path / "model", device="cpu").encode("text").shape == (48,)


def bare_means(checkpoint: Checkpoint, texts: list[str], tmp_path: Path, name: str) -> np.ndarray:
    save_checkpoint(checkpoint, tmp_path / name)
    found: np.ndarray = Instructor.from_pretrained(tmp_path / name, device="cpu").encode(texts)
    return found


@pytest.mark.parametrize("dimension", [32, 48])
def test_an_added_dense_layer_keeps_the_cosines(
    make_checkpoint: MakeCheckpoint, sentences: list[str], tmp_path: Path, dimension: int
) -> None:
    checkpoint = load_checkpoint(make_checkpoint(dense=None))
    wider = with_dense(checkpoint, dimension)
    assert wider.encoder is checkpoint.encoder
    assert checkpoint.head.dense is None
    before = bare_means(checkpoint, sentences[:20], tmp_path, "before")
    after = bare_means(wider, sentences[:20], tmp_path, "after")
    assert after.shape == (20, dimension)
    assert np.abs(before @ before.T - after @ after.T).max() < 1e-5


def test_an_added_dense_layer_may_be_narrower_and_has_the_encoders_precision(
    make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(make_checkpoint(dense=None))
    checkpoint.encoder.bfloat16()
    narrow = with_dense(checkpoint, 8)
    assert narrow.head.dense is not None
    assert narrow.head.dense.weight.dtype == torch.bfloat16
    save_checkpoint(narrow, tmp_path / "narrow")
    from sentence_transformers import SentenceTransformer

    assert SentenceTransformer(str(tmp_path / "narrow"), device="cpu").encode("text").shape == (8,)


def test_a_dense_layer_is_added_once(make_checkpoint: MakeCheckpoint) -> None:
    with pytest.raises(ValueError, match="has a dense layer already, from 32 to 24"):
        with_dense(load_checkpoint(make_checkpoint()), 24)
    with pytest.raises(ValueError, match="dimension must be at least 1, got 0"):
        with_dense(load_checkpoint(make_checkpoint(dense=None)), 0)


@pytest.fixture(scope="module")
def token_vectors() -> np.ndarray:
    """600 vectors of 48 dimensions that lie near a space of 20, far from the origin."""
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(600, 20)) @ rng.normal(size=(20, 48))
    found: np.ndarray = (plane + 3 + 0.01 * rng.normal(size=(600, 48))).astype(np.float32)
    return found


class TestTokenVectors:
    def test_embeddings_have_their_geometry(self, tokenizer: Tokenizer, token_vectors: np.ndarray) -> None:
        checkpoint = new_checkpoint(SMALL, tokenizer, seed=0, token_vectors=token_vectors)
        embeddings = checkpoint.encoder.embed_tokens.weight.detach().numpy()
        assert np.sqrt((embeddings**2).mean()) == pytest.approx(1, rel=1e-4)
        assert checkpoint.head.dense is not None
        dense = checkpoint.head.dense.weight.detach().numpy()
        unit = token_vectors / np.linalg.norm(token_vectors, axis=1, keepdims=True)
        assert np.abs(embeddings @ dense.T - (unit - unit.mean(0))).max() < 1e-3

    def test_model_begins_as_a_bag_of_words(
        self, tokenizer: Tokenizer, token_vectors: np.ndarray, tmp_path: Path
    ) -> None:
        checkpoint = new_checkpoint(SMALL, tokenizer, seed=0, token_vectors=token_vectors)
        texts = ["the class of an object", "an expression or a statement", "import the file"]
        found = bare_means(checkpoint, texts, tmp_path, "bag")
        unit = token_vectors / np.linalg.norm(token_vectors, axis=1, keepdims=True)
        centred = unit - unit.mean(0)
        tokens = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        for text, vector in zip(texts, found, strict=True):
            mean = tokens[tokenizer.encode(text).ids].mean(0)
            assert vector @ mean / np.linalg.norm(mean) > 0.9

    def test_vectors_of_fewer_dimensions_than_the_model(self, tokenizer: Tokenizer) -> None:
        narrow = np.random.default_rng(1).normal(size=(600, 10))
        checkpoint = new_checkpoint(SMALL, tokenizer, seed=0, token_vectors=narrow)
        embeddings = checkpoint.encoder.embed_tokens.weight.detach().numpy()
        unit = narrow / np.linalg.norm(narrow, axis=1, keepdims=True)
        centred = unit - unit.mean(0)
        ratio = (embeddings @ embeddings.T) / (centred @ centred.T)
        assert ratio.std() / ratio.mean() < 1e-2
        assert not embeddings[:, 10:].any()

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (np.zeros((599, 48)), r"token_vectors must be \[600, any\].*\[599, 48\]"),
            (np.zeros(600), r"\[600, any\].*\[600\]"),
            (np.full((600, 48), np.nan), "finite"),
            (np.ones((600, 48)), "differ from each other"),
        ],
    )
    def test_wrong_ones(self, tokenizer: Tokenizer, wrong: np.ndarray, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            new_checkpoint(SMALL, tokenizer, seed=0, token_vectors=wrong)
