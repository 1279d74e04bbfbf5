"""Who gets the same model: names, paths, tokens and caches that lead to one folder, from many threads."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from anytask import Embedder, Instructor, load_shared, release_shared
from anytask.hub import BUNDLED

from .hub_server import Hub, Server, publish

MakeCheckpoint = Callable[..., Path]
SECRET = "hf_rightfulReader"
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    release_shared()
    yield
    release_shared()


@pytest.fixture(scope="module")
def folder(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint()


class TestFolders:
    def test_by_any_path(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "link").symlink_to(folder)
        monkeypatch.chdir(folder.parent)
        monkeypatch.setenv("HOME", str(folder.parent))
        names = [folder, folder.name, f"./{folder.name}", f"~/{folder.name}", tmp_path / "link", f"{folder}/"]
        models = [load_shared(name) for name in names]
        assert all(model is models[0] for model in models)
        assert models[0].name_or_path == str(folder)

    def test_a_bundled_model_by_name_and_path(self) -> None:
        assert load_shared("mini") is load_shared(BUNDLED / "mini")

    def test_a_relative_path_means_what_it_means_at_the_call(
        self, make_checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        embedder = Embedder(model="model")
        models = {}
        for place, dimension in (("one", 8), ("two", 16)):
            (tmp_path / place).mkdir()
            (tmp_path / place / "model").symlink_to(make_checkpoint(dense=dimension))
            monkeypatch.chdir(tmp_path / place)
            models[place] = embedder.load()
            assert models[place].dimension == dimension
        monkeypatch.chdir(tmp_path / "one")
        assert embedder.load() is models["one"]
        (tmp_path / "one" / "model").unlink()
        (tmp_path / "one" / "model").symlink_to((tmp_path / "two" / "model").resolve())
        assert embedder.load() is models["two"]

    def test_settings_that_change_no_weights_or_vectors_make_no_second_model(self, folder: Path) -> None:
        model = load_shared(folder)
        for source in ({"token": SECRET}, {"token": False}, {"cache_dir": "x"}, {"local_files_only": True}):
            options: dict[str, Any] = dict(source)
            assert load_shared(folder, **options) is model
        assert load_shared(folder, max_length=30) is not model

    def test_the_files_of_a_model_in_memory_are_left_alone(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model = load_shared(folder)
        monkeypatch.setattr("anytask.checkpoint.read_json", lambda path: pytest.fail(f"{path} was read"))
        assert load_shared(folder) is model

    def test_a_folder_whose_files_changed_is_loaded_anew(self, make_checkpoint: Any) -> None:
        folder = make_checkpoint()
        model, embedder = load_shared(folder), Embedder(model=str(folder))
        vectors, names = embedder.embed_documents(["a text"]), {embedder.fingerprint("document")}
        weights = folder / "2_Dense" / "model.safetensors"
        save_file({name: -tensor for name, tensor in load_file(weights).items()}, weights)
        np.testing.assert_allclose(embedder.embed_documents(["a text"]), -vectors, atol=1e-6)
        assert load_shared(folder) is not model
        names.add(embedder.fingerprint("document"))
        prompts = {"prompts": {"query": "", "document": "Represent the note: "}}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
        assert load_shared(folder).document_instruction == "Represent the note: "
        assert len({*names, embedder.fingerprint("document")}) == 3

    def test_a_working_folder_that_is_gone(self, folder: Path, tmp_path: Path) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        program = (
            "import os, sys; from anytask import load_shared; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); "
            "assert load_shared('mini') is load_shared('mini'); print(load_shared(sys.argv[2]).dimension)"
        )
        command = [sys.executable, "-c", program, str(gone), str(folder)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "24\n"

    def test_threads_with_tokens_of_their_own(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        loads: list[Any] = []
        load = Instructor.from_pretrained
        monkeypatch.setattr(Instructor, "from_pretrained", lambda *a, **o: loads.append(a) or load(*a, **o))
        barrier = threading.Barrier(16)

        def embed(number: int) -> Instructor:
            embedder = Embedder(model=str(folder), token=f"hf_{number}", query_instruction=f"Represent {number}: ")
            barrier.wait(PATIENCE)
            embedder.embed_queries(["a text"])
            return embedder.load()

        with ThreadPoolExecutor(16) as threads:
            models = list(threads.map(embed, range(16), timeout=PATIENCE))
        assert len(loads) == 1
        assert all(model is models[0] for model in models)


Run = Callable[..., list[Any]]


@pytest.fixture
def run(server: Server, tmp_path: Path) -> Run:
    """Run a program in a process for which the hub is the local server; gives the JSON lines that it prints."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    quiet = ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS")
    hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.port}", "NO_PROXY": "127.0.0.1"}

    def run(program: str, *arguments: str, home: Path = tmp_path / "home", **environment: str) -> list[Any]:
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + program, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**given, **dict.fromkeys(quiet, "1"), **hub, "HF_HOME": str(home), **environment},
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


