from __future__ import annotations

import gzip
import json
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from anytask.files.json_stream import CHUNK
from anytask.training.medi.record_files import read_many, read_records, scan_records, write_records
from anytask.training.medi.records import InstructedText, Record, RecordError, task_order

from .peak_memory import PEAK, needs_proc

NAMES = [f"records{kind}{compression}" for kind in (".json", ".jsonl") for compression in ("", ".gz", ".zst")]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}

pairs = st.builds(InstructedText, st.text(max_size=20), st.text(max_size=40))
records = st.builds(
    Record,
    query=pairs,
    pos=pairs,
    neg=st.lists(pairs, max_size=3).map(tuple),
    task_id=st.integers() | st.text(max_size=8),
)


def record(number: int, negatives: int = 1, task_id: str | int = 7) -> Record:
    def pair(kind: str) -> InstructedText:
        return InstructedText(f"Represent the {kind}: ", f"{kind} {number}, naïve “text” 😀")

    return Record(pair("query"), pair("answer"), tuple(pair(f"other {i}") for i in range(negatives)), task_id)


def lines(*values: object) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def array(*values: object) -> bytes:
    return json.dumps(values).encode()


def read_until_error(path: Path) -> tuple[list[Record], RecordError]:
    read: list[Record] = []
    with pytest.raises(RecordError) as caught:
        read.extend(read_records(path))
    return read, caught.value


