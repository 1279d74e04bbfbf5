"""A data card for reading: tables for the terminal, a Markdown page, plain data for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from anytask.files.whole import whole_file, write_json
from anytask.training.medi.data_card import SIDES, DataCard, TaskSummary
from anytask.training.medi.lengths import Lengths
from anytask.training.medi.records import task_label

SIZES = ("task", "records", "share", "neg per record", "query", "pos", "neg")
INSTRUCTIONS = ("task", "side", "texts", "instruction")
LISTED = 5
"""Instructions of a task and side that the tables list; JSON has all."""
ALL = "all"

Row = tuple[str, ...]


def tables(card: DataCard) -> list[Table]:
    """Sizes and lengths of the tasks, then their instructions; print each with rich."""
    sizes = Table(caption=_explain(card))
    for column in SIZES:
        sizes.add_column(column, justify="left" if column == "task" else "right", overflow="fold")
    *tasks, whole = _size_rows(card)
    for row in tasks:
        sizes.add_row(*map(escape, row))
    sizes.add_section()
    sizes.add_row(*map(escape, whole))
    instructions = Table()
    for column in INSTRUCTIONS:
        instructions.add_column(column, justify="right" if column == "texts" else "left", overflow="fold")
    for row in _instruction_rows(card):
        instructions.add_row(*map(escape, row))
    return [sizes, instructions]


def markdown(card: DataCard, files: Sequence[str]) -> str:
    """The page, in GitHub's Markdown."""
    records = sum(task.records for task in card.tasks.values())
    lines = [
        "# Data card",
        "",
        f"{records:,} records of {len(card.tasks):,} tasks in {', '.join(map(_code, files))}.",
        "",
        *(f"- {note}" for note in card.notes()),
        *([""] if card.notes() else []),
        "## Tasks",
        "",
        _explain(card),
        "",
        *_markdown_table(SIZES, [(_code(task), *rest) for task, *rest in _size_rows(card)]),
        "",
        "## Instructions",
        "",
        *_markdown_table(
            INSTRUCTIONS,
            [(_code(task), side, count, _code(text)) for task, side, count, text in _instruction_rows(card)],
        ),
    ]
    return "\n".join(lines) + "\n"


def to_json(card: DataCard, files: Sequence[str]) -> dict[str, Any]:
    """All figures and instructions as plain data."""
    return {
        "files": list(files),
        "max_length": card.max_length,
        "over_length": card.over_length if card.max_length else None,
        "notes": card.notes(),
        "total": card.total().to_json(),
        "tasks": [
            {
                "task_id": task_id,
                **task.to_json(),
                "instructions": {
                    side: {
                        "counts": dict(task.sides[side].instructions.most_common()),
                        "others": task.sides[side].instructions.others,
                    }
                    for side in SIDES
                },
            }
            for task_id, task in card.in_order()
        ],
    }


def card_files(output: Path) -> tuple[Path, Path]:
    """Where `save` writes the Markdown page and the JSON file: `NAME.md` and `NAME.card.json`.

    Args:
        output: the page, or the folder of `data.md` and `data.card.json`.

    Raises:
        ValueError: another kind of file.
    """
    if output.suffix == ".md":
        return output, output.with_suffix(".card.json")
    if output.suffix and not output.is_dir():
        raise ValueError(f"{output}: the data card is written to a folder or to a name that ends in .md")
    return output / "data.md", output / "data.card.json"


def save(card: DataCard, output: Path, files: Sequence[str]) -> tuple[Path, Path]:
    """Write both files, each whole; returns where."""
    page, figures = card_files(output)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_json(figures, to_json(card, files))
    with whole_file(page) as partial:
        partial.write_text(markdown(card, files), "utf-8")
    return page, figures


def _explain(card: DataCard) -> str:
    lengths = (
        f"tokens of instruction and text (the model reads {card.max_length})"
        if card.max_length
        else "characters of the texts without their instructions"
    )
    return f"query, pos, neg: {lengths}, median / 95% / greatest. neg per record: mean (least-greatest)."


def _size_rows(card: DataCard) -> Iterator[Row]:
    whole = card.total()
    for task_id, task in card.in_order():
        yield task_label(task_id), *_sizes(task, whole.records, bool(card.max_length))
    yield ALL, *_sizes(whole, whole.records, bool(card.max_length))


def _sizes(task: TaskSummary, records: int, in_tokens: bool) -> Row:
    negatives = task.negatives
    sides = [task.sides[side] for side in SIDES]
    return (
        f"{task.records:,}",
        f"{task.records / max(1, records):.1%}",
        f"{negatives.mean:.2f} ({negatives.least or 0}-{negatives.greatest})",
        *(_spread(side.tokens if in_tokens else side.characters) for side in sides),
    )


def _spread(lengths: Lengths) -> str:
    if not lengths.count:
        return ""
    return f"{lengths.quantile(0.5):,} / {lengths.quantile(0.95):,} / {lengths.greatest:,}"


def _instruction_rows(card: DataCard) -> Iterator[Row]:
    for task_id, task in card.in_order():
        for side in SIDES:
            kinds = task.sides[side].instructions
            listed = kinds.most_common()
            for instruction, count in listed[:LISTED]:
                yield task_label(task_id), side, f"{count:,}", instruction or "(none)"
            rest = sum(count for _, count in listed[LISTED:]) + kinds.others
            if rest:
                more = f"{len(listed) - LISTED}{' or more' if kinds.others else ''}"
                yield task_label(task_id), side, f"{rest:,}", f"({more} others)"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (columns, ["---"] * len(columns), *rows):
        yield f"| {' | '.join(row)} |"


def _code(text: str) -> str:
    """A code span for a table's cell: white space is one space, backticks and bars are kept."""
    text = " ".join(text.split()).replace("|", "\\|")
    fence = "`"
    while fence in text:
        fence += "`"
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"
