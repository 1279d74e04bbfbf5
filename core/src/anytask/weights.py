"""Weight files: reading them safely, and the published T5 names against the encoder's own.

A checkpoint holds q, k, v (and the two halves of a gated `wi`) as separate matrices; the encoder holds each group as
one. Both directions are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from anytask.configuration import read_json
from anytask.encoder import T5Config
from anytask.errors import CheckpointError

EMBEDDING_NAMES = ("encoder.embed_tokens.weight", "shared.weight")
POSITION_BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
FINAL_NORM = "encoder.final_layer_norm.weight"
MATRIX_NAMES = tuple(f".{part}.weight" for part in ("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"))
SCALE = ".weight_scale"
WEIGHTS_FILE = "model.safetensors"
INT8_FILE = "model-int8.safetensors"
"""Another name than transformers looks for: it would take the bytes for the weights, and warn at most."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def read_weights(folder: Path, stem: str, mapped: bool = False) -> dict[str, Tensor]:
    """All tensors of a module folder, from safetensors where there is one, else from a PyTorch file.

    Args:
        folder: holds `model.safetensors`, `pytorch_model.bin` or the index and shards of either.
        stem: what the weights are, for messages ("encoder", "dense layer").
        mapped: leave matrices of safetensors in their file, for those who only copy them: none takes memory before it
            is read, nor after it is let go of.

    Raises:
        CheckpointError: no such file, a missing shard, a file that can't be read or that holds more than tensors.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return _read_file(folder / name, mapped)
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _read_shards(index, mapped)
    raise CheckpointError(
        f"no weights of the {stem} in {folder}: expected model.safetensors or pytorch_model.bin; "
        "download the folder again, or point to the folder that holds modules.json"
    )


def read_int8_weights(folder: Path, mapped: bool = False) -> dict[str, Tensor]:
    """All tensors of a transformer's folder whose matrices are stored as int8; `mapped` as in `read_weights`.

    Raises:
        CheckpointError: the file is missing or can't be read.
    """
    path = folder / INT8_FILE
    if not path.is_file():
        raise CheckpointError(f"no {INT8_FILE} in {folder}, whose config.json says int8; download the folder again")
    return _read_file(path, mapped)


def _read_shards(index: Path, mapped: bool) -> dict[str, Tensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise CheckpointError(f"{index} is no index of weight shards; download it again")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        path = index.parent / shard
        if not path.is_file():
            raise CheckpointError(f"{index} names {shard}, which is not there; download the missing shard")
        tensors.update(_read_file(path, mapped))
    return tensors


def _read_file(path: Path, mapped: bool) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            loaded = _read_safetensors(path, mapped)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) can't be read as weights: {reason}. "
            "Download it again; files that need more than tensors to be unpickled are refused"
        ) from error
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, expected a mapping of names to tensors")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path} holds a {type(tensor).__name__} under {name!r:.60}, expected a mapping of names to tensors"
            )
    return dict(loaded)


def _read_safetensors(path: Path, mapped: bool) -> dict[str, Tensor]:
    """The tensors of a file, each in memory or a mapping of its own, so that letting go of one frees it.

    Tensors of one mapping keep all pages of it that were ever read. A table of embeddings, of which few rows are
    looked up, stays mapped.
    """
    with safe_open(path, "pt") as file:
        names = list(file.keys())
    tensors = {}
    for name in names:
        with torch.device("cpu"), safe_open(path, "pt") as file:  # older releases follow torch's default
            tensor = file.get_tensor(name)
            stays = name in EMBEDDING_NAMES or (mapped and tensor.dim() == 2)
            tensors[name] = tensor if stays else tensor.clone()
    return tensors


def unquantised(tensor: Tensor, name: str, source: Path) -> Tensor:
    """The tensor, in a precision that converts to any other.

    Raises:
        CheckpointError: it holds the integers of a quantised checkpoint, which mean nothing without their scales.
    """
    if tensor.dtype not in DTYPES or tensor.layout != torch.strided:
        raise CheckpointError(
            f"{source} holds {name} as {tensor.dtype}, {tensor.layout}; expected dense floating-point tensors, "
            "so give the checkpoint as it was before quantisation"
        )
    return tensor


def encoder_state(
    published: Mapping[str, Tensor], config: T5Config, source: Path, int8: bool = False
) -> dict[str, Tensor]:
    """The encoder's state from published names; a decoder's tensors are left out.

    Args:
        int8: the layers' matrices are int8, each `weight` with the `weight_scale` of its rows beside it.

    Raises:
        CheckpointError: a tensor is missing, quantised where it shouldn't be or the reverse, or there are more layers
            than the configuration says.
    """

    held, left = sorted(published), dict(published)
    del published  # what the caller doesn't hold is let go of tensor by tensor

    def take(*names: str) -> Tensor:
        for name in names:
            if name in left:
                return (_int8 if int8 and _is_matrix(name) else unquantised)(left.pop(name), name, source)
        raise CheckpointError(
            f"{source} lacks the tensor {' or '.join(names)}; it holds {len(held)} tensors, "
            f"the first {held[:3]}. Expected a T5 encoder with {config.num_layers} layers; download the "
            "folder again, or correct its config.json"
        )

    state = {
        "embed_tokens.weight": take(*EMBEDDING_NAMES),
        "relative_attention_bias.weight": take(POSITION_BIAS),
        "final_norm.weight": take(FINAL_NORM),
    }
    for layer in range(config.num_layers):
        for ours, theirs in _layer_names(layer, config, int8).items():
            parts = [take(name) for name in theirs]
            try:
                state[ours] = torch.cat(parts) if len(parts) > 1 else parts[0]
            except RuntimeError as error:
                raise CheckpointError(f"{source}: the shapes of {', '.join(theirs)} don't fit each other") from error
    further = [name for name in held if name.startswith(f"encoder.block.{config.num_layers}.")]
    if further:
        raise CheckpointError(
            f"{source} holds {further[0]}, while its config.json says {config.num_layers} layers; correct num_layers"
        )
    return state


def published_state(state: Mapping[str, Tensor], config: T5Config) -> dict[str, Tensor]:
    """The inverse of `encoder_state`, under the names a `T5EncoderModel` saves; int8 matrices keep their scales."""
    int8 = is_quantised(state)
    published = {
        "shared.weight": state["embed_tokens.weight"],
        POSITION_BIAS: state["relative_attention_bias.weight"],
        FINAL_NORM: state["final_norm.weight"],
    }
    for layer in range(config.num_layers):
        for ours, theirs in _layer_names(layer, config, int8).items():
            published.update(zip(theirs, state[ours].chunk(len(theirs)), strict=True))
    return published


def is_quantised(state: Mapping[str, Tensor]) -> bool:
    """Whether the matrices of an encoder's state are int8."""
    return any(name.endswith(SCALE) for name in state)


