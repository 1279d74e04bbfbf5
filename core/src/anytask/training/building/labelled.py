"""Labelled texts and pairs of texts from JSON lines: `{"text": ..., "label": ...}`, `{"query": ..., "pos": ..., "neg":
[...]}`, or any rows whose fields are named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anytask.training.building.json_rows import check_text, field, matches, read_rows
from anytask.training.building.task_texts import LabelledTexts, TextPair, TextPairs

LABELLED_FIELDS = {"text": "text", "label": "label"}
PAIRED_FIELDS = {"query": "query", "pos": "pos", "neg": "neg"}


def read_labelled(
    path: str | Path,
    fields: Mapping[str, str] | None = None,
    where: Mapping[str, tuple[str, ...]] | None = None,
    label_pattern: str | None = None,
) -> LabelledTexts:
    """The labelled texts of a file.

    Args:
        fields: where `text` and `label` are, as dotted paths ("meta.author"); by those names unless given.
        where: fields and the values that are wanted of them; rows with others are left out.
        label_pattern: a regular expression; the label is what its first group (or else the whole of it) matches first
            in the label's field, and a row where nothing does is left out.

    Raises:
        ValueError: a row lacks one of the fields or holds no string there (a label may also be a number or a truth
            value); the message names the file and the line.
    """
    named = {**LABELLED_FIELDS, **(fields or {})}
    labelled = LabelledTexts([], [])
    for line, row in read_rows(path):
        if not matches(row, where or {}):
            continue
        text = _text(row, named["text"], f"{path}, line {line}")
        label = _label(row, named["label"], f"{path}, line {line}")
        if label_pattern is not None:
            match = re.search(label_pattern, label)
            if match is None:
                continue
            label = match[1 if match.re.groups else 0]
        labelled.texts.append(text)
        labelled.labels.append(label)
    return labelled


def read_pairs(
    path: str | Path, fields: Mapping[str, str] | None = None, where: Mapping[str, tuple[str, ...]] | None = None
) -> TextPairs:
    """The pairs of a file.

    Args:
        fields: where `query`, `pos` and `neg` are, as dotted paths; by those names unless given. `neg` is a text or a
            list of them, and may be absent.
        where: as for `read_labelled`.

    Raises:
        ValueError: a row lacks `query` or `pos`, or holds something else than strings; the message names the file and
            the line.
    """
    named = {**PAIRED_FIELDS, **(fields or {})}
    pairs = []
    for line, row in read_rows(path):
        if matches(row, where or {}):
            place = f"{path}, line {line}"
            query, pos = _text(row, named["query"], place), _text(row, named["pos"], place)
            neg = field(row, named["neg"]) or []
            texts = [check_text(text, f"{place}, {named['neg']}") for text in (neg if isinstance(neg, list) else [neg])]
            pairs.append(TextPair(query, pos, tuple(texts)))
    return TextPairs(pairs)


def _text(row: Mapping[str, Any], dotted: str, place: str) -> str:
    value = field(row, dotted)
    if value is None:
        raise ValueError(f"{place}: no field {dotted!r}, only {', '.join(row) or 'none'}")
    return check_text(value, f"{place}, {dotted}")


def _label(row: Mapping[str, Any], dotted: str, place: str) -> str:
    value = field(row, dotted)
    return str(value) if isinstance(value, int | float) else _text(row, dotted, place)
