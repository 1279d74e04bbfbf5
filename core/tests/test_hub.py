"""Loading by hub id, against a real HTTP server that answers as the Hugging Face hub does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import T5EncoderModel

from anytask import Instructor
from anytask.hub import needed_files

from .hub_server import Hub, Server, publish

TEXTS = ["the statement", "Return the value of the object."]
INSTRUCTION = "Represent the statement: "
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

    @pytest.mark.parametrize("listing", [True, False], ids=["listed", "not listed"])
    def test_a_part_that_another_library_downloaded_is_no_model(
        self, client: Client, hub: Hub, first: Path, tmp_path: Path, listing: bool
    ) -> None:
        publish(hub, first)
        client.vectors("owner/model", cache_dir=str(tmp_path))
        (snapshot,) = tmp_path.glob("models--owner--model/snapshots/*")
        (snapshot / "modules.json").unlink()
        if not listing:
            shutil.rmtree(tmp_path / "models--owner--model/trees", ignore_errors=True)  # old ones keep none
        message = client.refusal("owner/model", cache_dir=str(tmp_path), local_files_only=True)
        assert f"'owner/model' is only partly in the cache {tmp_path} and local_files_only is set" in message

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
