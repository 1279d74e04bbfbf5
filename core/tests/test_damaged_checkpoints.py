"""Whatever is wrong with a checkpoint: one kind of error, which names the path, what was found and what to do."""

from __future__ import annotations

import json
import pickle
import random
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, processors
from transformers import T5EncoderModel

from anytask import CheckpointError, Instructor

Damage = Callable[[Path], object]
REMEDY = r"download|expected|only|give|correct|[Uu]se|add a|is linear|not of the same"
JSON_FILES = (
    *("modules.json", "config.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
    *("tokenizer_config.json", "1_Pooling/config.json", "2_Dense/config.json"),
)


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint()


@pytest.fixture(scope="session")
def bin_checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(weights="bin")


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A good checkpoint, to be damaged."""
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


@pytest.fixture
def bin_folder(bin_checkpoint: Path, tmp_path: Path) -> Path:
    """The same with PyTorch files."""
    return Path(shutil.copytree(bin_checkpoint, tmp_path / "model"))


def refusal(folder: Path) -> str:
    """The message with which the folder is refused."""
    with pytest.raises(CheckpointError) as raised:
        Instructor.from_pretrained(folder, device="cpu")
    message = str(raised.value)
    assert str(folder) in message
    assert len(message) < 1500
    return message


def assert_refused(folder: Path, *parts: str) -> None:
    message = refusal(folder)
    for part in parts:
        assert part in message, message


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON object; a change to Ellipsis takes the field away."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def write(name: str, content: bytes | str) -> Damage:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def remove(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names]


def configure(name: str, **changes: Any) -> Damage:
    return lambda folder: edit(folder / name, **changes)


def modules(*kinds: str, **changes: Any) -> Damage:
    """A modules.json of these kinds, each with `changes`."""

    def damage(folder: Path) -> None:
        places = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense", "Normalize": "3_Normalize"}
        listing = [
            {"path": places.get(kind, ""), "type": f"sentence_transformers.models.{kind}", **changes} for kind in kinds
        ]
        (folder / "modules.json").write_text(json.dumps(listing))

    return damage


def test_the_fixtures_load_as_they_are(folder: Path, bin_checkpoint: Path) -> None:
    for path in (folder, bin_checkpoint):
        assert Instructor.from_pretrained(path, device="cpu").dimension == 24


class TestMissingFiles:
    @pytest.mark.parametrize(
        ("names", "parts"),
        [
            (["config.json"], ["config.json is missing", "download"]),
            (
                ["model.safetensors"],
                ["no weights of the encoder", "model.safetensors or pytorch_model.bin", "download"],
            ),
            (["2_Dense/model.safetensors"], ["no weights of the dense layer", "2_Dense", "download"]),
            (["2_Dense/config.json"], ["2_Dense/config.json is missing", "model.safetensors", "download"]),
            (["1_Pooling/config.json"], ["1_Pooling/config.json is missing", "holds nothing", "download"]),
            (["tokenizer.json", "spiece.model"], ["no tokenizer.json (or spiece.model)", "found 1_Pooling"]),
            (["modules.json", "config.json"], ["neither modules.json nor config.json", "found 1_Pooling", "expected"]),
        ],
    )
    def test_name_what_is_missing_and_what_is_there(self, folder: Path, names: list[str], parts: list[str]) -> None:
        remove(*names)(folder)
        assert_refused(folder, *parts)

    @pytest.mark.parametrize("place", ["1_Pooling", "2_Dense"])
    def test_folders(self, folder: Path, place: str) -> None:
        shutil.rmtree(folder / place)
        assert_refused(folder, f"{place}/config.json is missing", "no such folder", "download")

    def test_a_folder_in_the_place_of_a_file(self, folder: Path) -> None:
        for name in ("model.safetensors", "config.json"):
            (folder / name).unlink()
            (folder / name).mkdir()
            refusal(folder)

    def test_a_broken_link(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").symlink_to(folder / "blob")
        assert_refused(folder, "no weights of the encoder")

    @pytest.mark.parametrize("kind", ["safetensors", "bin"])
    def test_a_shard(self, folder: Path, kind: str) -> None:
        T5EncoderModel.from_pretrained(folder).save_pretrained(folder / "shards", max_shard_size="40KB")
        (folder / "model.safetensors").unlink()
        index = json.loads((folder / "shards" / "model.safetensors.index.json").read_text())
        shards = sorted(set(index["weight_map"].values()))
        for shard in shards[1:]:
            shutil.copy(folder / "shards" / shard, folder)
        name = "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"
        (folder / f"{name}.index.json").write_text(json.dumps(index))
        assert_refused(folder, f"{name}.index.json names {shards[0]}", "download the missing shard")


class TestJson:
    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"null", b"42", b'"text"', b"[1]", b"[[]]", b"\xff\xfe", b'{"a": 1', b"[" * 100_000],
        ids=lambda content: repr(content[:8]),
    )
    @pytest.mark.parametrize("name", JSON_FILES)
    def test_files_of_another_form(self, folder: Path, name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        assert_refused(folder, name, "download")

    @pytest.mark.parametrize("content", ["[]", "{}"])
    def test_no_modules(self, folder: Path, content: str) -> None:
        (folder / "modules.json").write_text(content)
        assert_refused(folder, "modules.json")


class TestModules:
    @pytest.mark.parametrize(
        ("damage", "parts"),
        [
            (modules("Transformer", "LSTM", "Pooling"), ["sentence_transformers.models.LSTM", "Transformer, Pooling"]),
            (modules("Transformer", "Pooling", "Dense", "Dense"), ["models.Dense' twice"]),
            (modules("Pooling", "Dense"), ["lists Pooling, Dense; expected Transformer, Pooling, Dense"]),
            (modules("Transformer", "Dense", "Pooling"), ["lists Transformer, Dense, Pooling; expected"]),
            (modules("Transformer", "Pooling", "Normalize", "Dense"), ["expected Transformer, Pooling, Dense, Normal"]),
            (modules("Transformer", "Pooling", path=3), ["path", "is 3", "expected a folder's name"]),
            (modules("Transformer", type=None), ["names the module None"]),
            (modules("Transformer", "Pooling", path="elsewhere"), ["elsewhere/config.json is missing"]),
            (modules("Transformer", "WeightedLayerPooling"), ["config.json"]),
        ],
    )
    def test_of_another_kind_or_order(self, folder: Path, damage: Damage, parts: list[str]) -> None:
        damage(folder)
        if "WeightedLayerPooling" in (folder / "modules.json").read_text():
            edit(folder / "config.json", pooling_mode="weighted")
        assert_refused(folder, *parts)

    @pytest.mark.parametrize(
        "pooling",
        [
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
            {"pooling_mode_max_tokens": True},
            {"pooling_mode_mean_sqrt_len_tokens": True, "pooling_mode_mean_tokens": False},
            {"pooling_mode": "lasttoken"},
            {"pooling_mode": ["mean", "max"]},
            {"pooling_mode": 7},
        ],
        ids=str,
    )
    def test_pooling_of_another_kind(self, folder: Path, pooling: dict[str, Any]) -> None:
        edit(folder / "1_Pooling" / "config.json", **pooling)
        assert_refused(folder, "1_Pooling/config.json asks for the pooling", "INSTRUCTOR's is the mean")

    @pytest.mark.parametrize(
        ("changes", "part"),
        [
            (
                {"activation_function": "torch.nn.modules.activation.Tanh"},
                "activation torch.nn.modules.activation.Tanh",
            ),
            ({"activation_function": ...}, "Tanh"),
            ({"activation_function": None}, "activation None"),
            ({"activation_function": 5}, "activation 5"),
            ({"use_residual": True}, "and a residual"),
            ({"in_features": 48}, "takes 48 to 24 features; the encoder gives 32"),
            ({"out_features": "24"}, "'24'"),
            ({"out_features": 0}, "32 to 0"),
            ({"out_features": 25}, "size mismatch"),
            ({"out_features": 10**15}, "size"),
            ({"out_features": 10**30}, "asks for impossible sizes"),
            ({"bias": True}, "Missing key"),
        ],
        ids=str,
    )
    def test_dense_layer_of_another_kind(self, folder: Path, changes: dict[str, Any], part: str) -> None:
        edit(folder / "2_Dense" / "config.json", **changes)
        assert_refused(folder, "2_Dense", part)


class TestConfiguration:
    @pytest.mark.parametrize("model_type", ["bert", "umt5", "longt5", "", None, 5, ...])
    def test_another_architecture(self, folder: Path, model_type: Any) -> None:
        edit(folder / "config.json", model_type=model_type)
        shown = None if model_type is ... else model_type
        assert_refused(folder, f"config.json says model_type {shown!r}; only T5 encoders")

    @pytest.mark.parametrize("value", ["32", 0, -1, True, 3.5, None, [], {}])
    @pytest.mark.parametrize(
        "name",
        ["vocab_size", "d_model", "num_layers", "relative_attention_num_buckets", "relative_attention_max_distance"],
    )
    def test_sizes_that_are_none(self, folder: Path, name: str, value: Any) -> None:
        edit(folder / "config.json", **{name: value})
        assert_refused(folder, "config.json", f"{name} is {value!r}, expected a positive integer")

    @pytest.mark.parametrize("name", ["vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"])
    def test_sizes_that_are_left_out(self, folder: Path, name: str) -> None:
        edit(folder / "config.json", **{name: ...})
        assert_refused(folder, f"config.json lacks {name}")

    @pytest.mark.parametrize(
        ("changes", "part"),
        [
            ({"vocab_size": 1129}, "size mismatch for embed_tokens"),
            ({"vocab_size": 1127}, "size mismatch for embed_tokens"),
            ({"d_model": 64}, "size mismatch"),
            ({"d_kv": 16}, "size mismatch"),
            ({"d_ff": 65}, "feed_forward.wi"),
            ({"num_heads": 2}, "size mismatch"),
            ({"num_layers": 2}, "encoder.block.2."),
            ({"num_layers": 4}, "lacks the tensor encoder.block.3."),
            ({"num_layers": 10**9}, "lacks the tensor encoder.block.3."),
            ({"relative_attention_num_buckets": 64}, "relative_attention_bias"),
            ({"d_ff": 10**15}, "size"),
            ({"d_ff": 10**30}, "size"),
            ({"vocab_size": 2**62, "d_model": 2**62}, "size"),
            ({"feed_forward_proj": "gated-gelu"}, "lacks the tensor encoder.block.0.layer.1.DenseReluDense.wi_0"),
        ],
        ids=str,
    )
    def test_sizes_of_another_model(self, folder: Path, changes: dict[str, int], part: str) -> None:
        remove("modules.json")(folder)
        edit(folder / "config.json", **changes)
        assert_refused(folder, part)

    @pytest.mark.parametrize(
        ("changes", "part"),
        [
            ({"feed_forward_proj": "swiglu"}, "feed-forward 'swiglu'; known are relu"),
            ({"feed_forward_proj": "gated-gated-relu"}, "known are"),
            ({"feed_forward_proj": None}, "known are"),
            ({"feed_forward_proj": ["relu"]}, "known are"),
            ({"layer_norm_epsilon": "1e-6"}, "layer_norm_epsilon is '1e-6'"),
            ({"layer_norm_epsilon": -1.0}, "layer_norm_epsilon is -1.0"),
            ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon is nan"),
            ({"relative_attention_max_distance": 8}, "relative_attention_max_distance 8 doesn't go with 32 buckets"),
            ({"relative_attention_num_buckets": 3}, "at least 4 buckets"),
        ],
        ids=str,
    )
    def test_other_settings(self, folder: Path, changes: dict[str, Any], part: str) -> None:
        edit(folder / "config.json", **changes)
        assert_refused(folder, "config.json", part)

    @pytest.mark.parametrize("limit", ["512", 0, 1, -3, 12.5, True, []])
    def test_length_limits(self, folder: Path, limit: Any) -> None:
        edit(folder / "sentence_bert_config.json", max_seq_length=limit)
        assert_refused(folder, f"{limit!r} tokens, expected an integer of at least 2")

    def test_length_limit_of_the_tokenizer(self, folder: Path) -> None:
        remove("sentence_bert_config.json")(folder)
        edit(folder / "tokenizer_config.json", model_max_length="many")
        assert_refused(folder, "'many' tokens, expected an integer")

    def test_lower_casing_outside_the_tokenizer(self, folder: Path) -> None:
        edit(folder / "sentence_bert_config.json", do_lower_case=True)
        assert_refused(folder, "do_lower_case", "add a Lowercase normalizer to tokenizer.json")

    @pytest.mark.parametrize("prompts", [["query"], "query", {"query": 3}, {"query": ["a"]}, 7])
    def test_prompts(self, folder: Path, prompts: Any) -> None:
        edit(folder / "config_sentence_transformers.json", prompts=prompts)
        assert_refused(folder, "config_sentence_transformers.json", "expected an object of names and strings")


class TestSafetensors:
    @pytest.mark.parametrize("name", ["model.safetensors", "2_Dense/model.safetensors"])
    @pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 500, -1, -400])
    def test_truncated(self, folder: Path, name: str, kept: int) -> None:
        data = (folder / name).read_bytes()[:kept]
        (folder / name).write_bytes(data)
        assert_refused(folder, f"{name} ({len(data):,} bytes) can't be read as weights", "Download it again")

    @pytest.mark.parametrize(
        "data",
        [
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            b"<html>not found</html>" * 9,
            struct.pack("<Q", 2**60) + b"{}",
            struct.pack("<Q", 2) + b"[]",
            struct.pack("<Q", 9) + b'{"a": 42}',
            random.Random(0).randbytes(4000),
        ],
        ids=lambda data: repr(data[:12]),
    )
    def test_other_content(self, folder: Path, data: bytes) -> None:
        (folder / "model.safetensors").write_bytes(data)
        assert_refused(folder, "model.safetensors", "can't be read as weights", "Download it again")

    def test_offsets_and_types_that_are_not(self, folder: Path) -> None:
        path = folder / "model.safetensors"
        for entry in (
            {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 40]},
            {"dtype": "F32", "shape": [4], "data_offsets": [8, 0]},
            {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 16]},
            {"dtype": "Q4_K", "shape": [4], "data_offsets": [0, 16]},
            {"dtype": "F4", "shape": [32], "data_offsets": [0, 16]},
        ):
            header = json.dumps({"shared.weight": entry}).encode()
            path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
            refusal(folder)

    @pytest.mark.parametrize(
        "name",
        [
            "shared.weight",
            "encoder.final_layer_norm.weight",
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            "encoder.block.1.layer.0.SelfAttention.k.weight",
            "encoder.block.2.layer.1.DenseReluDense.wo.weight",
            "encoder.block.2.layer.1.layer_norm.weight",
        ],
    )
    def test_a_tensor_is_missing_or_of_another_shape(self, folder: Path, name: str) -> None:
        path = folder / "model.safetensors"
        whole = path.read_bytes()
        edit_weights(path, lambda tensors: tensors.pop(name))
        assert_refused(
            folder, f"lacks the tensor {'encoder.embed_tokens.weight or ' * (name == 'shared.weight')}{name}"
        )
        path.write_bytes(whole)
        edit_weights(path, lambda tensors: tensors.update({name: tensors[name][..., :-1].contiguous()}))
        refusal(folder)
        path.write_bytes(whole)
        edit_weights(path, lambda tensors: tensors.update({name: torch.zeros(())}))
        refusal(folder)

    @pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
    @pytest.mark.parametrize("name", ["shared.weight", "encoder.block.1.layer.0.SelfAttention.k.weight"])
    def test_quantised_weights(self, folder: Path, name: str, dtype: torch.dtype) -> None:
        edit_weights(
            folder / "model.safetensors",
            lambda tensors: tensors.update({name: torch.ones(tensors[name].shape).to(dtype)}),
        )
        assert_refused(folder, f"holds {name} as {dtype}", "as it was before quantisation")

    def test_another_model(self, folder: Path) -> None:
        save_file({"embeddings.word_embeddings.weight": torch.zeros(4, 4)}, folder / "model.safetensors")
        assert_refused(folder, "holds 1 tensors, the first ['embeddings.word", "Expected a T5 encoder with 3 layers")

    @pytest.mark.parametrize("tensors", [{}, {"weight": torch.zeros(24, 32)}, {"linear.other": torch.zeros(1)}])
    def test_another_dense_layer(self, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
        if "weight" in tensors:
            tensors = {**tensors, "linear.residual": torch.zeros(2)}
        save_file(tensors, folder / "2_Dense" / "model.safetensors")
        assert_refused(folder, "2_Dense don't fit its configuration")

    def test_an_index_of_another_form(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        index = folder / "model.safetensors.index.json"
        for content in ("[]", "3", "{", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', '{"weight_map": null}'):
            index.write_text(content)
            assert_refused(folder, "model.safetensors.index.json", "download")
        index.write_text('{"weight_map": {}}')
        assert_refused(folder, "lacks the tensor")


class Evil:
    """Unpickling this runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


class TestPytorchFiles:
    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    def test_a_pickle_that_runs_code_is_refused_and_does_not_run(self, bin_folder: Path, tmp_path: Path) -> None:
        marker = tmp_path / "ran"
        tensors = torch.load(bin_folder / "pytorch_model.bin", weights_only=True)
        for save in (
            lambda: torch.save({**tensors, "evil": Evil(marker)}, bin_folder / "pytorch_model.bin"),
            lambda: (bin_folder / "pytorch_model.bin").write_bytes(pickle.dumps({"evil": Evil(marker)})),
            lambda: torch.save(Evil(marker), bin_folder / "2_Dense" / "pytorch_model.bin"),
        ):
            save()
            assert_refused(bin_folder, "can't be read as weights", "more than tensors to be unpickled are refused")
            assert not marker.exists()
            torch.save(tensors, bin_folder / "pytorch_model.bin")

    def test_a_whole_module(self, bin_folder: Path) -> None:
        torch.save(T5EncoderModel.from_pretrained(bin_folder), bin_folder / "module.bin")
        (bin_folder / "module.bin").replace(bin_folder / "pytorch_model.bin")
        assert_refused(bin_folder, "pytorch_model.bin", "more than tensors to be unpickled are refused")

    @pytest.mark.parametrize("kept", [0, 1, 2, 100, 5000, -1, -300])
    def test_truncated(self, bin_folder: Path, kept: int) -> None:
        path = bin_folder / "pytorch_model.bin"
        path.write_bytes(path.read_bytes()[:kept])
        assert_refused(bin_folder, "pytorch_model.bin", "can't be read as weights", "Download it again")

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            ([torch.zeros(2)], "holds a list"),
            (torch.zeros(2), "holds a Tensor"),
            (7, "holds a int"),
            ({"state_dict": {"shared.weight": torch.zeros(2)}}, "holds a dict under 'state_dict'"),
            ({3: torch.zeros(2)}, "holds a Tensor under 3"),
            ({"shared.weight": None}, "holds a NoneType under 'shared.weight'"),
            ({"shared.weight": torch.zeros(3, 3)}, "lacks the tensor"),
            ({"shared.weight": torch.zeros(3, 3).to_sparse()}, "sparse_coo"),
        ],
        ids=[*"abcdefgh"],
    )
    def test_other_content(self, bin_folder: Path, content: object, part: str) -> None:
        torch.save(content, bin_folder / "pytorch_model.bin")
        assert_refused(bin_folder, part)
        torch.save(content, bin_folder / "2_Dense" / "pytorch_model.bin")
        refusal(bin_folder)

    def test_sparse_weights(self, bin_folder: Path) -> None:
        path = bin_folder / "2_Dense" / "pytorch_model.bin"
        torch.save({"linear.weight": torch.ones(24, 32).to_sparse()}, path)
        assert_refused(bin_folder, "sparse_coo", "expected dense")

    def test_the_old_format_loads(self, bin_folder: Path) -> None:
        path = bin_folder / "pytorch_model.bin"
        tensors = torch.load(path, weights_only=True)
        expected = Instructor.from_pretrained(bin_folder, device="cpu").encode("the")
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
        assert (Instructor.from_pretrained(bin_folder, device="cpu").encode("the") == expected).all()

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("zipped", [True, False])
    def test_flipped_bytes_give_this_error_or_none(self, bin_folder: Path, zipped: bool) -> None:
        path = bin_folder / "2_Dense" / "pytorch_model.bin"
        torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        rng, refused = random.Random(1), 0
        for _ in range(80):
            damaged = bytearray(whole)
            for _ in range(rng.choice((1, 2, 8))):
                damaged[rng.randrange(min(len(whole), 700))] = rng.randrange(256)
            path.write_bytes(damaged)
            try:
                Instructor.from_pretrained(bin_folder, device="cpu")
            except CheckpointError:
                refused += 1
        assert refused > 10


