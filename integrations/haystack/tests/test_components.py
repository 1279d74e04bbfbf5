"""What a component computes: the vectors of `Instructor`, in Haystack's forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from haystack import Document, component
from haystack.components.embedders.types import DocumentEmbedder, TextEmbedder
from haystack.dataclasses import ByteStream
from haystack_integrations.components.embedders.anytask import InstructorDocumentEmbedder, InstructorTextEmbedder

from anytask import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION, CheckpointError, Instruction, Instructor

QUERY = "How does basalt form?"
OTHER = "Represent the sentence for clustering by topic: "


def assert_equal(vectors: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(vectors), np.asarray(expected), atol=1e-5)


def embeddings(documents: list[Document]) -> list[list[float]]:
    assert all(document.embedding is not None for document in documents)
    return [document.embedding or [] for document in documents]


def test_text_has_the_vector_of_the_query_instruction(model: Instructor) -> None:
    result = InstructorTextEmbedder().run(QUERY)
    assert list(result) == ["embedding"]
    assert isinstance(result["embedding"], list)
    assert all(type(number) is float for number in result["embedding"])
    assert_equal(result["embedding"], model.encode(QUERY, DEFAULT_QUERY_INSTRUCTION))


def test_documents_have_the_vectors_of_the_document_instruction(model: Instructor, documents: list[Document]) -> None:
    result = InstructorDocumentEmbedder(progress_bar=False).run(documents)
    assert list(result) == ["documents"]
    expected = model.encode([document.content or "" for document in documents], DEFAULT_DOCUMENT_INSTRUCTION)
    assert_equal(embeddings(result["documents"]), expected)
    assert all(type(number) is float for number in embeddings(result["documents"])[0])


@pytest.mark.parametrize("name", ["instruction", "query_instruction"])
@pytest.mark.parametrize(
    "instruction", [OTHER, "", Instruction("sentence", objective="clustering by topic")], ids=["str", "none", "object"]
)
def test_text_with_an_instruction_of_its_own(model: Instructor, name: str, instruction: str | Instruction) -> None:
    component = InstructorTextEmbedder(**{name: instruction})
    assert_equal(component.run(QUERY)["embedding"], model.encode(QUERY, str(instruction)))


@pytest.mark.parametrize("name", ["instruction", "document_instruction"])
@pytest.mark.parametrize("instruction", [OTHER, ""], ids=["str", "none"])
def test_documents_with_an_instruction_of_their_own(
    model: Instructor, documents: list[Document], name: str, instruction: str
) -> None:
    component = InstructorDocumentEmbedder(progress_bar=False, **{name: instruction})
    texts = [document.content or "" for document in documents]
    assert_equal(embeddings(component.run(documents)["documents"]), model.encode(texts, instruction))


@pytest.mark.parametrize("instruction", [OTHER, ""], ids=["str", "none"])
async def test_a_call_brings_another_instruction(
    model: Instructor, documents: list[Document], instruction: str
) -> None:
    text, many = InstructorTextEmbedder(instruction="A: "), InstructorDocumentEmbedder("mini", instruction="B: ")
    texts = [document.content or "" for document in documents]
    assert_equal(text.run(QUERY, instruction)["embedding"], model.encode(QUERY, instruction))
    assert_equal((await text.run_async(QUERY, instruction))["embedding"], model.encode(QUERY, instruction))
    expected = model.encode(texts, instruction)
    assert_equal(embeddings(many.run(documents, instruction)["documents"]), expected)
    assert_equal(embeddings((await many.run_async(documents, instruction))["documents"]), expected)
    assert_equal(text.run(QUERY)["embedding"], model.encode(QUERY, "A: "))


async def test_async_gives_the_same(documents: list[Document]) -> None:
    text, many = InstructorTextEmbedder(), InstructorDocumentEmbedder(progress_bar=False)
    assert_equal((await text.run_async(QUERY))["embedding"], text.run(QUERY)["embedding"])
    there, here = (await many.run_async(documents))["documents"], many.run(documents)["documents"]
    assert_equal(embeddings(there), embeddings(here))
    assert [document.id for document in there] == [document.id for document in here]


@pytest.mark.parametrize(
    ("fields", "separator", "texts"),
    [
        (["title"], "\n", ["Rocks\nBasalt.", "Music\nSonata.", "Yeast."]),
        (["title", "page", "absent"], " | ", ["Rocks | 7 | Basalt.", "Music | Sonata.", "Yeast."]),
        (["page", "title"], "", ["7RocksBasalt.", "MusicSonata.", "Yeast."]),
        ([], "\n", ["Basalt.", "Sonata.", "Yeast."]),
        (None, "\n", ["Basalt.", "Sonata.", "Yeast."]),
    ],
)
def test_meta_fields_stand_ahead_of_the_content(
    model: Instructor, documents: list[Document], fields: list[str] | None, separator: str, texts: list[str]
) -> None:
    contents = ["Basalt.", "Sonata.", "Yeast."]
    given = [replace(document, content=content) for document, content in zip(documents, contents, strict=True)]
    component = InstructorDocumentEmbedder(
        progress_bar=False, meta_fields_to_embed=fields, embedding_separator=separator
    )
    assert_equal(embeddings(component.run(given)["documents"]), model.encode_document(texts))


@pytest.mark.filterwarnings("error")
async def test_documents_are_replaced(documents: list[Document]) -> None:
    given = [replace(documents[0], score=0.5, embedding=[1.0], blob=ByteStream(b"x")), *documents[1:]]
    before = [document.to_dict() for document in given]
    component = InstructorDocumentEmbedder(progress_bar=False, meta_fields_to_embed=["title"])
    for result in (component.run(given), await component.run_async(given)):
        assert [document.to_dict() for document in given] == before
        for old, new in zip(given, result["documents"], strict=True):
            assert new is not old
            assert replace(new, embedding=old.embedding) == old


async def test_nothing_to_embed() -> None:
    component = InstructorDocumentEmbedder()
    assert component.run([]) == {"documents": []}
    assert await component.run_async([]) == {"documents": []}


@pytest.mark.parametrize("content", [None, "", " \n\t"])
def test_blank_contents_give_unit_vectors(content: str | None) -> None:
    (document,) = InstructorDocumentEmbedder(progress_bar=False).run([Document(content=content)])["documents"]
    assert np.linalg.norm(document.embedding or []) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(InstructorTextEmbedder().run(content or "")["embedding"]) == pytest.approx(1, abs=1e-5)


def test_the_order_of_documents_and_their_number_change_nothing(model: Instructor) -> None:
    texts = [f"{'stone ' * (number % 40)}number {number}" for number in range(300)]
    component = InstructorDocumentEmbedder(progress_bar=False, batch_size=7)
    result = component.run([Document(content=text) for text in texts])["documents"]
    assert [document.content for document in result] == texts
    assert_equal(embeddings(result), model.encode_document(texts))


def test_settings_of_the_vectors(model: Instructor) -> None:
    raw = model.encode_query(QUERY, normalize=False)
    assert_equal(InstructorTextEmbedder(normalize=False).run(QUERY)["embedding"], raw)
    assert abs(np.linalg.norm(raw) - 1) > 0.1
    for old in (True, False, None):  # Haystack's former setting changed nothing, and changes nothing
        vector = InstructorTextEmbedder(normalize_embeddings=old).run(QUERY)["embedding"]
        assert_equal(vector, model.encode_query(QUERY))
    both = InstructorTextEmbedder(normalize_embeddings=False, normalize=False)
    assert_equal(both.run(QUERY)["embedding"], raw)
    short = InstructorTextEmbedder(truncate_dim=16, batch_tokens=64).run(QUERY)["embedding"]
    assert_equal(short, model.encode_query(QUERY, truncate_dim=16))


def test_a_limit_of_length(model: Instructor) -> None:
    vectors = []
    for words in (400, 300):
        with pytest.warns(UserWarning, match="1 of 1 texts"):
            vectors.append(InstructorTextEmbedder(max_length=32).run("lava " * words)["embedding"])
    assert_equal(*vectors)
    assert model.max_length > 32


@pytest.mark.parametrize("given", [None, 3, b"text", ["a list"], [Document(content="x")]])
async def test_a_text_embedder_names_its_sibling(given: Any) -> None:
    component = InstructorTextEmbedder()
    message = (
        f"InstructorTextEmbedder expects a string as input, got {type(given).__name__}.*InstructorDocumentEmbedder"
    )
    with pytest.raises(TypeError, match=message):
        component.run(given)
    with pytest.raises(TypeError, match=message):
        await component.run_async(given)


@pytest.mark.parametrize(
    ("given", "described"),
    [
        ("a text", "str"),
        (None, "None"),
        (Document(content="x"), "Document"),
        (["a text"], "str at index 0"),
        ([Document(content="x"), None], "NoneType at index 1"),
    ],
)
async def test_a_document_embedder_names_its_sibling(given: Any, described: str) -> None:
    component = InstructorDocumentEmbedder()
    message = (
        f"InstructorDocumentEmbedder expects a list of Documents as input, got {described}.*InstructorTextEmbedder"
    )
    with pytest.raises(TypeError, match=message):
        component.run(given)
    with pytest.raises(TypeError, match=message):
        await component.run_async(given)


async def test_bad_unicode_is_named_by_its_index(documents: list[Document]) -> None:
    component = InstructorDocumentEmbedder(progress_bar=False)
    given = [*documents, Document(id="broken", content="half \ud83d of a pair")]
    with pytest.raises(ValueError, match="text 3"):
        component.run(given)
    with pytest.raises(ValueError, match="text 3"):
        await component.run_async(given)


def test_an_instruction_without_room_for_text() -> None:
    with pytest.raises(ValueError, match="no room"):
        InstructorTextEmbedder(instruction="word " * 600).run(QUERY)


@pytest.mark.parametrize("make", [InstructorTextEmbedder, InstructorDocumentEmbedder])
async def test_a_missing_model_shows_at_warm_up(make: Callable[..., Any], tmp_path: Any) -> None:
    component = make(tmp_path / "nowhere")  # no error yet: the constructor loads nothing
    with pytest.raises(CheckpointError, match="nowhere"):
        component.warm_up()
    with pytest.raises(CheckpointError, match="nowhere"):
        await component.warm_up_async()
    with pytest.raises(CheckpointError, match="nowhere"):
        component.run("text" if make is InstructorTextEmbedder else [Document(content="text")])


def test_a_progress_bar_only_where_asked_for(documents: list[Document], capfd: pytest.CaptureFixture[str]) -> None:
    InstructorDocumentEmbedder(progress_bar=False).run(documents)
    InstructorTextEmbedder(progress_bar=True).run(QUERY)
    assert capfd.readouterr().err == ""
    InstructorDocumentEmbedder(progress_bar=True).run(documents)
    assert "3/3" in capfd.readouterr().err


def test_haystack_knows_them_as_embedders() -> None:
    text: TextEmbedder = InstructorTextEmbedder()
    many: DocumentEmbedder = InstructorDocumentEmbedder()
    for instance in (text, many):
        name = f"{type(instance).__module__}.{type(instance).__name__}"
        assert component.registry[name] is type(instance)
    assert "embedding: list[float]" in repr(text)
    assert "documents: list[Document]" in repr(many)
