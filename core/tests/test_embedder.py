"""`anytask.Embedder`, what the adapters of all frameworks are built on."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch

from anytask import Embedder, Instruction, Instructor, load_shared, release_shared

MakeCheckpoint = Callable[..., Path]

PROMPTS = {"query": "Represent the test question: ", "document": "Represent the test document: "}
TEXTS = ["names refer to objects", "a class body is executed", ""]


@pytest.fixture(scope="module")
def folder(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint(prompts=PROMPTS)


@pytest.fixture(scope="module")
def model(folder: Path) -> Instructor:
    return Instructor.from_pretrained(folder)


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    yield
    release_shared()


def assert_same(left: Any, right: Any) -> None:
    assert left.dtype == np.float32
    assert left.shape == right.shape
    np.testing.assert_allclose(left, right, atol=1e-5)


class TestVectors:
    async def test_the_checkpoints_prompts(self, folder: Path, model: Instructor) -> None:
        embedder = Embedder(model=str(folder))
        queries, documents = model.encode(TEXTS, PROMPTS["query"]), model.encode(TEXTS, PROMPTS["document"])
        assert_same(embedder.embed_queries(TEXTS), queries)
        assert_same(embedder.embed_documents(TEXTS), documents)
        assert_same(await embedder.aembed_queries(TEXTS), queries)
        assert_same(await embedder.aembed_documents(TEXTS), documents)

    @pytest.mark.parametrize("instruction", ["", "Represent the title: "])
    async def test_instructions_of_the_configuration(self, folder: Path, model: Instructor, instruction: str) -> None:
        embedder = Embedder(model=str(folder), query_instruction=instruction)
        expected = model.encode(TEXTS, instruction)
        assert_same(embedder.embed_queries(TEXTS), expected)
        assert_same(await embedder.aembed_queries(TEXTS), expected)
        assert_same(embedder.embed_documents(TEXTS), model.encode_document(TEXTS))
        embedder = Embedder(model=str(folder), document_instruction=instruction)
        assert_same(embedder.embed_documents(TEXTS), expected)
        assert_same(await embedder.aembed_documents(TEXTS), expected)
        assert_same(embedder.embed_queries(TEXTS), model.encode_query(TEXTS))

    @pytest.mark.parametrize("instruction", ["", "Represent the title: ", Instruction("title")])
    async def test_an_instruction_of_the_call_comes_first(
        self, folder: Path, model: Instructor, instruction: str | Instruction
    ) -> None:
        embedder = Embedder(model=str(folder), query_instruction="one", document_instruction="other")
        expected = model.encode(TEXTS, instruction)
        assert_same(embedder.embed_queries(TEXTS, instruction), expected)
        assert_same(embedder.embed_documents(TEXTS, instruction), expected)
        assert_same(await embedder.aembed_queries(TEXTS, instruction), expected)
        assert_same(await embedder.aembed_documents(TEXTS, instruction), expected)

    async def test_settings_of_the_vectors(self, folder: Path, model: Instructor) -> None:
        embedder = Embedder(model=str(folder), normalize=False, truncate_dim=9, batch_tokens=5)
        expected = model.encode_query(TEXTS, normalize=False, truncate_dim=9)
        assert_same(embedder.embed_queries(TEXTS), expected)
        assert_same(await embedder.aembed_queries(TEXTS), expected)

    async def test_the_batch_size_reaches_the_engine(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        embedder = Embedder(model=str(folder), batch_tokens=12)
        engine, limits = embedder.load()._engine, []
        embed = engine.embed

        def watch(texts: Any, batch_tokens: int | None = None, *advance: Any) -> torch.Tensor:
            limits.append(batch_tokens)
            return embed(texts, batch_tokens, *advance)

        monkeypatch.setattr(engine, "embed", watch)
        embedder.load()._start()
        embedder.embed_queries(TEXTS)
        embedder.embed_documents(TEXTS, show_progress=True)
        await embedder.aembed_queries(TEXTS)
        await embedder.aembed_documents(TEXTS)
        assert limits == [12] * 4

    async def test_nothing_to_embed(self, folder: Path, model: Instructor) -> None:
        embedder = Embedder(model=str(folder))
        for vectors in (embedder.embed_queries([]), await embedder.aembed_documents([])):
            assert_same(vectors, np.empty((0, model.dimension)))

    async def test_one_string_is_not_a_list_of_its_characters(self, folder: Path) -> None:
        embedder = Embedder(model=str(folder))
        for embed in (embedder.embed_queries, embedder.embed_documents):
            with pytest.raises(TypeError, match="list of strings, got one string"):
                embed("names")
        for aembed in (embedder.aembed_queries, embedder.aembed_documents):
            with pytest.raises(TypeError, match="list of strings, got one string"):
                await aembed("names")

    async def test_the_warning_of_long_texts_points_to_the_caller(self, folder: Path) -> None:
        embedder = Embedder(model=str(folder), max_length=40)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            embedder.embed_documents(["word " * 100])
            await embedder.aembed_documents(["word " * 100])
        assert [warning.filename for warning in caught] == [__file__] * 2


class TestModel:
    def test_light_until_the_first_call(self) -> None:
        embedder = Embedder(model="no/such/model")
        assert "no/such/model" in repr(embedder)
        with pytest.raises(ValueError, match="no/such/model"):
            embedder.embed_queries(["text"])

    def test_the_model_is_shared(self, folder: Path) -> None:
        embedder = Embedder(model=str(folder))
        model = embedder.load()
        assert model is load_shared(folder)
        assert Embedder(model=str(folder), query_instruction="other", truncate_dim=3, batch_tokens=7).load() is model
        assert Embedder(model=str(folder), max_length=100).load() is not model
        assert Embedder(model=str(folder), dtype="bfloat16").load().dtype == torch.bfloat16

    def test_every_setting_of_loading_arrives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings: dict[str, Any] = {
            "device": "cpu",
            "dtype": "float16",
            "max_length": 99,
            "revision": "abc",
            "token": "secret",
            "cache_dir": "cache",
            "local_files_only": True,
        }
        seen: list[Any] = []
        monkeypatch.setattr("anytask.embedder.load_shared", lambda *args, **options: seen.append((args, options)))
        Embedder(model="owner/name", **settings).load()
        assert seen == [(("owner/name",), settings)]

    def test_a_frozen_value(self) -> None:
        embedder = Embedder(token="secret", truncate_dim=4)
        assert embedder == Embedder(token="secret", truncate_dim=4)
        with pytest.raises(FrozenInstanceError):
            embedder.model = "other"  # type: ignore[misc]


async def test_asynchronous_calls_do_not_wait_for_the_threads_of_the_event_loop(folder: Path) -> None:
    embedder, go = Embedder(model=str(folder)), threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    blocked = loop.run_in_executor(None, go.wait, 120)  # such as a search in a database
    try:
        async with asyncio.timeout(60):
            assert (await embedder.aembed_queries(["a", "b"])).shape == (2, 24)
            assert (await embedder.aembed_documents([f"text {number}" for number in range(3000)])).shape == (3000, 24)
        assert not blocked.done()
    finally:
        go.set()
        await blocked


class TestToken:
    SECRET = "hf_nobodyMayReadThis"

    @pytest.mark.parametrize("dump", [repr, str, pickle.dumps, cloudpickle.dumps, lambda e: pickle.dumps([e] * 2)])
    def test_is_in_no_dump(self, dump: Callable[[Embedder], object]) -> None:
        assert self.SECRET not in str(dump(Embedder(token=self.SECRET)))

    def test_stays_with_copies(self) -> None:
        embedder = Embedder(token=self.SECRET)
        for twin in (copy.copy(embedder), copy.deepcopy(embedder), copy.deepcopy([embedder])[0], replace(embedder)):
            assert twin.token == self.SECRET

    def test_a_pickle_is_the_same_but_for_the_token(self, folder: Path) -> None:
        embedder = Embedder(model=str(folder), token=self.SECRET, truncate_dim=4)
        again = pickle.loads(pickle.dumps(embedder))
        assert again == replace(embedder, token=None)
        assert again.load() is embedder.load()

    @pytest.mark.parametrize("token", [True, False, None])
    def test_what_is_no_secret_travels(self, token: bool | None) -> None:
        assert pickle.loads(pickle.dumps(Embedder(token=token))).token is token


class TestFingerprint:
    def test_form(self) -> None:
        fingerprint = Embedder(model="owner/name").fingerprint("query")
        assert re.fullmatch(r"anytask-owner--name-query-[0-9a-f]{16}", fingerprint)
        assert fingerprint == Embedder(model="owner/name").fingerprint("query")
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", Embedder(model="/a b/é\n/" + "long" * 50).fingerprint("document"))

    @pytest.mark.parametrize(
        "change",
        [
            {"model": "owner/other"},
            {"revision": "abc"},
            {"dtype": "bfloat16"},
            {"max_length": 100},
            {"normalize": False},
            {"truncate_dim": 64},
        ],
    )
    def test_changes_with_what_the_vectors_depend_on(self, change: dict[str, Any]) -> None:
        embedder = Embedder(model="owner/name")
        for side in ("query", "document"):
            assert replace(embedder, **change).fingerprint(side) != embedder.fingerprint(side)

    def test_changes_with_the_instruction_of_its_side_only(self) -> None:
        embedder = Embedder()
        for side, other in (("query", "document"), ("document", "query")):
            for instruction in ("", "Represent the title: "):
                change: dict[str, Any] = {f"{side}_instruction": instruction}
                changed = replace(embedder, **change)
                assert changed.fingerprint(side) != embedder.fingerprint(side)
                assert changed.fingerprint(other) == embedder.fingerprint(other)
        assert embedder.fingerprint("query") != embedder.fingerprint("document")

    @pytest.mark.parametrize(
        "change",
        [{"device": "cuda"}, {"batch_tokens": 5}, {"cache_dir": "x"}, {"token": "x"}, {"local_files_only": True}],
    )
    def test_stays_where_the_vectors_stay(self, change: dict[str, Any]) -> None:
        embedder = Embedder()
        assert replace(embedder, **change).fingerprint("query") == embedder.fingerprint("query")

    def test_unknown_side(self) -> None:
        with pytest.raises(ValueError, match='side must be "query" or "document", got \'queries\''):
            Embedder().fingerprint("queries")
