"""The records of a run as they come back from the memory-mapped file, in threads, processes and after a crash."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from anytask.training import InstructedText, Record, RecordError
from anytask.training.pair_store import ROWS, PairStore, text_key

UNICODE = [
    "",
    " \t leading and trailing \n ",
    "Grüße, Ελλάδα, Привет, 日本語",
    "שלום עולם \u202e right to left",
    "e\u0301 and \u00e9 are two strings",
    "emoji 👩‍👩‍👧‍👦🏽 and a NUL \0 in the middle",
    '"quotes", \\backslashes\\, \r\n line ends',
    "long " * 20_000,
]


def record(place: int, negatives: int = 1, task: str | int = "task") -> Record:
    def side(kind: str) -> InstructedText:
        return InstructedText(f"Represent the {kind} {place % 7}: ", f"{kind} {place} {UNICODE[place % 7]}")

    return Record(side("query"), side("pos"), tuple(side(f"neg {n}") for n in range(negatives)), task)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> PairStore:
    """More records than two Arrow batches hold, of three tasks."""
    records = (record(place, place % 3, f"task {place % 3}") for place in range(2 * ROWS + 100))
    return PairStore.write(records, tmp_path_factory.mktemp("store") / "records.arrow")


def test_round_trip(tmp_path: Path) -> None:
    """Any text, instruction and number of negatives comes back as it was."""
    records = [
        Record(
            InstructedText(text, other),
            InstructedText(other, text),
            tuple(InstructedText(text, other) for _ in range(count)),
            "t",
        )
        for count, text in enumerate(UNICODE)
        for other in UNICODE
    ]
    records.append(record(0, negatives=3000))
    store = PairStore.write(iter(records), tmp_path / "deep" / "records.arrow")
    assert len(store) == len(records)
    assert list(store) == records
    assert [store[row] for row in range(len(records))] == records
    assert list(PairStore(tmp_path / "deep" / "records.arrow")) == records


def test_more_records_than_an_arrow_batch(many: PairStore) -> None:
    assert len(many) == 2 * ROWS + 100
    for row in (0, 1, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS - 1, 2 * ROWS, 2 * ROWS + 99):
        assert many[row] == record(row, row % 3, f"task {row % 3}")
    assert all(found == record(row, row % 3, f"task {row % 3}") for row, found in enumerate(many))


@pytest.mark.parametrize("row", [-1, 2 * ROWS + 100, 10**9])
def test_rows_that_there_are_not(many: PairStore, row: int) -> None:
    with pytest.raises(IndexError):
        many[row]


def test_tasks(many: PairStore) -> None:
    tasks = many.tasks()
    assert list(tasks) == ["task 0", "task 1", "task 2"]
    for place, rows in enumerate(tasks.values()):
        assert rows.dtype == np.int64
        assert rows.tolist() == list(range(place, len(many), 3))


def test_tasks_in_the_order_of_their_first_record(tmp_path: Path) -> None:
    ids = ["zebra", 7, "apple", "zebra", "ärger", 7, "", "7", "-7"]
    store = PairStore.write([record(0, task=task) for task in ids], tmp_path / "records.arrow")
    assert {name: rows.tolist() for name, rows in store.tasks().items()} == {
        "zebra": [0, 3],
        "7": [1, 5],
        "apple": [2],
        "ärger": [4],
        "": [6],
        '"7"': [7],
        '"-7"': [8],
    }
    assert list(store.tasks())[:5] == ["zebra", "7", "apple", "ärger", ""]


def test_the_same_records_make_the_same_file(tmp_path: Path) -> None:
    """A resumed run knows its records by the file's hash."""
    paths = [tmp_path / name for name in ("one.arrow", "two.arrow")]
    for path in paths:
        PairStore.write((record(place, place % 4) for place in range(500)), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_no_records(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no records to train on"):
        PairStore.write([], tmp_path / "records.arrow")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "records.arrow"
    PairStore.write([record(1)], path)

    def broken() -> Iterator[Record]:
        yield from (record(place) for place in range(ROWS + 5))
        raise RecordError("is damaged", path="records.jsonl", record=3)

    with pytest.raises(RecordError, match=r"records\.jsonl, record 3: is damaged"):
        PairStore.write(broken(), path)
    assert list(PairStore(path)) == [record(1)]
    assert list(tmp_path.iterdir()) == [path]


def test_a_lone_surrogate_is_refused(tmp_path: Path) -> None:
    broken = Record(InstructedText("", "half \ud83d of it"), InstructedText("", "b"), (), 1)
    with pytest.raises(ValueError, match="surrogate"):
        PairStore.write([broken], tmp_path / "records.arrow")
    assert not list(tmp_path.iterdir())


def test_replaced_while_open(tmp_path: Path) -> None:
    """Who has the old file open goes on reading it."""
    path = tmp_path / "records.arrow"
    old = PairStore.write([record(place) for place in range(100)], path)
    new = PairStore.write([record(place + 1) for place in range(100)], path)
    assert (old[99], new[99]) == (record(99), record(100))


def test_records_stay_on_disk(many: PairStore) -> None:
    """Opening the file and reading records here and there takes no memory for the others."""
    size = many.path.stat().st_size
    before = pa.total_allocated_bytes()
    store = PairStore(many.path)
    found = [store[row] for row in range(0, len(store), 501)]
    assert len(found) > 30
    assert pa.total_allocated_bytes() - before < size / 50


def test_threads(many: PairStore) -> None:
    rows = np.random.default_rng(0).integers(len(many), size=2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(many.__getitem__, rows))
    assert found == [record(row, row % 3, f"task {row % 3}") for row in rows]


def test_pickled_by_its_path(many: PairStore) -> None:
    """A copy for another process opens the same file; the records don't travel."""
    pickled = pickle.dumps(many)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    assert len(copy) == len(many)
    assert copy[ROWS + 3] == many[ROWS + 3]


def test_processes(many: PairStore) -> None:
    rows = [0, ROWS, 2 * ROWS + 7]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(many.__getitem__, rows) == [many[row] for row in rows]


def test_text_keys() -> None:
    texts = {text.strip() for text in UNICODE} | {f"text {n}" for n in range(5000)}
    keys = {text: text_key(text) for text in texts}
    assert len(set(keys.values())) == len(texts)
    assert all(-(2**63) <= key < 2**63 for key in keys.values())
    assert text_key("  a b\n") == text_key("a b") != text_key("a  b")
    assert text_key("half \ud83d") != text_key("half ")
