"""`anytask embed --to-chroma`: a corpus straight into a collection that takes queries afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from anytask import Instructor
from anytask.cli import app
from anytask.corpus import chroma, read_vectors

FACTS = {
    "tides": "Tides follow the moon.",
    "rust": "Rust is iron oxide.",
    "bread": "Dough rises because yeast makes gas.",
    "sonnet": "A sonnet has fourteen lines.",
    "sky": "The sky is blue because air scatters blue light.",
}
QUERY = "Represent the question for finding the fact that answers it: "
DOCUMENT = "Represent the fact for retrieval: "


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "facts.jsonl"
    rows = [
        {"id": id, "text": text, "words": len(text.split()), "tags": ["fact", id] if id != "sky" else None}
        for id, text in FACTS.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def anytask(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["embed", *map(str, arguments)])


def load(corpus: Path, target: Path, *more: str | Path) -> Result:
    options = ("--id", "id", "--keep", "words:int64", "--keep", "tags", "--instruction", DOCUMENT, "--shard-rows", "2")
    return anytask(corpus, "--to-chroma", target, *options, *more)


def test_the_collection_is_queried_in_another_process(corpus: Path, tmp_path: Path) -> None:
    done = load(corpus, tmp_path / "db/facts", "--device", "cpu", "--batch-tokens", "512")
    assert done.exit_code == 0, done.output
    assert "5 texts embedded in 3 shards" in done.stderr
    program = f"""
import chromadb, chroma_anytask, json
collection = chromadb.PersistentClient({str(tmp_path / "db")!r}).get_collection("facts")
found = collection.query(query_texts=["What do the tides follow, the moon?"], n_results=2)
everything = collection.get(ids=["tides", "sky"], include=["embeddings", "documents", "metadatas"])
everything["embeddings"] = everything["embeddings"].tolist()
config = collection.configuration_json["embedding_function"]["config"]
print(json.dumps([collection.count(), found["ids"][0], everything, config]))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, (best, _), everything, config = json.loads(ran.stdout)
    assert (count, best) == (5, "tides")
    assert config["document_instruction"] == DOCUMENT
    assert (config.get("device"), config.get("batch_tokens")) == (None, None)  # another machine may ask
    rows: dict[str, Any] = {
        id: (document, metadata, vector)
        for id, document, metadata, vector in zip(
            *(everything[name] for name in ("ids", "documents", "metadatas", "embeddings")), strict=True
        )
    }
    assert rows["tides"][:2] == (FACTS["tides"], {"words": 4, "tags": '["fact", "tides"]'})
    assert rows["sky"][1] == {"words": 9}
    expected = Instructor.from_pretrained("mini").encode([FACTS["tides"], FACTS["sky"]], DOCUMENT)
    np.testing.assert_allclose([rows["tides"][2], rows["sky"][2]], expected, atol=1e-5)
    assert [path.name for path in (tmp_path / "db").iterdir() if path.name.endswith(".work")] == []


def test_parquet_and_chroma_at_once(corpus: Path, tmp_path: Path) -> None:
    done = load(corpus, tmp_path / "db/facts", "--output", tmp_path / "facts.parquet")
    assert done.exit_code == 0, done.output
    ids, vectors = read_vectors(tmp_path / "facts.parquet")
    collection = chromadb.PersistentClient(str(tmp_path / "db")).get_collection("facts")
    stored = collection.get(ids=ids, include=["embeddings"])
    by_id = dict(zip(stored["ids"], np.asarray(stored["embeddings"]), strict=True))
    np.testing.assert_allclose([by_id[id] for id in ids], vectors, atol=1e-6)


def test_stopped_while_loading_it_goes_on(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = chroma.ChromaLoader.load

    def stop_at_the_second(self: chroma.ChromaLoader, shard: Path) -> None:
        whole(self, shard)
        if shard.name == "part-000001.parquet":
            raise RuntimeError("stopped")

    loaded: list[str] = []

    def note(self: chroma.ChromaLoader, shard: Path) -> None:
        loaded.append(shard.name)
        whole(self, shard)

    monkeypatch.setattr(chroma.ChromaLoader, "load", stop_at_the_second)
    stopped = load(corpus, tmp_path / "db/facts")
    assert (stopped.exit_code, stopped.stderr.splitlines()[-1]) == (1, "error: stopped")
    monkeypatch.setattr(chroma.ChromaLoader, "load", note)
    done = load(corpus, tmp_path / "db/facts")
    assert done.exit_code == 0, done.output
    assert loaded == ["part-000001.parquet", "part-000002.parquet"]
    assert chromadb.PersistentClient(str(tmp_path / "db")).get_collection("facts").count() == 5


def test_loaded_again_metadata_is_replaced(corpus: Path, tmp_path: Path) -> None:
    assert load(corpus, tmp_path / "db/facts").exit_code == 0
    done = anytask(
        corpus, "--to-chroma", tmp_path / "db/facts", "--id", "id", "--keep", "tags", "--instruction", DOCUMENT
    )
    assert done.exit_code == 0, done.output
    found = chromadb.PersistentClient(str(tmp_path / "db")).get_collection("facts").get(ids=["tides", "sky"])
    assert dict(zip(found["ids"], found["metadatas"] or [], strict=True)) == {
        "tides": {"tags": '["fact", "tides"]'},
        "sky": None,
    }


def test_another_instruction_is_refused(corpus: Path, tmp_path: Path) -> None:
    assert load(corpus, tmp_path / "db/facts").exit_code == 0
    refused = anytask(corpus, "--to-chroma", tmp_path / "db/facts", "--instruction", QUERY)
    assert refused.exit_code == 1
    assert "was built with other settings: document_instruction" in refused.stderr


def test_vectors_of_another_precision_are_refused(corpus: Path, tmp_path: Path) -> None:
    assert load(corpus, tmp_path / "db/facts", "--dtype", "float32").exit_code == 0
    refused = load(corpus, tmp_path / "db/facts")
    assert refused.exit_code == 1
    assert "the collection 'facts' was built with another dtype; add --dtype float32" in refused.stderr
    assert load(corpus, tmp_path / "db/facts", "--dtype", "float32").exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to-chroma", "DB/facts", "--precision", "int8"), "Chroma holds float32 vectors, not int8"),
        (("--to-chroma", "DB/x"), "Chroma: "),
        (("--to-chroma", "/"), "expected PATH/COLLECTION"),
        (("--to-chroma", "DB/facts", "--id", "text", "--text", "twin"), "Chroma: "),
    ],
)
def test_what_chroma_cannot_take_is_told_in_a_line(
    corpus: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    corpus.write_text('{"text": "a", "twin": "one"}\n{"text": "a", "twin": "two"}\n')
    done = anytask(corpus, *(option.replace("DB", str(tmp_path / "db")) for option in options))
    assert done.exit_code == 1
    assert message in done.stderr
    assert "Traceback" not in done.output
