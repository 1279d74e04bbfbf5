"""Which weights a run changes: frozen parts, low-rank adapters; and what else a model can learn from: a teacher."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from anytask import Instructor
from anytask.evaluation.embedder import embed
from anytask.training import InstructedText, Record, TrainingOptions, teacher
from anytask.training.run import train
from anytask.training.teacher import TeacherVectors
from anytask.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_curves")

MakeCheckpoint = Callable[..., Path]
SHORT: dict[str, Any] = {"steps": 3, "batch_size": 8, "learning_rate": 1e-2, "temperature": 0.05, "held_out": 0}


def weights(folder: Path) -> dict[str, Tensor]:
    """By the encoder's names in T5's checkpoints, and `dense`."""
    found = {
        name.replace("shared", "encoder.embed_tokens"): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    dense = folder / "2_Dense" / "model.safetensors"
    return {**found, **({"dense": load_file(dense)["linear.weight"]} if dense.is_file() else {})}


def changed(before: Path, after: Path) -> set[str]:
    """Names of the weights that aren't bit-identical."""
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys()
    return {name for name, tensor in old.items() if not torch.equal(tensor, new[name])}


EMBEDDINGS = "encoder.embed_tokens.weight"
BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
Expected = Callable[[str], bool]
FROZEN: Mapping[str, tuple[tuple[str, ...], Expected]] = {
    "nothing": ((), lambda _: False),
    "embeddings": (("embeddings",), lambda name: name == EMBEDDINGS),
    "position bias": (("position_bias",), lambda name: name == BIAS),
    "first layer": (("layers:1",), lambda name: name.startswith("encoder.block.0.") and name != BIAS),
    "both layers": (("layers:2",), lambda name: name.startswith("encoder.block.") and name != BIAS),
    "several": (
        ("embeddings", "position_bias", "layers:1"),
        lambda name: name == EMBEDDINGS or name.startswith("encoder.block.0."),
    ),
    "encoder": (("encoder",), lambda name: name != "dense"),
}


class TestFreeze:
    @pytest.mark.parametrize("parts", FROZEN)
    def test_frozen_weights_stay_and_all_others_move(
        self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path, parts: str
    ) -> None:
        frozen, is_frozen = FROZEN[parts]
        options = TrainingOptions(**SHORT, freeze=frozen, weight_decay=0.1)
        output = train(toy_records, tmp_path / "model", start=str(toy_checkpoint), options=options, device="cpu")
        assert changed(toy_checkpoint, output) == {name for name in weights(output) if not is_frozen(name)}

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            (
                ("dense",),
                "can't freeze 'dense': expected embeddings, position_bias, encoder or layers:N with N up to 2",
            ),
            (("layers:3",), "can't freeze 'layers:3'"),
            (("layers:0",), "can't freeze 'layers:0'"),
            (("layers:two",), "can't freeze 'layers:two'"),
            (("layers",), "can't freeze 'layers'"),
        ],
    )
    def test_parts_that_there_are_not(
        self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path, parts: tuple[str, ...], message: str
    ) -> None:
        options = TrainingOptions(**SHORT, freeze=parts)
        with pytest.raises(ValueError, match=message):
            train(toy_records, tmp_path / "model", start=str(toy_checkpoint), options=options, device="cpu")

    def test_nothing_left_to_train(
        self, make_checkpoint: MakeCheckpoint, toy_records: list[Record], tmp_path: Path
    ) -> None:
        folder = make_checkpoint(shape={"num_layers": 1}, dense=None)
        options = TrainingOptions(**SHORT, freeze=("encoder",))
        with pytest.raises(ValueError, match="nothing is left to train; the model has no dense layer"):
            train(toy_records, tmp_path / "model", start=str(folder), options=options, device="cpu")

    def test_a_corrected_command_is_not_held_against_the_failed_one(
        self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path
    ) -> None:
        """A run that never got to train has no settings to keep to."""
        for start, freeze in ((str(tmp_path / "mistyped"), ()), (str(toy_checkpoint), ("dense",))):
            with pytest.raises(ValueError, match=r"mistyped|can't freeze"):
                train(
                    toy_records,
                    tmp_path / "model",
                    start=start,
                    options=TrainingOptions(**SHORT, freeze=freeze),
                    device="cpu",
                )
        train(
            toy_records[:50],
            tmp_path / "model",
            start=str(toy_checkpoint),
            options=TrainingOptions(**SHORT),
            device="cpu",
        )
        settings = json.loads((tmp_path / "model" / "training" / "settings.json").read_text())
        assert settings["model"] == str(toy_checkpoint)


