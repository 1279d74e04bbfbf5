"""The README's programs run, one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chromadb
import pytest
from chromadb.api.shared_system_client import SharedSystemClient

pytest.importorskip("langchain_anytask")
pytest.importorskip("langchain_chroma")

pytestmark = [
    pytest.mark.usefixtures("no_network"),
    pytest.mark.filterwarnings("ignore:legacy embedding function config", "ignore:Could not reconstruct"),
]

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chromas_own: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """What the README's programs leave behind, in a database with a collection of Chroma's own function."""
    monkeypatch.chdir(tmp_path)
    recipes = chromadb.PersistentClient("notes_db").create_collection("recipes", embedding_function=chromas_own())
    recipes.add(ids=["dough"], documents=["Knead the dough and let it rest."])
    names: dict[str, Any] = {}
    for program in re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.M | re.S):
        exec(compile(program, README.name, "exec", dont_inherit=True), names)
    yield names
    SharedSystemClient.clear_system_cache()  # else the next test's "notes_db" is this one's


def test_the_programs_run(names: dict[str, Any]) -> None:
    client: chromadb.ClientAPI = names["client"]
    assert client.get_collection("notes").count() == 2
    assert client.get_collection("pages").configuration_json["embedding_function"]["type"] == "known"
    assert client.get_collection("recipes_moved").query(query_texts=["bread"])["ids"] == [["dough"]]
