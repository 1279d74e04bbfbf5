"""What a corpus is read from: formats, folders, numbering, and what is said of rows that can't be read."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from anytask.corpus import CorpusJob
from anytask.corpus.formats import InputError
from anytask.corpus.rows import BadRowError, Columns, Row
from anytask.corpus.sources import find_sources, identity, rows_from

ROWS = [
    {"id": f"r{number}", "text": f"Text {number}, “quoted”\nand broken", "year": 1900 + number} for number in range(7)
]
JSON_LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def csv_bytes(delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", "text", "year"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def parquet_bytes() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=3)
    return sink.getvalue()


def zstd_frame(content: bytes, window_log: int) -> bytes:
    """One raw block behind a header that asks for a window of this size (RFC 8878, 3.1.1)."""
    header = bytes([0, (window_log - 10) << 3]) + (1 | len(content) << 3).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + header + content


FILES = {
    "rows.jsonl": JSON_LINES,
    "rows.jsonl.gz": gzip.compress(JSON_LINES),
    "rows.jsonl.zst": zstandard.compress(JSON_LINES),
    "long.jsonl.zst": zstd_frame(JSON_LINES, 31),
    "skipped.jsonl.zst": b"\x5e\x2a\x4d\x18\x03\0\0\0any" + zstandard.compress(JSON_LINES),
    "bom.jsonl": b"\xef\xbb\xbf\n \n" + JSON_LINES.replace(b"\n", b"\n\n"),
    "rows.json": json.dumps(ROWS, indent=1).encode(),
    "rows.csv": csv_bytes(),
    "rows.csv.gz": gzip.compress(b"\xef\xbb\xbf" + csv_bytes()),
    "rows.tsv": csv_bytes("\t"),
    "rows.parquet": parquet_bytes(),
}


def read(inputs: list[str], columns: Columns, start: int = 0, format: Any = None) -> list[Row]:
    sources = find_sources(inputs, columns.fields, format)
    types = [kept.type for kept in columns.kept_types(sources)]
    return [columns.row(raw, number, types) for number, raw in enumerate(rows_from(sources, start), start)]


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    columns = Columns(id="id", keep={"year": "int64"})
    found = read([str(path)], columns)
    assert [(row.id, row.text) for row in found] == [(row["id"], row["text"]) for row in ROWS]
    assert [pa.scalar(row.kept[0]).as_py() for row in found] == [row["year"] for row in ROWS]


@pytest.mark.parametrize("name", FILES)
def test_rows_are_read_from_any_one_on(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    (tmp_path / "more.jsonl").write_bytes(JSON_LINES)
    inputs = [str(tmp_path / name), str(tmp_path / "more.jsonl")]
    whole = read(inputs, Columns())
    assert [row.id for row in whole] == [str(number) for number in range(14)]
    for start in (1, 3, 4, 7, 12, 14, 20):
        assert read(inputs, Columns(), start) == whole[start:]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a/two.md", "a/one.txt", "notes.docx", "d.txt.gz", ".hidden/c.txt", ".c.txt", "_SUCCESS.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"This is {name}.")
    (tmp_path / "a/rows.jsonl").write_bytes(JSON_LINES)
    found = read([str(tmp_path)], Columns())
    paths = [(tmp_path / name).as_posix() for name in ("b.txt", "a/one.txt", "a/two.md")]
    assert [row.id for row in found] == [paths[0], paths[1], *map(str, range(2, 9)), paths[2]]
    assert found[0].text == "This is b.txt."
    assert len(read([str(tmp_path / "a")], Columns(), format="lines")) == 2 + 7


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for content, format, expected in (
        (JSON_LINES, None, [row["text"] for row in ROWS]),
        (csv_bytes(), "csv", [row["text"] for row in ROWS]),
        (b"one line\n\n two \r\nthree", "lines", ["one line", "two", "three"]),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
        assert [row.text for row in read(["-"], Columns(), format=format)] == expected


def test_fields_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"title": "A title", "text": "a text"},
        {"title": " ", "text": "b"},
        {"title": None, "text": "c"},
        {"text": "d"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [row.text for row in read([str(path)], Columns(text=("title", "text"), separator=": "))]
    assert texts == ["A title: a text", "b", "c", "d"]


def test_kept_fields_have_their_types(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"text": "t", "n": 3, "x": 2, "yes": True, "list": [1, "ä"], "none": None, "name": "N"}
    path.write_text(json.dumps(row))
    keep = {"n": "int64", "x": "float64", "yes": "bool", "list": None, "none": None, "name": None, "absent": None}
    (found,) = read([str(path)], Columns(keep=keep))
    values = [value.as_py() if isinstance(value, pa.Scalar) else value for value in found.kept]
    assert values == [3, 2.0, True, '[1, "ä"]', None, "N", None]
    assert [repr(value) for value in values[:3]] == ["3", "2.0", "True"]


def test_parquet_fields_keep_their_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", "b"],
            "day": [date(2020, 1, 2), None],
            "tags": [["x"], []],
            "where": [{"page": 1}, {"page": 2}],
            "id": pa.array([7, 8], pa.int32()),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    columns = Columns(id="id", keep={"day": None, "tags": None, "where": None})
    sources = find_sources([str(tmp_path / "rows.parquet")], columns.fields)
    assert [kept.type for kept in columns.kept_types(sources)] == [
        table.schema.field(name).type for name in ("day", "tags", "where")
    ]
    found = read([str(tmp_path / "rows.parquet")], columns)
    assert [row.id for row in found] == ["7", "8"]
    assert [value.as_py() for value in found[0].kept] == [date(2020, 1, 2), ["x"], {"page": 1}]


def test_an_array_gives_the_values_of_json_lines(tmp_path: Path) -> None:
    deep: list[Any] = [0.5]
    for _ in range(500):
        deep = [deep]
    row = {"text": "a", "deep": deep, "score": 1.5, "small": 1e-100, "meta": {"p": [0.25, None, 10**30]}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    columns = Columns(keep={"score": None, "small": "float64", "meta": None})
    lines, array = (read([str(tmp_path / name)], columns)[0] for name in ("rows.jsonl", "rows.json"))
    assert lines == array
    assert array.kept == ("1.5", pa.scalar(1e-100), json.dumps(row["meta"]))


def bad(line: str | bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "rows.jsonl"
        content = line if isinstance(line, bytes) else line.encode()
        path.write_bytes(b'{"id": 1, "text": "fine"}\n\n' + content + b"\n")
        return path

    return write


def bad_csv(folder: Path) -> Path:
    path = folder / "rows.csv"
    path.write_text("id,text\n1,fine\n2,a,b\n")
    return path


def bad_text(folder: Path) -> Path:
    (folder / "a.txt").write_text("fine")
    (folder / "b.txt").write_bytes(b"na\xefve")
    return folder


def bad_name(folder: Path) -> Path:
    (folder / "a.txt").write_text("fine")
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("fine too")
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad('{"id": 2, "text": "cut'), r"rows.jsonl, row 2 \(line 3\): not valid JSON \(Unterminated string"),
        (bad("[1]"), r"row 2 \(line 3\): expected a JSON object, found an array"),
        (bad('{"id": 2, "body": "x"}'), r"row 2 \(line 3\): has no field text; its fields: id, body"),
        (bad('{"id": 2, "text": null}'), r"row 2 \(line 3\): the field text is null"),
        (bad('{"id": 2, "text": 3}'), r"row 2 \(line 3\): the field text must be a string, found 3"),
        (bad('{"id": 2, "text": "\\ud800"}'), r"row 2 \(line 3\): text: holds U\+D800, which is no character"),
        (bad(b'{"id": 2, "text": "\xff"}'), r"row 2 \(line 3\): not valid JSON \('utf-8' codec"),
        (
            bad('{"text": "x"}'),
            r"row 2 \(line 3\): the field id must be a string or an integer to be the id, found None",
        ),
        (bad('{"id": true, "text": "x"}'), r"to be the id, found True"),
        (bad('{"id": 2, "text": "x", "year": "soon"}'), r"the field year must be of type int64, found 'soon'"),
        (bad('{"id": 2, "text": "x", "year": 1.5}'), r"the field year must be of type int64, found 1.5"),
        (bad('{"id": 2, "text": "x", "year": 1%s}' % ("0" * 30)), r"the field year must be of type int64, found 1000"),
        (bad('{"id": 2, "text": "x", "note": {"a": "\\ud83d"}}'), r"row 2 .*: the field note: holds U\+D83D"),
        pytest.param(
            bad_name,
            r"row 1: its name: holds U\+DCE9, which is no character",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are Unicode"),
        ),
        (bad_csv, r"rows.csv, row 2 \(line 3\): has 3 values, the header 2 columns"),
        (bad_text, r"b.txt, row 1: isn't UTF-8 \(invalid continuation byte at byte 2\)"),
    ],
)
def test_bad_rows_are_told_by_file_and_row(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    texts = make in (bad_text, bad_name)
    columns = Columns(id=None if texts else "id", keep={} if texts else {"year": "int64", "note": None})
    sources = find_sources([str(make(tmp_path))], columns.fields)
    first, second = rows_from(sources)
    types = [kept.type for kept in columns.kept_types(sources)]
    assert columns.row(first, 0, types).text == "fine"
    with pytest.raises(BadRowError, match=message):
        columns.row(second, 1, types)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl.gz", gzip.compress(JSON_LINES)[:-20], "row [1-8].*the gzip data is cut off"),
        ("a.jsonl.zst", b"nothing of the kind", "row 1: neither gzip nor Zstandard"),
        ("a.json", b'[{"text": "fine"}, {"text"', "row 2: the file ends before its JSON array does"),
        ("a.csv", b'id,text\n1,fine\n2,"never', r"row 2 \(line 3\): not valid CSV \(unexpected end of data\)"),
        ("a.csv", b"text,text\n1,2\n", "row 1: its header names a column twice: text, text"),
        ("a.parquet", parquet_bytes()[:-9], "no Parquet file, or damaged"),
        ("b.parquet", b"PAR1", "no Parquet file, or damaged"),
        ("a.docx", b"", "its name tells no format; say which, with --format jsonl"),
    ],
)
def test_files_that_cannot_be_read_are_told(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}.*{message}"):
        read([str(tmp_path / name)], Columns())


def test_inputs_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: no such file or folder"):
        find_sources([str(tmp_path / "none.jsonl")], [])
    with pytest.raises(InputError, match="holds no file of a known name"):
        find_sources([str(tmp_path)], [])
    (tmp_path / "rows.parquet").write_bytes(parquet_bytes())
    with pytest.raises(InputError, match=r"rows\.parquet: has no column body, page; it has id, text, year"):
        find_sources([str(tmp_path)], ["id", "body", "page"])
    with pytest.raises(InputError, match=r"format must be one of jsonl, csv, .*, got 'xml'"):
        find_sources([str(tmp_path)], [], "xml")  # type: ignore[arg-type]


def test_columns_that_cannot_be_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a column embedding of its own"):
        Columns(keep={"embedding": None})
    with pytest.raises(ValueError, match="a column text of its own"):
        Columns(keep={"text": None}, keep_text=True)
    with pytest.raises(ValueError, match="type of the field year must be one of string, int64"):
        Columns(keep={"year": "integer"})
    with pytest.raises(ValueError, match="name a field to embed"):
        Columns(text=())
    (tmp_path / "a.parquet").write_bytes(parquet_bytes())
    (tmp_path / "b.jsonl").write_bytes(JSON_LINES)
    columns = Columns(keep={"year": None})
    with pytest.raises(InputError, match="the inputs disagree on the type of year; give one: year:string"):
        columns.kept_types(find_sources([str(tmp_path)], columns.fields))


def test_a_changed_input_is_told_from_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    before = identity(str(tmp_path), None), identity(str(tmp_path / "a.txt"), None)
    assert before == (identity(str(tmp_path), None), identity(str(tmp_path / "a.txt"), None))
    (tmp_path / "a.txt").write_text("ab")
    assert identity(str(tmp_path), None) != before[0]
    assert identity(str(tmp_path / "a.txt"), None) != before[1]
    assert identity("-", None) == "standard input"


def test_positions_go_from_the_beginning_to_the_end(tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    sources = find_sources([str(tmp_path)], ["text"])
    positions = [raw.position for raw in rows_from(sources)]
    assert positions == sorted(positions)
    assert positions[-1] <= sum(source.size for source in sources) == sum(map(len, FILES.values()))


def test_a_parquet_string_that_is_not_utf8_is_told_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    offsets, data = pa.py_buffer(np.array([0, 3, 4, 7], np.int32)), pa.py_buffer(b"one\xfftwo")
    text = pa.StringArray.from_buffers(3, offsets, data)
    pq.write_table(pa.table({"text": text}), path)
    job = CorpusJob([str(path)], columns=Columns(), skip_bad=True)
    (window,) = job.windows_from(0)
    assert [row.text for row in window.rows] == ["one", "two"]
    assert [str(error) for error in window.bad] == [
        f"{path}, row 2: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
    ]
