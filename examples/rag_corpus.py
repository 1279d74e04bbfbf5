"""Passages with their places: the docstrings of Python's standard library, or a folder of documents."""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

PASSAGE = 1000
"""Most characters of a passage's body."""
SHORTEST_DOCSTRING = 40
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


class CorpusError(Exception):
    """There is nothing to read; the message says what was looked for."""


@dataclass(frozen=True)
class Passage:
    """A piece of text under its title: a heading, or the name of what it documents."""

    title: str
    body: str
    source: str
    position: str
    signature: str = ""

    @property
    def text(self) -> str:
        """What is embedded: the title in the first line, and the body. Signatures would only blur what it is about."""
        return f"{self.title}\n{self.body}"

    @property
    def key(self) -> str:
        """Of the content alone: a passage that only moved inside its file keeps it."""
        return hashlib.sha256(f"{self.source}\0{self.text}".encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def metadata(self) -> dict[str, str]:
        return {"title": self.title + self.signature, "place": f"{self.source}, {self.position}"}


class Line(NamedTuple):
    number: int
    is_heading: bool
    text: str


class Block(NamedTuple):
    """A paragraph under its heading."""

    heading: str
    position: str
    text: str


# The standard library

NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "distutils", "idlelib", "lib2to3", "turtledemo"}
"""Other people's packages, tests, programs, and what later Pythons have no more."""


def standard_library() -> Iterator[Passage]:
    """Docstrings of the modules, classes, functions and methods of this Python that are public and say something.

    The files are parsed, nothing is imported.
    """
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        source = path.relative_to(root)
        if NOT_LIBRARY.isdisjoint(source.parts):
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, OSError):
                continue  # a template or a broken link, no module of the library
            module = ".".join(source.with_suffix("").parts).removesuffix(".__init__")
            for name, node, docstring in _docstrings(tree, module):
                signature = f"({ast.unparse(node.args)})" if isinstance(node, FUNCTION) else ""
                for body in _split(docstring):
                    yield Passage(name, body, source.as_posix(), f"line {getattr(node, 'lineno', 1)}", signature)


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST, str]]:
    if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTION)):
        docstring = ast.get_docstring(node)
        if docstring and len(docstring) >= SHORTEST_DOCSTRING:
            yield name, node, docstring
    if not isinstance(node, FUNCTION):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.ClassDef, *FUNCTION)):
                if not child.name.startswith("_"):
                    yield from _docstrings(child, f"{name}.{child.name}")
            elif isinstance(child, (ast.If, ast.Try)):
                yield from _docstrings(child, name)


# A folder of documents


def documents(folder: Path, complain: Callable[[str], object]) -> Iterator[Passage]:
    """Passages of all .md, .txt, .rst, .html and .pdf files below a folder, hidden ones left out.

    Args:
        complain: is told of each file that can't be read and of the reason; it is left out.

    Raises:
        CorpusError: no file gives any text.
    """
    found = False
    for path in sorted(folder.rglob("*")):
        source = path.relative_to(folder)
        reader = READERS.get(path.suffix.lower())
        if reader is None or not path.is_file() or any(part.startswith(".") for part in source.parts):
            continue
        try:
            name = source.as_posix().encode("utf-8", "backslashreplace").decode()  # Chroma takes Unicode alone
            passages = list(_pack(reader(path), name))
        except Exception as error:  # a damaged PDF raises almost anything
            complain(f"{path}: left out, {error or type(error).__name__}")
            continue
        if not passages:
            complain(f"{path}: left out, no text found in it")
        found = found or bool(passages)
        yield from passages
    if not found:
        raise CorpusError(f"{folder} has no readable text in files named {', '.join(f'*{name}' for name in READERS)}")


def _read(path: Path) -> str:
    return path.read_text("utf-8-sig", errors="replace")


def _markdown(path: Path) -> Iterator[Block]:
    def lines() -> Iterator[Line]:
        fence = ""
        for number, line in enumerate(_read(path).splitlines(), 1):
            mark = re.match(r"\s*(`{3,}(?=[^`]*$)|~{3,})", line)
            if mark and not fence:
                fence = mark[1]
            elif mark and mark[1].startswith(fence) and line.strip() == mark[1]:
                fence = ""
            heading = None if fence else re.match(r" {0,3}#{1,6}\s+(.*?)(?:\s+#+)?\s*$", line)
            yield Line(number, heading is not None, heading[1] if heading else line)

    return _blocks(lines())


