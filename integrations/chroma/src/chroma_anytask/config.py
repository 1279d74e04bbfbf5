"""The configuration that Chroma keeps with a collection: its schema, and which changes the stored vectors survive."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from jsonschema import Draft7Validator, ValidationError  # type: ignore[import-untyped]
from jsonschema.exceptions import best_match  # type: ignore[import-untyped]

from anytask import Embedder

NAME = "anytask_instructor"

DECIDE_DOCUMENT_VECTORS = (
    "model",
    "revision",
    "document_instruction",
    "dtype",
    "max_length",
    "normalize",
    "truncate_dim",
)
"""The settings that the vectors in a collection depend on; all others may change at any time."""

_DEFAULTS = {setting.name: setting.default for setting in fields(Embedder)}


@cache
def _validator() -> Draft7Validator:
    schema = json.loads((files("chroma_anytask") / "schemas" / f"{NAME}.json").read_text("utf-8"))
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def problem(config: Mapping[str, Any]) -> str | None:
    """What the JSON schema has against a configuration, with its place, worded like Chroma's own; None if nothing."""
    error = best_match(_validator().iter_errors(config))
    if error is None:
        return None
    place = "/".join(str(part) for part in error.absolute_path)
    message = f"Config validation failed for schema '{NAME}': {error.message}"
    return f"{message} at path '{place}'" if place else message


def validate(config: Mapping[str, Any]) -> None:
    """Check a configuration against the JSON schema.

    Raises:
        jsonschema.ValidationError: it doesn't match.
    """
    message = problem(config)
    if message is not None:
        raise ValidationError(message)


def refuse_other_vectors(old: Mapping[str, Any], new: Mapping[str, Any], collection: str = "the collection") -> None:
    """Refuse a configuration whose document vectors aren't those of a collection's.

    Args:
        old: what the collection was built with; a missing setting has its default.
        new: what shall be used with it; a missing setting stays as it is, and so does a dtype that is None. Its model
            may be a folder that `stands_in` for the old one.
        collection: how the message names it.

    Raises:
        ValueError: with each setting that differs, and what can be done.
    """
    before = {name: old.get(name, _DEFAULTS[name]) for name in DECIDE_DOCUMENT_VECTORS}
    after = {name: new.get(name, before[name]) for name in DECIDE_DOCUMENT_VECTORS}
    if after["dtype"] is None:
        after["dtype"] = before["dtype"]
    if stands_in(after["model"], before["model"]):
        after["model"] = before["model"]
    changes = [f"{name} {before[name]!r} -> {after[name]!r}" for name in before if before[name] != after[name]]
    if changes:
        raise ValueError(
            f"{collection} was built with other settings: {'; '.join(changes)}. Its vectors can't be compared with "
            "those of the new settings. Keep the settings that it was built with (query_instruction, device and the "
            "like may change), or embed its documents again into a new collection"
        )


def stands_in(folder: str, stored: str) -> bool:
    """Whether a folder may take the place of a stored one, whose absolute path leads nowhere on this machine."""
    absolute = PurePosixPath(stored).is_absolute() or PureWindowsPath(stored).is_absolute()
    return absolute and not os.path.exists(stored) and os.path.isdir(folder)  # noqa: PTH110, PTH112 (no OSError)
