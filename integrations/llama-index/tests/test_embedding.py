"""Vectors, settings and errors of `InstructorEmbedding`."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import ValidationError
from llama_index.core.schema import TextNode
from llama_index.embeddings.anytask import InstructorEmbedding

from anytask import CheckpointError, Instruction, Instructor
from anytask.hub import BUNDLED

QUERY = "Represent the gardening question for retrieving supporting documents: "
DOCUMENT = "Represent the gardening document for retrieval: "


def same(left: object, right: object) -> None:
    np.testing.assert_allclose(np.asarray(left), np.asarray(right), atol=1e-5)


def test_is_a_base_embedding_with_plain_floats() -> None:
    embed_model = InstructorEmbedding()
    vector = embed_model.get_text_embedding("a fern")
    assert isinstance(embed_model, BaseEmbedding)
    assert type(vector) is list
    assert {type(value) for value in vector} == {float}


def test_default_instructions_are_the_models(model: Instructor, texts: list[str]) -> None:
    embed_model = InstructorEmbedding()
    same(embed_model.get_text_embedding_batch(texts), model.encode_document(texts))
    same(embed_model.get_query_embedding(texts[0]), model.encode_query(texts[0]))


def test_each_side_has_its_instruction(model: Instructor, texts: list[str]) -> None:
    embed_model = InstructorEmbedding(query_instruction=QUERY, document_instruction=DOCUMENT)
    documents, queries = model.encode(texts, DOCUMENT), model.encode(texts, QUERY)
    assert np.abs(documents - queries).max() > 1e-4  # ten times what `same` lets pass
    same(embed_model.get_text_embedding(texts[0]), documents[0])
    same(embed_model.get_text_embedding_batch(texts), documents)
    same(embed_model._get_text_embeddings(texts), documents)
    same(embed_model.get_query_embedding(texts[1]), queries[1])
    same(embed_model._get_query_embeddings(texts), queries)
    same(embed_model.get_agg_embedding_from_queries(texts), queries.mean(axis=0))


async def test_asynchronous_methods_give_the_same(model: Instructor, texts: list[str]) -> None:
    embed_model = InstructorEmbedding(query_instruction=QUERY, document_instruction=DOCUMENT, embed_batch_size=2)
    documents, queries = model.encode(texts, DOCUMENT), model.encode(texts, QUERY)
    same(await embed_model.aget_text_embedding(texts[0]), documents[0])
    same(await embed_model.aget_text_embedding_batch(texts), documents)
    same(await embed_model._aget_text_embeddings(texts), documents)
    same(await embed_model.aget_query_embedding(texts[1]), queries[1])
    same(await embed_model._aget_query_embeddings(texts), queries)
    same(await embed_model.aget_agg_embedding_from_queries(texts), queries.mean(axis=0))
    nodes = [TextNode(text=text) for text in texts]
    same([node.embedding for node in await embed_model.acall(nodes)], documents)


def test_nodes_are_embedded_with_their_metadata(model: Instructor) -> None:
    node = TextNode(text="Ferns like shade.", metadata={"bed": "north"})
    [embedded] = InstructorEmbedding(document_instruction=DOCUMENT)([node])
    same(embedded.embedding, model.encode("bed: north\n\nFerns like shade.", DOCUMENT))


def test_an_empty_instruction_means_none(model: Instructor) -> None:
    embed_model = InstructorEmbedding(query_instruction="", document_instruction="")
    same(embed_model.get_query_embedding("a fern"), model.encode("a fern"))
    same(embed_model.get_text_embedding("a fern"), model.encode("a fern"))


def test_instruction_objects_and_paths_are_taken(tmp_path: Path) -> None:
    instruction = Instruction(text_type="question", domain="gardening", objective="retrieving supporting documents")
    embed_model = InstructorEmbedding(query_instruction=instruction, model=tmp_path, cache_dir=tmp_path)
    assert embed_model.query_instruction == QUERY
    assert (embed_model.model_name, embed_model.cache_dir) == (str(tmp_path), str(tmp_path))


def test_vector_settings(model: Instructor) -> None:
    embed_model = InstructorEmbedding(truncate_dim=16, normalize=False, max_length=64, batch_tokens=128)
    same(embed_model.get_text_embedding("a fern"), model.encode_document("a fern", truncate_dim=16, normalize=False))
    bfloat16 = InstructorEmbedding(dtype="bfloat16", device="cpu").get_text_embedding("a fern")
    assert 0.99 < np.dot(bfloat16, model.encode_document("a fern")) <= 1.00001
    with pytest.warns(UserWarning, match="max_length 64"):
        embed_model.get_text_embedding("fern " * 100)


def test_batches_hold_embed_batch_size_texts(monkeypatch: pytest.MonkeyPatch, texts: list[str]) -> None:
    sizes = []
    original = InstructorEmbedding._get_text_embeddings
    monkeypatch.setattr(
        InstructorEmbedding,
        "_get_text_embeddings",
        lambda self, batch: sizes.append(len(batch)) or original(self, batch),
    )
    InstructorEmbedding(embed_batch_size=2).get_text_embedding_batch(texts)
    assert sizes == [2, 2, 1]


def test_settings_may_change_later(model: Instructor) -> None:
    embed_model = InstructorEmbedding()
    embed_model.query_instruction = QUERY
    same(embed_model.get_query_embedding("a fern"), model.encode("a fern", QUERY))
    with pytest.raises(ValidationError, match="dtype"):
        embed_model.dtype = "float31"
    assert embed_model.dtype is None


def test_a_copy_has_another_instruction(model: Instructor) -> None:
    embed_model = InstructorEmbedding(query_instruction=QUERY)
    other = embed_model.model_copy(update={"query_instruction": "Represent the plant for classification: "})
    same(other.get_query_embedding("a fern"), model.encode("a fern", "Represent the plant for classification: "))
    same(embed_model.get_query_embedding("a fern"), model.encode("a fern", QUERY))
    with pytest.raises(ValidationError, match="query_instuction"):
        embed_model.model_copy(update={"query_instuction": "Represent the plant: "})


def test_one_model_for_all_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    original = Instructor.from_pretrained
    monkeypatch.setattr(
        Instructor, "from_pretrained", lambda folder, **options: loads.append(folder) or original(folder, **options)
    )
    embed_model = InstructorEmbedding(max_length=93, query_instruction=QUERY)
    assert loads == []
    others = [
        embed_model,
        copy.copy(embed_model),
        copy.deepcopy(embed_model),
        embed_model.model_copy(update={"query_instruction": DOCUMENT}),
        pickle.loads(pickle.dumps(embed_model)),
        InstructorEmbedding.from_dict(embed_model.to_dict()),
        InstructorEmbedding(max_length=93, embed_batch_size=7, num_workers=2),
        InstructorEmbedding(max_length=93, token="hf_other", cache_dir="elsewhere", local_files_only=True),
    ]
    for other in others:
        other.get_query_embedding("a fern")
    assert loads == [BUNDLED / "mini"]


@pytest.mark.parametrize("text", ["", "  \n", "\x00", "שלום 🌱"])
def test_strange_texts_give_unit_vectors(text: str) -> None:
    assert np.linalg.norm(InstructorEmbedding().get_text_embedding(text)) == pytest.approx(1, abs=1e-5)


def test_no_texts_give_no_vectors() -> None:
    assert InstructorEmbedding().get_text_embedding_batch([]) == []
    assert InstructorEmbedding()._get_text_embeddings([]) == []


@pytest.mark.parametrize(("bad", "name"), [(None, "None"), (7, "int"), (b"fern", "bytes")])
async def test_what_is_no_text_is_named(bad: object, name: str) -> None:
    embed_model = InstructorEmbedding()
    with pytest.raises(TypeError, match=f"text 1 must be a string, got {name}") as caught:
        embed_model.get_text_embedding_batch(["fern", bad])
    assert "within one call's 2 texts" in caught.value.__notes__[0]
    with pytest.raises(TypeError, match=f"text 1 must be a string, got {name}"):
        await embed_model.aget_text_embedding_batch(["fern", bad])
    with pytest.raises(TypeError, match=name):
        embed_model.get_query_embedding(bad)


@pytest.mark.parametrize(
    "settings",
    [
        {"query_instuction": QUERY},
        {"dtype": "float31"},
        {"embed_batch_size": 0},
        {"truncate_dim": 0},
        {"batch_tokens": -1},
        {"max_length": "long"},
        {"query_instruction": 3},
    ],
)
def test_unsuitable_settings_are_named(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        InstructorEmbedding(**settings)


def test_a_missing_model_is_explained(tmp_path: Path) -> None:
    embed_model = InstructorEmbedding(model_name=str(tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match="nothing is there"):
        embed_model.get_text_embedding_batch(["a fern", "a tomato"])


def test_too_many_dimensions_are_explained() -> None:
    with pytest.raises(ValueError, match="truncate_dim must be from 1 to the model's dimension 384, got 999"):
        InstructorEmbedding(truncate_dim=999).get_query_embedding("a fern")
