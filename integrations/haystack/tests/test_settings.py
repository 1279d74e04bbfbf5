"""Settings: names old and new, dumps, copies, secrets, and one model for all."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_type_hints

import cloudpickle
import numpy as np
import pytest
import yaml
from haystack import Document, Pipeline
from haystack.core.serialization import DeserializationCallbacks
from haystack.utils import ComponentDevice, Secret
from haystack.utils.device import Device, DeviceMap
from haystack_integrations.components.embedders.anytask import InstructorDocumentEmbedder, InstructorTextEmbedder

from anytask import Instruction, Instructor, release_shared

PACKAGE = "haystack_integrations.components.embedders.anytask"
TEXT_TYPE = f"{PACKAGE}.text_embedder.InstructorTextEmbedder"
DOCUMENT_TYPE = f"{PACKAGE}.document_embedder.InstructorDocumentEmbedder"
DEFAULTS: dict[str, Any] = {
    "model": "mini",
    "device": None,
    "token": {"type": "env_var", "env_vars": ["HF_API_TOKEN"], "strict": False},
    "instruction": None,
    "batch_size": 32,
    "progress_bar": True,
    "normalize_embeddings": None,
    "normalize": True,
    "truncate_dim": None,
    "dtype": None,
    "max_length": None,
    "batch_tokens": None,
    "revision": None,
    "cache_dir": None,
    "local_files_only": False,
}
TEXT_DEFAULTS = {**DEFAULTS, "query_instruction": None}
DOCUMENT_DEFAULTS = {
    **DEFAULTS,
    "meta_fields_to_embed": [],
    "embedding_separator": "\n",
    "document_instruction": None,
}
CHANGED: dict[str, Any] = {
    "model": "hkunlp/instructor-base",
    "batch_size": 8,
    "progress_bar": False,
    "normalize": False,
    "truncate_dim": 64,
    "dtype": "bfloat16",
    "max_length": 256,
    "batch_tokens": 2048,
    "revision": "main",
    "cache_dir": "/tmp/models",
    "local_files_only": True,
}
CHANGED_DUMP = {
    **CHANGED,
    "device": {"type": "single", "device": "cuda:1"},
    "token": {"type": "env_var", "env_vars": ["MY_TOKEN"], "strict": True},
    "instruction": None,
    "normalize_embeddings": None,
}
SECRET = "hf_must_not_be_seen"

both = pytest.mark.parametrize("embedder", [InstructorTextEmbedder, InstructorDocumentEmbedder])


def changed() -> dict[str, Any]:
    return {**CHANGED, "device": ComponentDevice.from_str("cuda:1"), "token": Secret.from_env_var("MY_TOKEN")}


def test_dump_of_the_text_embedder() -> None:
    assert InstructorTextEmbedder().to_dict() == {"type": TEXT_TYPE, "init_parameters": TEXT_DEFAULTS}
    full = InstructorTextEmbedder(**changed(), query_instruction=Instruction("question"))
    assert full.to_dict() == {
        "type": TEXT_TYPE,
        "init_parameters": {**CHANGED_DUMP, "query_instruction": "Represent the question: "},
    }


def test_dump_of_the_document_embedder() -> None:
    assert InstructorDocumentEmbedder().to_dict() == {"type": DOCUMENT_TYPE, "init_parameters": DOCUMENT_DEFAULTS}
    full = InstructorDocumentEmbedder(
        **changed(), meta_fields_to_embed=["title"], embedding_separator=" ", document_instruction="D: "
    )
    assert full.to_dict() == {
        "type": DOCUMENT_TYPE,
        "init_parameters": {
            **CHANGED_DUMP,
            "meta_fields_to_embed": ["title"],
            "embedding_separator": " ",
            "document_instruction": "D: ",
        },
    }


@both
@pytest.mark.parametrize("settings", [{}, {"instruction": "I: ", "normalize_embeddings": False}, changed()])
def test_dumps_load_again(embedder: Any, settings: dict[str, Any]) -> None:
    component = embedder(**settings)
    dump = component.to_dict()
    kept = copy.deepcopy(dump)
    for _ in range(2):  # loading leaves the dump as it is
        again = embedder.from_dict(dump)
        assert dump == kept
    assert type(again) is type(component)
    assert again.to_dict() == dump
    assert again.device == component.device
    assert again.token == component.token


def test_a_dump_without_settings_takes_the_defaults() -> None:
    component = InstructorDocumentEmbedder.from_dict({"type": DOCUMENT_TYPE, "init_parameters": {}})
    assert component.to_dict()["init_parameters"] == DOCUMENT_DEFAULTS


# The names of instructor-embedders-haystack.


def former(tmp_path: Path) -> dict[str, Any]:
    return {
        "model": str(tmp_path),
        "device": ComponentDevice.from_str("cpu"),
        "token": Secret.from_env_var("HF_API_TOKEN", strict=False),
        "instruction": "Represent the Medical Document for retrieval:",
        "batch_size": 32,
        "progress_bar": False,
        "normalize_embeddings": True,
    }


def test_former_keyword_arguments(model: Instructor, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    arguments = former(tmp_path)
    text = InstructorTextEmbedder(**arguments)
    many = InstructorDocumentEmbedder(**arguments, meta_fields_to_embed=["pubid"], embedding_separator=" ")
    for name, value in arguments.items():
        assert getattr(text, name) == value
        assert getattr(many, name) == value
    text.warm_up()
    many.warm_up()
    (document,) = many.run([Document(content="joints", meta={"pubid": "25,445,628"})])["documents"]
    expected = model.encode(["joints", "25,445,628 joints"], arguments["instruction"])
    np.testing.assert_allclose([text.run("joints")["embedding"], document.embedding], expected, atol=1e-3)


def test_former_positional_arguments(tmp_path: Path) -> None:
    arguments = former(tmp_path)
    assert InstructorTextEmbedder(*arguments.values()).to_dict() == InstructorTextEmbedder(**arguments).to_dict()
    many = InstructorDocumentEmbedder(*arguments.values(), ["title"], " ")
    by_name = InstructorDocumentEmbedder(**arguments, meta_fields_to_embed=["title"], embedding_separator=" ")
    assert many.to_dict() == by_name.to_dict()


def test_former_pipelines_load_under_the_new_type() -> None:
    settings = {
        "model": "mini",
        "device": {"type": "single", "device": "cpu"},
        "token": {"env_vars": ["HF_API_TOKEN"], "strict": False, "type": "env_var"},
        "instruction": "Represent the document",
        "batch_size": 32,
        "progress_bar": True,
        "normalize_embeddings": False,
        "meta_fields_to_embed": ["title"],
        "embedding_separator": "\n",
    }
    pipeline = Pipeline.from_dict({"components": {"e": {"type": DOCUMENT_TYPE, "init_parameters": settings}}})
    dump = pipeline.to_dict()["components"]["e"]["init_parameters"]
    assert {name: dump[name] for name in settings} == settings


# What Haystack and editors read off the classes.


def test_signatures_are_written_out() -> None:
    text, many = (
        inspect.signature(InstructorTextEmbedder.__init__),
        inspect.signature(InstructorDocumentEmbedder.__init__),
    )
    assert set(text.parameters) == {"self", *TEXT_DEFAULTS}
    assert set(many.parameters) == {"self", *DOCUMENT_DEFAULTS}
    positional = [name for name, value in many.parameters.items() if value.kind is value.POSITIONAL_OR_KEYWORD]
    assert positional == ["self", *list(DEFAULTS)[:7], "meta_fields_to_embed", "embedding_separator"]
    assert get_type_hints(InstructorTextEmbedder.__init__)["device"] == ComponentDevice | None
    assert get_type_hints(InstructorDocumentEmbedder.__init__)["token"] == Secret | None


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(TypeError, match="use_auth_token"):
        InstructorTextEmbedder(use_auth_token=True)  # type: ignore[call-arg]


def test_callbacks_before_construction_may_change_settings() -> None:
    pipeline = Pipeline()
    pipeline.add_component("embedder", InstructorTextEmbedder(instruction="A: "))

    def rename(name: str, cls: type, parameters: dict[str, Any]) -> None:
        assert (name, cls) == ("embedder", InstructorTextEmbedder)
        parameters["instruction"] = "B: "

    loaded = Pipeline.loads(pipeline.dumps(), callbacks=DeserializationCallbacks(component_pre_init=rename))
    assert loaded.get_component("embedder").instruction == "B: "  # type: ignore[attr-defined]


@both
def test_a_setting_under_two_names(embedder: Any) -> None:
    own = embedder.side_instruction
    assert embedder(instruction="A: ", **{own: "A: "}).run is not None
    with pytest.raises(ValueError, match=f"instruction='A: ' and {own}='B: '"):
        embedder(instruction="A: ", **{own: "B: "})
    with pytest.raises(ValueError, match=f"instruction='' and {own}='B: '"):
        embedder(instruction="", **{own: "B: "})
    with pytest.raises(ValueError, match="normalize_embeddings=True and normalize=False contradict"):
        embedder(normalize_embeddings=True, normalize=False)


@both
def test_paths_are_settings_too(embedder: Any, tmp_path: Path) -> None:
    settings = embedder(model=tmp_path, cache_dir=tmp_path).to_dict()["init_parameters"]
    assert (settings["model"], settings["cache_dir"]) == (str(tmp_path), str(tmp_path))


def test_meta_fields_are_a_list() -> None:
    with pytest.raises(TypeError, match="list of names, got 'title'"):
        InstructorDocumentEmbedder(meta_fields_to_embed="title")  # type: ignore[arg-type]


# Devices.


@both
def test_devices(embedder: Any) -> None:
    assert embedder().device is None
    assert embedder().embedder.device is None
    assert embedder(device=ComponentDevice.from_str("cuda:1")).embedder.device == "cuda:1"
    assert embedder(device=ComponentDevice.from_str("cpu")).embedder.load().device.type == "cpu"
    with pytest.raises(TypeError, match=r"ComponentDevice\.from_str.* got str"):
        embedder(device="cuda")
    several = ComponentDevice.from_multiple(DeviceMap({"a": Device.cpu(), "b": Device.gpu(0)}))
    with pytest.raises(ValueError, match="single device"):
        embedder(device=several)


# Secrets.


@both
def test_tokens_of_the_environment_go_by_their_name(embedder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_API_TOKEN", SECRET)
    component = embedder()
    pipeline = Pipeline()
    pipeline.add_component("embedder", component)
    dumps = [repr(component), str(vars(component)), str(component.to_dict()), pipeline.dumps(), repr(pipeline)]
    dumps += [str(dump(component)) for dump in (pickle.dumps, cloudpickle.dumps, yaml.dump)]
    dumps += [repr(component.embedder), str(pickle.dumps(component.embedder)), json.dumps(component.to_dict())]
    assert all(SECRET not in dump for dump in dumps)
    assert component.embedder.token == SECRET
    assert copy.deepcopy(component).embedder.token == SECRET
    again = pickle.loads(pickle.dumps(component))
    assert again.embedder.token == SECRET  # of the environment that it is unpickled in
    monkeypatch.delenv("HF_API_TOKEN")
    assert again.embedder.token is None
    assert again.embedder.load() is component.embedder.load()


@both
def test_tokens_in_clear_leave_in_no_dump(embedder: Any) -> None:
    component = embedder(token=Secret.from_token(SECRET))
    pipeline = Pipeline()
    pipeline.add_component("embedder", component)
    for dump in (pickle.dumps, cloudpickle.dumps, yaml.dump):
        with pytest.raises(ValueError, match="Cannot serialize token-based secret"):
            dump(component)
    for dump_pipeline in (component.to_dict, pipeline.to_dict, pipeline.dumps):
        with pytest.raises(ValueError, match="Cannot serialize token-based secret"):
            dump_pipeline()
    assert SECRET not in repr(component) + str(vars(component)) + repr(pipeline) + repr(component.embedder)
    assert copy.deepcopy(component).embedder.token == SECRET


@both
@pytest.mark.parametrize("token", [SECRET, True])
def test_tokens_are_secrets(embedder: Any, token: object) -> None:
    with pytest.raises(TypeError, match=f"must be a Secret.* got {type(token).__name__}") as error:
        embedder(token=token)
    assert SECRET not in str(error.value)


def test_a_strict_secret_is_asked_for_when_the_model_is() -> None:
    component = InstructorTextEmbedder(token=Secret.from_env_var("MY_TOKEN"))
    with pytest.raises(ValueError, match="MY_TOKEN"):
        component.warm_up()
    assert InstructorTextEmbedder(token=None).embedder.token is None


# Copies, and one model for all.


@both
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda component: pickle.loads(pickle.dumps(component))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_stand_on_their_own(embedder: Any, duplicate: Any) -> None:
    component = embedder(instruction="I: ", truncate_dim=32)
    component.warm_up()
    Pipeline().add_component("embedder", component)
    twin = duplicate(component)
    assert type(twin) is type(component)
    assert twin.to_dict() == component.to_dict()
    assert twin.embedder.load() is component.embedder.load()
    Pipeline().add_component("embedder", twin)  # the copy is in no pipeline yet
    twin.instruction = "J: "
    assert component.instruction == "I: "


def test_copies_have_lists_of_their_own() -> None:
    component = InstructorDocumentEmbedder(meta_fields_to_embed=["title"])
    twin = copy.deepcopy(component)
    assert twin.meta_fields_to_embed is not None
    twin.meta_fields_to_embed.append("page")
    assert component.meta_fields_to_embed == ["title"]


def test_another_process_unpickles(tmp_path: Path) -> None:
    component = InstructorTextEmbedder(instruction="I: ")
    (tmp_path / "component").write_bytes(pickle.dumps(component))
    program = (
        "import pickle, pathlib, json, sys; component = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()); "
        "print(json.dumps(component.run('basalt')['embedding']))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "component")]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    np.testing.assert_allclose(json.loads(output), component.run("basalt")["embedding"], atol=1e-5)


def test_the_constructor_and_dumps_load_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    monkeypatch.setattr(Instructor, "from_pretrained", lambda *args, **_: loaded.append(args))
    release_shared()
    for embedder in (InstructorTextEmbedder, InstructorDocumentEmbedder):
        component = embedder()
        Pipeline().add_component("embedder", component)
        pickle.dumps(embedder.from_dict(component.to_dict()))
    assert not loaded


def test_one_model_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    load, loaded = Instructor.from_pretrained, []

    def counted(*args: Any, **options: Any) -> Instructor:
        loaded.append(args)
        return load(*args, **options)

    monkeypatch.setattr(Instructor, "from_pretrained", counted)
    release_shared()
    components: list[Any] = [InstructorTextEmbedder(instruction=f"{number}: ") for number in range(8)]
    components += [InstructorDocumentEmbedder(truncate_dim=8 + number) for number in range(8)]
    components += [InstructorTextEmbedder(token=Secret.from_token(f"hf_{number}")) for number in range(8)]
    components += [copy.deepcopy(component) for component in components]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda component: component.warm_up(), components))
    assert len({id(component.embedder.load()) for component in components}) == 1
    assert len(loaded) == 1
    InstructorTextEmbedder(max_length=64).warm_up()
    assert len(loaded) == 2
    release_shared()
