"""The README's programs run, one after the other, and its migration of a collection does what it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from chromadb.api.shared_system_client import SharedSystemClient
from chromadb.api.types import Documents, Embeddings
from chromadb.utils import embedding_functions

from anytask import Instructor

pytest.importorskip("langchain_anytask")
pytest.importorskip("langchain_chroma")

pytestmark = [
    pytest.mark.usefixtures("no_network"),
    pytest.mark.filterwarnings("ignore:legacy embedding function config", "ignore:Could not reconstruct"),
]

README = Path(__file__).parents[1] / "README.md"
TEXTS = [
    "The mitral valve lies between the left atrium and the left ventricle.",
    "Basalt forms from lava that cools quickly at the surface.",
    "A sonnet has fourteen lines.",
]
TOPIC = "Represent the sentence for clustering by its topic: "


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the README's programs leave behind."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for program in re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.M | re.S):
        exec(compile(program, README.name, "exec"), names)
    yield names
    SharedSystemClient.clear_system_cache()  # else the next test's "notes_db" is this one's


def test_the_programs_run(names: dict[str, Any]) -> None:
    assert names["client"].get_collection("notes").count() == 2
    assert names["client"].get_collection("pages").configuration_json["embedding_function"]["type"] == "known"


@pytest.mark.parametrize("instruction", [TOPIC, None])
def test_a_collection_of_chromas_own_function_moves_over_with_its_vectors(
    names: dict[str, Any], mini: Instructor, monkeypatch: pytest.MonkeyPatch, instruction: str | None
) -> None:
    class Original(embedding_functions.InstructorEmbeddingFunction):
        """Chroma's function as of a release in which it worked, with the original package's vectors."""

        def __init__(self) -> None:
            self.model_name, self.device, self.instruction = "mini", "cpu", instruction

        def __call__(self, input: Documents) -> Embeddings:
            return list(mini.encode(input, instruction))

        def is_legacy(self) -> bool:
            return False

    monkeypatch.setitem(embedding_functions.known_embedding_functions, "instructor", Original)
    client: chromadb.ClientAPI = names["client"]
    old = client.create_collection("old", embedding_function=Original())
    ids = ["valve", "basalt", "sonnet"]
    old.add(ids=ids, documents=TEXTS, metadatas=[{"number": number} for number in range(len(TEXTS))])
    expected = old.query(query_texts=TEXTS, n_results=3)

    move_over: Callable[..., chromadb.Collection] = names["move_over"]
    move_over(client.get_collection("old", embedding_function=None), "new")
    moved = client.get_collection("new").query(query_texts=TEXTS, n_results=3)
    assert moved["ids"] == expected["ids"]
    assert moved["metadatas"] == expected["metadatas"]
    np.testing.assert_allclose(np.asarray(moved["distances"]), np.asarray(expected["distances"]), atol=1e-5)
