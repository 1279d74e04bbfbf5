"""Chroma clients without telemetry, a second checkpoint, and other processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import chromadb
import pytest
import pytest_socket
from chromadb.api import ClientAPI
from chromadb.api.types import Documents, EmbeddingFunction, Embeddings
from chromadb.config import Settings
from chromadb.utils import embedding_functions
from safetensors.numpy import load_file, save_file

from anytask import Instructor
from anytask.hub import BUNDLED

SMALL = 48
"""Dimension of the second checkpoint's vectors."""

Run = Callable[..., str]


@pytest.fixture
def no_network() -> Iterator[None]:
    """Only the socket pair that an event loop has of its own."""
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()


@pytest.fixture(scope="session")
def mini() -> Instructor:
    return Instructor.from_pretrained("mini")


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the encoder of the bundled model and a dense layer of fewer outputs."""
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    shutil.copytree(BUNDLED / "mini", folder)
    config = json.loads((folder / "2_Dense" / "config.json").read_text())
    (folder / "2_Dense" / "config.json").write_text(json.dumps({**config, "out_features": SMALL}))
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    save_file({name: value[:SMALL].copy() for name, value in weights.items()}, folder / "2_Dense" / "model.safetensors")
    return folder


@pytest.fixture
def chromas_own(mini: Instructor, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EmbeddingFunction[Documents]]:
    """Chroma's `InstructorEmbeddingFunction` as it was when it worked, with the original package's vectors."""

    class Original(embedding_functions.InstructorEmbeddingFunction):
        def __init__(self, instruction: str | None = None) -> None:
            self.model_name, self.device, self.instruction = "mini", "cpu", instruction

        def __call__(self, input: Documents) -> Embeddings:
            return list(mini.encode(input, self.instruction))

        def is_legacy(self) -> bool:
            return False

    monkeypatch.setitem(embedding_functions.known_embedding_functions, "instructor", Original)
    return Original


@pytest.fixture
def settings() -> Settings:
    return Settings(anonymized_telemetry=False)


@pytest.fixture
def ephemeral(settings: Settings) -> ClientAPI:
    """A client with a database of its own: ephemeral clients of one process share their memory."""
    name = f"test-{uuid.uuid4()}"
    chromadb.AdminClient(Settings(anonymized_telemetry=False, is_persistent=False)).create_database(name)
    return chromadb.EphemeralClient(settings=settings, database=name)


@pytest.fixture
def run_elsewhere(tmp_path: Path) -> Run:
    """Run a program in a process of its own, in another working folder; gives its output."""

    def run(program: str, *arguments: object) -> str:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
