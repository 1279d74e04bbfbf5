"""Collections in memory and on disk: opened again, modified, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from chromadb.api import ClientAPI, types
from chromadb.api.types import Documents, EmbeddingFunction, Embeddings
from chromadb.config import Settings
from chromadb.errors import InvalidArgumentError

from anytask import CheckpointError, Instructor, release_shared
from chroma_anytask import InstructorEmbeddingFunction

pytestmark = pytest.mark.usefixtures("no_network")

TEXTS = [
    "The mitral valve lies between the left atrium and the left ventricle.",
    "Basalt forms from lava that cools quickly at the surface.",
    "A sonnet has fourteen lines.",
    "Sourdough rises with wild yeast.",
    "The offside rule concerns the position of the attackers.",
]
IDS = [f"text-{number}" for number in range(len(TEXTS))]
TOPIC = "Represent the sentence for clustering by its topic: "
QUESTION = "Represent the question for retrieving sentences: "

REOPEN = """
import json, sys
import chromadb
from chromadb.config import Settings
import chroma_anytask

client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
collection = client.get_collection(sys.argv[2])
collection.upsert(ids=["new"], documents=[sys.argv[3]])
answer = collection.query(query_texts=[sys.argv[3]], n_results=collection.count())
print(json.dumps({
    "distances": dict(zip(answer["ids"][0], answer["distances"][0])),
    "new": [float(x) for x in collection.get("new", include=["embeddings"])["embeddings"][0]],
}))
"""
OPEN_WITHOUT_THE_IMPORT = """
import sys
import chromadb
from chromadb.config import Settings

client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
try:
    client.get_collection("texts").query(query_texts=["a text"])
except ValueError as error:
    print(error)
