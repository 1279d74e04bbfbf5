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

A folder saved from a model of int8 matrices holds them as such in model-int8.safetensors: beside each `...weight`
[out, in] lies `...weight_scale` [out], float32, and the matrix is their product. Its config.json says
`"quantization_config": {"quant_method": "anytask-int8"}`. This package alone reads it; transformers and
sentence-transformers look for model.safetensors, and say that it isn't there.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn

from anytask.configuration import (
    DEFAULT_MAX_LENGTH,
    IDENTITY,
    INT8_METHOD,
    MODULE_KINDS,
    check_pooling,
    dense_shape,
    encoder_shape,
    is_int8,
    length_limit,
    module_folders,
    names_in,
    read_first_json,
    read_json,
    read_prompts,
)
from anytask.cpu_encoder import CpuEncoder, float_state
from anytask.encoder import T5Config, T5Encoder
from anytask.errors import CheckpointError
from anytask.pooling import SentenceHead
from anytask.tokenization import end_token
from anytask.weights import (
    INT8_FILE,
    SCALE,
    WEIGHTS_FILE,
    encoder_state,
    is_quantised,
    published_state,
    read_int8_weights,
    read_weights,
    unquantised,
)


@dataclass
class Checkpoint:
    """A model in parts, and what of its files is kept as it was for saving."""

    encoder: T5Encoder
    """Of its weights alone, none where there is a `packed` one."""
    head: SentenceHead
    tokenizer: Tokenizer
    max_length: int = DEFAULT_MAX_LENGTH
    prompts: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    """The transformer's whole `config.json`."""
    tokenizer_config: dict[str, Any] = field(default_factory=dict)
    packed: CpuEncoder | None = None
    """The encoder as it runs on a CPU."""

    def in_precision(self, dtype: torch.dtype) -> Checkpoint:
        """A copy with the encoder's weights in `dtype`; int8 ones are quantised as they are for a CPU."""
        state = float_state((self.packed or self.encoder).state_dict())
        shape = (self.packed or self.encoder).config
        with torch.device("meta"):
            encoder = T5Encoder(shape)
        if dtype == torch.int8:
            return replace(self, encoder=encoder, packed=CpuEncoder(shape, state, dtype))
        encoder.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, assign=True)
        return replace(self, encoder=encoder, packed=None)


def stored_precision(folder: Path, device: torch.device) -> torch.dtype:
    """The precision that a model of this folder runs in unless another is asked for: int8 on a CPU where its matrices
    are stored so, else float32.

    Raises:
        CheckpointError: the folder is no sentence encoder's.
    """
    config = read_json(module_folders(folder)["Transformer"] / "config.json")
    return torch.int8 if device.type == "cpu" and is_int8(config) else torch.float32


def load_checkpoint(folder: Path, pack: torch.dtype | None = None) -> Checkpoint:
    """Read a checkpoint folder, whole or not at all.

    Args:
        pack: give a `packed` encoder of this precision, without ever holding all weights twice unless they are stored
            in int8 and wanted in another. None gives the weights as they are stored, or int8 ones in float32.

    Raises:
        CheckpointError: a file is missing, unreadable or not what a T5 sentence encoder has.
    """
    modules = module_folders(folder)
    transformer = modules["Transformer"]
    config = read_json(transformer / "config.json")
    shape = encoder_shape(config, transformer / "config.json")
    if "Pooling" in modules:
        check_pooling(modules["Pooling"] / "config.json")
    encoder, scales = _read_encoder(transformer, shape, is_int8(config), mapped=pack is not None)
    packed = None
    if pack is not None:
        state: dict[str, torch.Tensor] = {**encoder.state_dict(), **scales}
        if scales and pack != torch.int8:
            state = float_state(state)
        scales.clear()
        with torch.device("meta"):
            encoder = T5Encoder(shape)  # lets go of the weights, which `state` alone holds now
        packed = CpuEncoder(shape, state, pack)
    elif scales:
        encoder.load_state_dict(float_state({**encoder.state_dict(), **scales}), assign=True)
    return Checkpoint(
        encoder=encoder.requires_grad_(),
        packed=packed,
        head=SentenceHead(_read_dense(modules["Dense"], shape.d_model) if "Dense" in modules else None),
        tokenizer=_read_fitting_tokenizer(transformer, shape.vocab_size),
        max_length=length_limit(folder, transformer),
        prompts=read_prompts(folder / "config_sentence_transformers.json"),
        config=config,
        tokenizer_config=read_first_json(transformer / "tokenizer_config.json"),
    )


