"""The pages on corpora and compact vectors: their code runs, their links lead somewhere, their options exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from anytask.cli import app

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("corpora.md", "compact-vectors.md")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", (DOCS / page).read_text("utf-8"))
    assert [target for target in targets if "://" not in target and not (DOCS / target).exists()] == []


def test_options_exist() -> None:
    helped = CliRunner().invoke(app, ["embed", "--help"], env={"COLUMNS": "200"}).stdout
    named = {option for page in PAGES for option in re.findall(r"--[a-z][a-z-]+", (DOCS / page).read_text("utf-8"))}
    others = {"--data", "--write", "--texts", "--passages", "--head", "--port", "--address"}
    assert {option for option in named - others if option not in helped} == set()


def test_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "passages.jsonl").write_text('{"id": "a", "title": "Sky", "text": "Air scatters blue light."}\n')
    runner = CliRunner()
    for options in (("--output", "passages.parquet"), ("--to-chroma", "chroma_db/passages")):
        done = runner.invoke(app, ["embed", "passages.jsonl", *options, "--id", "id", "--keep", "title"])
        assert done.exit_code == 0, done.output
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.S):
            if "n_results=3" not in block:
                exec(compile(block, page, "exec", dont_inherit=True), {"__name__": "page"})