def _restructured(path: Path) -> Iterator[Block]:
    def lines() -> Iterator[Line]:
        rows = _read(path).splitlines()
        for number, (line, below) in enumerate(zip(rows, [*rows[1:], ""], strict=True), 1):
            if not re.fullmatch(r"([^\w\s])\1{2,}", line.rstrip()):  # an underline or overline
                underline = re.fullmatch(r"([^\w\s])\1{2,}", below.rstrip())
                is_heading = bool(line.strip()) and underline is not None and len(below.rstrip()) >= len(line.rstrip())
                yield Line(number, is_heading, line)

    return _blocks(lines())


def _plain(path: Path) -> Iterator[Block]:
    return _blocks(Line(number, False, line) for number, line in enumerate(_read(path).splitlines(), 1))


class _Page(HTMLParser):
    """The lines of an HTML page; what isn't shown as text is left out."""

    HEADINGS = frozenset({"title", "h1", "h2", "h3", "h4", "h5", "h6"})
    HIDDEN = frozenset({"script", "style", "template", "nav"})
    INLINE = frozenset(
        {"a", "abbr", "b", "cite", "code", "em", "i", "kbd", "mark", "q", "s", "small", "span", "strong"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []
        self._hidden = 0
        self._text: list[str] = []
        self._start = 1

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        self._hidden += tag in self.HIDDEN
        if tag not in self.INLINE:
            self._end_of_block(is_heading=False)

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in self.HIDDEN))
        if tag not in self.INLINE:
            self._end_of_block(is_heading=tag in self.HEADINGS)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            if data.strip() and not "".join(self._text).strip():
                self._start = self.getpos()[0] + data[: -len(data.lstrip())].count("\n")
            self._text.append(data)

    def close(self) -> None:
        super().close()
        self._end_of_block(is_heading=False)

    def _end_of_block(self, is_heading: bool) -> None:
        text = " ".join("".join(self._text).split())
        self._text.clear()
        if text:
            self.lines += [Line(self._start, is_heading, text), Line(self._start, False, "")]


def _html(path: Path) -> Iterator[Block]:
    page = _Page()
    page.feed(_read(path))
    page.close()
    return _blocks(page.lines)


def _pdf(path: Path) -> Iterator[Block]:
    try:
        from pypdf import PdfReader
    except ImportError as error:
        raise CorpusError("PDF files need pypdf: pip install pypdf") from error
    for number, page in enumerate(PdfReader(path).pages, 1):
        text = page.extract_text().encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # halves of pairs
        yield Block("", f"page {number}", text)


READERS: dict[str, Callable[[Path], Iterator[Block]]] = {
    ".md": _markdown,
    ".txt": _plain,
    ".rst": _restructured,
    ".html": _html,
    ".pdf": _pdf,
}


def _blocks(lines: Iterable[Line]) -> Iterator[Block]:
    """Paragraphs, which end at blank lines and headings."""
    heading, start, paragraph = "", 0, list[str]()
    for line in [*lines, Line(0, False, "")]:
        if line.text.strip() and not line.is_heading:
            start = start if paragraph else line.number
            paragraph.append(line.text.rstrip())
            continue
        if paragraph:
            yield Block(heading, f"line {start}", "\n".join(paragraph))
            paragraph = []
        if line.is_heading:
            heading = line.text.strip()


def _pack(blocks: Iterable[Block], source: str) -> Iterator[Passage]:
    """Passages of at most `PASSAGE` characters: short paragraphs under one heading together, long ones cut."""
    last: Block | None = None
    for block in blocks:
        together = f"{last.text}\n\n{block.text}" if last else ""
        page_ends = last is not None and last.position.startswith("page")
        if last and last.heading == block.heading and not page_ends and len(together) <= PASSAGE:
            last = last._replace(text=together)
            continue
        if last:
            yield from _passages(last, source)
        last = block
    if last:
        yield from _passages(last, source)


def _passages(block: Block, source: str) -> Iterator[Passage]:
    for body in _split(block.text):
        yield Passage(block.heading or Path(source).stem, body, source, block.position)


def _split(text: str) -> Iterator[str]:
    """Pieces of at most `PASSAGE` characters, cut at the end of a paragraph, line, sentence or word."""
    text = text.strip()
    while len(text) > PASSAGE:
        ends = (text.rfind(mark, PASSAGE // 2, PASSAGE - 1) for mark in ("\n\n", "\n", ". ", " "))
        cut = next((end + 1 for end in ends if end > 0), PASSAGE)
        yield text[:cut].strip()
        text = text[cut:].strip()
    if text:
        yield text
