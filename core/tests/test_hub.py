"""Loading by hub id, against a real HTTP server that answers as the Hugging Face hub does."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from transformers import T5EncoderModel

from anytask import Instructor
from anytask.hub import needed_files

TEXTS = ["the statement", "Return the value of the object."]
INSTRUCTION = "Represent the statement: "
LARGE = 20_000
"""Larger files are answered with a redirection to another host that stores them, as the hub does."""
NEEDED = {
    *("config.json", "config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "model.safetensors"),
    *("1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"),
}
NOT_NEEDED = {
    *(".gitattributes", "README.md", "convert_to_fp16.py", "special_tokens_map.json", "generation_config.json"),
    *("pytorch_model.bin", "2_Dense/pytorch_model.bin", "rust_model.ot", "tf_model.h5", "flax_model.msgpack"),
    *("onnx/model.onnx", "onnx/config.json", "onnx/model.safetensors", "openvino/openvino_model.bin"),
    *("openvino/openvino_model.xml", "model.fp16.safetensors", "training_args.bin", "1_Pooling/notes.json"),
}


@dataclass
class Repository:
    """Commits and the branches and tags that point to them."""

    commits: dict[str, Path]
    refs: dict[str, str]
    token: str | None = None
    gated: bool = False

    def commit_of(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    authorization: str | None

    @property
    def file(self) -> str | None:
        """The file that is asked for, if one is."""
        return self.path.split("/resolve/", 1)[1].split("/", 1)[1] if "/resolve/" in self.path else None


@dataclass
class Hub:
    """What the server knows, how it behaves, and what it was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    status: int | None = None
    """Answer everything with this."""
    cut_after: int | None = None
    """Break the connection after so many bytes of a large file."""
    requests: list[Request] = field(default_factory=list)

    def asked_for(self) -> set[str]:
        return {request.file for request in self.requests if request.file}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.respond()

    def do_GET(self) -> None:
        self.respond()

    def respond(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(Request(self.command, path, self.headers["Authorization"]))
        if self.hub.status is not None:
            self.send(self.hub.status, b"trouble")
        elif path.startswith("/stored/"):
            self.send_content(Path(path.removeprefix("/stored")).read_bytes(), {})
        else:
            parts = path.removeprefix("/api/models").strip("/").split("/")
            self.respond_for("/".join(parts[:2]), parts[2:], is_api=path.startswith("/api/"))

    def respond_for(self, repo_id: str, rest: list[str], is_api: bool) -> None:
        repository = self.hub.repositories.get(repo_id)
        if repository is None:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        if repository.token and self.headers["Authorization"] != f"Bearer {repository.token}":
            if repository.gated:
                return self.refuse(403, "GatedRepo", f"Access to model {repo_id} is restricted")
            return self.refuse(401, "RepoNotFound", "Repository not found")
        commit = repository.commit_of(rest[1] if len(rest) > 1 else "main")
        if commit is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[1]}")
        folder = repository.commits[commit]
        if is_api:
            return self.describe(repo_id, commit, folder, as_tree=rest[:1] == ["tree"])
        path = folder.joinpath(*rest[2:])
        if not path.is_file():
            return self.refuse(404, "EntryNotFound", "Entry not found")
        return self.send_file(path, commit)

    def describe(self, repo_id: str, commit: str, folder: Path, as_tree: bool) -> None:
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        content: Any
        if as_tree:
            content = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": digest(path)}
                for name, path in files.items()
            ]
        else:
            content = {
                **{"_id": "0", "id": repo_id, "modelId": repo_id, "sha": commit, "private": False, "gated": False},
                **{"tags": [], "downloads": 0, "siblings": [{"rfilename": name} for name in sorted(files)]},
            }
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send_file(self, path: Path, commit: str) -> None:
        size = path.stat().st_size
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest(path)}"'}
        if size > LARGE:
            location = f"http://localhost:{self.server.server_address[1]}/stored{path}"
            linked = {"X-Linked-Size": str(size), "X-Linked-ETag": f'"{digest(path)}"', "Location": location}
            self.send(302, b"", headers | linked)
        else:
            self.send_content(path.read_bytes(), headers)

    def send_content(self, content: bytes, headers: dict[str, str]) -> None:
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        cut = self.hub.cut_after
        if cut is not None and len(content) > LARGE:
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : start + cut])
            self.close_connection = True
        else:
            self.send(206 if start else 200, content[start:], headers)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class ClosingServer(ThreadingHTTPServer):
    """Takes its open connections with it when it is closed."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self.connections: list[socket.socket] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """A client that is gone is no trouble."""


class Server:
    """The hub on a port of its own, which can go away and come back."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.port = 0
        self.start()

    def start(self) -> None:
        handler = type("BoundHandler", (Handler,), {"hub": self.hub})
        self.server = ClosingServer(("127.0.0.1", self.port), handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


CLIENT = """
import json, logging, sys, traceback
log = []
handler = logging.Handler()
handler.emit = lambda record: log.append(record.getMessage())
logging.getLogger("anytask").addHandler(handler)
from anytask import CheckpointError, Instructor
for line in sys.stdin:
    request = json.loads(line)
    log.clear()
    try:
        model = Instructor.from_pretrained(request["name"], device="cpu", **request["options"])
        answer = {"vectors": model.encode(request["texts"], request["instruction"]).tolist()}
    except CheckpointError as error:
        answer = {"refused": str(error)}
    except BaseException:
        answer = {"crashed": traceback.format_exc()}
    print(json.dumps({**answer, "log": log}), flush=True)
"""


class Client:
    """anytask in a process of its own, for which the hub is the local server."""

    def __init__(self, endpoint: str, home: Path, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        quiet = ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS")
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **kept,
                **dict.fromkeys(quiet, "1"),
                **{"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost"},
                **{"HF_HUB_ETAG_TIMEOUT": "5", "HF_HUB_DOWNLOAD_TIMEOUT": "5", **environment},
            },
        )

    def ask(self, name: str, **options: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"name": name, "options": options, "texts": TEXTS, "instruction": INSTRUCTION}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert "crashed" not in answer, answer["crashed"]
        return answer

    def vectors(self, name: str, **options: Any) -> Any:
        answer = self.ask(name, **options)
        assert "vectors" in answer, answer
        return np.array(answer["vectors"], dtype=np.float32)

    def refusal(self, name: str, **options: Any) -> str:
        message: str = self.ask(name, **options)["refused"]
        return message

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def hub(server: Server) -> Hub:
    """The server's hub, empty and well."""
    server.hub.repositories.clear()
    server.hub.requests.clear()
    server.hub.status = server.hub.cut_after = None
    return server.hub


