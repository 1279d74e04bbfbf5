"""The README's code and the example run as they stand."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from llama_index.embeddings.anytask import InstructorEmbedding

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text("utf-8")
EXAMPLE = PROJECT.parents[1] / "examples" / "llama_index_query_engine.py"


async def test_readme(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    names: dict[str, Any] = {}
    for block in blocks:
        here = block.replace('"hkunlp/instructor-large", device="cuda"', '"mini", device="cpu"')
        code = compile(here, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if inspect.iscoroutine(done := eval(code, names)):
            await done
    assert "Tomatoes need six hours of sun a day." in capsys.readouterr().out
    assert len(names["vectors"]) == 2
    assert names["retriever"].retrieve("Which plant bears tomatoes?")


def test_readme_names_every_setting() -> None:
    table = README.split("## Settings")[1].split("\n### ")[0]
    fields = set(InstructorEmbedding.model_fields) - {"class_name"}
    assert fields <= set(re.findall(r"`(\w+)`", table))


def test_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    question = "How do I keep slugs away from my seedlings?"
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), question])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == question
    assert all(re.match(r"  [01]\.\d{3}  \w+ +\S", line) for line in lines[2:4])
    assert lines[2].split()[1] == "slugs"
