"""Plain, gzip and Zstandard files as streams of bytes: damage on reading is told, writing is whole or not at all."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from anytask.files.whole import whole_file

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SUFFIXES = (".gz", ".zst")
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPED = {bytes((0x50 + kind, 0x2A, 0x4D, 0x18)) for kind in range(16)}
"""How frames begin that decompressors leave out, and with one of which parallel ones let files begin."""
ZSTD_WINDOW = 1 << 31
"""Bytes: the largest window there is, for what was made with `zstd --long`."""
BUFFER = 1 << 17
ZSTD_INPUT = 1 << 10
"""Compressed bytes decompressed at a time: they may hold ten thousand times as many."""


class DamagedFileError(ValueError):
    """A file's data is cut off, malformed, or not what its name says; `line` is the line where, in JSON lines."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


@contextmanager
def open_compressed(path: Path, advance: Callable[[int], None] | None = None) -> Iterator[io.BufferedReader]:
    """The decompressed bytes of `path`, which may be plain, gzip or Zstandard: its first bytes tell.

    Args:
        advance: called with each number of (compressed) bytes that were read, for a progress bar.

    Raises:
        DamagedFileError: here or on reading: the compressed data is cut off or corrupt, or the file is named `.gz` or
            `.zst` and is neither.
    """
    with ExitStack() as stack:
        raw: io.BufferedReader = io.BufferedReader(_CountedFile(path, advance), BUFFER)
        stack.enter_context(raw)
        magic = raw.peek(4)
        if magic.startswith(GZIP_MAGIC):
            chunks = _gzip_chunks(raw)
        elif magic.startswith(ZSTD_MAGIC) or magic[:4] in ZSTD_SKIPPED:
            chunks = _zstd_chunks(raw)
        elif path.suffix in SUFFIXES:
            raise DamagedFileError(
                f"{'empty' if not magic else 'neither gzip nor Zstandard'}, although it is named {path.suffix}"
            )
        else:
            yield raw
            return
        yield stack.enter_context(io.BufferedReader(_Chunks(chunks), BUFFER))


@contextmanager
def write_compressed(path: Path) -> Iterator[io.BufferedWriter]:
    """A stream whose bytes become `path` when the block ends well; if it raises, `path` is left as it was.

    They are compressed by `path`'s suffix (`.gz`, `.zst`) without the time or a name: equal content, equal file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, ExitStack() as stack:
        file: Any = stack.enter_context(partial.open("wb"))
        if path.suffix == ".gz":
            file = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0))
        elif path.suffix == ".zst":
            compressor = _zstandard().ZstdCompressor(level=6, write_checksum=True)
            file = stack.enter_context(compressor.stream_writer(file, closefd=False))
        yield stack.enter_context(io.BufferedWriter(file, BUFFER))


class _CountedFile(io.FileIO):
    def __init__(self, path: Path, advance: Callable[[int], None] | None) -> None:
        super().__init__(path)
        self.advance = advance

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = super().readinto(buffer)
        if self.advance is not None:
            self.advance(count)
        return count


class _Chunks(io.RawIOBase):
    """A readable file made of chunks, none of them empty."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        if not self.rest:
            self.rest = memoryview(next(self.chunks, b""))
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self.rest))
        view[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def _gzip_chunks(raw: io.BufferedReader) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=raw) as file:
            while chunk := file.read1(BUFFER):
                yield chunk
    except EOFError:
        raise DamagedFileError("the gzip data is cut off: copy or download the file again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DamagedFileError(f"the gzip data is corrupt ({error}): copy or download the file again") from error


def _zstd_chunks(raw: io.BufferedReader) -> Iterator[bytes]:
    zstandard = _zstandard()
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    frame = decompressor.decompressobj()
    started = False
    while data := raw.read(ZSTD_INPUT):
        while data:
            try:
                chunk = frame.decompress(data)
            except zstandard.ZstdError as error:
                raise DamagedFileError(
                    f"the Zstandard data is corrupt ({error}): copy or download the file again"
                ) from error
            if chunk:
                yield chunk
            data, started = frame.unused_data, not frame.eof
            if frame.eof:
                frame = decompressor.decompressobj()
    if started:
        raise DamagedFileError("the Zstandard data is cut off: copy or download the file again")


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError('.zst files need zstandard: pip install "anytask[embed]"') from error
    return zstandard
