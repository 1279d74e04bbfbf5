"""Small checkpoints with random weights in the published layouts, and a tokenizer trained on this Python's manual."""

from __future__ import annotations

import io
import json
import os
import pydoc_data.topics
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import sentencepiece
import torch
from transformers import AutoTokenizer, T5Config, T5EncoderModel

from anytask import kernels
from anytask.checkpoint import load_checkpoint
from anytask.tokenization import InstructionTokenizer
from anytask.training.medi.records import InstructedText, Record
from anytask.training.options import TrainingOptions

from .hub_server import Hub, Server

if TYPE_CHECKING:
    from anytask.training.trainer import Evaluation, Trainer

MakeCheckpoint = Callable[..., Path]

PROMPTS = {"query": "Represent the test question: ", "document": "Represent the test document: "}


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """Real English lines from the manual that comes with Python."""
    lines = [" ".join(line.split()) for topic in pydoc_data.topics.topics.values() for line in topic.split("\n\n")]
    return sorted({line for line in lines if 20 < len(line) < 400})


@pytest.fixture(params=["compiled", "torch"])
def with_and_without_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr(kernels, "_kernels", lambda: None)
    elif not kernels.available():
        pytest.skip("the kernels aren't compiled for this processor")


@pytest.fixture(scope="session")
def spiece_model(sentences: list[str]) -> bytes:
    """A SentencePiece Unigram model with T5's special ids and normalisation."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=1000,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def tokenizer_folder(spiece_model: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """spiece.model, and the tokenizer.json and tokenizer_config.json that transformers makes of it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "spiece.model").write_bytes(spiece_model)
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": 512})
    )
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "spiece.model").write_bytes(spiece_model)
    return folder


@pytest.fixture(scope="session")
def make_checkpoint(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """Write a checkpoint with transformers' own T5EncoderModel, as hkunlp/instructor-* name and configure their files.

    Keyword arguments: `shape` (T5Config fields), `dense` (output dimension or None), `weights` ("safetensors" or
    "bin"), `transformer_path` ("" or "0_Transformer"), `original_classes` (modules.json names InstructorEmbedding's),
    `prompts`, `max_length`, `spiece` (give spiece.model instead of tokenizer.json), `seed`.
    """

    def make(
        shape: dict[str, Any] | None = None,
        dense: int | None = 24,
        weights: str = "safetensors",
        transformer_path: str = "",
        original_classes: bool = False,
        prompts: dict[str, str] | None = None,
        max_length: int = 512,
        spiece: bool = False,
        seed: int = 0,
    ) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint")
        transformer = folder / transformer_path
        transformer.mkdir(exist_ok=True)
        torch.manual_seed(seed)
        config = T5Config(
            **{
                "vocab_size": 1128,
                "d_model": 32,
                "d_kv": 8,
                "d_ff": 64,
                "num_layers": 3,
                "num_heads": 4,
                "initializer_factor": 2.0,
                **(shape or {}),
            }
        )
        model = T5EncoderModel(config).eval()
        _write_encoder(model, transformer, weights)
        for name in ["spiece.model"] if spiece else ["tokenizer.json", "tokenizer_config.json", "spiece.model"]:
            (transformer / name).write_bytes((tokenizer_folder / name).read_bytes())
        _write_json(transformer / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
        _write_modules(folder, transformer_path, dense, config.d_model, weights, original_classes)
        _write_json(
            folder / "config_sentence_transformers.json",
            {"__version__": {"sentence_transformers": "2.2.2"}, **({"prompts": prompts} if prompts else {})},
        )
        return folder

    return make


def _write_encoder(model: T5EncoderModel, folder: Path, weights: str) -> None:
    if weights == "safetensors":
        model.save_pretrained(folder)
    else:
        _write_json(folder / "config.json", {**model.config.to_dict(), "architectures": ["T5EncoderModel"]})
        torch.save(model.state_dict(), folder / "pytorch_model.bin")


def _write_modules(
    folder: Path, transformer_path: str, dense: int | None, d_model: int, weights: str, original_classes: bool
) -> None:
    kinds = ["Transformer", "Pooling", *(["Dense"] if dense else []), "Normalize"]
    places = {kind: transformer_path if kind == "Transformer" else f"{i}_{kind}" for i, kind in enumerate(kinds)}

    def class_name(kind: str) -> str:
        if original_classes and kind in ("Transformer", "Pooling"):
            return f"InstructorEmbedding.instructor.INSTRUCTOR_{kind}"
        return f"sentence_transformers.models.{kind}"

    _write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": places[k], "type": class_name(k)} for i, k in enumerate(kinds)],
    )
    pooling = folder / places["Pooling"]
    pooling.mkdir()
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    _write_json(
        pooling / "config.json",
        {"word_embedding_dimension": d_model, **{f"pooling_mode_{mode}": mode == "mean_tokens" for mode in modes}},
    )
    if dense:
        place = folder / places["Dense"]
        place.mkdir()
        identity = "torch.nn.modules.linear.Identity"
        _write_json(
            place / "config.json",
            {"in_features": d_model, "out_features": dense, "bias": False, "activation_function": identity},
        )
        linear = {"linear.weight": torch.randn(dense, d_model) / d_model**0.5}
        if weights == "safetensors":
            from safetensors.torch import save_file

            save_file(linear, place / "model.safetensors")
        else:
            torch.save(linear, place / "pytorch_model.bin")


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2), "utf-8")


