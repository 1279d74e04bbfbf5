"""Dumps round-trip exactly and carry no token; pickles and copies work."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import cloudpickle
import numpy as np
import pytest
import yaml
from langchain_core.load import dumpd, dumps, loads
from pydantic import SecretStr, ValidationError

from anytask import Instruction
from langchain_anytask import InstructorEmbeddings

TOKEN = "hf_thistokenmuststayhere"
ALL_SETTINGS = {
    "model": "mini",
    "query_instruction": "",
    "document_instruction": "Represent the note: ",
    "device": "cpu",
    "dtype": "bfloat16",
    "max_length": 128,
    "batch_tokens": 256,
    "normalize": False,
    "truncate_dim": 64,
    "revision": "main",
    "cache_dir": "folder",
    "local_files_only": True,
    "show_progress": True,
}


@pytest.fixture(
    params=[{}, ALL_SETTINGS, {"token": False}, {"token": True}],
    ids=["defaults", "all settings", "no token", "stored token"],
)
def settled(request: pytest.FixtureRequest) -> InstructorEmbeddings:
    return InstructorEmbeddings(**request.param)


def test_the_exact_dump() -> None:
    assert InstructorEmbeddings(**ALL_SETTINGS, token=TOKEN).model_dump() == ALL_SETTINGS


def test_round_trips(settled: InstructorEmbeddings) -> None:
    assert InstructorEmbeddings(**settled.model_dump()) == settled
    assert InstructorEmbeddings.model_validate_json(settled.model_dump_json()) == settled
    assert pickle.loads(pickle.dumps(settled)) == settled
    assert copy.deepcopy(settled) == settled


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_langchain_serialization(settled: InstructorEmbeddings) -> None:
    restored = loads(dumps(settled), allowed_objects=[InstructorEmbeddings], valid_namespaces=["langchain_anytask"])
    assert restored == settled


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_langchain_serialization_names_the_secret() -> None:
    embeddings = InstructorEmbeddings(token=TOKEN)
    assert dumpd(embeddings)["kwargs"]["token"] == {"lc": 1, "type": "secret", "id": ["HF_TOKEN"]}
    restored = loads(
        dumps(embeddings),
        allowed_objects=[InstructorEmbeddings],
        valid_namespaces=["langchain_anytask"],
        secrets_map={"HF_TOKEN": TOKEN},
    )
    assert restored == embeddings


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_no_token_stays_no_token() -> None:
    embeddings = InstructorEmbeddings(token=False)
    assert embeddings.model_dump()["token"] is json.loads(embeddings.model_dump_json())["token"] is False
    assert dumpd(embeddings)["kwargs"]["token"] is False
    restored = loads(
        dumps(embeddings),
        allowed_objects=[InstructorEmbeddings],
        valid_namespaces=["langchain_anytask"],
        secrets_map={"HF_TOKEN": TOKEN},
    )
    for again in (restored, InstructorEmbeddings(**embeddings.model_dump()), pickle.loads(pickle.dumps(embeddings))):
        assert again._embedder().token is False


def test_what_is_no_string_becomes_one() -> None:
    embeddings = InstructorEmbeddings(query_instruction=Instruction("question"))
    assert json.loads(embeddings.model_dump_json())["query_instruction"] == "Represent the question: "


def _assigned() -> InstructorEmbeddings:
    embeddings = InstructorEmbeddings()
    embeddings.token = TOKEN  # type: ignore[assignment]  # validated, as what the constructor takes
    return embeddings


@pytest.fixture(
    params=[
        lambda: InstructorEmbeddings(token=TOKEN),
        lambda: InstructorEmbeddings(token=SecretStr(TOKEN)),
        lambda: InstructorEmbeddings(model_kwargs={"token": TOKEN}),
        lambda: InstructorEmbeddings().model_copy(update={"token": TOKEN}),
        _assigned,
    ],
    ids=["string", "secret", "former name", "copied in", "assigned"],
)
def secretive(request: pytest.FixtureRequest) -> InstructorEmbeddings:
    made: InstructorEmbeddings = request.param()
    return made


@pytest.mark.parametrize("deep", [False, True])
def test_copies_with_other_settings_are_validated(deep: bool) -> None:
    embeddings = InstructorEmbeddings(query_instruction="Represent the question: ")
    twin = embeddings.model_copy(update={"embed_instruction": Instruction("note"), "truncate_dim": 64}, deep=deep)
    assert (twin.document_instruction, twin.truncate_dim) == ("Represent the note: ", 64)
    assert twin == InstructorEmbeddings(**twin.model_dump())
    assert (embeddings.document_instruction, embeddings.truncate_dim) == (None, None)
    for wrong in ({"truncate_dim": -1}, {"dtype": "float8"}, {"modle": "mini"}):
        with pytest.raises(ValidationError):
            embeddings.model_copy(update=wrong, deep=deep)


@pytest.mark.parametrize(
    "dump",
    [
        repr,
        str,
        InstructorEmbeddings.model_dump,
        InstructorEmbeddings.model_dump_json,
        InstructorEmbeddings.to_json,
        dict,
        vars,
        dumps,
        dumpd,
        pickle.dumps,
        cloudpickle.dumps,
        yaml.dump,
        lambda embeddings: pickle.dumps(copy.deepcopy(embeddings)),
        lambda embeddings: embeddings._embedder(),
        lambda embeddings: pickle.dumps(embeddings._embedder()),
        lambda embeddings: embeddings.cache_namespace("query"),
    ],
)
def test_the_token_is_in_no_dump(
    secretive: InstructorEmbeddings, dump: Callable[[InstructorEmbeddings], object]
) -> None:
    assert TOKEN not in str(dump(secretive))
    assert secretive._embedder().token == TOKEN


def test_the_token_stays_with_copies_of_this_process(secretive: InstructorEmbeddings) -> None:
    pickle.dumps(secretive)
    changed = secretive.model_copy(update={"query_instruction": ""})
    for twin in (copy.copy(secretive), copy.deepcopy(secretive), changed):
        assert twin._embedder().token == TOKEN


def test_a_pickle_is_the_same_but_for_the_token(secretive: InstructorEmbeddings) -> None:
    again = pickle.loads(pickle.dumps(secretive))
    assert again == InstructorEmbeddings()
    assert again.load() is secretive.load()
    assert pickle.loads(pickle.dumps(InstructorEmbeddings(token=True))).token is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": TOKEN, "modle": "mini"},
        {"token": TOKEN, "model_kwargs": {"backend": "onnx"}},
        {"token": TOKEN, "model_kwargs": {"token": TOKEN + "2"}},
        {"token": [TOKEN]},
        {"encode_kwargs": {"api_key": TOKEN}},
    ],
)
def test_errors_do_not_show_the_token(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        InstructorEmbeddings(**wrong)
    assert TOKEN not in str(caught.value)


def test_in_a_process_of_its_own(texts: list[str]) -> None:
    embeddings = InstructorEmbeddings(token=TOKEN)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(embeddings.embed_documents, texts).result()
    np.testing.assert_allclose(there, embeddings.embed_documents(texts), atol=1e-5)
