"""The speed benchmarks: rivals get the same work, and figures of another machine aren't mixed in."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from anytask import Instructor, kernels
from anytask.hub import resolve

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def rows(module: Any) -> list[Any]:
    encode = module("encode")
    return [
        encode.Row(1, "short texts", rival, 20.0, seconds, ratio, (ratio, ratio), 0.5, 100.0, 1.0, 500.0)
        for rival, seconds, ratio in (("sentence-transformers", 0.2, 1.0), ("int8", 0.05, 4.0))
    ]


def test_a_worker_embeds_like_the_model(module: Any, tmp_path: Path) -> None:
    worker = module("rivals").Worker("float32", str(resolve("mini")), threads=1)
    texts = ["How do I sort a list?", "Files are closed when the block ends."]
    vectors = worker.vectors(texts, tmp_path / "vectors.npy")
    assert len(worker.seconds(texts)) == 1
    assert all(second > 0 for second in worker.seconds(texts, singly=True))
    assert worker.peak_megabytes > 50
    worker.close()
    expected = Instructor.from_pretrained("mini", device="cpu", dtype="float32").encode(
        texts, module("texts").INSTRUCTION
    )
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_worker_that_fails_is_named(module: Any, tmp_path: Path) -> None:
    worker = module("rivals").Worker("float32", str(tmp_path), threads=1)
    with pytest.raises(RuntimeError, match=r"worker\.py.*ended with status 1"):
        worker.seconds(["a"])


def test_figures_of_another_machine_are_left(module: Any, rows: list[Any], tmp_path: Path) -> None:
    encode, about = module("encode"), {"machine": "this one", "rivals": ["int8"]}
    path = tmp_path / "figures.json"
    path.write_text(json.dumps({**about, "rows": [vars(row) for row in rows]}), "utf-8")
    kept = encode._earlier(path, about)
    assert [(row.rival, row.ratio) for row in kept] == [(row.rival, row.ratio) for row in rows]
    assert encode._earlier(path, {**about, "machine": "another"}) == []


def test_the_chart_shows_every_rival(module: Any, rows: list[Any], tmp_path: Path) -> None:
    module("chart").draw(rows, ["int8"], "title", tmp_path / "chart.svg")
    assert "</svg>" in (tmp_path / "chart.svg").read_text("utf-8")


def test_passages_are_around_120_tokens(module: Any) -> None:
    texts = module("texts")
    passages = texts.workloads(200)[texts.PASSAGES]
    model = Instructor.from_pretrained("mini", device="cpu")
    lengths = [len(text.ids) for text in model._tokenizer(passages, [texts.INSTRUCTION] * len(passages))]
    assert 100 < np.mean(lengths) < 150


@pytest.mark.parametrize("room", [0, 128])
def test_a_rival_that_runs_out_of_gpu_memory(module: Any, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    used: list[int] = []

    class SentenceTransformer:
        def __init__(self, *_: object, **__: object) -> None: ...

        def set_pooling_include_prompt(self, include: bool) -> None: ...

        def encode(self, texts: list[str], batch_size: int, **_: object) -> list[str]:
            used.append(batch_size)
            if batch_size > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return texts

    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=SentenceTransformer))
    encode = module("gpu").peer(Path(), "bfloat16", ["text"] * 8)
    assert set(used) == {32, 128, 512}
    if room:
        assert encode(["a"]) == ["a"]
        assert used[-1] in (32, 128)
    else:
        assert encode is None


def test_kernels_are_left_out_and_come_back(
    module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not kernels.available():
        pytest.skip("the kernels aren't compiled for this processor")
    benchmark = module("without_kernels")
    with benchmark.without_kernels():
        assert not kernels.available()
    assert kernels.available()
    monkeypatch.setattr(benchmark, "OUTPUT", tmp_path)
    arguments = ["without_kernels.py", "--model", "mini", "--dtype", "int8", "--threads", "1", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    threads = torch.get_num_threads()
    benchmark.main()
    torch.set_num_threads(threads)
    rows = json.loads((tmp_path / "without-kernels.json").read_text("utf-8"))["rows"]
    assert [row["workload"] for row in rows] == ["short texts", "passages", "one query"]
    assert "times as fast" in capsys.readouterr().out
