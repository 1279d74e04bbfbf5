"""Checkpoint folders in the sentence-transformers layout of GTR and INSTRUCTOR, read and written.

    modules.json                     the modules in order
    config.json, model.safetensors   the T5 encoder, here or in 0_Transformer/
    tokenizer.json                   likewise
    sentence_bert_config.json        max_seq_length
    config_sentence_transformers.json  prompts
    1_Pooling/config.json            mean of the tokens, the prompt left out
    2_Dense/                         config.json and weights; may be absent
    3_Normalize/

A plain T5 folder without modules.json is an encoder with mean pooling and no dense layer.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn

from anytask.encoder import ACTIVATIONS, T5Config, T5Encoder
from anytask.errors import CheckpointError
from anytask.pooling import SentenceHead
from anytask.weights import encoder_state, published_state, read_weights

DEFAULT_MAX_LENGTH = 512
SHAPE_FIELDS = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
MODULE_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
IDENTITY = "torch.nn.modules.linear.Identity"


@dataclass
class Checkpoint:
    """A model in parts, and what of its files is kept as it was for saving."""

    encoder: T5Encoder
    head: SentenceHead
    tokenizer: Tokenizer
    max_length: int = DEFAULT_MAX_LENGTH
    prompts: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    """The transformer's whole `config.json`."""
    tokenizer_config: dict[str, Any] = field(default_factory=dict)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder, whole or not at all; weights in the precision they are stored in.

    Raises:
        CheckpointError: a file is missing, unreadable or not what a T5 sentence encoder has.
    """
    modules = _module_folders(folder)
    transformer = modules["Transformer"]
    config = _read_json(transformer / "config.json")
    shape = _read_shape(config, transformer / "config.json")
    if "Pooling" in modules:
        _check_pooling(modules["Pooling"] / "config.json")
    with torch.device("meta"):
        encoder = T5Encoder(shape)
    _assign(encoder, encoder_state(read_weights(transformer, "encoder"), shape, transformer), transformer)
    dense = _read_dense(modules["Dense"], shape.d_model) if "Dense" in modules else None
    tokenizer = _read_tokenizer(transformer)
    if tokenizer.get_vocab_size() > shape.vocab_size:
        raise CheckpointError(
            f"{transformer}: the tokenizer has {tokenizer.get_vocab_size()} tokens, the encoder embeds "
            f"{shape.vocab_size}; they are not of the same checkpoint"
        )
    sentence_config = _first_json(transformer / "sentence_bert_config.json", folder / "sentence_bert_config.json")
    prompts = _first_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    return Checkpoint(
        encoder=encoder,
        head=SentenceHead(dense),
        tokenizer=tokenizer,
        max_length=sentence_config.get("max_seq_length") or DEFAULT_MAX_LENGTH,
        prompts={name: prompt for name, prompt in prompts.items() if prompt},
        config=config,
        tokenizer_config=_first_json(transformer / "tokenizer_config.json"),
    )


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a folder that this package, sentence-transformers and transformers read, weights as they are in memory.

    The folder appears whole: it is written beside itself under a temporary name. In a folder that exists its files
    are replaced one by one, others stay.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_files(checkpoint, partial)
        partial.chmod(0o755)
        if folder.exists():
            for path in [path for path in partial.rglob("*") if path.is_file()]:
                target = folder / path.relative_to(partial)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
        else:
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_files(checkpoint: Checkpoint, folder: Path) -> None:
    dense = checkpoint.head.dense
    kinds = [kind for kind in MODULE_KINDS if kind != "Dense" or dense is not None]
    paths = {kind: "" if kind == "Transformer" else f"{place}_{kind}" for place, kind in enumerate(kinds)}
    _write_json(
        folder / "modules.json",
        [
            {
                "idx": place,
                "name": str(place),
                "path": paths[kind],
                "type": f"sentence_transformers.models.{kind}",
            }
            for place, kind in enumerate(kinds)
        ],
    )
    _write_json(folder / "config.json", checkpoint.config)
    _write_json(folder / "tokenizer_config.json", checkpoint.tokenizer_config)
    _write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": checkpoint.max_length, "do_lower_case": False},
    )
    _write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": checkpoint.prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    (folder / "tokenizer.json").write_text(checkpoint.tokenizer.to_str(), "utf-8")
    shape = checkpoint.encoder.config
    _write_weights(folder, published_state(checkpoint.encoder.state_dict(), shape))
    for kind in kinds[1:]:
        (folder / paths[kind]).mkdir()
    _write_json(
        folder / paths["Pooling"] / "config.json",
        {
            "word_embedding_dimension": shape.d_model,
            "pooling_mode_mean_tokens": True,
            "include_prompt": False,
        },
    )
    if dense is not None:
        _write_json(
            folder / paths["Dense"] / "config.json",
            {
                "in_features": dense.in_features,
                "out_features": dense.out_features,
                "bias": dense.bias is not None,
                "activation_function": IDENTITY,
            },
        )
        _write_weights(
            folder / paths["Dense"], {f"linear.{name}": tensor for name, tensor in dense.state_dict().items()}
        )


def _write_weights(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _module_folders(folder: Path) -> dict[str, Path]:
    """Each module's folder by its kind; the classes may be those of InstructorEmbedding, which isn't needed."""
    listing = folder / "modules.json"
    if not listing.is_file():
        if (folder / "config.json").is_file():
            return {"Transformer": folder}
        raise CheckpointError(
            f"{folder} holds neither modules.json nor config.json, found {_names_in(folder)}; "
            "expected a sentence-transformers folder of a T5 encoder"
        )
    modules: dict[str, Path] = {}
    for entry in _read_json(listing):
        path, class_name = entry.get("path", ""), str(entry.get("type", "")).rsplit(".", 1)[-1]
        kind = next((kind for kind in MODULE_KINDS if class_name.endswith(kind)), None)
        if kind is None or kind in modules:
            raise CheckpointError(
                f"{listing} names the module {entry.get('type')!r}"
                + (" twice" if kind else f"; a GTR or INSTRUCTOR checkpoint has {', '.join(MODULE_KINDS)} only")
            )
        modules[kind] = folder / path
    if "Transformer" not in modules:
        raise CheckpointError(f"{listing} names no Transformer module, found {sorted(modules)}")
    return modules


def _read_shape(config: dict[str, Any], path: Path) -> T5Config:
    model_type = config.get("model_type")
    if model_type not in ("t5", "mt5"):
        raise CheckpointError(f"{path} says model_type {model_type!r}; only T5 encoders (GTR, INSTRUCTOR) can be used")
    missing = [name for name in SHAPE_FIELDS if not isinstance(config.get(name), int)]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}, which a T5 configuration has")
    projection = config.get("feed_forward_proj", "relu")
    shape = T5Config(
        **{name: config[name] for name in SHAPE_FIELDS},
        feed_forward_proj=projection,
        relative_attention_num_buckets=config.get("relative_attention_num_buckets", 32),
        relative_attention_max_distance=config.get("relative_attention_max_distance", 128),
        layer_norm_epsilon=config.get("layer_norm_epsilon", 1e-6),
    )
    if shape.activation not in ACTIVATIONS:
        raise CheckpointError(
            f"{path} asks for the feed-forward {projection!r}; known are {', '.join(ACTIVATIONS)}, each also gated"
        )
    return shape


def _check_pooling(path: Path) -> None:
    config = _read_json(path)
    legacy = {
        name.removeprefix("pooling_mode_") for name, on in config.items() if name.startswith("pooling_mode_") and on
    }
    modes = {config["pooling_mode"]} if isinstance(config.get("pooling_mode"), str) else legacy
    if modes not in ({"mean"}, {"mean_tokens"}):
        raise CheckpointError(f"{path} asks for the pooling {sorted(modes)}; INSTRUCTOR's is the mean of the tokens")


def _read_dense(folder: Path, d_model: int) -> nn.Linear:
    config = _read_json(folder / "config.json")
    activation = config.get("activation_function", IDENTITY)
    if not activation.endswith("Identity") or config.get("use_residual"):
        raise CheckpointError(
            f"{folder / 'config.json'} asks for the activation {activation}"
            f"{' and a residual' if config.get('use_residual') else ''}; GTR's and INSTRUCTOR's dense layer is linear"
        )
    weights = {name.removeprefix("linear."): tensor for name, tensor in read_weights(folder, "dense layer").items()}
    with torch.device("meta"):
        dense = nn.Linear(d_model, config.get("out_features", d_model), bias=bool(config.get("bias", True)))
    _assign(dense, weights, folder)
    return dense


def _assign(module: nn.Module, state: dict[str, torch.Tensor], source: Path) -> None:
    try:
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        problems = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise CheckpointError(f"the weights in {source} don't fit its configuration: {problems}") from error


def _read_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise CheckpointError(f"{path} is no tokenizer of the tokenizers library: {error}") from error
    if (folder / "spiece.model").is_file():
        return _convert_sentencepiece(folder)
    raise CheckpointError(f"no tokenizer.json (or spiece.model) in {folder}, found {_names_in(folder)}")


def _convert_sentencepiece(folder: Path) -> Tokenizer:
    try:
        import sentencepiece  # noqa: F401
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError(
            f'{folder} has spiece.model but no tokenizer.json; converting it needs: pip install "anytask[sentencepiece]"'
        ) from error
    try:
        converted = AutoTokenizer.from_pretrained(str(folder), use_fast=True)
        return Tokenizer.from_str(converted.backend_tokenizer.to_str())
    except (ValueError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{folder / 'spiece.model'} can't be converted to a tokenizer: {error}") from error


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing, its folder holds {_names_in(path.parent)}; download it again")
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error


def _first_json(*paths: Path) -> dict[str, Any]:
    """The first of `paths` that is there, else an empty object."""
    return next((_read_json(path) for path in paths if path.is_file()), {})


def _names_in(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"