def save_checkpoint(checkpoint: Checkpoint, folder: Path, *, workspace: Path | None = None) -> None:
    """Write a folder that this package, sentence-transformers and transformers read, weights as they are in memory.

    The folder appears whole: it is written under a temporary name, beside itself or in `workspace` on the same disk.
    In a folder that exists its files are replaced one by one, others stay.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=workspace or folder.parent))
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
    _write_json(folder / "config.json", _config_of(checkpoint))
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
    state = (checkpoint.packed or checkpoint.encoder).state_dict()
    _write_weights(folder, published_state(state, shape), INT8_FILE if is_quantised(state) else WEIGHTS_FILE)
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


def _config_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """The transformer's configuration, with the precision that its weights have now: others load them in it."""
    packed = checkpoint.packed
    dtype = packed.table_dtype if packed else checkpoint.encoder.embed_tokens.weight.dtype
    config = {name: value for name, value in checkpoint.config.items() if name not in ("dtype", "quantization_config")}
    config["torch_dtype"] = str(dtype).removeprefix("torch.")
    if packed is not None and packed.dtype == torch.int8:
        config["quantization_config"] = {"quant_method": INT8_METHOD}
    return config


def _write_weights(folder: Path, tensors: Mapping[str, torch.Tensor], name: str = WEIGHTS_FILE) -> None:
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    path = folder / name
    save_file(contiguous, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors leaves it readable to its owner only


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _read_encoder(folder: Path, shape: T5Config, int8: bool, mapped: bool) -> tuple[T5Encoder, dict[str, torch.Tensor]]:
    """The encoder, and the scales of its matrices where these are int8."""
    state = encoder_state(
        read_int8_weights(folder, mapped) if int8 else read_weights(folder, "encoder", mapped), shape, folder, int8
    )
    scales = {name: state.pop(name) for name in [name for name in state if name.endswith(SCALE)]}
    with _sizes_of(folder / "config.json"):
        encoder = T5Encoder(shape).requires_grad_(False)
    _assign(encoder, state, folder)
    for name, scale in scales.items():
        rows = len(state[name.removesuffix("_scale")])
        if scale.shape != (rows,) or not torch.isfinite(scale).all():
            raise CheckpointError(
                f"{folder} holds {name} of shape {tuple(scale.shape)}, expected {rows} finite numbers; "
                "download it again"
            )
    return encoder, scales


def _read_dense(folder: Path, d_model: int) -> nn.Linear:
    dimension, bias = dense_shape(folder / "config.json", d_model)
    weights = {
        name.removeprefix("linear."): unquantised(tensor, name, folder)
        for name, tensor in read_weights(folder, "dense layer").items()
    }
    with _sizes_of(folder / "config.json"):
        dense = nn.Linear(d_model, dimension, bias=bias)
    _assign(dense, weights, folder)
    return dense


@contextmanager
def _sizes_of(config: Path) -> Iterator[None]:
    """Make modules without memory for their weights; CheckpointError when no tensor can have the sizes in `config`."""
    try:
        with torch.device("meta"):
            yield
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{config} asks for impossible sizes: {reason}; download it again") from error


def _assign(module: nn.Module, state: dict[str, torch.Tensor], source: Path) -> None:
    try:
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        problems = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise CheckpointError(
            f"the weights in {source} don't fit its configuration: {problems}. Download both again"
        ) from error


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a transformer's folder.

    Raises:
        CheckpointError: there is no `tokenizer.json` or `spiece.model`, or it is not of T5's kind.
    """
    path = next((folder / name for name in ("tokenizer.json", "spiece.model") if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"no tokenizer.json (or spiece.model) in {folder}, found {names_in(folder)}")
    return read_tokenizer_file(path)


def read_tokenizer_file(path: Path) -> Tokenizer:
    """As `read_tokenizer`, from the file itself."""
    if path.name == "spiece.model":
        tokenizer = _convert_sentencepiece(path)
    else:
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise CheckpointError(f"{path} is no tokenizer of the tokenizers library: {error}") from error
    try:
        end_token(tokenizer)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return tokenizer


def embedding_rows(tokenizer: Tokenizer) -> int:
    """The fewest rows of an embedding table that has one for each of the tokenizer's ids."""
    last = tokenizer.get_vocab_size(with_added_tokens=False) - 1
    return 1 + max(end_token(tokenizer), last, *tokenizer.get_added_tokens_decoder())


def _read_fitting_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    tokenizer = read_tokenizer(folder)
    rows = embedding_rows(tokenizer)
    if rows > vocab_size:
        raise CheckpointError(
            f"the tokenizer in {folder} has token ids up to {rows - 1}, the encoder beside it embeds {vocab_size} "
            "tokens; they are not of the same checkpoint"
        )
    return tokenizer


def _convert_sentencepiece(path: Path) -> Tokenizer:
    try:
        import sentencepiece
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError(
            f'{path} has no tokenizer.json beside it; converting it needs: pip install "anytask[sentencepiece]"'
        ) from error
    try:
        sentencepiece.SentencePieceProcessor(model_file=str(path))  # checks it; transformers accepts an empty file
        converted = AutoTokenizer.from_pretrained(str(path.parent), trust_remote_code=False)
        return Tokenizer.from_str(converted.backend_tokenizer.to_str())
    except Exception as error:  # sentencepiece, protobuf and transformers each raise their own
        raise CheckpointError(f"{path} can't be converted to a tokenizer: {error}; download it again") from error