"""

Open = Callable[[], ClientAPI]


@pytest.fixture
def on_disk(tmp_path: Path, settings: Settings) -> Open:
    return lambda: chromadb.PersistentClient(tmp_path / "db", settings=settings)


def stored_config(collection: chromadb.Collection) -> dict[str, Any]:
    config: dict[str, Any] = collection.configuration_json["embedding_function"]["config"]
    return config


def fill(client: ClientAPI, function: InstructorEmbeddingFunction, name: str = "texts") -> chromadb.Collection:
    collection = client.create_collection(name, embedding_function=function)
    collection.add(ids=IDS, documents=TEXTS, metadatas=[{"number": number} for number in range(len(TEXTS))])
    return collection


class TestUse:
    def test_documents_are_stored_with_the_document_instruction(self, ephemeral: ClientAPI, mini: Instructor) -> None:
        collection = fill(ephemeral, InstructorEmbeddingFunction(document_instruction=TOPIC))
        stored = collection.get(IDS, include=["embeddings"])["embeddings"]
        np.testing.assert_allclose(np.asarray(stored), mini.encode(TEXTS, TOPIC), atol=1e-5)

    def test_queries_are_embedded_with_the_query_instruction(self, ephemeral: ClientAPI, mini: Instructor) -> None:
        function = InstructorEmbeddingFunction(document_instruction=TOPIC, query_instruction=QUESTION)
        answer = fill(ephemeral, function).query(query_texts=["What makes bread rise?"], n_results=len(TEXTS))
        cosine = dict(
            zip(IDS, mini.encode(TEXTS, TOPIC) @ mini.encode("What makes bread rise?", QUESTION), strict=True)
        )
        assert answer["distances"] is not None
        for name, distance in zip(answer["ids"][0], answer["distances"][0], strict=True):
            assert 1 - distance == pytest.approx(cosine[name], abs=1e-4)

    def test_the_space_is_cosine_unless_the_collection_says_otherwise(self, ephemeral: ClientAPI) -> None:
        function = InstructorEmbeddingFunction()
        assert fill(ephemeral, function).configuration_json["hnsw"]["space"] == "cosine"
        inner = ephemeral.create_collection(
            "inner", embedding_function=function, configuration={"hnsw": {"space": "ip"}}
        )
        assert inner.configuration_json["hnsw"]["space"] == "ip"

    def test_update_upsert_filter_and_delete(self, ephemeral: ClientAPI, mini: Instructor) -> None:
        collection = fill(ephemeral, InstructorEmbeddingFunction())
        collection.update(ids=IDS[:1], documents=["The heart has four chambers."])
        collection.upsert(ids=["more"], documents=["Granite is coarse-grained."], metadatas=[{"number": 9}])
        stored = collection.get([IDS[0], "more"], include=["embeddings", "documents"])
        assert stored["documents"] is not None
        np.testing.assert_allclose(
            np.asarray(stored["embeddings"]), mini.encode_document(stored["documents"]), atol=1e-5
        )
        answer = collection.query(query_texts=["rocks"], where={"number": {"$gt": 3}}, n_results=5)
        assert set(answer["ids"][0]) == {IDS[4], "more"}
        collection.delete(["more"])
        assert collection.count() == len(TEXTS)

    def test_the_function_may_come_in_the_configuration(self, ephemeral: ClientAPI) -> None:
        function = InstructorEmbeddingFunction(document_instruction=TOPIC)
        collection = ephemeral.create_collection(
            "texts", configuration={"embedding_function": function}, embedding_function=None
        )
        assert stored_config(collection) == function.get_config()
        assert collection.configuration_json["hnsw"]["space"] == "cosine"

    @pytest.mark.skipif(not hasattr(types, "Schema"), reason="this Chroma has no schemas")
    def test_the_function_may_come_in_the_schema(self, ephemeral: ClientAPI) -> None:
        function = InstructorEmbeddingFunction(document_instruction=TOPIC)
        schema = types.Schema().create_index(config=types.VectorIndexConfig(embedding_function=function))
        ephemeral.create_collection("texts", schema=schema, embedding_function=None)
        collection = ephemeral.get_collection("texts")
        assert stored_config(collection) == function.get_config()
        assert collection.configuration_json["hnsw"]["space"] == "cosine"
        collection.add(ids=IDS, documents=TEXTS)
        stored = collection.get(IDS, include=["embeddings"])["embeddings"]
        np.testing.assert_allclose(np.asarray(stored), np.stack(function(TEXTS)), atol=1e-5)

    def test_bad_texts_are_named(self, ephemeral: ClientAPI) -> None:
        collection = fill(ephemeral, InstructorEmbeddingFunction())
        with pytest.raises((TypeError, ValueError), match="str"):
            collection.query(query_texts=["fine", 3])  # type: ignore[list-item]

    def test_a_missing_model_is_explained_when_texts_come(self, ephemeral: ClientAPI, tmp_path: Path) -> None:
        collection = ephemeral.create_collection(
            "texts", embedding_function=InstructorEmbeddingFunction(tmp_path / "no")
        )
        with pytest.raises(ValueError, match="expected the folder of a checkpoint"):
            collection.add(ids=IDS, documents=TEXTS)


class TestOpenedAgain:
    def test_from_the_stored_configuration(self, on_disk: Open) -> None:
        function = InstructorEmbeddingFunction(document_instruction=TOPIC, query_instruction=QUESTION, truncate_dim=64)
        before = fill(on_disk(), function).query(query_texts=TEXTS, n_results=3)
        collection = on_disk().get_collection("texts")
        assert stored_config(collection) == function.get_config()
        assert isinstance(collection.configuration["embedding_function"], InstructorEmbeddingFunction)
        after = collection.query(query_texts=TEXTS, n_results=3)
        assert after["ids"] == before["ids"]
        np.testing.assert_allclose(np.asarray(after["distances"]), np.asarray(before["distances"]), atol=1e-5)

    def test_in_another_process_and_folder(
        self,
        on_disk: Open,
        tmp_path: Path,
        run_elsewhere: Callable[..., str],
        small_checkpoint: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(small_checkpoint.parent)
        function = InstructorEmbeddingFunction("small", document_instruction=TOPIC)
        fill(on_disk(), function)
        text = "Obsidian is volcanic glass."
        answer = json.loads(run_elsewhere(REOPEN, tmp_path / "db", "texts", text))
        np.testing.assert_allclose(answer["new"], function([text])[0], atol=1e-5)
        cosine = np.stack(function([*TEXTS, text])) @ function.embed_query([text])[0]
        for name, expected in zip([*IDS, "new"], cosine, strict=True):
            assert 1 - answer["distances"][name] == pytest.approx(expected, abs=1e-4)
        assert on_disk().get_collection("texts").count() == len(TEXTS) + 1

    def test_without_the_import_chroma_says_what_is_missing(
        self, on_disk: Open, tmp_path: Path, run_elsewhere: Callable[..., str]
    ) -> None:
        fill(on_disk(), InstructorEmbeddingFunction())
        output = run_elsewhere(OPEN_WITHOUT_THE_IMPORT, tmp_path / "db")
        assert "Embedding function anytask_instructor not found" in output

    def test_many_instances_share_one_model(self, on_disk: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        loads: list[Any] = []
        load = Instructor.from_pretrained
        monkeypatch.setattr(
            Instructor, "from_pretrained", lambda *args, **options: loads.append(args) or load(*args, **options)
        )
        release_shared()
        fill(on_disk(), InstructorEmbeddingFunction())
        collection = on_disk().get_collection("texts")
        for text in TEXTS:
            collection.query(query_texts=[text], n_results=1)
        assert len(loads) == 1

    def test_get_or_create_with_and_without_the_function(self, on_disk: Open) -> None:
        function = InstructorEmbeddingFunction(document_instruction=TOPIC)
        for _ in range(2):
            collection = on_disk().get_or_create_collection("texts", embedding_function=function)
            collection.upsert(ids=IDS, documents=TEXTS)
        plain = on_disk().get_or_create_collection("texts")
        assert stored_config(plain) == function.get_config(), "the stored function stays"
        text = "Obsidian is volcanic glass."
        plain.add(ids=["new"], documents=[text])
        stored = plain.get("new", include=["embeddings"])["embeddings"]
        np.testing.assert_allclose(np.asarray(stored)[0], function([text])[0], atol=1e-5)
        assert plain.count() == len(TEXTS) + 1

    def test_the_query_instruction_may_differ(self, on_disk: Open) -> None:
        fill(on_disk(), InstructorEmbeddingFunction(query_instruction=QUESTION))
        other = InstructorEmbeddingFunction(query_instruction="", device="cpu", batch_tokens=128)
        collection = on_disk().get_collection("texts", embedding_function=other)
        answer = collection.query(query_texts=TEXTS[:1], n_results=len(TEXTS))
        cosine = np.stack(other(TEXTS)) @ other.embed_query(TEXTS[:1])[0]
        assert answer["distances"] is not None
        np.testing.assert_allclose(sorted(1 - np.asarray(answer["distances"][0])), sorted(cosine), atol=1e-4)


class TestFolderThatMoved:
    @pytest.fixture
    def moved(self, on_disk: Open, small_checkpoint: Path, tmp_path: Path) -> Path:
        """Where the model of the collection "texts" is now."""
        before = tmp_path / "before"
        shutil.copytree(small_checkpoint, before)
        fill(on_disk(), InstructorEmbeddingFunction(before, document_instruction=TOPIC))
        return before.rename(tmp_path / "after")

    @pytest.fixture
    def function(self, moved: Path) -> InstructorEmbeddingFunction:
        return InstructorEmbeddingFunction(moved, document_instruction=TOPIC)

    def test_opened_with_the_folder_as_it_is_called_now(
        self, on_disk: Open, function: InstructorEmbeddingFunction, moved: Path
    ) -> None:
        with pytest.raises(CheckpointError, match=r"before.*nothing is there"):
            on_disk().get_collection("texts").query(query_texts=TEXTS[:1])
        with pytest.warns(UserWarning, match="must hold the same weights") as warned:
            collection = on_disk().get_collection("texts", embedding_function=function)
        assert f"{moved.parent / 'before'}, which isn't on this machine; {moved} takes" in str(warned[0].message)
        assert collection.query(query_texts=TEXTS[:1], n_results=1)["ids"]
        assert stored_config(collection)["model"] == str(moved.parent / "before")

    def test_modify_stores_the_new_path(
        self, on_disk: Open, function: InstructorEmbeddingFunction, recwarn: pytest.WarningsRecorder
    ) -> None:
        on_disk().get_collection("texts").modify(configuration={"embedding_function": function})
        assert len([warning for warning in recwarn if "same weights" in str(warning.message)]) == 1
        recwarn.clear()
        again = on_disk().get_collection("texts", embedding_function=function)
        again.add(ids=["new"], documents=["Obsidian is volcanic glass."])
        assert on_disk().get_collection("texts").query(query_texts=TEXTS[:1], n_results=1)["ids"]
        assert not [warning for warning in recwarn if "same weights" in str(warning.message)]

    def test_what_differs_otherwise_is_refused(self, on_disk: Open, moved: Path, small_checkpoint: Path) -> None:
        for other in (
            InstructorEmbeddingFunction(moved),
            InstructorEmbeddingFunction("mini", document_instruction=TOPIC),
            InstructorEmbeddingFunction(moved.parent / "missing", document_instruction=TOPIC),
        ):
            with pytest.raises(ValueError, match="was built with other settings"):
                on_disk().get_collection("texts", embedding_function=other)
        moved.rename(moved.parent / "before")
        other = InstructorEmbeddingFunction(small_checkpoint, document_instruction=TOPIC)
        with pytest.raises(ValueError, match=r"was built with other settings: model .*before' -> "):
            on_disk().get_collection("texts", embedding_function=other)


class TestDtype:
    def test_none_is_the_stored_one(self, on_disk: Open) -> None:
        stored = InstructorEmbeddingFunction(dtype="bfloat16", device="cpu")
        fill(on_disk(), stored)
        open_ = InstructorEmbeddingFunction(device="cpu")
        assert np.abs(np.stack(open_(TEXTS[:1])) - np.stack(stored(TEXTS[:1]))).max() > 1e-4
        collection = on_disk().get_collection("texts", embedding_function=open_)
        collection.add(ids=["again"], documents=TEXTS[:1])
        vectors = collection.get([IDS[0], "again"], include=["embeddings"])["embeddings"]
        np.testing.assert_allclose(np.asarray(vectors), np.stack(stored(TEXTS[:1] * 2)), atol=1e-6)
        assert open_.get_config()["dtype"] is None

    def test_modify_keeps_it(self, on_disk: Open) -> None:
        collection = fill(on_disk(), InstructorEmbeddingFunction(dtype="bfloat16"))
        changed = {"embedding_function": InstructorEmbeddingFunction(query_instruction=QUESTION)}
        collection.modify(configuration=changed)
        again = on_disk().get_collection("texts")
        for config in map(stored_config, (collection, again)):
            assert (config["dtype"], config["query_instruction"]) == ("bfloat16", QUESTION)
        with pytest.raises(ValueError, match="dtype 'bfloat16' -> 'float32'"):
            again.modify(configuration={"embedding_function": InstructorEmbeddingFunction(dtype="float32")})
        assert changed["embedding_function"].get_config()["dtype"] is None

    def test_the_checkpoints_own_is_not_just_any(self, on_disk: Open) -> None:
        fill(on_disk(), InstructorEmbeddingFunction())
        with pytest.raises(ValueError, match="dtype None -> 'bfloat16'"):
            on_disk().get_collection("texts", embedding_function=InstructorEmbeddingFunction(dtype="bfloat16"))


class TestRefused:
    @pytest.mark.parametrize("opened_by", ["get_collection", "get_or_create_collection"])
    @pytest.mark.parametrize(
        "other",
        [
            InstructorEmbeddingFunction(document_instruction=TOPIC),
            InstructorEmbeddingFunction("hkunlp/instructor-base"),
            InstructorEmbeddingFunction(truncate_dim=64),
        ],
        ids=["instruction", "model", "dimension"],
    )
    def test_opening_with_a_function_of_other_vectors(
        self, on_disk: Open, opened_by: str, other: InstructorEmbeddingFunction
    ) -> None:
        fill(on_disk(), InstructorEmbeddingFunction())
        with pytest.raises(ValueError, match=r"collection 'texts' was built with other settings: .* -> ") as refusal:
            getattr(on_disk(), opened_by)("texts", embedding_function=other)
        assert "embed its documents again" in str(refusal.value)

    def test_opening_with_a_model_of_another_dimension_where_no_function_is_stored(
        self, ephemeral: ClientAPI, small_checkpoint: Path
    ) -> None:
        vectors = ephemeral.create_collection("vectors", embedding_function=None)
        vectors.add(ids=IDS, embeddings=np.stack(InstructorEmbeddingFunction()(TEXTS)))
        collection = ephemeral.get_collection(
            "vectors", embedding_function=InstructorEmbeddingFunction(small_checkpoint)
        )
        for use in (
            lambda: collection.query(query_texts=TEXTS[:1]),
            lambda: collection.add(ids=["new"], documents=TEXTS[:1]),
        ):
            with pytest.raises(InvalidArgumentError, match="dimension of 384, got 48"):
                use()

    @pytest.mark.parametrize(
        "other",
        [
            InstructorEmbeddingFunction(document_instruction=TOPIC),
            InstructorEmbeddingFunction("hkunlp/instructor-base"),
        ],
        ids=["instruction", "model"],
    )
    def test_modifying_leaves_nothing_behind(self, on_disk: Open, other: InstructorEmbeddingFunction) -> None:
        function = InstructorEmbeddingFunction(query_instruction=QUESTION)
        collection = fill(on_disk(), function)
        with pytest.raises(ValueError, match="embed its documents again"):
            collection.modify(name="renamed", configuration={"embedding_function": other})
        for handle in (collection, on_disk().get_collection("texts")):
            assert handle.name == "texts"
            assert stored_config(handle) == function.get_config()
            assert handle.query(query_texts=TEXTS[:1])["ids"]

    def test_a_function_of_another_kind(self, on_disk: Open) -> None:
        class Ones(EmbeddingFunction[Documents]):
            def __init__(self) -> None:
                pass

            def __call__(self, input: Documents) -> Embeddings:
                return [np.ones(384, np.float32) for _ in input]

            @staticmethod
            def name() -> str:
                return "ones"

            @staticmethod
            def build_from_config(config: dict[str, Any]) -> Ones:
                return Ones(**config)

            def get_config(self) -> dict[str, Any]:
                return {}

        function = InstructorEmbeddingFunction()
        collection = fill(on_disk(), function)
        with pytest.raises(ValueError, match="'anytask_instructor' and can't be replaced by 'ones'"):
            collection.modify(configuration={"embedding_function": Ones()})
        assert stored_config(on_disk().get_collection("texts")) == function.get_config()
        with pytest.raises(ValueError, match="conflict"):
            on_disk().get_collection("texts", embedding_function=Ones())

        ones = on_disk().create_collection("ones", embedding_function=Ones())
        with pytest.raises(ValueError, match="'ones' and can't be replaced by 'anytask_instructor'"):
            ones.modify(configuration={"embedding_function": function})
        assert on_disk().get_collection("ones").configuration_json["embedding_function"]["name"] == "ones"
        ones.modify(name="many-ones", configuration={"embedding_function": Ones()})
        assert on_disk().get_collection("many-ones").count() == 0

    def test_fork_is_for_hosted_chroma_only(self, on_disk: Open) -> None:
        with pytest.raises(NotImplementedError, match="not implemented for Local Chroma"):
            fill(on_disk(), InstructorEmbeddingFunction()).fork("copy")


class TestModified:
    def test_the_query_instruction_is_stored_and_used_by_who_opens_it_next(
        self, on_disk: Open, mini: Instructor
    ) -> None:
        collection = fill(on_disk(), InstructorEmbeddingFunction())
        changed = InstructorEmbeddingFunction(query_instruction=QUESTION, batch_tokens=64)
        collection.modify(configuration={"embedding_function": changed})
        assert stored_config(collection) == changed.get_config()
        again = on_disk().get_collection("texts")
        assert stored_config(again) == changed.get_config()
        answer = again.query(query_texts=["What makes bread rise?"], n_results=1)
        cosine = mini.encode_document(TEXTS) @ mini.encode("What makes bread rise?", QUESTION)
        assert answer["distances"] is not None
        assert 1 - answer["distances"][0][0] == pytest.approx(cosine.max(), abs=1e-4)

    def test_name_metadata_and_index_settings(self, on_disk: Open) -> None:
        function = InstructorEmbeddingFunction()
        collection = fill(on_disk(), function)
        collection.modify(name="renamed", metadata={"about": "sentences"}, configuration={"hnsw": {"ef_search": 50}})
        again = on_disk().get_collection("renamed")
        assert again.metadata == {"about": "sentences"}
        assert again.configuration_json["hnsw"]["ef_search"] == 50
        assert stored_config(again) == function.get_config()

    @pytest.mark.filterwarnings("ignore:legacy embedding function config")
    def test_a_collection_without_a_function_takes_one(self, on_disk: Open) -> None:
        function = InstructorEmbeddingFunction()
        vectors = on_disk().create_collection(
            "vectors", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )
        vectors.add(ids=IDS, embeddings=np.stack(function(TEXTS)), documents=TEXTS)
        vectors.modify(configuration={"embedding_function": function})
        answer = on_disk().get_collection("vectors").query(query_texts=TEXTS[1:2], n_results=1)
        assert answer["ids"][0]
