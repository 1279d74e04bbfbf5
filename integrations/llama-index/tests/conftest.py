"""No network, a small corpus, and a log of what is really embedded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ANONYMIZED_TELEMETRY"] = "False"

import pytest
import pytest_socket
from llama_index.core import Settings
from llama_index.core.llms import MockLLM

from anytask import Embedder, Instructor, load_shared


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Internet sockets raise; asyncio needs the Unix ones."""
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()


@pytest.fixture(autouse=True)
def fresh_settings() -> Iterator[None]:
    """LlamaIndex' global settings, with a language model that repeats its prompt."""
    Settings.llm = MockLLM()
    yield
    Settings._llm = Settings._embed_model = Settings._callback_manager = None


@pytest.fixture(scope="session")
def model() -> Instructor:
    """The bundled model, as the core gives it."""
    return load_shared("mini")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [
        "Tomatoes want six hours of sun a day and water at the root.",
        "Ferns grow best in the shade of taller plants.",
        "Prune apple trees in late winter, before the buds swell.",
        "Slugs shelter under boards by day and feed on seedlings at night.",
        "A compost heap needs air, moisture and as much brown matter as green.",
    ]


class Log(list[tuple[str, str | None, str]]):
    """(side, configured instruction, text) of every text that reaches the core."""

    def texts(self, side: str) -> list[str]:
        return [text for where, _, text in self if where == side]


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> Log:
    """Fills while the embedder works as ever."""
    log = Log()

    def watch(method: str, side: str) -> None:
        original = getattr(Embedder, method)

        def watched(self: Embedder, texts: Sequence[str], *args: Any, **options: Any) -> Any:
            log.extend((side, getattr(self, f"{side}_instruction"), text) for text in texts)
            return original(self, texts, *args, **options)

        monkeypatch.setattr(Embedder, method, watched)

    for prefix in ("embed", "aembed"):
        watch(f"{prefix}_queries", "query")
        watch(f"{prefix}_documents", "document")
    return log
