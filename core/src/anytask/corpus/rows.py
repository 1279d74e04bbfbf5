"""From a row's values to what is embedded and kept: its id, its text, its chosen fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from anytask.corpus.formats import InputError, ParquetSource, RawRow, Source, TextSource

ID, TEXT, EMBEDDING = "id", "text", "embedding"
TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}


class BadRowError(ValueError):
    """A row can't be embedded; the message names its file, its number and its line."""


class Row(NamedTuple):
    """What is embedded, under which id, and the values of the kept fields."""

    id: str
    text: str
    kept: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which fields of a row are what.

    Args:
        text: fields that are joined to the text that is embedded; those that are missing, null or blank are left out,
            but not all of them.
        separator: between them.
        id: the field with the row's id; None numbers the rows of all inputs from 0, and takes the path of a text file.
        keep: fields to keep beside the vector, each with its type: "string", "int64", "float64", "bool", or None for
            that of a Parquet input, and for strings (values that are none as JSON) of the others.
        keep_text: also keep the text that was embedded, as the column `text`.
    """

    text: Sequence[str] = (TEXT,)
    separator: str = " "
    id: str | None = None
    keep: Mapping[str, str | None] = field(default_factory=dict)
    keep_text: bool = False

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("name a field to embed")
        taken = {ID, EMBEDDING, *([TEXT] if self.keep_text else [])} & set(self.keep)
        if taken:
            raise ValueError(f"the output has a column {', '.join(sorted(taken))} of its own; don't keep that field")
        for name, kind in self.keep.items():
            if kind is not None and kind not in TYPES:
                raise ValueError(f"the type of the field {name} must be one of {', '.join(TYPES)}, got {kind!r}")

    @property
    def fields(self) -> tuple[str, ...]:
        """All that are read."""
        return tuple(dict.fromkeys((*self.text, *([self.id] if self.id is not None else []), *self.keep)))

    def kept_types(self, sources: Sequence[Source]) -> list[pa.Field]:
        """Arrow fields of the kept columns.

        Raises:
            InputError: Parquet inputs disagree on a field's type.
        """
        found = []
        for name, kind in self.keep.items():
            types = {source.schema.field(name).type for source in sources if isinstance(source, ParquetSource)}
            if kind is not None:
                found.append(pa.field(name, TYPES[kind]))
            elif len(types) > 1 or (types and not all(isinstance(source, ParquetSource) for source in sources)):
                raise InputError(f"the inputs disagree on the type of {name}; give one: {name}:{'|'.join(TYPES)}")
            else:
                found.append(pa.field(name, types.pop() if types else pa.string()))
        return found

    def row(self, raw: RawRow, number: int, types: Sequence[pa.DataType]) -> Row:
        """Read a row.

        Args:
            number: of the row among those of all inputs, from 0.
            types: of the kept fields.

        Raises:
            BadRowError: its JSON is malformed, a field is missing or of another type, the text isn't valid Unicode.
        """
        try:
            values = raw.source.parse(raw.content)
            text = self._text(values)
            kept = tuple(_kept(raw.source, name, values, type) for name, type in zip(self.keep, types, strict=True))
            return Row(self._id(values, raw, number), text, kept)
        except (ValueError, OSError, pa.ArrowException) as error:
            raise BadRowError(f"{raw.place}: {error}") from error

    def _text(self, values: Mapping[str, Any]) -> str:
        missing = [name for name in self.text if name not in values]
        if len(missing) == len(self.text):
            raise ValueError(f"has no field {' or '.join(missing)}; its fields: {', '.join(values) or 'none'}")
        parts = []
        for name in self.text:
            part = _plain(values.get(name))
            if part is not None and not isinstance(part, str):
                raise ValueError(f"the field {name} must be a string, found {part!r:.60}")
            if part is not None:
                parts.append(part)
        if not parts:
            raise ValueError(f"the field {' and '.join(self.text)} is null")
        text = self.separator.join(part for part in parts if part.strip()) if len(parts) > 1 else parts[0]
        return _checked(text, "text")

    def _id(self, values: Mapping[str, Any], raw: RawRow, number: int) -> str:
        if self.id is None:
            return _checked(str(values["path"]), "its name") if isinstance(raw.source, TextSource) else str(number)
        found = _plain(values.get(self.id))
        if isinstance(found, bool) or not isinstance(found, str | int):
            raise ValueError(f"the field {self.id} must be a string or an integer to be the id, found {found!r:.60}")
        return _checked(str(found), "id")


def _kept(source: Source, name: str, values: Mapping[str, Any], kind: pa.DataType) -> Any:
    value = values.get(name)
    if isinstance(source, ParquetSource) and source.types[name] == kind:
        return value
    if isinstance(value, pa.Scalar):
        return value.cast(kind)
    if kind == pa.string():
        if value is None or isinstance(value, str):
            return None if value is None else _checked(value, f"the field {name}")
        return _checked(json.dumps(value, ensure_ascii=False, default=str), f"the field {name}")
    if value is None or value == "":
        return None
    try:
        scalar = pa.scalar(value)
        return scalar if scalar.type == kind else scalar.cast(kind)
    except (pa.ArrowException, OverflowError):
        raise ValueError(f"the field {name} must be of type {kind}, found {value!r:.60}") from None


def _plain(value: Any) -> Any:
    return value.as_py() if isinstance(value, pa.Scalar) else value


def _checked(text: str, what: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{what}: holds U+{ord(text[error.start]):04X}, which is no character; not UTF-8?") from None
    return text