@pytest.fixture(scope="module")
def layout(make_checkpoint: MakeCheckpoint, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """The checkpoint of one of the module's LAYOUTS, by its name, written once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = make_checkpoint(seed=len(made), **request.module.LAYOUTS[name])
        return made[name]

    return get


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The hub, on this machine."""
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


@pytest.fixture(scope="session")
def toy_records() -> list[Record]:
    """Questions of three words, answered by the three words that belong to them, with a hard negative that has two.

    No word of a question is in an answer, so a model that hasn't seen the records can only guess, and one that has
    learnt what belongs together answers those that were held out. `toy_checkpoint` gets there in 60 steps.
    """
    asked = ["oak", "sun", "ink", "map", "cup", "jar", "hat", "pin", "fox", "rug", "bee", "key"]
    answers = ["zoo", "ice", "van", "gem", "owl", "pie", "net", "axe", "bun", "wig", "mud", "elf"]
    chosen = random.Random(0)

    def answer(*places: int) -> InstructedText:
        return InstructedText("Represent the toy answer: ", " ".join(answers[place] for place in places))

    records = [
        Record(
            InstructedText(
                "Represent the toy question: ", f"where is the {asked[i]} near the {asked[j]} and {asked[k]}"
            ),
            answer(i, j, k),
            (answer(i, j, chosen.choice([place for place in range(12) if place not in (i, j, k)])),),
            "toy",
        )
        for i, j, k in permutations(range(12), 3)
        if chosen.random() < 0.3
    ]
    chosen.shuffle(records)
    return records


@pytest.fixture
def make_trainer(
    toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., Trainer]:
    """A trainer of the toy task outside of a run, with the module's options SHORT and evaluations of the test's own."""
    from accelerate import Accelerator

    from anytask.training.batches import TaskBatches
    from anytask.training.collation import PairBatches
    from anytask.training.pair_store import PairStore
    from anytask.training.trainer import Trainer

    def make(evaluations: Mapping[str, Evaluation] | None = None, **options: Any) -> Trainer:
        chosen = TrainingOptions(**{**request.module.SHORT, **options})
        checkpoint = load_checkpoint(toy_checkpoint)
        store = PairStore.write(toy_records, tmp_path / "run" / "records.arrow")
        batches = PairBatches(
            store,
            TaskBatches(store.tasks(), chosen.batch_size, chosen.steps, seed=chosen.seed),
            InstructionTokenizer(checkpoint.tokenizer, checkpoint.max_length),
            chosen,
        )
        return Trainer(checkpoint, chosen, batches, Accelerator(cpu=True), tmp_path / "run", evaluations)

    return make


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no picture, which takes longer than all the rest of a short one."""
    monkeypatch.setattr("anytask.training.run.draw_curves", lambda _: None)


@pytest.fixture(scope="session")
def toy_checkpoint(make_checkpoint: MakeCheckpoint) -> Path:
    """A checkpoint with T5's own random weights, for training from."""
    return make_checkpoint(shape={"num_layers": 2, "initializer_factor": 1.0})
