"""Code written for llama-index-embeddings-instructor works with the import line changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.embeddings.anytask import InstructorEmbedding

from anytask import Instructor

QUERY, TEXT = "Represent the question: ", "Represent the text: "


def test_old_keyword_arguments(model: Instructor) -> None:
    manager = CallbackManager([])
    embed_model = InstructorEmbedding(
        model_name="mini",
        query_instruction=QUERY,
        text_instruction=TEXT,
        embed_batch_size=10,
        cache_folder="models",
        device="cpu",
        callback_manager=manager,
    )
    np.testing.assert_allclose(embed_model.get_query_embedding("fern"), model.encode("fern", QUERY), atol=1e-5)
    np.testing.assert_allclose(embed_model.get_text_embedding("fern"), model.encode("fern", TEXT), atol=1e-5)
    assert (embed_model.text_instruction, embed_model.document_instruction) == (TEXT, TEXT)
    assert (embed_model.cache_folder, embed_model.cache_dir) == ("models", "models")
    assert (embed_model.embed_batch_size, embed_model.device) == (10, "cpu")
    assert embed_model.callback_manager is manager


def test_old_positional_arguments() -> None:
    manager = CallbackManager([])
    embed_model = InstructorEmbedding("mini", QUERY, TEXT, 10, "models", "cpu", manager)
    assert (
        embed_model.to_dict()
        == InstructorEmbedding(
            query_instruction=QUERY, document_instruction=TEXT, embed_batch_size=10, cache_dir="models", device="cpu"
        ).to_dict()
    )
    assert embed_model.callback_manager is manager


def test_explicit_none_means_the_default() -> None:
    embed_model = InstructorEmbedding(query_instruction=None, text_instruction=None, cache_folder=None, device=None)
    assert embed_model.to_dict() == InstructorEmbedding().to_dict()


def test_old_attributes_can_be_set() -> None:
    embed_model = InstructorEmbedding()
    embed_model.text_instruction = TEXT
    embed_model.model = "owner/name"
    assert (embed_model.document_instruction, embed_model.model_name) == (TEXT, "owner/name")
    copy = embed_model.model_copy(update={"text_instruction": QUERY})
    assert copy.document_instruction == QUERY


def test_what_the_old_to_dict_wrote_is_read() -> None:
    old = {
        "model_name": "mini",
        "embed_batch_size": 10,
        "num_workers": None,
        "embeddings_cache": None,
        "query_instruction": QUERY,
        "text_instruction": TEXT,
        "cache_folder": None,
        "class_name": "InstructorEmbedding",
    }
    assert InstructorEmbedding.from_dict(old).document_instruction == TEXT


@pytest.mark.parametrize(
    "both",
    [
        {"text_instruction": TEXT, "document_instruction": QUERY},
        {"model": "mini", "model_name": "owner/name"},
        {"cache_folder": "a", "cache_dir": "b"},
    ],
)
def test_two_names_of_one_setting_must_agree(both: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="mean the same setting; give one of them"):
        InstructorEmbedding(**both)
    assert InstructorEmbedding(**dict.fromkeys(both, "mini"))
