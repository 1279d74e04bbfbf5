"""The README's code and the example run as they stand."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from langchain_anytask import InstructorEmbeddings

PROJECT = Path(__file__).parents[1]
EXAMPLE = PROJECT.parents[1] / "examples" / "langchain_retriever.py"


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text("utf-8"), re.S)
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec", dont_inherit=True), namespace)
    assert capsys.readouterr().out in ("shutil.copytree copies a folder.\n", "os.remove deletes a file.\n")
    assert len(namespace["vectors"]) == 64  # type: ignore[arg-type]


def test_readme_lists_every_setting() -> None:
    table = (PROJECT / "README.md").read_text("utf-8").split("## Settings")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(InstructorEmbeddings.model_fields)


def test_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "How do I remove a folder?"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Answer from this manual:"
    assert lines[-2:] == ["Question: How do I remove a folder?", "Answer:"]
    assert sum(re.match(r"[\w.]+\.\w+: \S", line) is not None for line in lines[2:-2]) >= 4
