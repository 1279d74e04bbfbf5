"""The bundled model, no network, and a view of what the engine computes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_socket import disable_socket, enable_socket

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from anytask import Instructor, load_shared, release_shared
from anytask.engine import EncodingEngine
from anytask.hub import BUNDLED
from langchain_anytask import InstructorEmbeddings

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Only Unix sockets, which asyncio's event loops wake themselves with."""
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()


@pytest.fixture
def texts() -> list[str]:
    return [
        "A semaphore limits how many threads enter a section at the same time.",
        "The harbour was rebuilt after the flood, with a higher wall towards the river.",
        "Yeast dough rises faster in a warm kitchen.",
        "Comets lose gas and dust whenever they come near the sun.",
        "An index makes a database find rows without reading the whole table.",
    ]


@pytest.fixture
def embeddings() -> InstructorEmbeddings:
    return InstructorEmbeddings()


@pytest.fixture
def model() -> Instructor:
    return load_shared("mini")


@pytest.fixture
def engine_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Number of texts in every run of the engine, in order; models are loaded anew to be seen."""
    runs: list[int] = []
    embed = EncodingEngine.embed

    def observed(self: EncodingEngine, texts: Any, *arguments: Any, **options: Any) -> Any:
        runs.append(len(texts))
        return embed(self, texts, *arguments, **options)

    monkeypatch.setattr(EncodingEngine, "embed", observed)
    release_shared()
    yield runs
    release_shared()


@pytest.fixture
def hub_cache(tmp_path: Path) -> Path:
    """A folder as huggingface-hub leaves it after a download of hkunlp/instructor-large, with mini's files in it."""
    repository = tmp_path / "hub" / "models--hkunlp--instructor-large"
    snapshot = repository / "snapshots" / REVISION
    for source in (BUNDLED / "mini").rglob("*"):
        if source.is_file():
            target = snapshot / source.relative_to(BUNDLED / "mini")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return tmp_path / "hub"
