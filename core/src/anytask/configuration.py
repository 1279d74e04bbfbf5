"""The JSON files of a checkpoint folder, read and checked: what the encoder, the head and the tokenizer have to be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anytask.encoder import ACTIVATIONS, T5Config
from anytask.errors import CheckpointError

MODULE_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
"""The modules of a GTR or INSTRUCTOR checkpoint, in their order."""
DEFAULT_MAX_LENGTH = 512
LENGTH_OF_NO_LIMIT = 1_000_000
"""transformers writes an enormous `model_max_length` for a tokenizer without a limit."""
SHAPE_FIELDS = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
NO_INSTRUCTION = "no_instruction"
"""Name of an empty prompt, which a model has that was trained without instructions: that its other prompts are empty
means nothing by itself, for sentence-transformers writes an empty "query" and "document" for every model."""
INT8_METHOD = "anytask-int8"
"""How `quantization_config` in `config.json` names matrices of bytes with a scale for each row."""
IDENTITY = "torch.nn.modules.linear.Identity"
TANH = "torch.nn.modules.activation.Tanh"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: no such file, or it holds something else.
    """
    content = _parse(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a JSON {type(content).__name__}, expected an object; download it again")
    return content


def read_first_json(*paths: Path) -> dict[str, Any]:
    """The first of `paths` that is there, else an empty object."""
    return next((read_json(path) for path in paths if path.is_file()), {})


def module_folders(folder: Path) -> dict[str, Path]:
    """Each module's folder by its kind; the classes may be those of InstructorEmbedding, which isn't needed.

    Raises:
        CheckpointError: `modules.json` doesn't list the modules of a T5 sentence encoder in their order.
    """
    listing = folder / "modules.json"
    if not listing.is_file():
        if (folder / "config.json").is_file():
            return {"Transformer": folder}
        raise CheckpointError(
            f"{folder} holds neither modules.json nor config.json, found {names_in(folder)}; "
            "expected a sentence-transformers folder of a T5 encoder"
        )
    entries = _parse(listing)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CheckpointError(f"{listing} is no list of modules; download it again")
    modules: dict[str, Path] = {}
    for entry in entries:
        path, class_name = entry.get("path", ""), str(entry.get("type", "")).rsplit(".", 1)[-1]
        kind = next((kind for kind in MODULE_KINDS if class_name.endswith(kind)), None)
        if kind is None or kind in modules:
            raise CheckpointError(
                f"{listing} names the module {entry.get('type')!r}"
                + (" twice" if kind else f"; a GTR or INSTRUCTOR checkpoint has {', '.join(MODULE_KINDS)} only")
            )
        if not isinstance(path, str):
            raise CheckpointError(f"{listing}: the path of {entry.get('type')!r} is {path!r}, expected a folder's name")
        modules[kind] = folder / path
    expected = [kind for kind in MODULE_KINDS if kind in modules or kind == "Transformer"]
    if list(modules) != expected:
        raise CheckpointError(f"{listing} lists {', '.join(modules) or 'nothing'}; expected {', '.join(expected)}")
    return modules


def encoder_shape(config: Mapping[str, Any], path: Path) -> T5Config:
    """The shape of the encoder whose `config.json`, read from `path`, is `config`.

    Raises:
        CheckpointError: it isn't a T5 encoder's.
    """
    model_type = config.get("model_type")
    if model_type not in ("t5", "mt5"):
        raise CheckpointError(f"{path} says model_type {model_type!r}; only T5 encoders (GTR, INSTRUCTOR) can be used")
    missing = [name for name in SHAPE_FIELDS if name not in config]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}, which a T5 configuration has")
    positive = {
        **{name: config[name] for name in SHAPE_FIELDS},
        "relative_attention_num_buckets": config.get("relative_attention_num_buckets", 32),
        "relative_attention_max_distance": config.get("relative_attention_max_distance", 128),
    }
    for name, value in positive.items():
        if type(value) is not int or value < 1:
            raise CheckpointError(f"{path}: {name} is {value!r}, expected a positive integer")
    buckets, distance = positive["relative_attention_num_buckets"], positive["relative_attention_max_distance"]
    if buckets < 4 or distance <= buckets // 4:
        raise CheckpointError(
            f"{path}: relative_attention_max_distance {distance} doesn't go with {buckets} buckets; at least 4 buckets "
            f"are needed, a quarter of which is less than the distance"
        )
    epsilon = config.get("layer_norm_epsilon", 1e-6)
    if not isinstance(epsilon, float | int) or not 0 <= epsilon < 1:
        raise CheckpointError(f"{path}: layer_norm_epsilon is {epsilon!r}, expected a small number")
    projection = config.get("feed_forward_proj", "relu")
    shape = T5Config(**positive, feed_forward_proj=str(projection), layer_norm_epsilon=float(epsilon))
    if shape.activation not in ACTIVATIONS:
        raise CheckpointError(
            f"{path} asks for the feed-forward {projection!r}; known are {', '.join(ACTIVATIONS)}, each also gated"
        )
    return shape