class TestAdapters:
    @pytest.mark.parametrize("rank", [1, 3])
    def test_only_matrices_move_and_by_their_rank(
        self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path, rank: int
    ) -> None:
        options = TrainingOptions(**SHORT, lora_rank=rank, weight_decay=0.1)
        output = train(toy_records, tmp_path / "model", start=str(toy_checkpoint), options=options, device="cpu")
        before, after = weights(toy_checkpoint), weights(output)
        moved = changed(toy_checkpoint, output)
        matrices = {name for name in before if ".SelfAttention." in name or ".DenseReluDense." in name} - {BIAS}
        assert len(matrices) == 2 * 6
        assert moved == matrices | {"dense"}
        for name in matrices:
            values = torch.linalg.svdvals((after[name] - before[name]).double())
            assert values[0] > 1e-4
            assert (values[rank:] < 1e-5 * max(1.0, float(values[0]))).all(), name

    def test_what_is_saved_is_what_was_trained(
        self, make_trainer: Callable[..., Trainer], toy_checkpoint: Path, toy_records: list[Record]
    ) -> None:
        """The merged model gives the vectors of the one with adapters."""
        trainer = make_trainer(lora_rank=2, steps=5)
        trainer.run()
        batch = trainer.source[4]
        order, chunks = trainer._chunks(batch)
        trainer.module.eval()
        with torch.no_grad():
            adapted = torch.cat([trainer._embed(chunk) for chunk in chunks])[torch.argsort(torch.tensor(order))]
        _, rows = trainer.source.plan[4]  # type: ignore[attr-defined]
        queries = [toy_records[row].query for row in rows]
        before, saved = (
            Instructor.from_pretrained(folder, device="cpu").encode([(side.instruction, side.text) for side in queries])
            for folder in (toy_checkpoint, trainer.folder / "checkpoints" / "step-000005")
        )
        np.testing.assert_allclose(saved, adapted[: len(queries)].numpy(), atol=1e-6)
        assert np.abs(saved - before).max() > 1e-2

    def test_saving_leaves_the_adapters_on(self, make_trainer: Callable[..., Trainer]) -> None:
        trainer = make_trainer(lora_rank=2)
        names = {name for name, parameter in trainer.module.named_parameters() if parameter.requires_grad}
        trainer.trained()
        assert {name for name, parameter in trainer.module.named_parameters() if parameter.requires_grad} == names
        assert {name.rsplit(".", 3)[-3] for name in names if "lora" in name} == {"lora_A", "lora_B"}
        assert {name for name in names if "lora" not in name} == {"head.dense.weight"}

    @pytest.mark.parametrize(("alpha", "scale"), [(None, 2.0), (4, 1.0), (1, 0.25)])
    def test_scale(self, make_trainer: Callable[..., Trainer], alpha: int | None, scale: float) -> None:
        trainer = make_trainer(lora_rank=4, lora_alpha=alpha)
        scales = [module.scaling["default"] for module in trainer.module.modules() if hasattr(module, "lora_A")]
        assert scales == [scale] * 8

    def test_adapters_and_frozen_parts(self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path) -> None:
        """A frozen layer has no adapters that move."""
        options = TrainingOptions(**SHORT, lora_rank=2, freeze=("layers:1",))
        output = train(toy_records, tmp_path / "model", start=str(toy_checkpoint), options=options, device="cpu")
        assert {name.split(".")[2] for name in changed(toy_checkpoint, output) - {"dense"}} == {"1"}

    def test_adapters_on_a_frozen_encoder_are_refused(self) -> None:
        with pytest.raises(ValueError, match="lora_rank 2 adapts the encoder, which freeze leaves as it is"):
            TrainingOptions(lora_rank=2, freeze=("encoder",))

    def test_with_caching_and_checkpointing(self, make_trainer: Callable[..., Trainer]) -> None:
        gradients = []
        for options in ({}, {"gradient_cache": True, "gradient_checkpointing": True, "chunk_tokens": 60}):
            trainer = make_trainer(lora_rank=2, dropout=0.0, **options)
            with torch.no_grad():
                for name, parameter in trainer.module.named_parameters():
                    if "lora_B" in name:
                        parameter.copy_(torch.linspace(-0.1, 0.1, parameter.numel()).view_as(parameter))
            trainer.compute_gradient(trainer.source[0])
            gradients.append({n: p.grad for n, p in trainer.module.named_parameters() if p.requires_grad})
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-5)
            assert gradient.abs().max() > 0

    def test_a_gated_encoder(self, make_checkpoint: MakeCheckpoint, toy_records: list[Record], tmp_path: Path) -> None:
        folder = make_checkpoint(shape={"num_layers": 1, "feed_forward_proj": "gated-gelu"})
        options = TrainingOptions(**SHORT, lora_rank=2, precision="bfloat16")
        output = train(toy_records, tmp_path / "model", start=str(folder), options=options, device="cpu")
        assert all(tensor.isfinite().all() for tensor in weights(output).values())
        assert sum("DenseReluDense" in name for name in changed(folder, output)) == 3