def _is_matrix(name: str) -> bool:
    return name.endswith(MATRIX_NAMES)


def _int8(tensor: Tensor, name: str, source: Path) -> Tensor:
    if tensor.dtype != torch.int8 or tensor.layout != torch.strided:
        raise CheckpointError(
            f"{source} holds {name} as {tensor.dtype}, while its config.json says that its matrices are int8; "
            "download both again"
        )
    return tensor


def _layer_names(layer: int, config: T5Config, int8: bool) -> dict[str, list[str]]:
    """Our tensor's name to the published tensors that it stacks by rows."""
    attention, feed_forward = (f"encoder.block.{layer}.layer.{part}" for part in (0, 1))
    wi = ("wi_0", "wi_1") if config.is_gated else ("wi",)
    names = {
        f"blocks.{layer}.attention_norm.weight": [f"{attention}.layer_norm.weight"],
        f"blocks.{layer}.attention.qkv.weight": [f"{attention}.SelfAttention.{part}.weight" for part in "qkv"],
        f"blocks.{layer}.attention.o.weight": [f"{attention}.SelfAttention.o.weight"],
        f"blocks.{layer}.feed_forward_norm.weight": [f"{feed_forward}.layer_norm.weight"],
        f"blocks.{layer}.feed_forward.wi.weight": [f"{feed_forward}.DenseReluDense.{part}.weight" for part in wi],
        f"blocks.{layer}.feed_forward.wo.weight": [f"{feed_forward}.DenseReluDense.wo.weight"],
    }
    if int8:
        matrices = {ours: theirs for ours, theirs in names.items() if all(map(_is_matrix, theirs))}
        names |= {f"{ours}_scale": [f"{name}_scale" for name in theirs] for ours, theirs in matrices.items()}
    return names
