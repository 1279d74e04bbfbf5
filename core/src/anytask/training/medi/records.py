"""MEDI's training records (arXiv 2212.09741, section 2.3): a query, its positive, its hard negatives, each a text with
its instruction, and the task they belong to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

SHOWN = 40
"""Characters of a wrong value that a message shows."""


class RecordError(ValueError):
    """A training record, or the file that holds it, can't be used.

    Attributes:
        problem: what was found and what was expected.
        field: where in the record, such as `neg[2][1]` (indices from 0, as in JSON); None when no field is to blame.
        path, record, line: the file, the number of the record (from 1), and in JSON lines also the line (from 1);
            None where not known.
    """

    def __init__(
        self,
        problem: str,
        *,
        field: str | None = None,
        path: str | Path | None = None,
        record: int | None = None,
        line: int | None = None,
    ) -> None:
        place = [
            *([] if path is None else [str(path)]),
            *([] if line is None else [f"line {line}"]),
            *([] if record is None else [f"record {record}"]),
            *([] if field is None else [f"field {field}"]),
        ]
        super().__init__(f"{', '.join(place)}: {problem}" if place else problem)
        self.problem, self.field, self.path, self.record, self.line = problem, field, path, record, line

    def at(self, path: str | Path, record: int, line: int | None = None) -> RecordError:
        """The same problem in the same field, found at this place."""
        return RecordError(self.problem, field=self.field, path=path, record=record, line=line)


class InstructedText(NamedTuple):
    """A text and the instruction it is embedded with; either may be empty."""

    instruction: str
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One training example.

    Args:
        query, pos: a positive pair.
        neg: hard negatives of the query: texts that look like the positive and aren't; any number, none too.
        task_id: the task, for batches of one task. `1` and `"1"` are two tasks, as they are two values in JSON; the
            data card points out where both occur.
    """

    query: InstructedText
    pos: InstructedText
    neg: tuple[InstructedText, ...]
    task_id: str | int

    @classmethod
    def from_json(cls, value: object) -> Record:
        """Read `{"query": [i, t], "pos": [i, t], "neg": [i, t] or [[i, t], ...], "task_id": ...}`.

        `neg` may be absent or an empty list. Other keys are tolerated and not kept.

        Raises:
            RecordError: a field is missing or isn't of that form, or a string isn't valid Unicode.
        """
        if not isinstance(value, dict):
            raise RecordError(f"found {found(value)}, expected an object with query, pos, neg (optional) and task_id")
        for key in ("query", "pos", "task_id"):
            if key not in value:
                raise RecordError(f"missing; the keys found are {', '.join(map(str, value)) or 'none'}", field=key)
        return cls(
            query=_pair(value["query"], "query"),
            pos=_pair(value["pos"], "pos"),
            neg=_negatives(value["neg"]) if "neg" in value else (),
            task_id=_task_id(value["task_id"]),
        )

    def to_json(self) -> dict[str, Any]:
        """The released form: one negative is a pair, several are a list of pairs, none leave the key out."""
        value: dict[str, Any] = {"query": list(self.query), "pos": list(self.pos)}
        if self.neg:
            value["neg"] = list(self.neg[0]) if len(self.neg) == 1 else [list(pair) for pair in self.neg]
        value["task_id"] = self.task_id
        return value


def task_label(task_id: str | int) -> str:
    """A task's name where names are text; a number in quotes is a string that looks like one."""
    looks = isinstance(task_id, str) and task_id.removeprefix("-").isdecimal()
    return json.dumps(task_id) if looks else str(task_id)


def task_order(task_id: str | int) -> tuple[bool, int, str]:
    """A key to sort task ids by: integers first, by value, then strings."""
    return (True, 0, task_id) if isinstance(task_id, str) else (False, task_id, "")


def found(value: object) -> str:
    """What a JSON value is, for messages."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f"the string {value[:SHOWN]!r}{'...' if len(value) > SHOWN else ''}"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return "an object"
        case _:
            return f"{value} ({type(value).__name__})"


def _pair(value: object, field: str) -> InstructedText:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise RecordError(f"found {found(value)}, expected a list of two strings, [instruction, text]", field=field)
    instruction, text = value
    return InstructedText(_string(instruction, field, 0), _string(text, field, 1))


def _string(value: object, field: str, index: int) -> str:
    where = f"{field}[{index}]"
    if not isinstance(value, str):
        raise RecordError(f"found {found(value)}, expected the {('instruction', 'text')[index]}, a string", field=where)
    _check_unicode(value, where)
    return value


def _negatives(value: object) -> tuple[InstructedText, ...]:
    if not isinstance(value, list | tuple):
        raise RecordError(
            f"found {found(value)}, expected [instruction, text] or a list of such pairs; "
            "leave the key out where there is no negative",
            field="neg",
        )
    if any(isinstance(part, list | tuple) for part in value):
        return tuple(_pair(pair, f"neg[{index}]") for index, pair in enumerate(value))
    return (_pair(value, "neg"),) if value else ()


def _task_id(value: object) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RecordError(f"found {found(value)}, expected a string or an integer", field="task_id")
    if isinstance(value, str):
        _check_unicode(value, "task_id")
    return value


def _check_unicode(value: str, field: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordError(
            f"holds U+{ord(value[error.start]):04X} at character {error.start}, half of a surrogate pair, "
            "which is no character; repair the text or drop the record",
            field=field,
        ) from None
