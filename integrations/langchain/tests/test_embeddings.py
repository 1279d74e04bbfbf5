"""Vectors, settings, sharing of the model and errors of `InstructorEmbeddings`."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from langchain_core.documents import Document
from pydantic import ValidationError

from anytask import CheckpointError, Instruction, Instructor
from anytask.hub import BUNDLED
from langchain_anytask import InstructorEmbeddings

INSTRUCTION = "Represent the sentence for classification: "


def test_each_side_has_the_vectors_of_its_instruction(
    texts: list[str], embeddings: InstructorEmbeddings, model: Instructor
) -> None:
    np.testing.assert_allclose(embeddings.embed_query(texts[0]), model.encode_query(texts[0]), atol=1e-5)
    np.testing.assert_allclose(embeddings.embed_documents(texts), model.encode_document(texts), atol=1e-5)
    assert not np.allclose(embeddings.embed_query(texts[0]), embeddings.embed_documents(texts)[0], atol=1e-3)


def test_configured_instructions(texts: list[str], model: Instructor) -> None:
    other = Instruction("title", domain="news", objective="clustering")
    embeddings = InstructorEmbeddings(query_instruction=INSTRUCTION, document_instruction=other)
    assert embeddings.document_instruction == str(other)
    np.testing.assert_allclose(embeddings.embed_query(texts[1]), model.encode(texts[1], INSTRUCTION), atol=1e-5)
    np.testing.assert_allclose(embeddings.embed_documents(texts), model.encode(texts, other), atol=1e-5)


@pytest.mark.parametrize("instruction", [INSTRUCTION, "", Instruction("review", objective="sentiment analysis")])
async def test_instruction_of_a_call(
    texts: list[str], embeddings: InstructorEmbeddings, model: Instructor, instruction: str | Instruction
) -> None:
    expected = model.encode(texts, instruction)
    query = embeddings.embed_query(texts[0], instruction=instruction)
    np.testing.assert_allclose(query, expected[0], atol=1e-5)
    np.testing.assert_allclose(embeddings.embed_documents(texts, instruction=instruction), expected, atol=1e-5)
    query = await embeddings.aembed_query(texts[0], instruction=instruction)
    np.testing.assert_allclose(query, expected[0], atol=1e-5)
    documents = await embeddings.aembed_documents(texts, instruction=instruction)
    np.testing.assert_allclose(documents, expected, atol=1e-5)


def test_settings_reach_the_model(texts: list[str], model: Instructor) -> None:
    raw = InstructorEmbeddings(normalize=False, batch_tokens=16).embed_query(texts[0])
    np.testing.assert_allclose(raw, model.encode_query(texts[0], normalize=False), rtol=1e-4, atol=1e-5)
    short = InstructorEmbeddings(truncate_dim=32).embed_query(texts[0])
    np.testing.assert_allclose(short, model.encode_query(texts[0], truncate_dim=32), atol=1e-5)
    loaded = InstructorEmbeddings(dtype=torch.bfloat16, device=torch.device("cpu"), max_length=64).load()
    assert (loaded.dtype, loaded.device, loaded.max_length) == (torch.bfloat16, torch.device("cpu"), 64)


def test_a_folder_as_model(texts: list[str], embeddings: InstructorEmbeddings) -> None:
    folder = InstructorEmbeddings(model=BUNDLED / "mini")
    assert folder.model == str(BUNDLED / "mini")
    np.testing.assert_allclose(folder.embed_query(texts[0]), embeddings.embed_query(texts[0]), atol=1e-6)


def test_settings_can_be_changed(texts: list[str], embeddings: InstructorEmbeddings, model: Instructor) -> None:
    embeddings.query_instruction = INSTRUCTION
    np.testing.assert_allclose(embeddings.embed_query(texts[0]), model.encode(texts[0], INSTRUCTION), atol=1e-5)


def test_no_documents_and_blank_ones(embeddings: InstructorEmbeddings) -> None:
    assert embeddings.embed_documents([]) == []
    vectors = [embeddings.embed_query(""), *embeddings.embed_documents(["", " \n"])]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_progress_bar(texts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    InstructorEmbeddings().embed_documents(texts)
    assert capsys.readouterr().err == ""
    InstructorEmbeddings(show_progress=True).embed_documents(texts)
    assert f"{len(texts)}/{len(texts)}" in capsys.readouterr().err


def test_one_model_however_many_instances(embeddings: InstructorEmbeddings) -> None:
    model = embeddings.load()
    others = [
        InstructorEmbeddings(query_instruction=INSTRUCTION, normalize=False, batch_tokens=64, show_progress=True),
        copy.copy(embeddings),
        copy.deepcopy(embeddings),
        embeddings.model_copy(update={"document_instruction": INSTRUCTION}),
        InstructorEmbeddings.model_validate(embeddings.model_dump()),
        InstructorEmbeddings(token="hf_other", cache_dir="elsewhere", local_files_only=True),
        pickle.loads(pickle.dumps(embeddings)),
    ]
    assert all(other.load() is model for other in others)
    assert InstructorEmbeddings(dtype="bfloat16").load() is not model


@pytest.mark.usefixtures("engine_runs")
def test_one_model_when_threads_load_it_together() -> None:
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(lambda _: InstructorEmbeddings().load(), range(8)))
    assert all(model is models[0] for model in models)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "embed_query takes one string, got None"),
        (["a text"], "got list; lists of texts go to embed_documents"),
        (b"bytes", "got bytes"),
        (7, "got int"),
    ],
)
async def test_a_query_that_is_no_string(embeddings: InstructorEmbeddings, text: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        embeddings.embed_query(text)
    with pytest.raises(TypeError, match=message):
        await embeddings.aembed_query(text)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a text", "embed_documents takes a list of strings, got str; one text goes to embed_query"),
        (b"bytes", "got bytes"),
        (None, "got None"),
        (["a text", None], "text 1 must be a string, got None"),
        ([7], "text 0 must be a string, got int"),
        (["a text", "another", b"bytes"], "text 2 must be a string, got bytes"),
        ([["an instruction", "a text"]], "text 0 must be a string, got list"),
        ([Document("a text")], "text 0 must be a string, got Document; give its page_content"),
    ],
)
async def test_documents_that_are_no_list_of_strings(
    embeddings: InstructorEmbeddings, texts: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        embeddings.embed_documents(texts)
    with pytest.raises(TypeError, match=message):
        await embeddings.aembed_documents(texts)


def test_an_instruction_that_is_no_string(embeddings: InstructorEmbeddings) -> None:
    with pytest.raises(TypeError, match="instruction must be a string"):
        embeddings.embed_query("a text", instruction=3)  # type: ignore[arg-type]


def test_invalid_unicode_is_named(embeddings: InstructorEmbeddings) -> None:
    with pytest.raises(ValueError, match="text 1"):
        embeddings.embed_documents(["a text", "half a pair: \ud800"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modle": "mini"}, "modle"),
        ({"batch_tokens": 0}, "batch_tokens"),
        ({"truncate_dim": -1}, "truncate_dim"),
        ({"query_instruction": 3}, "query_instruction"),
        ({"model": None}, "model"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        InstructorEmbeddings(**settings)


async def test_an_unknown_model(tmp_path: Path) -> None:
    embeddings = InstructorEmbeddings(model=tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="nowhere"):
        embeddings.embed_query("a text")
    with pytest.raises(CheckpointError, match="nowhere"):
        await embeddings.aembed_documents(["a text"])