PREAMBLE = """
import json, logging, pickle, sys
from concurrent.futures import ThreadPoolExecutor
from anytask import CheckpointError, Embedder, Instructor
loads, log = [], []
load = Instructor.from_pretrained
Instructor.from_pretrained = lambda *a, **o: loads.append(a) or load(*a, **o)
handler = logging.Handler()
handler.emit = lambda record: log.append(record.getMessage())
logging.getLogger("anytask").addHandler(handler)
def tell(*values): print(json.dumps(values))
"""
SHARE = """
commit = sys.argv[1]
ways = [dict(token=f"hf_{number}") for number in range(8)]
ways += [{}, dict(token=False), dict(revision="main"), dict(revision=commit), dict(local_files_only=True)]
with ThreadPoolExecutor(len(ways)) as pool:
    first = Embedder(model="owner/model", device="cpu").load()
    models = list(pool.map(lambda way: Embedder(model="owner/model", **way).load(), ways))
tell(len(loads), all(model is first for model in models), first.name_or_path)
"""
CACHES = """
import os
ways = ["cache", os.path.abspath("cache"), "./cache/../cache"]
models = [Embedder(model="owner/model", cache_dir=way).load() for way in ways]
tell(len(loads), all(model is models[0] for model in models))
os.mkdir("elsewhere")
os.chdir("elsewhere")
Embedder(model="owner/model", cache_dir="cache").load()
tell(os.path.isdir("cache"))
"""
PRIVATE = """
embedder = pickle.loads(bytes.fromhex(sys.argv[1]))
try:
    tell(embedder.embed_queries(["a text"]).shape[1], log)
except CheckpointError as error:
    tell(str(error), log)
"""


class TestHub:
    def test_whatever_leads_to_one_commit(self, hub: Hub, run: Run, folder: Path) -> None:
        commit = publish(hub, folder)
        assert run(SHARE, commit) == [[1, True, "owner/model"]]

    def test_a_model_is_looked_up_once(self, hub: Hub, run: Run, folder: Path) -> None:
        publish(hub, folder)
        program = """
embedder = Embedder(model="owner/model")
embedder.embed_queries(["a text"])
"""
        run(program)
        once = len(hub.requests)
        hub.requests.clear()
        run(
            program + "[Embedder(model='owner/model').embed_documents(['a text']) for _ in range(20)]",
            home=Path("another"),
        )
        assert len(hub.requests) == once

    def test_cache_folders_by_any_path(self, hub: Hub, run: Run, folder: Path) -> None:
        publish(hub, folder)
        assert run(CACHES) == [[1, True], [True]]

    def test_an_unpickled_embedder_asks_for_the_token(self, hub: Hub, run: Run, folder: Path, tmp_path: Path) -> None:
        publish(hub, folder, "owner/private", token=SECRET)
        pickled = pickle.dumps(Embedder(model="owner/private", token=SECRET)).hex()
        [[message, log]] = run(PRIVATE, pickled)
        assert "For a private or gated model give a token, or set the environment variable HF_TOKEN" in message
        assert (log, hub.asked_for()) == ([], set())
        assert run(PRIVATE, pickled, HF_TOKEN=SECRET) == [[24, []]]
        [[dimension, log]] = run(PRIVATE, pickled)  # the files are in the cache now
        assert dimension == 24
        assert any("the hub wants a token (HF_TOKEN); the copy in the cache is used" in line for line in log)
        wrong = pickle.dumps(Embedder(model="owner/private")).hex()
        [[message, _]] = run(PRIVATE, wrong, home=tmp_path / "empty", HF_TOKEN="hf_wrong")
        assert "HF_TOKEN" in message

    def test_a_gated_model_too(self, hub: Hub, run: Run, folder: Path) -> None:
        publish(hub, folder, "owner/gated", token=SECRET, gated=True)
        [[message, _]] = run(PRIVATE, pickle.dumps(Embedder(model="owner/gated", token=SECRET)).hex())
        assert "restricted. For a private or gated model give a token" in message
