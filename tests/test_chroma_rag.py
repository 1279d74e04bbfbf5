"""examples/chroma_rag.py as its users run it: its own process, real files, a real database, a server on loopback."""

from __future__ import annotations

import importlib
import json
import os
import pty
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "chroma_rag.py"
PATIENCE = 240
"""Seconds that one run may take on a busy machine."""

HARBOUR = """# Harbour rules

Ships enter at high tide only.

## Mooring fees

A berth costs nine crowns a night, payable to the harbour master.

```
# not a heading
```
"""
ORCHARD = """Pruning
=======

Apple trees are pruned in late winter, before the buds break.
"""
HIVE = """<html><head><title>Beekeeping</title><style>p {color: red}</style></head>
<body><h2>Swarms</h2>
<p>A swarm is <b>caught</b> in a
skep at dusk.</p></body></html>
"""
TIDES = "The spring tide follows the new moon.\n\nNeap tides are weak.\n"
KILN = "Stoneware is fired at cone ten in the large kiln."


def write_pdf(path: Path, text: str) -> None:
    """A PDF of one page, by hand: catalogue, pages, page, content, font, cross-reference table."""
    content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    file, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    start = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    path.write_bytes(file + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, start))


def write_documents(docs: Path) -> None:
    """A folder with every format, and with files to be left out."""
    (docs / "garden").mkdir(parents=True)
    (docs / ".hidden").mkdir()
    (docs / "harbour.md").write_text(HARBOUR)
    (docs / "garden" / "orchard.rst").write_text(ORCHARD)
    (docs / "hive.html").write_text(HIVE)
    (docs / "tides.txt").write_text(TIDES)
    (docs / "notes.docx").write_text("Not one of the formats.")
    (docs / ".hidden" / "secret.md").write_text("Not to be read.")
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 and then nothing")
    write_pdf(docs / "kiln.pdf", KILN)


@dataclass
class Run:
    code: int
    output: str
    messages: str


def environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "ANONYMIZED_TELEMETRY": "False", "COLUMNS": "200", "TERM": "dumb"}


