"""The keyword arguments of langchain-community's `HuggingFaceInstructEmbeddings`, brought to today's fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {"model_name": "model", "embed_instruction": "document_instruction", "cache_folder": "cache_dir"}

MODEL_ENTRIES: dict[str, str | None] = {
    **{name: name for name in ("device", "revision", "token", "cache_dir", "local_files_only", "truncate_dim")},
    "cache_folder": "cache_dir",
    "use_auth_token": "token",
    "backend": None,
    "trust_remote_code": None,
}
LOADING_ENTRIES: dict[str, str | None] = {"dtype": "dtype", "torch_dtype": "dtype"}
ENCODE_ENTRIES: dict[str, str | None] = {
    "device": "device",
    "truncate_dim": "truncate_dim",
    "show_progress_bar": "show_progress",
    **dict.fromkeys(("batch_size", "convert_to_numpy", "convert_to_tensor", "normalize_embeddings")),
    **dict.fromkeys(("output_value", "precision")),
}
"""Entries and the fields they became, of `model_kwargs`, of the `model_kwargs` inside it (which sentence-transformers
hands on to transformers) and of `encode_kwargs`.

None: no vector depends on it. Batches are formed by `batch_tokens`, the result is always lists of floats, and no code
of a checkpoint is run, permitted or not. `normalize_embeddings` had no effect with the released INSTRUCTOR and GTR
checkpoints, whose last module is Normalize: their vectors were of unit length, as they are here. Raw ones are had by
`normalize=False` alone.
"""
ONLY_VALUE = {"backend": "torch", "output_value": "sentence_embedding", "precision": "float32"}

PROMPTS = ("prompts", "default_prompt_name", "prompt", "prompt_name")


def to_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments, former and present, to values of fields.

    Raises:
        ValueError: an entry of `model_kwargs` or `encode_kwargs` that has no counterpart, or two values for a field.
    """
    former = (*RENAMED, "model_kwargs", "encode_kwargs")
    fields = {name: value for name, value in arguments.items() if name not in former}
    for name, field in RENAMED.items():
        if name in arguments:
            _put(fields, field, arguments[name], name)
    model_kwargs = _entries(arguments, "model_kwargs")
    loading = _entries(model_kwargs, "model_kwargs")
    model_kwargs.pop("model_kwargs", None)
    _move(fields, model_kwargs, MODEL_ENTRIES, "model_kwargs")
    _move(fields, loading, LOADING_ENTRIES, "model_kwargs['model_kwargs']")
    encoding = _entries(arguments, "encode_kwargs")
    _move(fields, encoding, ENCODE_ENTRIES, "encode_kwargs")
    if encoding.get("normalize_embeddings") and fields.get("normalize") is False:
        raise ValueError(
            "encode_kwargs['normalize_embeddings']=True and normalize=False contradict each other; leave one out"
        )
    return fields


def _entries(arguments: Mapping[str, Any], name: str) -> dict[str, Any]:
    entries = arguments.get(name) or {}
    if not isinstance(entries, Mapping):
        raise ValueError(f"{name} must be a dict, got {type(entries).__name__}")
    return dict(entries)


def _move(fields: dict[str, Any], entries: dict[str, Any], known: dict[str, str | None], origin: str) -> None:
    for name, value in entries.items():
        source = f"{origin}[{name!r}]"
        if name in PROMPTS:
            raise ValueError(f"{source} is not supported; use query_instruction and document_instruction")
        if name not in known:
            raise ValueError(f"{source} is not supported; known are {', '.join(sorted(known))}")
        if name in ONLY_VALUE and value != ONLY_VALUE[name]:
            raise ValueError(f"{source} can only be {ONLY_VALUE[name]!r}, got {value!r}; leave it out")
        field = known[name]
        if field is not None:
            _put(fields, field, value, source)


def _put(fields: dict[str, Any], field: str, value: Any, source: str) -> None:
    if field in fields and fields[field] != value:
        raise ValueError(f"{field} is given twice with different values, the second time as {source}; keep one of them")
    fields[field] = value
