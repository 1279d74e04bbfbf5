"""What the README and the example show, they do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[1]
EXAMPLE = PROJECT.parents[1] / "examples" / "haystack_pipelines.py"


def test_the_snippets_of_the_readme_run(capsys: pytest.CaptureFixture[str]) -> None:
    snippets = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(snippets) == 5
    names: dict[str, Any] = {"__name__": "readme"}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec", dont_inherit=True), names)
    assert capsys.readouterr().out.strip() in {document.content for document in names["store"].filter_documents()}
    assert len(names["embedding"]) == len(names["documents"][0].embedding)
    assert len(names["answers"]) == 2


@pytest.mark.slow
def test_the_example_answers(tmp_path: Path) -> None:
    question = "How do I write a loop?"
    command = [sys.executable, str(EXAMPLE), question]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    lines = output.split("\n")
    assert re.fullmatch(r"\d+ passages of 10 topics", lines[0])
    assert lines[2] == question
    assert [bool(re.match(r"  \[[a-z-]+\] \S", line)) for line in lines[3:]] == [True, True, False]
