"""Where a model comes from, the layouts that are published, and what is written comes back."""

from __future__ import annotations

import json
import shutil
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import T5EncoderModel

from anytask import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION, CheckpointError, Instructor

Vectors = npt.NDArray[np.float32]
INSTRUCTION = "Represent the statement: "
TEXTS = ["", "the", "Return the Value of the object.", "A CLASS is a function; 漢字 and ﬁ!", "statement " * 60]
PROMPTS = {"query": "Represent the test question: ", "document": "Represent the test document: "}


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint()


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint folder that a test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def load(folder: Path | str, **options: Any) -> Instructor:
    return Instructor.from_pretrained(folder, device="cpu", **options)


def encode(folder: Path | str, instruction: str = INSTRUCTION, **options: Any) -> Vectors:
    vectors: Vectors = load(folder, **options).encode(TEXTS, instruction)
    return vectors


def theirs(folder: Path, instruction: str = INSTRUCTION, include_prompt: bool | None = False) -> Vectors:
    """sentence-transformers' vectors in float32; `include_prompt` None leaves the folder's own setting."""
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    if include_prompt is not None:
        model.set_pooling_include_prompt(include_prompt)
    vectors: Vectors = model.encode([text.strip() for text in TEXTS], prompt=instruction, normalize_embeddings=True)
    return vectors


def assert_same(ours: Vectors, other: Vectors) -> None:
    assert ours.shape == other.shape
    assert (ours.astype(np.float64) * other).sum(axis=1).min() >= 0.99999
    np.testing.assert_allclose(ours, other, atol=5e-5)


def edit_json(path: Path, **changes: Any) -> None:
    """Change fields of a JSON object; None takes one away."""
    content = json.loads(path.read_text()) if path.exists() else {}
    content |= changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


