"""Dumps: whole, exact, and without secrets."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from typing import Any

import cloudpickle
import pytest
import yaml
from llama_index.core.bridge.pydantic import ValidationError
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.anytask import InstructorEmbedding

SECRET = "hf_nobody_may_read_this"
SETTINGS: dict[str, Any] = {
    "model_name": "mini",
    "query_instruction": "Represent the plant question: ",
    "document_instruction": "Represent the plant document: ",
    "embed_batch_size": 32,
    "num_workers": 3,
    "device": "cpu",
    "dtype": None,
    "max_length": 128,
    "batch_tokens": 1024,
    "normalize": False,
    "truncate_dim": 16,
    "revision": "main",
    "cache_dir": "models",
    "local_files_only": True,
}


def test_to_dict_is_exact() -> None:
    assert InstructorEmbedding(**SETTINGS, token=SECRET).to_dict() == {**SETTINGS, "class_name": "InstructorEmbedding"}


def test_to_dict_of_the_defaults() -> None:
    assert InstructorEmbedding().to_dict() == {
        "model_name": "mini",
        "query_instruction": None,
        "document_instruction": None,
        "embed_batch_size": 256,
        "num_workers": None,
        "device": None,
        "dtype": None,
        "max_length": None,
        "batch_tokens": None,
        "normalize": True,
        "truncate_dim": None,
        "revision": None,
        "cache_dir": None,
        "local_files_only": False,
        "class_name": "InstructorEmbedding",
    }


def test_round_trips() -> None:
    embed_model = InstructorEmbedding(**SETTINGS)
    data = embed_model.to_dict()
    again = InstructorEmbedding.from_dict(data)
    assert (again.num_workers, again.to_dict()) == (3, data)
    assert InstructorEmbedding.from_json(embed_model.to_json()).to_dict() == data
    assert InstructorEmbedding.model_validate(embed_model.model_dump()).to_dict() == data
    assert again.get_query_embedding("a fern") == embed_model.get_query_embedding("a fern")


@pytest.mark.parametrize("token", [False, True])
def test_a_token_that_is_no_secret_is_a_setting(token: bool) -> None:
    embed_model = InstructorEmbedding(token=token)
    assert embed_model.to_dict()["token"] is token
    for again in (
        InstructorEmbedding.from_dict(embed_model.to_dict()),
        InstructorEmbedding.from_json(embed_model.to_json()),
        InstructorEmbedding.model_validate(embed_model.model_dump()),
        InstructorEmbedding.model_validate_json(embed_model.model_dump_json()),
        pickle.loads(pickle.dumps(embed_model)),
        copy.deepcopy(embed_model),
    ):
        assert again._embedder.token is token


def test_copies_and_pickles_give_the_same_vectors() -> None:
    embed_model = InstructorEmbedding(**SETTINGS)
    vector = embed_model.get_text_embedding("a fern")
    for again in (copy.deepcopy(embed_model), copy.copy(embed_model), pickle.loads(pickle.dumps(embed_model))):
        assert again.to_dict() == embed_model.to_dict()
        assert again.get_text_embedding("a fern") == vector


def test_a_store_is_no_setting_but_travels_in_a_pickle() -> None:
    store = SimpleKVStore()
    embed_model = InstructorEmbedding(embeddings_cache=store)
    embed_model.get_text_embedding("a fern")
    json.loads(embed_model.to_json())
    again = InstructorEmbedding.from_dict(embed_model.to_dict(), embeddings_cache=store)
    assert again.embeddings_cache.store is store
    assert pickle.loads(pickle.dumps(embed_model)).embeddings_cache.store.to_dict() == store.to_dict()


@pytest.mark.parametrize(
    "dump",
    [
        lambda embed_model: embed_model.to_dict(),
        lambda embed_model: embed_model.to_json(),
        lambda embed_model: embed_model.model_dump(),
        lambda embed_model: embed_model.model_dump_json(),
        pickle.dumps,
        cloudpickle.dumps,
        yaml.dump,
        vars,
        lambda embed_model: pickle.dumps(copy.deepcopy(embed_model)),
        lambda embed_model: embed_model._embedder,
        lambda embed_model: pickle.dumps(embed_model._embedder),
        repr,
        str,
    ],
)
def test_the_token_is_in_no_dump(dump: Any) -> None:
    embed_model = InstructorEmbedding(token=SECRET)
    assert embed_model._embedder.token == SECRET
    assert SECRET not in str(dump(embed_model))


def test_the_token_stays_with_copies_of_this_process() -> None:
    embed_model = InstructorEmbedding(token=SECRET)
    pickle.dumps(embed_model)
    assert embed_model._embedder.token == SECRET
    assert copy.deepcopy(embed_model)._embedder.token == SECRET
    assert embed_model.model_copy(update={"query_instruction": ""})._embedder.token == SECRET
    assert copy.copy(embed_model)._embedder.token == SECRET
    assert pickle.loads(pickle.dumps(InstructorEmbedding(token=True))).token is True


def test_a_pickle_is_the_same_but_for_the_token() -> None:
    embed_model = InstructorEmbedding(token=SECRET)
    again = pickle.loads(pickle.dumps(embed_model))
    assert again.token is None
    assert again.to_dict() == embed_model.to_dict()
    assert again.get_query_embedding("a fern") == embed_model.get_query_embedding("a fern")


@pytest.mark.parametrize("settings", [{"token": SECRET, "dtype": "float31"}, {"tokn": SECRET}, {"token": [SECRET]}])
def test_the_token_is_in_no_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        InstructorEmbedding(**settings)
    assert SECRET not in str(caught.value)


def test_pickling_leaves_the_instance_whole() -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    handler.lock = threading.Lock()  # can't be pickled
    embed_model = InstructorEmbedding(callback_manager=CallbackManager([handler]))
    again = pickle.loads(pickle.dumps(embed_model))
    assert embed_model.callback_manager.handlers == [handler]
    assert again.callback_manager.handlers == []
