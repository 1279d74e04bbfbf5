"""Code written for langchain-community's `HuggingFaceInstructEmbeddings` runs with another import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from anytask import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION, Instructor
from langchain_anytask import InstructorEmbeddings as HuggingFaceInstructEmbeddings

EMBED, QUERY = "Represent the manual page: ", "Represent the user's question: "


def test_all_former_arguments(
    texts: list[str], hub_cache: Path, model: Instructor, capsys: pytest.CaptureFixture[str]
) -> None:
    revision = next(hub_cache.glob("*/refs/main")).read_text()
    embeddings = HuggingFaceInstructEmbeddings(
        model_name="hkunlp/instructor-large",
        embed_instruction=EMBED,
        query_instruction=QUERY,
        cache_folder=str(hub_cache),
        model_kwargs={"device": "cpu", "revision": revision},
        encode_kwargs={"normalize_embeddings": True, "batch_size": 2, "show_progress_bar": True},
        show_progress=True,
    )
    documents, query = embeddings.embed_documents(texts), embeddings.embed_query(texts[0])
    np.testing.assert_allclose(documents, model.encode([[EMBED, text] for text in texts]), atol=1e-5)
    np.testing.assert_allclose(query, model.encode([[QUERY, texts[0]]])[0], atol=1e-5)
    assert f"{len(texts)}/{len(texts)}" in capsys.readouterr().err


def test_former_defaults(texts: list[str], model: Instructor) -> None:
    embeddings = HuggingFaceInstructEmbeddings(model_name="mini")
    expected = model.encode([[DEFAULT_QUERY_INSTRUCTION, texts[0]], [DEFAULT_DOCUMENT_INSTRUCTION, texts[1]]])
    np.testing.assert_allclose(embeddings.embed_query(texts[0]), expected[0], atol=1e-5)
    np.testing.assert_allclose(embeddings.embed_documents([texts[1]]), expected[1:], atol=1e-5)


def test_former_attributes() -> None:
    embeddings = HuggingFaceInstructEmbeddings(model_name="mini", embed_instruction=EMBED, cache_folder="folder")
    assert (embeddings.model_name, embeddings.embed_instruction, embeddings.cache_folder) == ("mini", EMBED, "folder")
    embeddings.embed_instruction = QUERY
    assert embeddings.document_instruction == QUERY


@pytest.mark.parametrize(
    ("former", "today"),
    [
        ({"model_kwargs": {"device": "cpu"}}, {"device": "cpu"}),
        ({"model_kwargs": {"device": torch.device("cpu")}}, {"device": "cpu"}),
        ({"model_kwargs": {"cache_folder": "folder"}}, {"cache_dir": "folder"}),
        (
            {"model_kwargs": {"local_files_only": True, "revision": "main"}},
            {"local_files_only": True, "revision": "main"},
        ),
        ({"model_kwargs": {"token": "hf_word"}}, {"token": "hf_word"}),
        ({"model_kwargs": {"use_auth_token": True}}, {"token": True}),
        ({"model_kwargs": {"trust_remote_code": True, "backend": "torch"}}, {}),
        ({"model_kwargs": {"model_kwargs": {"torch_dtype": "bfloat16"}}}, {"dtype": "bfloat16"}),
        ({"model_kwargs": {"model_kwargs": {"dtype": torch.float16}}}, {"dtype": "float16"}),
        ({"encode_kwargs": {"truncate_dim": 8, "device": "cpu"}}, {"truncate_dim": 8, "device": "cpu"}),
        ({"encode_kwargs": {"show_progress_bar": True}}, {"show_progress": True}),
        ({"encode_kwargs": {"convert_to_numpy": True, "output_value": "sentence_embedding"}}, {}),
        ({"encode_kwargs": {"precision": "float32", "batch_size": 1}}, {}),
        ({"device": "cpu", "model_kwargs": {"device": "cpu"}, "encode_kwargs": {}}, {"device": "cpu"}),
    ],
)
def test_entries_and_the_fields_they_became(former: dict[str, Any], today: dict[str, Any]) -> None:
    assert HuggingFaceInstructEmbeddings(**former) == HuggingFaceInstructEmbeddings(**today)


@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_are_of_unit_length_as_those_of_the_released_checkpoints(texts: list[str], normalize: bool) -> None:
    embeddings = HuggingFaceInstructEmbeddings(model_name="mini", encode_kwargs={"normalize_embeddings": normalize})
    np.testing.assert_allclose(np.linalg.norm(embeddings.embed_documents(texts), axis=1), 1, atol=1e-5)


def test_raw_vectors_by_the_setting_of_today_alone(texts: list[str], model: Instructor) -> None:
    embeddings = HuggingFaceInstructEmbeddings(normalize=False, encode_kwargs={"normalize_embeddings": False})
    raw = model.encode_document(texts, normalize=False)
    np.testing.assert_allclose(embeddings.embed_documents(texts), raw, rtol=1e-4, atol=1e-5)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.1


@pytest.mark.parametrize(
    ("former", "message"),
    [
        ({"model_kwargs": {"backend": "openvino"}}, r"model_kwargs\['backend'\] can only be 'torch', got 'openvino'"),
        ({"model_kwargs": {"prompts": {}}}, r"model_kwargs\['prompts'\] is not supported; use query_instruction"),
        ({"model_kwargs": {"model_kwargs": {"quantization_config": 1}}}, "quantization_config.*known are dtype"),
        ({"encode_kwargs": {"precision": "int8"}}, r"encode_kwargs\['precision'\] can only be 'float32'"),
        ({"encode_kwargs": {"output_value": "token_embeddings"}}, "can only be 'sentence_embedding'"),
        ({"encode_kwargs": {"prompt": QUERY}}, r"encode_kwargs\['prompt'\] is not supported.*document_instruction"),
        ({"encode_kwargs": {"pool": 1}}, r"encode_kwargs\['pool'\] is not supported; known are .*truncate_dim"),
        ({"model": "mini", "model_name": "other"}, "model is given twice with different values.*as model_name"),
        ({"device": "cpu", "model_kwargs": {"device": "cuda"}}, r"device is given twice.*model_kwargs\['device'\]"),
        ({"embed_instruction": EMBED, "document_instruction": QUERY}, "document_instruction is given twice"),
        ({"model_kwargs": "cpu"}, "model_kwargs must be a dict, got str"),
        (
            {"normalize": False, "encode_kwargs": {"normalize_embeddings": True}},
            r"encode_kwargs\['normalize_embeddings'\]=True and normalize=False contradict",
        ),
    ],
)
def test_what_has_no_counterpart_is_explained(former: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HuggingFaceInstructEmbeddings(**former)


def test_the_arguments_are_left_as_they_are() -> None:
    model_kwargs = {"device": "cpu", "model_kwargs": {"dtype": "float32"}}
    HuggingFaceInstructEmbeddings(model_kwargs=model_kwargs)
    assert model_kwargs == {"device": "cpu", "model_kwargs": {"dtype": "float32"}}
