"""A trained folder where it is used: `Instructor`, sentence-transformers, transformers, and the four adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anytask import Instructor
from anytask.training import Record, TrainingOptions
from anytask.training.few_shot import Example, adapt
from anytask.training.run import train
from anytask.training.start import Start

MakeCheckpoint = Callable[..., Path]
SHORT: dict[str, Any] = {"steps": 4, "batch_size": 8, "learning_rate": 1e-2, "temperature": 0.05, "held_out": 20}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*more tokens with their instruction than max_length"),
    pytest.mark.usefixtures("no_curves"),
]

QUESTION, ANSWER = "Represent the toy question: ", "Represent the toy answer: "
TEXTS = ["where is the oak near the sun and ink", "zoo ice van", "", "one two three " * 300]
KINDS: Mapping[str, Mapping[str, Any]] = {
    "INSTRUCTOR, shorter": {
        "checkpoint": {"original_classes": True, "transformer_path": "0_Transformer", "weights": "bin"},
        "options": {"max_length": 40},
    },
    "gated, no dense layer": {"checkpoint": {"dense": None, "shape": {"feed_forward_proj": "gated-gelu"}}},
    "adapters, bfloat16": {"checkpoint": {}, "options": {"lora_rank": 2, "precision": "bfloat16"}},
    "new": {"start": Start(init="d_model=32,num_layers=1,num_heads=4,d_kv=8,d_ff=64,dimension=16,vocab_size=60")},
}


def start_of(kind: str, make_checkpoint: MakeCheckpoint) -> Start:
    start = KINDS[kind].get("start")
    if start is None:
        settings = KINDS[kind]["checkpoint"]
        start = Start(
            model=str(make_checkpoint(**{**settings, "shape": {"num_layers": 2, **settings.get("shape", {})}}))
        )
    return start


@pytest.fixture(scope="module", params=KINDS)
def trained(
    request: pytest.FixtureRequest,
    make_checkpoint: MakeCheckpoint,
    toy_records: list[Record],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    options = TrainingOptions(**SHORT, **KINDS[request.param].get("options", {}))
    output = tmp_path_factory.mktemp("trained") / "model"
    return train(toy_records, output, start=start_of(request.param, make_checkpoint), options=options, device="cpu")


def same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=1e-5)


def test_sentence_transformers_gives_the_same_vectors(trained: Path) -> None:
    """With the prompts of the folder by their names, with others, and with none; blank and long texts too."""
    from sentence_transformers import SentenceTransformer

    theirs, ours = SentenceTransformer(str(trained), device="cpu"), Instructor.from_pretrained(trained, device="cpu")
    assert theirs.max_seq_length == ours.max_length
    assert theirs.prompts["query"] == ours.query_instruction == QUESTION
    assert theirs.prompts["document"] == ours.document_instruction == ANSWER
    same(theirs.encode_query(TEXTS), ours.encode_query(TEXTS))
    same(theirs.encode_document(TEXTS), ours.encode_document(TEXTS))
    same(theirs.encode(TEXTS, prompt_name="query"), ours.encode(TEXTS, instruction=QUESTION))
    same(theirs.encode(TEXTS, prompt="Represent this: "), ours.encode(TEXTS, instruction="Represent this: "))
    same(theirs.encode(TEXTS), ours.encode(TEXTS))
    lengths = np.linalg.norm(theirs.encode(TEXTS), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_transformers_loads_all_weights(trained: Path) -> None:
    from transformers import AutoTokenizer, T5EncoderModel

    _, info = T5EncoderModel.from_pretrained(trained, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ours = Instructor.from_pretrained(trained, device="cpu")
    ids = AutoTokenizer.from_pretrained(trained)(TEXTS[0])["input_ids"]
    assert ids == ours._tokenizer([TEXTS[0]], [""])[0].ids.tolist()


def test_going_on_from_it(trained: Path, toy_records: list[Record], tmp_path: Path) -> None:
    """A trained model is a model to train."""
    output = train(toy_records, tmp_path / "model", start=str(trained), options=TrainingOptions(**SHORT), device="cpu")
    again, before = (Instructor.from_pretrained(folder, device="cpu") for folder in (output, trained))
    assert (again.dimension, again.max_length) == (before.dimension, before.max_length)
    assert again.query_instruction == QUESTION
    assert np.abs(again.encode(TEXTS) - before.encode(TEXTS)).max() > 1e-3


def test_few_shot_from_it(trained: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    examples = [Example(f"{word} {n}", word) for word in ("zoo", "ice") for n in range(3)]
    output = adapt(examples, tmp_path / "model", model=str(trained), steps=2, batch_size=4, device="cpu")
    theirs, ours = SentenceTransformer(str(output), device="cpu"), Instructor.from_pretrained(output, device="cpu")
    same(theirs.encode(TEXTS, prompt_name="query"), ours.encode_query(TEXTS))


@pytest.fixture(scope="module")
def folder(toy_checkpoint: Path, toy_records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("adapters") / "model"
    return train(toy_records, output, start=str(toy_checkpoint), options=TrainingOptions(**SHORT), device="cpu")


class TestAdapters:
    """The vectors of the folder's own prompts, in each framework."""

    @pytest.fixture
    def model(self, folder: Path) -> Instructor:
        return Instructor.from_pretrained(folder, device="cpu")

    def test_langchain(self, folder: Path, model: Instructor) -> None:
        embeddings = pytest.importorskip("langchain_anytask").InstructorEmbeddings(model=str(folder))
        same(embeddings.embed_query(TEXTS[0]), model.encode_query(TEXTS[0]))
        same(embeddings.embed_documents(TEXTS[:2]), model.encode(TEXTS[:2], ANSWER))

    def test_llama_index(self, folder: Path, model: Instructor) -> None:
        adapter = pytest.importorskip("llama_index.embeddings.anytask")
        embed_model = adapter.InstructorEmbedding(model_name=str(folder))
        same(embed_model.get_query_embedding(TEXTS[0]), model.encode(TEXTS[0], QUESTION))
        same(embed_model.get_text_embedding_batch(TEXTS[:2]), model.encode_document(TEXTS[:2]))

    def test_haystack(self, folder: Path, model: Instructor) -> None:
        adapter = pytest.importorskip("haystack_integrations.components.embedders.anytask")
        from haystack import Document

        found = adapter.InstructorTextEmbedder(model=str(folder)).run(TEXTS[0])["embedding"]
        same(found, model.encode(TEXTS[0], QUESTION))
        embedder = adapter.InstructorDocumentEmbedder(model=str(folder), progress_bar=False)
        documents = embedder.run([Document(content=text) for text in TEXTS[:2]])["documents"]
        same([document.embedding for document in documents], model.encode_document(TEXTS[:2]))

    def test_chroma(self, folder: Path, model: Instructor) -> None:
        adapter = pytest.importorskip("chroma_anytask")
        function = adapter.InstructorEmbeddingFunction(model_name=str(folder))
        same(function(TEXTS[:2]), model.encode_document(TEXTS[:2]))
        same(function.embed_query(TEXTS[:1]), model.encode_query(TEXTS[:1]))

    def test_a_folder_that_moved(self, folder: Path, model: Instructor, tmp_path: Path) -> None:
        """Nothing in it points elsewhere, and `training/` isn't needed."""
        shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("training"))
        same(Instructor.from_pretrained(tmp_path / "copy").encode_query(TEXTS[0]), model.encode_query(TEXTS[0]))
        for path in (tmp_path / "copy").rglob("*.json"):
            assert str(folder) not in path.read_text()
        assert str(folder) not in (tmp_path / "copy" / "README.md").read_text()
        assert json.loads((tmp_path / "copy" / "1_Pooling" / "config.json").read_text())["include_prompt"] is False
        assert model.dtype == torch.float32