class TestTokenizer:
    @pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "1.0"}', '{"model": {"type": "Magic"}}'])
    def test_other_content(self, folder: Path, content: str) -> None:
        (folder / "tokenizer.json").write_text(content)
        assert_refused(folder, "tokenizer.json is no tokenizer of the tokenizers library")

    @pytest.mark.parametrize("template", ["$A", "<pad> $A </s>", "</s> $A"])
    def test_of_another_architecture(self, folder: Path, template: str) -> None:
        path = str(folder / "tokenizer.json")
        tokenizer = Tokenizer.from_file(path)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<pad>", 0), ("</s>", 1)]
        )
        tokenizer.save(path)
        assert_refused(folder, "tokenizer.json: the tokenizer adds", "Use the tokenizer.json of a T5 checkpoint")

    def test_without_a_vocabulary(self, folder: Path) -> None:
        Tokenizer(models.Unigram([("<unk>", 0.0)], 0)).save(str(folder / "tokenizer.json"))
        assert_refused(folder, "tokenizer.json", "Use the tokenizer.json of a T5 checkpoint")

    def test_of_another_checkpoint(self, make_checkpoint: Callable[..., Path]) -> None:
        folder = make_checkpoint(shape={"vocab_size": 1099})
        assert_refused(folder, "token ids up to 1099, the encoder beside it embeds 1099 tokens", "not of the same")

    def test_with_added_tokens_beyond_the_embeddings(self, folder: Path) -> None:
        path = str(folder / "tokenizer.json")
        tokenizer = Tokenizer.from_file(path)
        tokenizer.add_tokens([f"<more {number}>" for number in range(28)])
        tokenizer.save(path)
        assert Instructor.from_pretrained(folder, device="cpu").encode("<more 27>").shape == (24,)
        tokenizer.add_tokens(["<one too many>"])
        tokenizer.save(path)
        assert_refused(folder, "token ids up to 1128, the encoder beside it embeds 1128 tokens")

    def test_with_an_end_token_beyond_the_embeddings(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text("utf-8"))
        content["post_processor"]["special_tokens"]["</s>"]["ids"] = [4000]
        path.write_text(json.dumps(content))
        assert_refused(folder, "token ids up to 4000, the encoder beside it embeds 1128 tokens")

    @pytest.mark.parametrize(
        "data", [b"", b"not a model", random.Random(0).randbytes(3000)], ids=["empty", "text", "noise"]
    )
    def test_a_damaged_spiece_model(self, folder: Path, data: bytes) -> None:
        (folder / "tokenizer.json").unlink()
        (folder / "spiece.model").write_bytes(data)
        assert_refused(folder, "spiece.model", "can't be converted", "download it again")

    def test_a_truncated_spiece_model(self, folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        data = (folder / "spiece.model").read_bytes()
        (folder / "spiece.model").write_bytes(data[: len(data) // 2])
        assert_refused(folder, "spiece.model")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "2_Dense/model.safetensors"])
def test_every_message_says_what_to_do(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"damaged")
    assert re.search(REMEDY, refusal(folder))
