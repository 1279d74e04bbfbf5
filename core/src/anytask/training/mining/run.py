"""Mining hard negatives for a whole file of records: task by task, going on where a killed process stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from anytask.evaluation.embedder import Embedder
from anytask.files.work_folder import WorkFolder, digest
from anytask.progress import Bar, no_bar
from anytask.training.medi.record_files import is_array_name, read_records, write_records
from anytask.training.medi.records import InstructedText, Record
from anytask.training.mining.corpus import read_corpus
from anytask.training.mining.negatives import MiningSummary, mine_task
from anytask.training.mining.options import MiningOptions
from anytask.training.mining.vectors import Vectors, embed_to_file

TASKS = "tasks.jsonl"
WAITING = 50_000
"""Records held in memory while they are sorted into tasks."""


def mine(
    records: str | Path,
    output: str | Path,
    embedder: Embedder,
    options: MiningOptions,
    *,
    corpus: str | Path | None = None,
    instructions: bool = True,
    device: str | torch.device = "cpu",
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    bar: Bar = no_bar,
) -> list[MiningSummary]:
    """Write `records` with hard negatives to `output`: the tasks in the order of their first records, each one's
    records in theirs.

    Killed at any time, the same call goes on: tasks, and vectors of the task at work, that are in the folder
    `.NAME.work` beside the output aren't made again, and the output has the same bytes. The folder holds a copy of the
    records and the vectors of one task, which are memory-mapped; in memory are the texts of one task, with BM25 also
    its index of words, and blocks of scores.

    Args:
        records: a file of MEDI records.
        output: .json or .jsonl, with .gz or .zst after it to compress.
        embedder: gives the vectors.
        corpus: a file of further candidates (see `anytask.training.mining.corpus.read_corpus`).
        instructions: whether texts are embedded with their records' instructions, or without any.
        device: where the nearest are searched.
        about: what else the result depends on, such as the model's digest: JSON values by name.
        overwrite: replace an output that is there.
        bar: draws progress.

    Returns:
        a summary for each task.

    Raises:
        ValueError: an input isn't valid, or the folder is of other inputs or options; the message says what.
        FileExistsError: the output is there and `overwrite` isn't set.
    """
    output = Path(output)
    is_array_name(output)
    inputs = {"records": digest(records), "corpus": None if corpus is None else _checked_digest(corpus)}
    settings = {**inputs, **asdict(options), "instructions": instructions, **(about or {})}
    with WorkFolder(output, settings, overwrite=overwrite) as work:
        tasks = split_tasks(records, work, bar)
        summaries = []
        with bar("tasks", len(tasks)) as advance:
            for number, task_id in enumerate(tasks):
                if not work.has(f"{number}.mined"):
                    documents = () if corpus is None else read_corpus(corpus, task_id)
                    mined, summary = _mine_part(work, number, embedder, options, documents, instructions, device, bar)
                    work.write(f"{number}.summary", [asdict(summary)])
                    work.write(f"{number}.mined", (record.to_json() for record in mined))
                for name in ("records", "queries", "documents"):
                    work.path(f"{number}.{name}").unlink(missing_ok=True)
                summaries.append(MiningSummary(**next(work.read(f"{number}.summary"))))
                advance(1)
        parts = (work.read(f"{number}.mined") for number in range(len(tasks)))
        write_records((Record.from_json(row) for part in parts for row in part), output)
        work.remove()
        return summaries


def split_tasks(records: str | Path, work: WorkFolder, bar: Bar = no_bar) -> list[str | int]:
    """Sort the records into a file per task, the part `NUMBER.records`; returns the task ids in those numbers' order.

    Raises:
        ValueError: a record isn't valid, or there is none.
    """
    if not work.has(TASKS):
        numbers: dict[str | int, int] = {}
        with bar("reading", Path(records).stat().st_size) as advance:
            stream = read_records(records, advance)
            while batch := list(islice(stream, WAITING)):
                begun = len(numbers)
                lines: dict[int, list[str]] = {}
                for record in batch:
                    number = numbers.setdefault(record.task_id, len(numbers))
                    lines.setdefault(number, []).append(json.dumps(record.to_json()) + "\n")
                for number, group in lines.items():
                    with work.path(f"{number}.records").open("a" if number < begun else "w", encoding="utf-8") as file:
                        file.writelines(group)
        if not numbers:
            raise ValueError(f"{records} holds no records")
        work.write(TASKS, numbers)
    return list(work.read(TASKS))


def _checked_digest(corpus: str | Path) -> str:
    """The digest of a corpus that is right to its last line: one that is repaired later is another one."""
    for _ in read_corpus(corpus, ""):
        pass
    return digest(corpus)


def _mine_part(
    work: WorkFolder,
    number: int,
    embedder: Embedder,
    options: MiningOptions,
    corpus: Iterable[str],
    instructions: bool,
    device: str | torch.device,
    bar: Bar,
) -> tuple[list[Record], MiningSummary]:
    records = [Record.from_json(row) for row in work.read(f"{number}.records")]

    def embed_texts(kind: str, texts: Sequence[InstructedText]) -> Vectors:
        if not instructions:
            texts = [InstructedText("", text) for _, text in texts]
        with bar(f"{records[0].task_id}: embedding {kind}", len(texts)) as advance:
            return embed_to_file(embedder, texts, work.path(f"{number}.{kind}"), advance)

    return mine_task(records, embed_texts, options, corpus=corpus, device=device, bar=bar)