@settings(max_examples=30, deadline=None)
@given(st.lists(records, max_size=5))
def test_what_is_written_is_read(written: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            path = Path(folder) / name
            assert write_records(written, path) == len(written)
            assert list(read_records(path)) == written, name
        assert sorted(path.name for path in Path(folder).iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_equal_records_make_equal_files(name: str, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_records(map(record, range(50)), tmp_path / folder / name)
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_released_form() -> None:
    none, one, two = (record(1, negatives).to_json() for negatives in range(3))
    assert list(one) == ["query", "pos", "neg", "task_id"]
    assert "neg" not in none
    assert one["neg"] == ["Represent the other 0: ", "other 0 1, naïve “text” 😀"]
    assert two["neg"] == [one["neg"], ["Represent the other 1: ", "other 1 1, naïve “text” 😀"]]
    for negatives, value in enumerate((none, one, two)):
        assert Record.from_json(value) == record(1, negatives)
    assert Record.from_json(one | {"neg": [one["neg"]]}) == record(1)
    assert Record.from_json(one | {"neg": []}) == record(1, 0)
    assert Record.from_json(one | {"source": "elsewhere", "score": 0.5}) == record(1)


@pytest.mark.parametrize("compression", COMPRESS)
def test_the_content_tells_the_format(compression: str, tmp_path: Path) -> None:
    """An array as json.dump writes it, escapes and all; lines with blank ones between; a byte order mark; no suffix."""
    expected = [record(1), record(2, 3, "a task"), record(3, 0)]
    values = [each.to_json() for each in expected]
    contents = [
        array(*values),
        b" \n\t" + json.dumps(values, indent=2).encode() + b"\n\n",
        b"\xef\xbb\xbf" + json.dumps(values, ensure_ascii=False).encode(),
        lines(*values),
        b"\n  \r\n" + lines(*values).replace(b"\n", b"\r\n\n") + b" ",
        lines(*values).rstrip(b"\n"),
    ]
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.data"
        path.write_bytes(COMPRESS[compression](content))
        assert list(read_records(path)) == expected, content


@pytest.mark.parametrize("compression", [".gz", ".zst"])
def test_compressed_files_joined_end_to_end(compression: str, tmp_path: Path) -> None:
    path = tmp_path / f"records.jsonl{compression}"
    path.write_bytes(b"".join(COMPRESS[compression](lines(record(i).to_json())) for i in range(3)))
    assert list(read_records(path)) == [record(i) for i in range(3)]


def test_files_one_after_the_other_with_progress_in_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in NAMES]
    for number, path in enumerate(paths):
        write_records([record(number)], path)
    advanced: list[int] = []
    assert list(read_many(paths, advanced.append)) == [record(number) for number in range(len(paths))]
    assert sum(advanced) == sum(path.stat().st_size for path in paths)


GOOD: dict[str, Any] = record(0).to_json()


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"query": None}, "query", "found null, expected a list of two strings"),
        ({"query": "text"}, "query", "found the string 'text', expected a list of two strings"),
        ({"query": ["i"]}, "query", "found a list of 1"),
        ({"pos": ["i", "t", "u"]}, "pos", "found a list of 3"),
        ({"pos": {"instruction": "i"}}, "pos", "found an object"),
        ({"query": [None, "t"]}, "query[0]", "found null, expected the instruction, a string"),
        ({"pos": ["i", 3]}, "pos[1]", "found 3 (int), expected the text, a string"),
        ({"pos": ["i", ["t"]]}, "pos[1]", "found a list of 1, expected the text"),
        ({"neg": None}, "neg", "leave the key out where there is no negative"),
        ({"neg": "text"}, "neg", "expected [instruction, text] or a list of such pairs"),
        ({"neg": ["i"]}, "neg", "found a list of 1"),
        ({"neg": ["i", "t", "u"]}, "neg", "found a list of 3"),
        ({"neg": [["i", "t"], ["i", True]]}, "neg[1][1]", "found true"),
        ({"neg": [["i", "t"], "u"]}, "neg[1]", "found the string 'u'"),
        ({"neg": [["i", "t"], []]}, "neg[1]", "found a list of 0"),
        ({"task_id": True}, "task_id", "found true, expected a string or an integer"),
        ({"task_id": 1.5}, "task_id", "found 1.5"),
        ({"task_id": None}, "task_id", "found null"),
        ({"task_id": [1]}, "task_id", "found a list of 1"),
    ],
)
@pytest.mark.parametrize("form", ["array", "lines"])
def test_a_wrong_field_is_named(change: dict[str, Any], field: str, problem: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / "records"
    content = [GOOD, GOOD, GOOD | change, GOOD]
    path.write_bytes(array(*content) if form == "array" else b"\n" + lines(*content))
    read, error = read_until_error(path)
    assert read == [record(0)] * 2
    assert (error.path, error.record, error.field) == (path, 3, field)
    assert error.line == (None if form == "array" else 4)
    assert problem in error.problem
    place = "record 3" if form == "array" else "line 4, record 3"
    assert str(error) == f"{path}, {place}, field {field}: {error.problem}"


@pytest.mark.parametrize("key", ["query", "pos", "task_id"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(RecordError, match=r"missing; the keys found are (query|pos), .*neg") as caught:
        Record.from_json({name: value for name, value in GOOD.items() if name != key})
    assert caught.value.field == key


@pytest.mark.parametrize("value", [3, "text", [GOOD], None])
def test_a_record_is_an_object(value: object, tmp_path: Path) -> None:
    for content in (array(GOOD, value), lines(GOOD, value)):
        (tmp_path / "records").write_bytes(content)
        _, error = read_until_error(tmp_path / "records")
        assert (error.record, error.field) == (2, None)
        assert "expected an object with query, pos, neg (optional) and task_id" in str(error)


def test_errors_keep_their_place_when_pickled() -> None:
    error = RecordError("is wrong", field="pos[1]").at("a.jsonl", 3, 4)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.record, copy.line, copy.field) == (str(error), 3, 4, "pos[1]")


MALFORMED = {
    "array cut off within a record": array(GOOD, GOOD, GOOD)[:-60],
    "array cut off after a record": array(GOOD, GOOD)[:-1],
    "array cut off after a comma": array(GOOD, GOOD)[:-1] + b", ",
    "no comma": array(GOOD, GOOD)[:-1] + json.dumps(GOOD).encode() + b"]",
    "trailing comma": array(GOOD, GOOD)[:-1] + b",]",
    "text after the array": array(GOOD, GOOD) + b" x",
    "not a number": array(GOOD, GOOD)[:-1] + b', {"query": NaN}]',
    "bytes that aren't UTF-8": array(GOOD, GOOD)[:-1] + b', {"\xff": 1}]',
    "a control character": array(GOOD, GOOD)[:-1] + b', {"\x01": 1}]',
    "line cut off": lines(GOOD, GOOD, GOOD)[:-20],
    "two records on a line": lines(GOOD, GOOD) + 2 * json.dumps(GOOD).encode(),
    "line with NaN": lines(GOOD, GOOD) + b'{"query": NaN}',
    "line that isn't UTF-8": lines(GOOD, GOOD) + b'{"\xff": 1}',
    "deeply nested line": lines(GOOD, GOOD) + b'{"query":' + b"[" * 100_000,
    "number with too many digits": lines(GOOD, GOOD) + b'{"task_id":' + b"1" * 10_000 + b"}",
}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_json_is_told_with_its_place(what: str, compression: str, tmp_path: Path) -> None:
    path = tmp_path / f"records.json{compression}"
    path.write_bytes(COMPRESS[compression](MALFORMED[what]))
    read, error = read_until_error(path)
    assert read == [record(0)] * 2
    assert error.record == 3
    assert error.line == (3 if "line" in what or "digits" in what else None)
    assert "cut off" in str(error) if what.startswith("array cut off") else "not valid JSON (" in str(error)


@pytest.mark.parametrize("compression", [".gz", ".zst"])
def test_damaged_compressed_files_are_told_with_their_place(compression: str, tmp_path: Path) -> None:
    path = tmp_path / f"records.jsonl{compression}"
    write_records((record(i, task_id=f"task {i * 7919 % 10007}") for i in range(5_000)), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    read, error = read_until_error(path)
    assert "data is cut off" in str(error)
    assert error.record == len(read) + 1
    assert 2_000 < len(read) < 3_000
    path.write_bytes(whole[:-1])
    read, error = read_until_error(path)
    assert (len(read), "data is cut off" in str(error)) == (5_000, True)
    damaged = bytearray(whole)
    for place in range(len(whole) // 2, len(whole) // 2 + 64):
        damaged[place] ^= 0xFF
    path.write_bytes(damaged)
    read, error = read_until_error(path)
    assert error.record == len(read) + 1
    assert "is corrupt" in str(error) or "not valid JSON" in str(error)
    path.write_bytes(lines(GOOD))
    assert "neither gzip nor Zstandard, although it is named" in str(read_until_error(path)[1])
    path.write_bytes(b"")
    assert "empty, although it is named" in str(read_until_error(path)[1])


def test_files_that_hold_nothing_or_something_else(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b" \n\n")
    assert list(read_records(path)) == []
    path.write_bytes("question,answer\n".encode("utf-16"))
    assert "expected '[' (a JSON array) or '{' (JSON lines) in UTF-8" in str(read_until_error(path)[1])
    path = tmp_path / "records.json"
    path.write_bytes(b"")
    assert "holds nothing, expected a JSON array" in str(read_until_error(path)[1])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        next(read_records(tmp_path / "nowhere.json"))


def test_a_file_without_record_ends_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anytask.files.json_stream.VALUE_LIMIT", 1 << 20)
    path = tmp_path / "records"
    for content in (b'{"' + b"x" * (1 << 22), b'["' + b"x" * (1 << 22)):
        path.write_bytes(content)
        read, error = read_until_error(path)
        assert (read, error.record) == ([], 1)
        assert "ends within 1 MiB" in str(error)


@pytest.mark.parametrize("escape", [r"\ud83d", r"\ude00", r"\uD83Dx", r"\ud83d\ud83d", r"\ude00\ud83d", r"\\\ud83d"])
@pytest.mark.parametrize("form", ["array", "lines"])
def test_half_surrogate_pairs_are_errors(escape: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / "records"
    content = array(GOOD, GOOD, GOOD) if form == "array" else lines(GOOD, GOOD, GOOD)
    head, tail = content.rsplit(rb"\ud83d\ude00", 1)
    path.write_bytes(head + escape.encode() + tail)
    read, error = read_until_error(path)
    assert read == [record(0)] * 2
    assert error.record == 3
    assert "half of a surrogate pair" in str(error)
    assert error.field == (None if form == "array" else "neg[1]")


def test_escapes_across_the_parts_in_which_an_array_is_read(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    text = r"\\ud83d \\\\ \ud83d\ude00 \u4e2d\u6587\\\ud83d\ude00\n"
    expected = json.loads(f'"{text}"')
    for shift in range(len(text) + 2):
        head = '[{"query": ["", "'
        padding = "x" * (CHUNK - len(head) - shift)
        path.write_text(f'{head}{padding}{text}"], "pos": ["", "\\u4e2d"], "task_id": 1}}]')
        (read,) = read_records(path)
        assert read.query.text == padding + expected
        path.write_text(f'{head}{padding}{text}\\ud83d"], "pos": ["", ""], "task_id": 1}}]')
        assert "half of a surrogate pair" in str(read_until_error(path)[1])


def test_a_scan_goes_on_after_errors(tmp_path: Path) -> None:
    wrong, path = GOOD | {"task_id": None}, tmp_path / "records"
    path.write_bytes(lines(wrong, GOOD) + b"{nothing}\n" + lines(GOOD, [1]))
    found = list(scan_records(path))
    assert [each for each in found if isinstance(each, Record)] == [record(0)] * 2
    errors = [(each.record, each.line, each.field) for each in found if isinstance(each, RecordError)]
    assert errors == [(1, 1, "task_id"), (3, 3, None), (5, 5, None)]
    path.write_bytes(array(wrong, GOOD, [1], GOOD)[:-1] + b", nothing, {}]")
    found = list(scan_records(path))
    assert [each for each in found if isinstance(each, Record)] == [record(0)] * 2
    assert [each.record for each in found if isinstance(each, RecordError)] == [1, 3, 5]


@pytest.mark.parametrize("name", ["records", "records.txt", "records.gz", "records.json.xz"])
def test_a_name_must_tell_what_to_write(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a name that ends in \.json or \.jsonl"):
        write_records([record(1)], tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_write_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    def interrupted() -> Iterator[Record]:
        yield from map(record, range(100))
        raise KeyboardInterrupt

    path = tmp_path / name
    with pytest.raises(KeyboardInterrupt):
        write_records(interrupted(), path)
    assert not list(tmp_path.iterdir())
    write_records([record(1)], path)
    with pytest.raises(RecordError, match=r"record 2: holds half of a surrogate pair"):
        write_records([record(1), Record(InstructedText("", "\ud83d"), InstructedText("", ""), (), 1)], path)
    assert list(read_records(path)) == [record(1)]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_can_be_rewritten_from_itself(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(map(record, range(2_000)), path)
    assert write_records((each for each in read_records(path) if each != record(5)), path) == 1_999
    assert record(5) not in list(read_records(path))


def test_a_killed_write_leaves_no_file(tmp_path: Path) -> None:
    script = """
import itertools, sys
from anytask.training.medi.record_files import write_records
from anytask.training.medi.records import InstructedText, Record
pair = InstructedText("Represent: ", "text " * 100)
write_records(itertools.repeat(Record(pair, pair, (), 1)), sys.argv[1])
"""
    path = tmp_path / "records.jsonl"
    with subprocess.Popen([sys.executable, "-c", script, path]) as process:
        try:
            deadline = time.monotonic() + 60
            while not any(each.stat().st_size for each in tmp_path.iterdir()):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
    assert not path.exists()


@needs_proc
def test_large_files_take_no_more_memory_than_small_ones(tmp_path: Path) -> None:
    """Written, read and described: 50 MB of records, in a few of memory beyond what 4 MB take."""
    script = """
import random, sys
from pathlib import Path
from anytask.training.medi.data_card import DataCard
from anytask.training.medi.record_files import read_records, write_records
from anytask.training.medi.records import InstructedText, Record

def records(count):
    draw = random.Random(0)
    words = " ".join(f"word{draw.randrange(1000)}" for _ in range(5000))
    for number in range(count):
        starts = [draw.randrange(30_000) for _ in range(3)]
        texts = [InstructedText(f"Represent {i}: ", words[start : start + 900]) for i, start in enumerate(starts)]
        yield Record(texts[0], texts[1], (texts[2],), number % 50)

def work(count):
    size = 0
    for name in ("records.json", "records.jsonl.zst"):
        path = Path(sys.argv[1]) / name
        assert write_records(records(count), path) == count
        card = DataCard.of(read_records(path))
        assert card.total().records == count and len(card.tasks) == 50
        size = max(size, path.stat().st_size)
    return size

work(1_500)
before = peak()
size = work(18_000)
print(size, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", PEAK + script, tmp_path], capture_output=True, text=True, check=True)
    size, growth = map(int, done.stdout.split())
    assert size > 50e6
    assert growth < 6e6


@pytest.mark.parametrize(("module", "name"), [("ijson", "records.json"), ("zstandard", "records.jsonl.zst")])
def test_a_missing_extra_is_named(module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_records([record(1)], tmp_path / name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "anytask\[embed\]"'):
        next(read_records(tmp_path / name))


def test_task_ids_are_in_order_and_keep_their_type(tmp_path: Path) -> None:
    ids: list[str | int] = ["b", 10, "1", 2, 1, "a"]
    assert sorted(ids, key=task_order) == [1, 2, 10, "1", "a", "b"]
    write_records((record(0, task_id=each) for each in ids), tmp_path / "records.json")
    read = [each.task_id for each in read_records(tmp_path / "records.json")]
    assert read == ids
    assert list(map(type, read)) == list(map(type, ids))