def run(folder: Path, *arguments: object, **variables: str) -> Run:
    """Run the example without a terminal."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *map(str, arguments)],
        cwd=folder,
        env={**environment(), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return Run(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """The folder of the first run, with documents and database, and what that run printed."""
    folder = tmp_path_factory.mktemp("rag")
    write_documents(folder / "docs")
    return folder, run(folder, "--docs", "docs", "--ask", KILN, "--ask", "mooring fees", "--top", 10)


@pytest.fixture
def folder(first: tuple[Path, Run]) -> Path:
    """Where the documents are in the database already."""
    return first[0]


def places(output: str) -> dict[str, float]:
    """Scores of the passages that were printed, by their places."""
    return {
        place: float(score) for score, place in re.findall(r"^\[\d+\] (-?\d\.\d{3})  (.*?, \w+ \d+)  ", output, re.M)
    }


@dataclass
class Server:
    """A stand-in of an OpenAI-compatible server; keeps what it was sent."""

    port: int
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    reply: tuple[int, Any] = (200, {"choices": [{"message": {"role": "assistant", "content": "Nine crowns [1]."}}]})


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.respond(None, (200, {"object": "list", "data": [{"id": "first-model"}]}))

        def do_POST(self) -> None:
            self.respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))), state.reply)

        def respond(self, body: Any, reply: tuple[int, Any]) -> None:
            state.requests.append((self.path, dict(self.headers), body))
            self.send_response(reply[0])
            self.end_headers()
            self.wfile.write(json.dumps(reply[1]).encode())

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(listener.server_port)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    yield state
    listener.shutdown()
    thread.join()
    listener.server_close()


class TestDocuments:
    def test_the_first_run_reads_every_format(self, first: tuple[Path, Run]) -> None:
        folder, done = first
        assert done.code == 0, done.messages
        assert "6 added, 0 removed, 0 unchanged in chroma_rag_db" in done.messages
        assert "broken.pdf: left out" in done.messages
        assert (folder / "chroma_rag_db").is_dir()
        assert set(places(done.output)) == {
            "harbour.md, line 3",
            "harbour.md, line 7",
            "garden/orchard.rst, line 4",
            "hive.html, line 3",
            "tides.txt, line 1",
            "kiln.pdf, page 1",
        }
        kiln, mooring = done.output.split("? mooring fees")
        assert next(iter(places(kiln))) == "kiln.pdf, page 1", "a text finds itself"
        assert list(places(kiln).values()) == sorted(places(kiln).values(), reverse=True)
        for expected in (
            "harbour.md, line 7\n| Mooring fees\n| A berth costs nine crowns",
            "# not a heading",
            "hive.html, line 3\n| Swarms\n| A swarm is caught in a skep at dusk.",
            "garden/orchard.rst, line 4\n| Pruning\n| Apple trees",
            "tides.txt, line 1\n| tides\n| The spring tide follows",
            "| Question: mooring fees\n| Answer:",
        ):
            assert expected in mooring
        assert "Not to be read" not in done.output
        assert "Not one of the formats" not in done.output

    def test_the_second_adds_nothing_and_asks_the_language_model(self, folder: Path, server: Server) -> None:
        url = f"http://127.0.0.1:{server.port}"
        done = run(folder, "--docs", folder / "docs", "--ask", "mooring fees", "--llm", url, OPENAI_API_KEY="a-key\r")
        assert done.code == 0, done.messages
        assert "0 added, 0 removed, 6 unchanged" in done.messages
        assert done.output.rstrip().endswith("answer\nNine crowns [1].")
        (listing, _, _), (path, headers, body) = server.requests
        assert (listing, path) == ("/v1/models", "/v1/chat/completions")
        assert headers["Authorization"] == "Bearer a-key"
        assert set(body) == {"model", "messages"}, "more is refused by some servers"
        assert body["model"] == "first-model"
        (message,) = body["messages"]
        assert message["role"] == "user"
        assert "A berth costs nine crowns a night" in message["content"]
        assert "Question: mooring fees" in message["content"]

    def test_a_change_embeds_only_what_changed(self, tmp_path: Path) -> None:
        docs = tmp_path / "docs"
        write_documents(docs)
        assert "6 added" in run(tmp_path, "--docs", docs, "--ask", "mooring fees").messages
        (docs / "harbour.md").write_text("A new first line.\n\n" + HARBOUR.replace("nine crowns", "ten crowns"))
        (docs / "tides.txt").unlink()
        done = run(tmp_path, "--docs", docs, "--ask", "mooring fees", "--top", 10)
        assert "2 added, 2 removed, 4 unchanged" in done.messages
        assert "harbour.md, line 5" in places(done.output), "the place of a moved passage is brought up to date"
        assert "ten crowns" in done.output
        assert "nine crowns" not in done.output

    def test_another_document_instruction_has_a_collection_of_its_own(self, folder: Path) -> None:
        other = ("--document-instruction", "Represent the rule for retrieval: ")
        arguments = ("--docs", "docs", "--ask", "mooring fees", "--query-instruction", "Represent the keyword: ")
        assert "6 added" in run(folder, *arguments, *other).messages
        assert "0 added, 0 removed, 6 unchanged" in run(folder, *arguments).messages

    def test_questions_are_made_where_there_is_no_terminal(self, folder: Path) -> None:
        done = run(folder, "--docs", "docs")
        assert done.code == 0, done.messages
        assert len(re.findall(r"^\? What is said about .+\?$", done.output, re.M)) == 3

    def test_questions_are_typed_where_there_is_one(self, folder: Path) -> None:
        terminal, inside = pty.openpty()
        command = [sys.executable, str(EXAMPLE), "--docs", "docs"]
        with subprocess.Popen(
            command, cwd=folder, env=environment(), stdin=inside, stdout=inside, stderr=inside, close_fds=True
        ) as example:
            os.close(inside)
            read_until(terminal, "Question (empty to leave):")
            os.write(terminal, b"mooring fees\n")
            answer = read_until(terminal, "Question (empty to leave):")
            os.write(terminal, b"\n")
            assert example.wait(PATIENCE) == 0
        os.close(terminal)
        assert "harbour.md" in answer
        assert "Answer:" in answer


def read_until(terminal: int, text: str) -> str:
    received, deadline = "", time.monotonic() + PATIENCE
    while text not in received and time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            received += os.read(terminal, 4096).decode(errors="replace")
    assert text in received
    return received


class TestStandardLibrary:
    def test_sample_questions_where_there_is_no_terminal(self, tmp_path: Path) -> None:
        done = run(tmp_path, "--limit", 60, "--db", "small", "--top", 2)
        assert done.code == 0, done.messages
        assert "60 passages read from the standard library's docstrings" in done.messages
        assert "60 added, 0 removed, 0 unchanged in small" in done.messages
        assert len(re.findall(r"^\? .+\?$", done.output, re.M)) == 3
        assert done.output.count("| Answer:") == 3
        found = places(done.output)
        assert found
        library = Path(os.__file__).parent
        for place in found:
            path, line = re.fullmatch(r"(.+), line (\d+)", place).groups()  # type: ignore[union-attr]
            assert int(line) <= len((library / path).read_text("utf-8").splitlines())

    def test_the_corpus_has_thousands_of_real_entries(self) -> None:
        program = (
            f"import sys; sys.path.insert(0, {str(EXAMPLE.parent)!r})\n"
            "from rag_corpus import *\nimport json\n"
            "passages = list(standard_library())\n"
            "copies = [p.metadata for p in passages if p.title == 'shutil.copytree']\n"
            "longest = max(len(p.body) for p in passages)\n"
            "print(json.dumps([len({p.key for p in passages}), longest, copies, sorted(sys.modules)]))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        count, longest, copies, modules = json.loads(done.stdout)
        assert 3_000 < count < 10_000
        assert longest <= 1_000
        assert copies[0]["title"].startswith("shutil.copytree(src, dst")
        assert re.fullmatch(r"shutil\.py, line \d+", copies[0]["place"])
        assert "tkinter" not in modules, "files are parsed, not imported"


@pytest.fixture
def rag_corpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    return importlib.import_module("rag_corpus")


class TestReaders:
    def passages(self, rag_corpus: Any, folder: Path) -> list[tuple[str, str, str]]:
        found = rag_corpus.documents(folder, complain=pytest.fail)
        return [(passage.title, passage.body, passage.metadata["place"]) for passage in found]

    def test_markdown(self, rag_corpus: Any, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_text(
            "# Notes on C#\n\n```code``` in a line\n\n## Closed ##\n\n````\n```\n# no heading\n````\n\n# Last\n\nend\n"
        )
        assert self.passages(rag_corpus, tmp_path) == [
            ("Notes on C#", "```code``` in a line", "a.md, line 3"),
            ("Closed", "````\n```\n# no heading\n````", "a.md, line 7"),
            ("Last", "end", "a.md, line 14"),
        ]

    def test_lines_of_html(self, rag_corpus: Any, tmp_path: Path) -> None:
        (tmp_path / "a.html").write_text("<html>\n<p>\nHello there</p>\n<h1>Then</h1><p>\n\n  And\n here</p></html>")
        assert [place for _, _, place in self.passages(rag_corpus, tmp_path)] == ["a.html, line 3", "a.html, line 6"]

    def test_half_characters(self, rag_corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_pdf(tmp_path / os.fsdecode(b"caf\xe9.pdf" if sys.platform == "linux" else b"cafe.pdf"), KILN)
        monkeypatch.setattr("pypdf.PageObject.extract_text", lambda _: "\ud835\udc00 pair, \ud835 half")
        ((_, body, place),) = self.passages(rag_corpus, tmp_path)
        assert body == "\U0001d400 pair, \ufffd half"
        place.encode("utf-8")


class TestErrors:
    def test_a_key_that_is_none_is_not_shown(self, folder: Path) -> None:
        done = run(folder, "--docs", "docs", "--ask", "fees", "--llm", "http://127.0.0.1:9", OPENAI_API_KEY="“secret”")
        assert done.code == 1
        assert "error: OPENAI_API_KEY holds blanks or other characters that no key has" in done.messages
        assert "secret" not in done.messages

    def test_a_folder_without_documents(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        done = run(tmp_path, "--docs", "empty", "--ask", "anything")
        assert done.code == 1
        assert "error: empty has no readable text in files named *.md, *.txt, *.rst, *.html, *.pdf" in done.messages
        assert "Traceback" not in done.messages

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        done = run(tmp_path, "--docs", "missing")
        assert done.code == 2
        assert "does not exist" in done.messages

    def test_an_unknown_model(self, tmp_path: Path) -> None:
        done = run(tmp_path, "--limit", 3, "--model", "./nowhere")
        assert done.code == 1
        assert "error: './nowhere': nothing is there" in done.messages
        assert "Traceback" not in done.messages

    def test_no_server(self, folder: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
            done = run(folder, "--docs", "docs", "--ask", "fees", "--llm", url, "--llm-model", "some-model")
        assert done.code == 1
        assert "| Question: fees" in done.output, "the passages are shown all the same"
        assert f"error: {url}/chat/completions can't be reached" in done.messages
        assert "Traceback" not in done.messages

    @pytest.mark.parametrize(
        ("reply", "complaint"),
        [
            ((401, {"error": "bad key"}), 'answered 401: {"error": "bad key"}'),
            ((200, {"unexpected": True}), "doesn't answer like an OpenAI-compatible server"),
            ((200, {"choices": [{"message": {"content": None}}]}), "the content of its message is None"),
        ],
    )
    def test_a_server_that_refuses(self, folder: Path, server: Server, reply: tuple[int, Any], complaint: str) -> None:
        server.reply = reply
        url = f"http://127.0.0.1:{server.port}/v1/chat/completions"
        done = run(folder, "--docs", "docs", "--ask", "fees", "--llm", url, "--llm-model", "some-model")
        assert done.code == 1
        assert complaint in done.messages
        assert server.requests[0][0] == "/v1/chat/completions"
        assert "Traceback" not in done.messages
