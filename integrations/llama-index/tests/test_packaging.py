"""The distribution: a namespace package beside LlamaIndex' own, typed, with LlamaHub's metadata."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import llama_index.embeddings
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.embeddings import anytask

PACKAGE = Path(__file__).parents[1]


def test_llamahub_metadata() -> None:
    metadata = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["tool"]["llamahub"]
    module = importlib.import_module(metadata["import_path"])
    for name in metadata["class_authors"]:
        assert issubclass(getattr(module, name), BaseEmbedding)
    assert set(module.__all__) == set(metadata["class_authors"])


def test_is_a_typed_part_of_the_namespace() -> None:
    assert llama_index.embeddings.__file__ is None
    assert (Path(anytask.__file__).parent / "py.typed").is_file()
    source = PACKAGE / "src" / "llama_index"
    assert not (source / "__init__.py").exists()
    assert not (source / "embeddings" / "__init__.py").exists()