class TestTeacher:
    def test_its_vectors_are_learnt(
        self, toy_checkpoint: Path, make_checkpoint: MakeCheckpoint, toy_records: list[Record], tmp_path: Path
    ) -> None:
        """Another model of the same dimension; the texts come near to its vectors, instructions or not."""
        other = Instructor.from_pretrained(
            make_checkpoint(shape={"num_layers": 1, "initializer_factor": 1.0}, seed=5), device="cpu"
        )
        options = TrainingOptions(**{**SHORT, "steps": 60, "batch_size": 16}, contrastive_weight=0, log_every=1)
        output = train(
            toy_records, tmp_path / "model", start=str(toy_checkpoint), options=options, teacher=other, device="cpu"
        )
        texts = [record.query.text for record in toy_records[:50]] + [record.pos.text for record in toy_records[:50]]
        instructions = ["Represent the toy question: "] * 50 + ["Represent the toy answer: "] * 50
        target = other.encode(texts)
        before, after = (
            (Instructor.from_pretrained(folder, device="cpu").encode(texts, instruction=instructions) * target).sum(-1)
            for folder in (toy_checkpoint, output)
        )
        assert before.mean() < 0.5
        assert after.mean() > 0.9
        header = (output / "training" / "log.csv").read_text().splitlines()[0]
        assert "distillation" not in header  # the only part is the loss itself

    def test_of_another_dimension_and_with_the_contrastive_loss(
        self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path
    ) -> None:
        """Words that are left out don't make texts the teacher hasn't seen."""
        options = TrainingOptions(**{**SHORT, "steps": 6}, log_every=1, word_dropout=0.3, instruction_dropout=0.3)
        output = train(
            toy_records,
            tmp_path / "model",
            start=str(toy_checkpoint),
            options=options,
            teacher=Instructor.from_pretrained("mini", device="cpu"),
            device="cpu",
        )
        header, *lines = (output / "training" / "log.csv").read_text().splitlines()
        columns = header.split(",")
        for line in lines:
            row = dict(zip(columns, line.split(","), strict=True))
            parts = float(row["contrastive"]) + float(row["distillation"])
            assert float(row["loss"]) == pytest.approx(parts, rel=1e-4)


class Counting:
    """A teacher that remembers what it was asked for."""

    def __init__(self) -> None:
        self.model = Instructor.from_pretrained("mini", device="cpu")
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], instruction: str | None = None) -> Any:
        assert instruction is None
        self.asked += texts
        return self.model.encode(list(texts))


class TestTeacherVectors:
    RECORDS = tuple(
        Record(
            InstructedText("q: ", f"question {n % 7}"),
            InstructedText("d: ", f"answer {n}"),
            tuple(InstructedText("d: ", f" answer {n + k} ") for k in range(n % 3)),
            "task",
        )
        for n in range(30)
    )

    def texts(self) -> list[str]:
        sides = [side for r in self.RECORDS for side in (r.query, r.pos, *r.neg)]
        return list(dict.fromkeys(side.text.strip() for side in sides))

    def test_each_text_once(self, tmp_path: Path) -> None:
        counting = Counting()
        vectors = TeacherVectors.of_records(self.RECORDS, counting, tmp_path)
        assert sorted(counting.asked) == sorted(self.texts())
        found = vectors.of([InstructedText("whatever", f"  {text}") for text in self.texts()])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, embed(counting, self.texts(), None), atol=1e-3)

    def test_a_killed_run_goes_on_after_the_last_block(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(teacher, "BLOCK", 8)
        expected = TeacherVectors.of_records(self.RECORDS, Counting(), tmp_path / "whole").of(
            [r.pos for r in self.RECORDS]
        )

        class Killed(Counting):
            def encode(self, texts: Sequence[str], instruction: str | None = None) -> Any:
                if len(self.asked) >= 16:
                    raise KeyboardInterrupt
                return super().encode(texts, instruction)

        with pytest.raises(KeyboardInterrupt):
            TeacherVectors.of_records(self.RECORDS, Killed(), tmp_path / "killed")
        assert not (tmp_path / "killed" / "keys.npy").exists()
        counting = Counting()
        vectors = TeacherVectors.of_records(self.RECORDS, counting, tmp_path / "killed")
        first, *rest = counting.asked  # the first text tells whether it is the same teacher
        assert first == self.texts()[0]
        assert sorted(rest) == sorted(self.texts()[16:])
        assert np.array_equal(vectors.of([r.pos for r in self.RECORDS]), expected)
        again = Counting()
        TeacherVectors.of_records(self.RECORDS, again, tmp_path / "killed")
        assert len(again.asked) == 1

    def test_a_text_it_lacks(self, tmp_path: Path) -> None:
        vectors = TeacherVectors.of_records(self.RECORDS, Counting(), tmp_path)
        with pytest.raises(KeyError, match="lack the text 'never seen'"):
            vectors.of([self.RECORDS[0].query, InstructedText("", "never seen")])