@pytest.fixture(scope="module")
def client(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(f"http://127.0.0.1:{server.port}", tmp_path_factory.mktemp("home"))
    yield client
    client.close()


@pytest.fixture(scope="module")
def first(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with everything that published ones hold."""
    folder = tmp_path_factory.mktemp("hub") / "first"
    shutil.copytree(make_checkpoint(seed=1), folder)
    for name in NOT_NEEDED:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{name}: not a part of the model")
    return folder


@pytest.fixture(scope="module")
def second(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(seed=2)


def publish(hub: Hub, folder: Path, repo_id: str = "owner/model", **options: Any) -> str:
    """Put a folder on the hub as the only commit of a repository; gives the commit."""
    commit = hashlib.sha1(str(folder).encode()).hexdigest()
    hub.repositories[repo_id] = Repository({commit: folder}, {"main": commit}, **options)
    return commit


def expected(folder: Path) -> Any:
    return Instructor.from_pretrained(folder, device="cpu").encode(TEXTS, INSTRUCTION)


class TestDownload:
    def test_only_the_needed_files(self, client: Client, hub: Hub, first: Path, tmp_path: Path) -> None:
        publish(hub, first)
        np.testing.assert_allclose(client.vectors("owner/model", cache_dir=str(tmp_path)), expected(first), atol=1e-6)
        assert hub.asked_for() == NEEDED
        stored = {path.name for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()}
        assert stored.isdisjoint({Path(name).name for name in NOT_NEEDED} - {Path(name).name for name in NEEDED})

    def test_into_the_hubs_own_cache(self, client: Client, hub: Hub, second: Path) -> None:
        commit = publish(hub, second, "owner/kept")
        client.vectors("owner/kept")
        assert (client.home / "hub" / "models--owner--kept" / "snapshots" / commit / "model.safetensors").is_file()

    def test_pytorch_files_where_there_are_no_others(
        self, client: Client, hub: Hub, make_checkpoint: Callable[..., Path], tmp_path: Path
    ) -> None:
        folder = make_checkpoint(weights="bin", transformer_path="0_Transformer")
        publish(hub, folder)
        np.testing.assert_allclose(client.vectors("owner/model", cache_dir=str(tmp_path)), expected(folder), atol=1e-6)
        assert {"0_Transformer/pytorch_model.bin", "2_Dense/pytorch_model.bin"} < hub.asked_for()
        assert "0_Transformer/spiece.model" not in hub.asked_for()

    def test_spiece_model_where_there_is_no_other_tokenizer(
        self, client: Client, hub: Hub, make_checkpoint: Callable[..., Path], tmp_path: Path
    ) -> None:
        folder = make_checkpoint(spiece=True)
        publish(hub, folder)
        np.testing.assert_allclose(client.vectors("owner/model", cache_dir=str(tmp_path)), expected(folder), atol=1e-6)
        assert "spiece.model" in hub.asked_for()

    def test_shards(self, client: Client, hub: Hub, first: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(first, tmp_path / "sharded"))
        (folder / "model.safetensors").unlink()
        T5EncoderModel.from_pretrained(first).save_pretrained(folder, max_shard_size="40KB")
        publish(hub, folder)
        vectors = client.vectors("owner/model", cache_dir=str(tmp_path / "cache"))
        np.testing.assert_allclose(vectors, expected(first), atol=1e-6)
        shards = {path.name for path in folder.glob("model-*-of-*.safetensors")}
        assert len(shards) > 2
        assert hub.asked_for() == NEEDED - {"model.safetensors"} | shards | {"model.safetensors.index.json"}

    def test_revisions(self, client: Client, hub: Hub, first: Path, second: Path, tmp_path: Path) -> None:
        publish(hub, first)
        tagged = "b" * 40
        hub.repositories["owner/model"].commits[tagged] = second
        hub.repositories["owner/model"].refs |= {"v2": tagged, "refs/pr/7": tagged}
        for revision, folder in ((None, first), ("main", first), ("v2", second), (tagged, second)):
            vectors = client.vectors("owner/model", revision=revision, cache_dir=str(tmp_path))
            np.testing.assert_allclose(vectors, expected(folder), atol=1e-6)
        message = client.refusal("owner/model", revision="v3", cache_dir=str(tmp_path))
        assert "'owner/model'" in message
        assert "v3" in message

    def test_what_has_changed(self, client: Client, hub: Hub, first: Path, second: Path, tmp_path: Path) -> None:
        publish(hub, first)
        client.vectors("owner/model", cache_dir=str(tmp_path))
        publish(hub, second)
        vectors = client.vectors("owner/model", cache_dir=str(tmp_path))
        np.testing.assert_allclose(vectors, expected(second), atol=1e-6)

    def test_nothing_twice(self, client: Client, hub: Hub, first: Path, tmp_path: Path) -> None:
        publish(hub, first)
        vectors = client.vectors("owner/model", cache_dir=str(tmp_path))
        hub.requests.clear()
        np.testing.assert_array_equal(client.vectors("owner/model", cache_dir=str(tmp_path)), vectors)
        assert hub.asked_for() == set()

    def test_what_a_broken_connection_left(
        self, client: Client, hub: Hub, make_checkpoint: Callable[..., Path], tmp_path: Path
    ) -> None:
        folder = make_checkpoint(shape={"d_ff": 256}, seed=3)
        publish(hub, folder)
        hub.cut_after = 10_000
        message = client.refusal("owner/model", cache_dir=str(tmp_path))
        assert f"'owner/model' is only partly in the cache {tmp_path} and it can't be downloaded now" in message
        hub.cut_after = None
        np.testing.assert_allclose(client.vectors("owner/model", cache_dir=str(tmp_path)), expected(folder), atol=1e-6)


class TestAccess:
    def test_the_token_arrives_with_every_request(self, client: Client, hub: Hub, first: Path, tmp_path: Path) -> None:
        publish(hub, first, "owner/private", token="hf_secret")
        vectors = client.vectors("owner/private", token="hf_secret", cache_dir=str(tmp_path))
        np.testing.assert_allclose(vectors, expected(first), atol=1e-6)
        stored = [request for request in hub.requests if request.path.startswith("/stored/")]
        assert {request.authorization for request in hub.requests if request not in stored} == {"Bearer hf_secret"}
        assert {request.authorization for request in stored} == {None}

    @pytest.mark.parametrize("token", [None, False, "hf_wrong"])
    def test_without_the_right_token(
        self, client: Client, hub: Hub, first: Path, tmp_path: Path, token: str | bool | None
    ) -> None:
        publish(hub, first, "owner/private", token="hf_secret")
        message = client.refusal("owner/private", token=token, cache_dir=str(tmp_path))
        assert "'owner/private' is neither a bundled model (mini), nor a folder here" in message
        assert hub.asked_for() == set()

    def test_no_stored_token(self, client: Client, hub: Hub, first: Path, tmp_path: Path) -> None:
        publish(hub, first)
        message = client.refusal("owner/model", token=True, cache_dir=str(tmp_path))
        assert "token" in message
        assert hub.requests == []

    def test_a_gated_repository(self, client: Client, hub: Hub, first: Path, tmp_path: Path) -> None:
        publish(hub, first, "owner/gated", token="hf_secret", gated=True)
        assert "Access to model owner/gated is restricted" in client.refusal("owner/gated", cache_dir=str(tmp_path))

    def test_an_unknown_repository(self, client: Client, hub: Hub, tmp_path: Path) -> None:
        for name in ("owner/unknown", "unknown"):
            message = client.refusal(name, cache_dir=str(tmp_path))
            assert f"{name!r} is neither a bundled model (mini), nor a folder here" in message
            assert "ot found" in message.lower() or "Not Found" in message
        assert {request.method for request in hub.requests} <= {"GET"}

    @pytest.mark.parametrize("name", ["owner/a--b", "owner/a..b", "owner/name.git"])
    def test_no_hub_id(self, client: Client, hub: Hub, tmp_path: Path, name: str) -> None:
        assert repr(name) in client.refusal(name, cache_dir=str(tmp_path))
        assert repr(name) in client.refusal(name, cache_dir=str(tmp_path), local_files_only=True)
        assert hub.requests == []

    def test_a_repository_without_a_checkpoint(self, client: Client, hub: Hub, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "README.md").write_text("nothing yet")
        publish(hub, tmp_path / "empty")
        message = client.refusal("owner/model", cache_dir=str(tmp_path / "cache"))
        assert "holds no file of a checkpoint, found README.md; expected" in message
        assert hub.asked_for() == set()

    def test_a_repository_of_another_kind(self, client: Client, hub: Hub, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
        publish(hub, tmp_path / "other")
        message = client.refusal("owner/model", cache_dir=str(tmp_path / "cache"))
        assert "says model_type 'bert'; only T5 encoders" in message


class TestCache:
    def test_local_files_only_asks_nobody(self, client: Client, hub: Hub, first: Path, tmp_path: Path) -> None:
        publish(hub, first)
        message = client.refusal("owner/model", cache_dir=str(tmp_path), local_files_only=True)
        assert f"'owner/model' is not in the cache {tmp_path} and local_files_only is set. Download it" in message
        assert hub.requests == []
        vectors = client.vectors("owner/model", cache_dir=str(tmp_path))
        hub.requests.clear()
        answer = client.ask("owner/model", cache_dir=str(tmp_path), local_files_only=True)
        np.testing.assert_array_equal(np.array(answer["vectors"], dtype=np.float32), vectors)
        assert hub.requests == []
        assert answer["log"] == []

    def test_serves_while_the_hub_is_away(
        self, client: Client, server: Server, hub: Hub, first: Path, tmp_path: Path
    ) -> None:
        publish(hub, first)
        vectors = client.vectors("owner/model", cache_dir=str(tmp_path / "cache"))
        server.stop()
        try:
            answer = client.ask("owner/model", cache_dir=str(tmp_path / "cache"))
            message = client.refusal("owner/model", cache_dir=str(tmp_path / "other"))
        finally:
            server.start()
        np.testing.assert_array_equal(np.array(answer["vectors"], dtype=np.float32), vectors)
        assert any("the copy in the cache is used" in line for line in answer["log"])
        assert f"is not in the cache {tmp_path / 'other'} and it can't be downloaded now (ConnectError" in message
        assert "give a folder, or use a bundled model (mini)" in message

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_serves_while_the_hub_has_trouble(
        self, client: Client, hub: Hub, first: Path, tmp_path: Path, status: int
    ) -> None:
        publish(hub, first)
        vectors = client.vectors("owner/model", cache_dir=str(tmp_path / "cache"))
        hub.status = status
        answer = client.ask("owner/model", cache_dir=str(tmp_path / "cache"))
        np.testing.assert_array_equal(np.array(answer["vectors"], dtype=np.float32), vectors)
        message = client.refusal("owner/model", cache_dir=str(tmp_path / "other"))
        assert "it can't be downloaded now" in message
        assert str(status) in message

    def test_serves_the_revision_that_was_downloaded(
        self, client: Client, hub: Hub, first: Path, second: Path, tmp_path: Path
    ) -> None:
        publish(hub, first)
        hub.repositories["owner/model"].commits["c" * 40] = second
        hub.repositories["owner/model"].refs["v2"] = "c" * 40
        client.vectors("owner/model", revision="v2", cache_dir=str(tmp_path))
        vectors = client.vectors("owner/model", revision="v2", cache_dir=str(tmp_path), local_files_only=True)
        np.testing.assert_allclose(vectors, expected(second), atol=1e-6)
        assert "not in the cache" in client.refusal("owner/model", cache_dir=str(tmp_path), local_files_only=True)

    def test_of_a_process_that_is_told_to_stay_offline(
        self, server: Server, client: Client, hub: Hub, first: Path, tmp_path: Path
    ) -> None:
        publish(hub, first)
        vectors = client.vectors("owner/model", cache_dir=str(tmp_path))
        hub.requests.clear()
        offline = Client(f"http://127.0.0.1:{server.port}", tmp_path / "home", HF_HUB_OFFLINE="1")
        try:
            again = offline.vectors("owner/model", cache_dir=str(tmp_path))
            message = offline.refusal("owner/other", cache_dir=str(tmp_path))
        finally:
            offline.close()
        np.testing.assert_array_equal(again, vectors)
        assert "OfflineModeIsEnabled" in message
        assert hub.requests == []


class TestNeededFiles:
    def test_of_a_published_repository(self) -> None:
        assert needed_files(sorted(NEEDED | NOT_NEEDED)) == sorted(NEEDED)

    @pytest.mark.parametrize(
        ("listing", "needed"),
        [
            ([], []),
            (["README.md", "onnx/model.onnx"], []),
            (
                ["config.json", "pytorch_model.bin", "spiece.model"],
                ["config.json", "pytorch_model.bin", "spiece.model"],
            ),
            (["pytorch_model.bin", "model.safetensors"], ["model.safetensors"]),
            (["2_Dense/pytorch_model.bin", "model.safetensors"], ["2_Dense/pytorch_model.bin", "model.safetensors"]),
            (
                [
                    "pytorch_model-00001-of-00002.bin",
                    "pytorch_model-00002-of-00002.bin",
                    "pytorch_model.bin.index.json",
                ],
                [
                    "pytorch_model-00001-of-00002.bin",
                    "pytorch_model-00002-of-00002.bin",
                    "pytorch_model.bin.index.json",
                ],
            ),
            (["spiece.model", "tokenizer.json"], ["tokenizer.json"]),
            (["0_Transformer/spiece.model", "tokenizer.json"], ["0_Transformer/spiece.model", "tokenizer.json"]),
        ],
    )
    def test_of_other_listings(self, listing: list[str], needed: list[str]) -> None:
        assert needed_files(listing) == needed