class TestSources:
    def test_the_bundled_model_by_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "mini").mkdir()
        monkeypatch.chdir(tmp_path)
        assert load("mini").dimension == Instructor.from_pretrained().dimension == 384

    def test_the_bundled_model_in_sentence_transformers(self, tmp_path: Path) -> None:
        load("mini").save_pretrained(tmp_path / "mini", dtype="float32")
        assert_same(encode("mini", dtype="float32"), theirs(tmp_path / "mini", include_prompt=None))

    def test_a_folder_by_any_kind_of_path(self, copy: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
        expected = encode(checkpoint)
        monkeypatch.setenv("HOME", str(copy.parent))
        monkeypatch.chdir(copy.parent)
        for path in (copy, str(copy), f"{copy}/", "copy", "./copy", "~/copy", Path("~/copy"), Path("copy")):
            np.testing.assert_array_equal(encode(path), expected)
        assert load("copy").name_or_path == "copy"

    def test_a_plain_t5_folder_is_a_mean_without_a_dense_layer(self, copy: Path) -> None:
        for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
            (copy / name).unlink()
        shutil.rmtree(copy / "2_Dense")
        shutil.rmtree(copy / "1_Pooling")
        model = load(copy)
        assert (model.dimension, model.max_length) == (32, 512)
        tokens = Tokenizer.from_file(str(copy / "tokenizer.json")).encode(TEXTS[2]).ids
        states = T5EncoderModel.from_pretrained(copy)(torch.tensor([tokens])).last_hidden_state[0]
        expected = torch.nn.functional.normalize(states.mean(dim=0), dim=-1).detach().numpy()
        np.testing.assert_allclose(model.encode(TEXTS[2]), expected, atol=1e-5)

    @pytest.mark.parametrize("with_configuration", [True, False])
    def test_a_folder_with_only_spiece_model(
        self, make_checkpoint: Callable[..., Path], tokenizer_folder: Path, with_configuration: bool
    ) -> None:
        folder = make_checkpoint(spiece=True)
        assert not (folder / "tokenizer.json").exists()
        if with_configuration:
            shutil.copy(tokenizer_folder / "tokenizer_config.json", folder)
        vectors = encode(folder)
        shutil.copy(tokenizer_folder / "tokenizer.json", folder)
        np.testing.assert_array_equal(vectors, encode(folder))

    @pytest.mark.parametrize("transformer_path", ["", "0_Transformer"])
    def test_modules_of_the_original_package(
        self, make_checkpoint: Callable[..., Path], checkpoint: Path, transformer_path: str
    ) -> None:
        folder = make_checkpoint(original_classes=True, transformer_path=transformer_path)
        assert "InstructorEmbedding" in (folder / "modules.json").read_text()
        np.testing.assert_array_equal(encode(folder), encode(checkpoint))

    def test_pytorch_files_give_the_same_as_safetensors(
        self, make_checkpoint: Callable[..., Path], checkpoint: Path
    ) -> None:
        np.testing.assert_array_equal(encode(make_checkpoint(weights="bin")), encode(checkpoint))

    def test_safetensors_are_read_where_both_are(self, copy: Path, checkpoint: Path) -> None:
        (copy / "pytorch_model.bin").write_bytes(b"not read")
        (copy / "2_Dense" / "pytorch_model.bin").write_bytes(b"not read")
        np.testing.assert_array_equal(encode(copy), encode(checkpoint))

    def test_a_dense_layer_with_a_bias(self, copy: Path) -> None:
        weights = load_file(copy / "2_Dense" / "model.safetensors")
        save_file({**weights, "linear.bias": torch.randn(24)}, copy / "2_Dense" / "model.safetensors")
        edit_json(copy / "2_Dense" / "config.json", bias=True)
        assert_same(encode(copy), theirs(copy))

    def test_a_tokenizer_saved_with_padding_and_truncation(self, copy: Path, checkpoint: Path) -> None:
        tokenizer = Tokenizer.from_file(str(copy / "tokenizer.json"))
        tokenizer.enable_padding(length=64)
        tokenizer.enable_truncation(8)
        tokenizer.save(str(copy / "tokenizer.json"))
        np.testing.assert_array_equal(encode(copy), encode(checkpoint))

    def test_what_sentence_transformers_saves(self, checkpoint: Path, tmp_path: Path) -> None:
        model = SentenceTransformer(str(checkpoint), device="cpu", prompts=PROMPTS)
        model.set_pooling_include_prompt(False)
        model.max_seq_length = 40
        model.save_pretrained(str(tmp_path / "saved"))
        ours = load(tmp_path / "saved")
        assert (ours.max_length, ours.query_instruction) == (40, PROMPTS["query"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert_same(ours.encode(TEXTS, INSTRUCTION), theirs(tmp_path / "saved", include_prompt=None))

    def test_loading_leaves_the_folder_as_it_was(self, copy: Path) -> None:
        before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        encode(copy, dtype="bfloat16")
        assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


class TestSettings:
    def test_prompts_of_the_checkpoint(self, make_checkpoint: Callable[..., Path]) -> None:
        model = load(make_checkpoint(prompts=PROMPTS))
        assert (model.query_instruction, model.document_instruction) == tuple(PROMPTS.values())
        np.testing.assert_array_equal(model.encode_query(TEXTS), model.encode(TEXTS, PROMPTS["query"]))
        np.testing.assert_array_equal(model.encode_document(TEXTS), model.encode(TEXTS, PROMPTS["document"]))
        np.testing.assert_array_equal(model.encode_query(TEXTS, INSTRUCTION), model.encode(TEXTS, INSTRUCTION))
        np.testing.assert_array_equal(model.encode_document(TEXTS, ""), model.encode(TEXTS))

    @pytest.mark.parametrize("name", ["document", "passage", "corpus"])
    def test_names_of_the_document_prompt(self, copy: Path, name: str) -> None:
        edit_json(copy / "config_sentence_transformers.json", prompts={name: "Represent it: "})
        assert load(copy).document_instruction == "Represent it: "

    @pytest.mark.parametrize(
        ("prompts", "expected"),
        [
            ({"query": "Represent: ", "document": ""}, ("Represent: ", "")),
            ({"query": "", "document": "Represent: "}, ("", "Represent: ")),
            ({"query": "", "document": "", "no_instruction": ""}, ("", "")),
            ({"query": "Represent: ", "document": None}, ("Represent: ", DEFAULT_DOCUMENT_INSTRUCTION)),
            ({"query": "query: ", "document": "", "passage": "passage: "}, ("query: ", "passage: ")),
        ],
    )
    def test_empty_prompts_that_are_meant(
        self, copy: Path, prompts: dict[str, str | None], expected: tuple[str, str], tmp_path: Path
    ) -> None:
        edit_json(copy / "config_sentence_transformers.json", prompts=prompts)
        model = load(copy)
        assert (model.query_instruction, model.document_instruction) == expected
        np.testing.assert_array_equal(model.encode_query(TEXTS), model.encode(TEXTS, expected[0]))
        model.save_pretrained(tmp_path / "saved")
        again = load(tmp_path / "saved")
        assert (again.query_instruction, again.document_instruction) == expected

    @pytest.mark.parametrize(
        "prompts",
        [None, {}, {"query": "", "document": None}, {"query": "", "document": ""}, {"clustering": "Represent: "}],
    )
    def test_defaults_where_there_is_no_prompt(self, copy: Path, prompts: dict[str, str] | None) -> None:
        edit_json(copy / "config_sentence_transformers.json", prompts=prompts)
        model = load(copy)
        assert model.query_instruction == DEFAULT_QUERY_INSTRUCTION
        assert model.document_instruction == DEFAULT_DOCUMENT_INSTRUCTION

    @pytest.mark.parametrize(
        ("sentence", "tokenizer", "expected"),
        [(64, 128, 64), (None, 128, 128), (None, None, 512), (None, int(1e30), 512), (2048, 512, 2048)],
    )
    def test_the_length_limit(self, copy: Path, sentence: int | None, tokenizer: int | None, expected: int) -> None:
        edit_json(copy / "sentence_bert_config.json", max_seq_length=sentence)
        edit_json(copy / "tokenizer_config.json", model_max_length=tokenizer)
        assert load(copy).max_length == expected
        assert load(copy, max_length=77).max_length == 77

    def test_the_length_limit_without_its_files(self, copy: Path) -> None:
        (copy / "sentence_bert_config.json").unlink()
        (copy / "tokenizer_config.json").unlink()
        assert load(copy).max_length == 512

    def test_the_length_limit_of_a_nested_transformer(self, make_checkpoint: Callable[..., Path]) -> None:
        folder = make_checkpoint(transformer_path="0_Transformer", max_length=96)
        assert load(folder).max_length == 96

    @pytest.mark.parametrize(
        "pooling",
        [
            {"pooling_mode": "mean"},
            {"pooling_mode": ["mean"]},
            {"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": False},
            {"pooling_mode_mean_tokens": True, "include_prompt": True},
            {},
        ],
    )
    def test_every_way_to_ask_for_the_mean(self, copy: Path, checkpoint: Path, pooling: dict[str, Any]) -> None:
        (copy / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
        np.testing.assert_array_equal(encode(copy), encode(checkpoint))


TASKS = {
    "summarization": {"early_stopping": True, "length_penalty": 2.0, "max_length": 200, "prefix": "summarize: "},
    "translation_en_to_de": {"early_stopping": True, "max_length": 300, "prefix": "translate English to German: "},
}
COMMON_FILES = {
    *(".gitattributes", "README.md", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/pytorch_model.bin"),
    *("config.json", "config_sentence_transformers.json", "modules.json", "pytorch_model.bin"),
    *("sentence_bert_config.json", "special_tokens_map.json", "spiece.model", "tokenizer.json"),
    "tokenizer_config.json",
}
SAFETENSORS = {"model.safetensors", "2_Dense/model.safetensors"}
# the shapes of the published ones, narrower; heads, layers and the dense layer in the same relations
BASE = {"d_model": 48, "d_ff": 192, "d_kv": 16, "num_heads": 3, "num_layers": 3}
LARGE = {"d_model": 64, "d_ff": 256, "d_kv": 16, "num_heads": 4, "num_layers": 4}
XL = {"d_model": 64, "d_ff": 1024, "d_kv": 32, "num_heads": 8, "num_layers": 4}
XXL = {"d_model": 64, "d_ff": 4096, "d_kv": 32, "num_heads": 32, "num_layers": 4}
PUBLISHED = {
    "hkunlp/instructor-base": (BASE, COMMON_FILES),
    "hkunlp/instructor-large": (LARGE, COMMON_FILES),
    "hkunlp/instructor-xl": (XL, COMMON_FILES),
    "hkunlp/instructor-large with safetensors": (LARGE, COMMON_FILES | SAFETENSORS),
    "sentence-transformers/gtr-t5-base": (
        BASE,
        COMMON_FILES | SAFETENSORS | {"convert-gtr.ipynb", "convert_to_fp16.py"},
    ),
    "sentence-transformers/gtr-t5-large": (LARGE, COMMON_FILES | SAFETENSORS),
    "sentence-transformers/gtr-t5-xl": (XL, COMMON_FILES | SAFETENSORS),
    "sentence-transformers/gtr-t5-xxl": (XXL, COMMON_FILES | SAFETENSORS),
}


def publish(folder: Path, name: str, make_checkpoint: Callable[..., Path], tokenizer_folder: Path) -> None:
    """Write the files of a published repository: its names, its configurations, and random weights in its precision."""
    shape, files = PUBLISHED[name]
    is_gtr = "gtr" in name
    made = make_checkpoint(shape=shape, dense=48, weights="bin")
    weights = {
        "pytorch_model.bin": torch.load(made / "pytorch_model.bin", weights_only=True),
        "2_Dense/pytorch_model.bin": torch.load(made / "2_Dense" / "pytorch_model.bin", weights_only=True),
    }
    if is_gtr:  # published in float16, but for the dense layer
        weights["pytorch_model.bin"] = {name: t.half() for name, t in weights["pytorch_model.bin"].items()}
    config = {
        "_name_or_path": "models/gtr-t5-large",
        "architectures": ["T5EncoderModel"],
        "decoder_start_token_id": 0,
        **({} if is_gtr else {"dense_act_fn": "relu", "is_gated_act": False, "relative_attention_max_distance": 128}),
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "feed_forward_proj": "relu",
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "layer_norm_epsilon": 1e-06,
        "model_type": "t5",
        "n_positions": 512,
        "num_decoder_layers": shape["num_layers"],
        "output_past": True,
        "pad_token_id": 0,
        "relative_attention_num_buckets": 32,
        "task_specific_params": TASKS,
        "torch_dtype": "float16" if is_gtr else "float32",
        "transformers_version": "4.11.3" if is_gtr else "4.20.0.dev0",
        "use_cache": True,
        "vocab_size": 1128,
        **shape,
    }
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    extra = {"additional_special_tokens": [f"<extra_id_{number}>" for number in range(100)]}
    texts = {
        "config.json": config,
        "modules.json": [
            {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for place, (path, kind) in enumerate(kinds.items())
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": 768,  # in the published large ones, too
            **{f"pooling_mode_{mode}": mode == "mean_tokens" for mode in modes},
        },
        "2_Dense/config.json": {
            "in_features": shape["d_model"],
            "out_features": 48,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": "2.2.0", "transformers": "4.7.0", "pytorch": "1.9.0+cu102"}
        },
        "special_tokens_map.json": special | extra,
        "tokenizer_config.json": {
            **special,
            "extra_ids": 100,
            **extra,
            "model_max_length": 512,
            "special_tokens_map_file": "special_tokens_map.json",
            "tokenizer_class": "T5Tokenizer",
        },
        "tokenizer.json": tokenizer_of_2021(tokenizer_folder / "tokenizer.json"),
    }
    for path in (folder / file for file in files):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.relative_to(folder).as_posix()
        if file in texts:
            path.write_text(json.dumps(texts[file]))
        elif file in weights:
            torch.save(weights[file], path)
        elif file in SAFETENSORS:
            tensors = weights[file.replace("model.safetensors", "pytorch_model.bin")]
            tied = "encoder.embed_tokens.weight"
            save_file({name: t for name, t in tensors.items() if name != tied}, path, metadata={"format": "pt"})
        elif file == "spiece.model":
            shutil.copy(tokenizer_folder / file, path)
        else:
            path.write_text("not a part of the model")


def tokenizer_of_2021(path: Path) -> dict[str, Any]:
    """The same tokenizer as the tokenizers library wrote it when these models were published."""
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    metaspace = {"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}
    content["decoder"] = metaspace
    content["model"].pop("byte_fallback", None)
    return content


class TestPublished:
    @pytest.mark.parametrize("name", PUBLISHED)
    def test_file_list_and_configurations(
        self, name: str, make_checkpoint: Callable[..., Path], tokenizer_folder: Path, tmp_path: Path
    ) -> None:
        publish(tmp_path, name, make_checkpoint, tokenizer_folder)
        _, files = PUBLISHED[name]
        assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == files
        model = load(tmp_path)
        assert (model.dimension, model.max_length) == (48, 512)
        assert model.query_instruction == DEFAULT_QUERY_INSTRUCTION
        assert_same(model.encode(TEXTS, INSTRUCTION), theirs(tmp_path))


class TestSaving:
    @pytest.mark.parametrize(
        "layout",
        [
            {},
            {"transformer_path": "0_Transformer", "weights": "bin"},
            {"dense": None},
            {"shape": {"feed_forward_proj": "gated-gelu", "d_kv": 6}},
            {"original_classes": True, "max_length": 40, "prompts": PROMPTS},
        ],
        ids=lambda layout: ", ".join(layout) or "base",
    )
    @pytest.mark.filterwarnings("ignore:.* have more tokens")
    def test_round_trip(self, make_checkpoint: Callable[..., Path], tmp_path: Path, layout: dict[str, Any]) -> None:
        source = make_checkpoint(**layout)
        model, saved = load(source), tmp_path / "new" / "saved"
        model.save_pretrained(saved)

        again = load(saved)
        np.testing.assert_array_equal(encode(saved), encode(source))
        assert again.max_length == model.max_length
        assert again.query_instruction == model.query_instruction
        assert again.document_instruction == model.document_instruction

        assert_same(encode(saved), theirs(saved, include_prompt=None))
        prompts = SentenceTransformer(str(saved), device="cpu").prompts
        assert {name: prompt for name, prompt in prompts.items() if prompt} == layout.get("prompts", {})
        assert json.loads((saved / "1_Pooling" / "config.json").read_text())["include_prompt"] is False

        encoder = T5EncoderModel.from_pretrained(saved).state_dict()
        for name, tensor in (
            T5EncoderModel.from_pretrained(source / layout.get("transformer_path", "")).state_dict().items()
        ):
            assert torch.equal(encoder[name], tensor), name

    def test_a_converted_tokenizer_is_saved(self, make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
        source = make_checkpoint(spiece=True)
        load(source).save_pretrained(tmp_path / "saved")
        assert not (tmp_path / "saved" / "spiece.model").exists()
        np.testing.assert_array_equal(encode(tmp_path / "saved"), encode(source))
        assert_same(encode(tmp_path / "saved"), theirs(tmp_path / "saved", include_prompt=None))

    def test_a_changed_length_limit_is_saved(self, checkpoint: Path, tmp_path: Path) -> None:
        load(checkpoint, max_length=33).save_pretrained(tmp_path / "saved")
        assert load(tmp_path / "saved").max_length == 33
        assert SentenceTransformer(str(tmp_path / "saved"), device="cpu").max_seq_length == 33

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    def test_the_precision_is_kept(self, checkpoint: Path, tmp_path: Path, dtype: str) -> None:
        load(checkpoint, dtype=dtype).save_pretrained(tmp_path / "saved")
        stored = load_file(tmp_path / "saved" / "model.safetensors")
        assert stored["encoder.block.0.layer.0.SelfAttention.q.weight"].dtype == getattr(torch, dtype)
        assert T5EncoderModel.from_pretrained(tmp_path / "saved").dtype == getattr(torch, dtype)
        np.testing.assert_array_equal(encode(tmp_path / "saved", dtype=dtype), encode(checkpoint, dtype=dtype))

    def test_widened_weights_are_not_narrowed_by_the_old_configuration(
        self, make_checkpoint: Callable[..., Path], tokenizer_folder: Path, tmp_path: Path
    ) -> None:
        publish(tmp_path / "gtr", "sentence-transformers/gtr-t5-base", make_checkpoint, tokenizer_folder)
        load(tmp_path / "gtr").save_pretrained(tmp_path / "saved")
        assert T5EncoderModel.from_pretrained(tmp_path / "gtr").dtype == torch.float16
        assert T5EncoderModel.from_pretrained(tmp_path / "saved").dtype == torch.float32

    def test_into_a_folder_that_exists(self, make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
        old = make_checkpoint(transformer_path="0_Transformer", weights="bin", seed=1)
        saved = Path(shutil.copytree(old, tmp_path / "saved"))
        (saved / "README.md").write_text("kept")
        new = make_checkpoint(dense=None, seed=2)
        load(new).save_pretrained(saved)
        assert (saved / "README.md").read_text() == "kept"
        np.testing.assert_array_equal(encode(saved), encode(new))
        assert_same(encode(saved), theirs(saved, include_prompt=None))
        assert list(tmp_path.iterdir()) == [saved]

    def test_over_shards_and_pytorch_files(self, make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
        T5EncoderModel.from_pretrained(make_checkpoint(seed=1)).save_pretrained(tmp_path, max_shard_size="40KB")
        torch.save({}, tmp_path / "pytorch_model.bin")
        new = make_checkpoint(seed=2)
        load(new).save_pretrained(tmp_path)
        np.testing.assert_array_equal(encode(tmp_path), encode(new))
        assert_same(encode(tmp_path), theirs(tmp_path, include_prompt=None))

    def test_over_the_folder_it_was_loaded_from(self, copy: Path, checkpoint: Path) -> None:
        model = load(copy)
        for _ in range(2):
            model.save_pretrained(copy)
            np.testing.assert_array_equal(model.encode(TEXTS, INSTRUCTION), encode(checkpoint))
        np.testing.assert_array_equal(encode(copy), encode(checkpoint))

    def test_others_may_read_it(self, checkpoint: Path, tmp_path: Path) -> None:
        load(checkpoint).save_pretrained(tmp_path / "saved")
        for path in [tmp_path / "saved", *(tmp_path / "saved").rglob("*")]:
            mode = path.stat().st_mode
            assert mode & stat.S_IRGRP, path
            assert mode & stat.S_IROTH, path

    def test_nothing_is_left_of_a_folder_that_could_not_be_written(self, checkpoint: Path, tmp_path: Path) -> None:
        model = load(checkpoint)
        model._checkpoint.config["unwritable"] = object()
        with pytest.raises(TypeError):
            model.save_pretrained(tmp_path / "saved")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_in_the_way_is_kept(self, checkpoint: Path, tmp_path: Path) -> None:
        (tmp_path / "saved").write_text("mine")
        with pytest.raises(OSError, match="saved"):
            load(checkpoint).save_pretrained(tmp_path / "saved")
        assert (tmp_path / "saved").read_text() == "mine"
        assert list(tmp_path.iterdir()) == [tmp_path / "saved"]


@pytest.mark.parametrize(
    "name",
    [
        *("nowhere/at/all", "./nowhere", "../nowhere", "/nowhere", "~/nowhere", "~nobody-of-that-name/model"),
        *("a b", "nul\0character", "x" * 5000, "öwner/näme"),
        *(Path("nowhere"), Path("owner/name"), Path("/nowhere/model")),
    ],
    ids=lambda name: repr(name)[:40],
)
def test_a_name_that_leads_nowhere(name: str | Path) -> None:
    with pytest.raises(CheckpointError, match="nothing is there, expected the folder of a checkpoint") as raised:
        load(name)
    for part in (repr(str(name))[:100], "Bundled models: mini", "owner/name"):
        assert part in str(raised.value)


@pytest.mark.parametrize("name", ["", ".", "empty"])
def test_a_folder_without_a_checkpoint(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"holds neither modules\.json nor config\.json, found (empty|nothing); exp"
    ):
        load(name)


def test_a_file_instead_of_a_folder(checkpoint: Path) -> None:
    for path in (checkpoint / "model.safetensors", str(checkpoint / "model.safetensors")):
        with pytest.raises(CheckpointError, match=r"model\.safetensors': a file is there, expected the folder"):
            load(path)