def is_int8(config: Mapping[str, Any]) -> bool:
    """Whether the encoder's matrices are stored as int8 with scales."""
    quantisation = config.get("quantization_config")
    return isinstance(quantisation, dict) and quantisation.get("quant_method") == INT8_METHOD


def check_pooling(path: Path) -> None:
    """Raise CheckpointError unless `1_Pooling/config.json` asks for the mean of the tokens."""
    config = read_json(path)
    legacy = [
        name.removeprefix("pooling_mode_").removesuffix("_tokens")
        for name, on in config.items()
        if name.startswith("pooling_mode_") and on
    ]
    asked = config.get("pooling_mode") or legacy or "mean"
    modes = asked if isinstance(asked, list) else [asked]
    if modes != ["mean"]:
        raise CheckpointError(
            f"{path} asks for the pooling {', '.join(map(str, modes))}; INSTRUCTOR's is the mean of the tokens"
        )


def dense_shape(path: Path, d_model: int) -> tuple[int, bool]:
    """Output dimension and whether there is a bias, from `2_Dense/config.json`.

    Raises:
        CheckpointError: the layer isn't linear, or not for vectors of `d_model`.
    """
    config = read_json(path)
    activation = config.get("activation_function", TANH)  # what sentence-transformers takes where none is named
    if not str(activation).endswith("Identity") or config.get("use_residual"):
        raise CheckpointError(
            f"{path} asks for the activation {activation}{' and a residual' if config.get('use_residual') else ''}; "
            "GTR's and INSTRUCTOR's dense layer is linear"
        )
    features = config.get("in_features", d_model), config.get("out_features", d_model)
    if not all(type(value) is int and value > 0 for value in features) or features[0] != d_model:
        raise CheckpointError(
            f"{path} takes {features[0]!r} to {features[1]!r} features; the encoder gives {d_model}, so expected "
            f"{d_model} to a positive number"
        )
    return features[1], bool(config.get("bias", True))


def length_limit(folder: Path, transformer: Path) -> int:
    """Most tokens of a text: sentence-transformers' `max_seq_length`, else the tokenizer's limit, else 512.

    Raises:
        CheckpointError: the limit is no number of tokens, or the text has to be lower-cased outside the tokenizer.
    """
    sentence = read_first_json(*(place / "sentence_bert_config.json" for place in (transformer, folder)))
    if sentence.get("do_lower_case"):
        raise CheckpointError(
            f"{transformer / 'sentence_bert_config.json'} asks for do_lower_case, which is not supported; "
            "add a Lowercase normalizer to tokenizer.json instead"
        )
    limit = sentence.get("max_seq_length")
    if limit is None:
        limit = read_first_json(transformer / "tokenizer_config.json").get("model_max_length")
        if isinstance(limit, float | int) and limit >= LENGTH_OF_NO_LIMIT:
            limit = None
    if limit is None:
        return DEFAULT_MAX_LENGTH
    if type(limit) is not int or limit < 2:
        raise CheckpointError(f"{transformer} limits texts to {limit!r} tokens, expected an integer of at least 2")
    return limit


def read_prompts(path: Path) -> dict[str, str]:
    """The prompts of `config_sentence_transformers.json` by name; empty ones where another isn't, or is
    `NO_INSTRUCTION`.

    Raises:
        CheckpointError: they aren't strings.
    """
    prompts = read_first_json(path).get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str | None) for prompt in prompts.values()):
        raise CheckpointError(f"{path}: the prompts are {prompts!r:.80}, expected an object of names and strings")
    told = {name for name, prompt in prompts.items() if prompt}
    if not told and NO_INSTRUCTION not in prompts:
        return {}
    empty = {name for name, prompt in prompts.items() if prompt == ""}
    if told & {"passage", "corpus"}:
        empty.discard("document")  # sentence-transformers adds it to a model that has another name for it
    return {name: prompt for name, prompt in prompts.items() if name in told | empty}


def lasting_prompts(prompts: Mapping[str, str]) -> dict[str, str]:
    """Prompts for a checkpoint to hold, of which `read_prompts` gives back the empty ones too."""
    unmarked = bool(prompts) and not any(prompts.values())
    return {**prompts, NO_INSTRUCTION: ""} if unmarked else dict(prompts)


def names_in(folder: Path) -> str:
    """What a folder holds, for messages."""
    if not folder.is_dir():
        return "no such folder"
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _parse(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing, its folder holds {names_in(path.parent)}; download it again")
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read as JSON: {error}; download it again") from error
