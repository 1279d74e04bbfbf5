"""The package in its namespace, and for type checkers."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import haystack_integrations.components.embedders.anytask as package
import pytest

CONSUMER = """
from haystack import Document, Pipeline
from haystack.utils import ComponentDevice, Secret
from haystack_integrations.components.embedders.anytask import InstructorDocumentEmbedder, InstructorTextEmbedder

token = Secret.from_env_var("TOKEN")
text = InstructorTextEmbedder("mini", ComponentDevice.from_str("cpu"), token, query_instruction="")
embedding: list[float] = text.run("question")["embedding"]
documents: list[Document] = InstructorDocumentEmbedder(meta_fields_to_embed=["title"]).run([])["documents"]
Pipeline().add_component("embedder", InstructorTextEmbedder.from_dict(text.to_dict()))


async def ask() -> list[float]:
    return (await text.run_async("question", instruction="Represent the question: "))["embedding"]
"""
MISTAKES = """
from haystack_integrations.components.embedders.anytask import InstructorDocumentEmbedder, InstructorTextEmbedder

InstructorTextEmbedder(device="cuda")
InstructorTextEmbedder(meta_fields_to_embed=["title"])
InstructorDocumentEmbedder().run("text")
"""


def test_the_namespace_is_shared() -> None:
    folder = Path(package.__file__ or "").parent
    assert (folder / "py.typed").is_file()
    above = [*folder.parents][:3]
    assert [parent.name for parent in above] == ["embedders", "components", "haystack_integrations"]
    assert not any((parent / "__init__.py").exists() for parent in above)
    for neighbour in ("document_stores.chroma", "components.retrievers.chroma"):
        assert importlib.util.find_spec(f"haystack_integrations.{neighbour}") is not None


def test_importing_the_package_loads_no_model_library() -> None:
    program = (
        "import sys, haystack_integrations.components.embedders.anytask; "
        "assert not {'transformers', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_type_checkers_see_the_types(tmp_path: Path) -> None:
    (tmp_path / "consumer.py").write_text(CONSUMER)
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-incremental", "."]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    errors = [line.partition(": error:")[0] for line in run.stdout.splitlines() if ": error:" in line]
    assert errors == ["mistakes.py:4", "mistakes.py:5", "mistakes.py:6"], run.stdout + run.stderr
