"""The function on its own: vectors, configuration, former names, bad input."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import yaml
from chromadb.api.types import EmbeddingFunction
from chromadb.utils.embedding_functions import config_to_embedding_function, known_embedding_functions
from chromadb.utils.embedding_functions.schemas import load_schema
from jsonschema import Draft7Validator, ValidationError

from anytask import CheckpointError, Embedder, Instruction, Instructor, load_shared
from chroma_anytask import InstructorEmbeddingFunction
from chroma_anytask.config import DECIDE_DOCUMENT_VECTORS, _validator

pytestmark = pytest.mark.usefixtures("no_network")

TEXTS = [
    "The mitral valve lies between the left atrium and the left ventricle.",
    "Basalt forms from lava that cools quickly at the surface.",
    "A sonnet has fourteen lines.",
]
TOPIC = "Represent the sentence for clustering by its topic: "
QUESTION = "Represent the question for retrieving sentences: "

EVERY_SETTING: dict[str, Any] = {
    "model": "mini",
    "query_instruction": QUESTION,
    "document_instruction": TOPIC,
    "device": "cpu",
    "dtype": "bfloat16",
    "max_length": 64,
    "batch_tokens": 256,
    "normalize": False,
    "truncate_dim": 32,
    "revision": "main",
    "cache_dir": "/models",
    "local_files_only": True,
    "token_env_var": "MODELS_TOKEN",
}


class TestVectors:
    def test_documents_and_queries_have_their_own_instruction(self, mini: Instructor) -> None:
        function = InstructorEmbeddingFunction(document_instruction=TOPIC, query_instruction=QUESTION)
        np.testing.assert_allclose(np.stack(function(TEXTS)), mini.encode(TEXTS, TOPIC), atol=1e-6)
        np.testing.assert_allclose(np.stack(function.embed_query(TEXTS)), mini.encode(TEXTS, QUESTION), atol=1e-6)
        assert np.abs(np.stack(function(TEXTS)) - np.stack(function.embed_query(TEXTS))).max() > 1e-3

    def test_the_defaults_are_the_checkpoints(self, mini: Instructor) -> None:
        function = InstructorEmbeddingFunction()
        np.testing.assert_allclose(np.stack(function(TEXTS)), mini.encode_document(TEXTS), atol=1e-6)
        np.testing.assert_allclose(np.stack(function.embed_query(TEXTS)), mini.encode_query(TEXTS), atol=1e-6)

    def test_an_empty_instruction_embeds_without_one(self, mini: Instructor) -> None:
        function = InstructorEmbeddingFunction(document_instruction="", query_instruction="")
        np.testing.assert_allclose(np.stack(function(TEXTS)), mini.encode(TEXTS), atol=1e-6)
        np.testing.assert_allclose(np.stack(function.embed_query(TEXTS)), mini.encode(TEXTS), atol=1e-6)

    @pytest.mark.parametrize("method", ["__call__", "embed_query"])
    def test_both_methods_give_a_list_of_float32_unit_vectors(self, method: str) -> None:
        vectors = getattr(InstructorEmbeddingFunction(), method)([*TEXTS, ""])
        assert isinstance(vectors, list)
        for vector in vectors:
            assert isinstance(vector, np.ndarray)
            assert vector.dtype == np.float32
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)

    def test_settings_reach_the_model(self, mini: Instructor) -> None:
        vectors = np.stack(InstructorEmbeddingFunction(truncate_dim=16, normalize=False)(TEXTS))
        np.testing.assert_allclose(
            vectors, mini.encode_document(TEXTS, truncate_dim=16, normalize=False), atol=1e-4, rtol=1e-4
        )
        short = InstructorEmbeddingFunction(max_length=24, dtype="bfloat16", device="cpu").load()
        assert (short.max_length, str(short.dtype), str(short.device)) == (24, "torch.bfloat16", "cpu")

    def test_one_model_serves_all_functions_of_a_configuration(self) -> None:
        function = InstructorEmbeddingFunction(query_instruction=QUESTION)
        again = InstructorEmbeddingFunction.build_from_config(function.get_config())
        assert function.load() is again.load() is InstructorEmbeddingFunction(batch_tokens=64).load()
        assert function.load() is load_shared("mini")
        assert function.load() is InstructorEmbeddingFunction(cache_dir="elsewhere", local_files_only=True).load()

    def test_the_constructor_loads_nothing(self, tmp_path: Path) -> None:
        function = InstructorEmbeddingFunction(tmp_path / "missing")
        assert not function.is_legacy()
        with pytest.raises(CheckpointError, match="missing"):
            function(TEXTS)


class TestProtocol:
    def test_importing_the_package_registers_the_function(self) -> None:
        assert known_embedding_functions["anytask_instructor"] is InstructorEmbeddingFunction
        assert known_embedding_functions["instructor"] is not InstructorEmbeddingFunction, "Chroma's own stays"

    def test_name_and_spaces(self) -> None:
        function = InstructorEmbeddingFunction()
        assert isinstance(function, EmbeddingFunction)
        assert function.name() == InstructorEmbeddingFunction.name() == "anytask_instructor"
        assert function.default_space() == "cosine"
        assert function.supported_spaces() == ["cosine", "l2", "ip"]
        assert function.is_legacy() is False

    def test_retries_are_inherited(self) -> None:
        (vector,) = InstructorEmbeddingFunction().embed_with_retries(TEXTS[:1])
        assert vector.shape == (384,)


class TestConfiguration:
    def test_the_exact_default(self) -> None:
        assert InstructorEmbeddingFunction().get_config() == {
            "model": "mini",
            "query_instruction": None,
            "document_instruction": None,
            "device": None,
            "dtype": None,
            "max_length": None,
            "batch_tokens": None,
            "normalize": True,
            "truncate_dim": None,
            "revision": None,
            "cache_dir": None,
            "local_files_only": False,
            "token_env_var": None,
        }

    def test_every_setting_survives_json(self) -> None:
        function = InstructorEmbeddingFunction(**EVERY_SETTING)
        stored = json.loads(json.dumps(function.get_config()))
        assert stored == EVERY_SETTING
        again = config_to_embedding_function({"name": function.name(), "config": stored})
        assert isinstance(again, InstructorEmbeddingFunction)
        assert again.get_config() == EVERY_SETTING

    def test_it_holds_every_setting_of_the_core_but_the_token(self) -> None:
        core = {setting.name for setting in fields(Embedder)} - {"token"}
        assert set(InstructorEmbeddingFunction().get_config()) == core | {"token_env_var"}

    def test_a_partial_one_takes_the_defaults(self) -> None:
        function = InstructorEmbeddingFunction.build_from_config({"model": "mini"})
        assert function.get_config() == InstructorEmbeddingFunction().get_config()

    def test_instruction_objects_become_their_text(self) -> None:
        function = InstructorEmbeddingFunction(
            document_instruction=Instruction(text_type="sentence", objective="clustering by its topic")
        )
        assert function.get_config()["document_instruction"] == TOPIC

    def test_folders_are_kept_by_their_absolute_paths(
        self, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(small_checkpoint.parent)
        for given in ("small", "./small", Path("small"), "small/../small", small_checkpoint):
            assert InstructorEmbeddingFunction(given).get_config()["model"] == str(small_checkpoint)
        downloads = InstructorEmbeddingFunction(cache_dir="downloads").get_config()["cache_dir"]
        assert downloads == str(small_checkpoint.parent / "downloads")
        (vector,) = InstructorEmbeddingFunction("small")(TEXTS[:1])
        assert vector.shape == (48,)

    def test_hub_ids_stay(self) -> None:
        config = InstructorEmbeddingFunction("hkunlp/instructor-large").get_config()
        assert config["model"] == "hkunlp/instructor-large"

    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))])
    def test_copies_and_pickles_are_equal_and_share_the_model(self, duplicate: Any) -> None:
        function = InstructorEmbeddingFunction(document_instruction=TOPIC)
        function.load()
        again = duplicate(function)
        assert again is not function
        assert again.get_config() == function.get_config()
        assert again.load() is function.load()
        assert len(pickle.dumps(function)) < 2_000


class TestSchema:
    def test_it_is_in_the_style_of_chromas_own(self) -> None:
        ours, chromas = _validator().schema, load_schema("sentence_transformer")
        assert list(ours) == list(chromas)
        assert ours["$schema"] == chromas["$schema"]
        assert ours["additionalProperties"] is False
        Draft7Validator.check_schema(ours)

    def test_it_names_every_setting(self) -> None:
        assert set(_validator().schema["properties"]) == set(InstructorEmbeddingFunction().get_config())

    @pytest.mark.parametrize(
        ("config", "complaint"),
        [
            ({}, "'model' is a required property"),
            ({"model": 3}, "3 is not of type 'string' at path 'model'"),
            ({"model": ""}, "at path 'model'"),
            ({"model": "mini", "instruction": "x"}, "'instruction' was unexpected"),
            ({"model": "mini", "dtype": "int4"}, "'int4' is not one of"),
            ({"model": "mini", "truncate_dim": 0}, "minimum of 1 at path 'truncate_dim'"),
            ({"model": "mini", "normalize": "yes"}, "'yes' is not of type 'boolean'"),
            ({"model": "mini", "token": "s3cret"}, "'token' was unexpected"),
        ],
    )
    def test_it_refuses(self, config: dict[str, Any], complaint: str) -> None:
        with pytest.raises(ValidationError, match=complaint):
            InstructorEmbeddingFunction.validate_config(config)
        with pytest.raises(ValidationError, match="schema 'anytask_instructor'"):
            InstructorEmbeddingFunction.build_from_config(config)

    @pytest.mark.parametrize(
        "settings",
        [
            {"model": 3},
            {"query_instruction": 3},
            {"max_length": -1},
            {"dtype": "int4"},
            {"token_env_var": "not a name"},
        ],
    )
    def test_the_constructor_takes_nothing_that_could_not_be_stored(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=f"at path '{next(iter(settings))}'"):
            InstructorEmbeddingFunction(**settings)


class TestUpdates:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("model", "hkunlp/instructor-base"),
            ("document_instruction", TOPIC),
            ("document_instruction", ""),
            ("revision", "v2"),
            ("max_length", 128),
            ("normalize", False),
            ("truncate_dim", 64),
        ],
    )
    def test_what_changes_document_vectors_is_refused_with_the_reason(self, name: str, value: Any) -> None:
        old = InstructorEmbeddingFunction().get_config()
        new = InstructorEmbeddingFunction(**{name: value})
        with pytest.raises(ValueError, match="embed its documents again") as refusal:
            new.validate_config_update(old, new.get_config())
        assert f"{name} {old[name]!r} -> {value!r}" in str(refusal.value)
        with pytest.raises(ValueError, match=name):
            new.validate_config_update(old, {name: value})

    def test_another_dtype_is_refused_and_none_keeps_the_stored_one(self) -> None:
        open_, single, half = (InstructorEmbeddingFunction(dtype=dtype) for dtype in (None, "float32", "bfloat16"))
        for old in (open_, single):
            with pytest.raises(ValueError, match=f"dtype {old.get_config()['dtype']!r} -> 'bfloat16'"):
                half.validate_config_update(old.get_config(), half.get_config())
        open_.validate_config_update(half.get_config(), open_.get_config())

    @pytest.mark.parametrize("stored", ["/models/elsewhere", r"C:\models\elsewhere"])
    def test_a_folder_may_stand_in_for_one_that_is_not_on_this_machine(
        self, small_checkpoint: Path, stored: str
    ) -> None:
        old = {**InstructorEmbeddingFunction().get_config(), "model": stored}
        here = InstructorEmbeddingFunction(small_checkpoint)
        here.validate_config_update(old, here.get_config())
        for other in (InstructorEmbeddingFunction(), InstructorEmbeddingFunction(small_checkpoint.parent / "missing")):
            with pytest.raises(ValueError, match=r"model .* -> "):
                other.validate_config_update(old, other.get_config())
        for still_there in (str(small_checkpoint.parent), "mini", "hkunlp/instructor-base"):
            with pytest.raises(ValueError, match=f"model '{still_there}' -> "):
                here.validate_config_update({**old, "model": still_there}, here.get_config())

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("query_instruction", QUESTION),
            ("device", "cpu"),
            ("batch_tokens", 64),
            ("cache_dir", "models"),
            ("local_files_only", True),
            ("token_env_var", "MODELS_TOKEN"),
        ],
    )
    def test_all_else_may_change(self, name: str, value: Any) -> None:
        new = InstructorEmbeddingFunction(**{name: value})
        new.validate_config_update(InstructorEmbeddingFunction().get_config(), new.get_config())
        new.validate_config_update({"model": "mini"}, {name: value})

    def test_the_two_lists_cover_all_settings_and_agree_with_the_core(self) -> None:
        for name, value in EVERY_SETTING.items():
            if name == "token_env_var":
                continue
            value = "other" if name == "model" else value
            changed = Embedder(**{name: value}).fingerprint("document") != Embedder().fingerprint("document")
            assert changed == (name in DECIDE_DOCUMENT_VECTORS), name


class TestFormerNames:
    """The keyword arguments of chromadb.utils.embedding_functions.InstructorEmbeddingFunction."""

    def test_by_keyword_and_by_position(self, mini: Instructor) -> None:
        functions = (
            InstructorEmbeddingFunction(model_name="mini", device="cpu", instruction=TOPIC),
            InstructorEmbeddingFunction("mini", "cpu", TOPIC),
        )
        for function in functions:
            assert function.get_config() == functions[0].get_config()
            np.testing.assert_allclose(np.stack(function(TEXTS)), mini.encode(TEXTS, TOPIC), atol=1e-6)
            np.testing.assert_allclose(np.stack(function.embed_query(TEXTS)), mini.encode(TEXTS, TOPIC), atol=1e-6)

    def test_one_side_may_have_its_own_instruction_beside_the_common_one(self) -> None:
        config = InstructorEmbeddingFunction(instruction=TOPIC, query_instruction=QUESTION).get_config()
        assert (config["document_instruction"], config["query_instruction"]) == (TOPIC, QUESTION)

    def test_two_models_are_refused(self) -> None:
        with pytest.raises(ValueError, match="two names of one setting"):
            InstructorEmbeddingFunction("mini", model_name="hkunlp/instructor-base")


class TestToken:
    SECRET = "hf_thisIsNoRealToken"

    def test_it_is_taken_from_the_environment_and_never_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MODELS_TOKEN", self.SECRET)
        function = InstructorEmbeddingFunction(token_env_var="MODELS_TOKEN")
        assert function._embedder().token == self.SECRET
        function.load()
        dumps = [repr(function), json.dumps(function.get_config()), repr(vars(function)), repr(function._embedder())]
        dumps += [str(pickle.dumps(function)), str(cloudpickle.dumps(function)), yaml.dump(function.get_config())]
        assert not any(self.SECRET in dump for dump in dumps)
        assert function.get_config()["token_env_var"] == "MODELS_TOKEN"
        assert copy.deepcopy(function)._embedder().token == self.SECRET
        assert pickle.loads(pickle.dumps(function)).load() is function.load()

    def test_an_unset_variable_is_mentioned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MODELS_TOKEN", raising=False)
        with pytest.warns(UserWarning, match="MODELS_TOKEN .* is not set"):
            InstructorEmbeddingFunction(token_env_var="MODELS_TOKEN")(TEXTS[:1])

    def test_a_token_in_place_of_the_name_is_refused_without_repeating_it(self) -> None:
        with pytest.raises(ValueError, match="name of an environment variable") as refusal:
            InstructorEmbeddingFunction(token_env_var=self.SECRET)
        assert self.SECRET not in str(refusal.value)


class TestBadInput:
    @pytest.mark.parametrize("method", ["__call__", "embed_query"])
    @pytest.mark.parametrize(
        ("texts", "complaint"),
        [
            (["a text", None], "text 1 must be a string, got None"),
            ([3], "text 0 must be a string, got int"),
            ([np.zeros((2, 2, 3))], "text 0 must be a string, got ndarray"),
            ("a text", "list of strings, got str"),
            (None, "list of strings, got NoneType"),
        ],
    )
    def test_what_is_no_text(self, method: str, texts: Any, complaint: str) -> None:
        with pytest.raises(TypeError, match=complaint):
            getattr(InstructorEmbeddingFunction(), method)(texts)

    @pytest.mark.parametrize("method", ["__call__", "embed_query"])
    def test_an_empty_list_is_refused_as_chroma_does(self, method: str) -> None:
        with pytest.raises(ValueError, match="non-empty"):
            getattr(InstructorEmbeddingFunction(), method)([])

    def test_an_instruction_that_leaves_no_room(self) -> None:
        function = InstructorEmbeddingFunction(document_instruction="word " * 600)
        with pytest.raises(ValueError, match="instruction"):
            function(TEXTS)
