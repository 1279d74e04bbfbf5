"""Whole runs in small: what is learnt, measured, kept, logged and refused."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from anytask import CheckpointError, Instructor
from anytask.training import InstructedText, Record, RecordError, TrainingOptions
from anytask.training.medi.record_files import write_records
from anytask.training.pair_store import PairStore
from anytask.training.run import make_accelerator, train
from anytask.training.splits import hold_out
from anytask.training.start import Start
from anytask.training.trainer import Trainer
from anytask.training.validation import PairRetrieval

pytestmark = pytest.mark.usefixtures("no_curves")

MakeCheckpoint = Callable[..., Path]
TOY: dict[str, Any] = {"steps": 60, "batch_size": 32, "learning_rate": 1e-2, "temperature": 0.05, "held_out": 60}
SHORT: dict[str, Any] = {**TOY, "steps": 3, "batch_size": 8, "held_out": 0}


def rows(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = load_file(folder / "model.safetensors")
    dense = folder / "2_Dense" / "model.safetensors"
    return {
        **found,
        **({f"dense.{name}": tensor for name, tensor in load_file(dense).items()} if dense.is_file() else {}),
    }


def same_weights(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def learnt(toy_checkpoint: Path, toy_records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = TrainingOptions(**TOY, log_every=1, keep=3)
    output = tmp_path_factory.mktemp("learnt") / "model"
    assert train(toy_records, output, start=str(toy_checkpoint), options=options, device="cpu") == output
    return output


class TestLearning:
    """One run of the toy task, looked at from all sides."""

    def test_the_loss_falls(self, learnt: Path) -> None:
        losses = [row["loss"] for row in rows(learnt / "training" / "log.csv")]
        assert len(losses) == 60
        assert np.mean(losses[-5:]) < 0.4 * np.mean(losses[:5])

    def test_records_that_were_held_out_are_found(self, learnt: Path) -> None:
        figures = rows(learnt / "training" / "evaluation.csv")
        assert [row["step"] for row in figures] == list(range(0, 61, 6))
        ndcg = [row["held out nDCG@10"] for row in figures]
        assert ndcg[0] < 0.3
        assert max(ndcg) > 0.75
        assert all(0 <= row["held out accuracy@1"] <= row["held out nDCG@10"] <= 1 for row in figures)

    def test_the_model_is_the_best_of_the_evaluations(self, learnt: Path, toy_records: list[Record]) -> None:
        store = PairStore(learnt / "training" / "records.arrow")
        _, held_out = hold_out(store.tasks(), 60, 0)
        figures = rows(learnt / "training" / "evaluation.csv")
        best = max(row["held out nDCG@10"] for row in figures[1:])
        records = [toy_records[row] for row in held_out]
        assert len(records) == len(toy_records) // 10
        measured = PairRetrieval("held out", records)(Instructor.from_pretrained(learnt, device="cpu"))
        assert measured["held out nDCG@10"] == pytest.approx(best, abs=1e-5)
        assert same_weights(learnt, learnt / "training" / "best")

    def test_its_prompts_are_the_records_instructions(self, learnt: Path) -> None:
        model = Instructor.from_pretrained(learnt)
        assert model.query_instruction == "Represent the toy question: "
        assert model.document_instruction == "Represent the toy answer: "

    def test_checkpoints_are_kept_as_asked_for(self, learnt: Path) -> None:
        folders = sorted((learnt / "training" / "checkpoints").iterdir())
        assert [folder.name for folder in folders] == ["step-000048", "step-000054", "step-000060"]
        assert all(Instructor.from_pretrained(folder).dimension == 24 for folder in folders)
        assert not same_weights(folders[0], folders[1])

    def test_files_for_people(self, learnt: Path) -> None:
        card = (learnt / "README.md").read_text()
        for told in ("toy", "0.05", "Represent the toy question"):
            assert told in card
        assert (learnt / "training" / "curves.png").read_bytes().startswith(b"\x89PNG")
        assert list((learnt / "training" / "tensorboard").iterdir())

    def test_nothing_is_left_lying_about(self, learnt: Path) -> None:
        assert not list(learnt.parent.rglob(".*"))
        assert [path.name for path in learnt.parent.iterdir()] == ["model"]

    def test_log(self, learnt: Path) -> None:
        log = rows(learnt / "training" / "log.csv")
        assert [row["step"] for row in log] == list(range(1, 61))
        expected = [1e-2 * (step / 6 if step < 6 else (60 - step) / 54) for step in range(60)]
        assert [row["learning_rate"] for row in log] == pytest.approx(expected, rel=1e-4, abs=1e-9)
        assert all(row["examples_per_second"] > 0 and row["tokens_per_second"] > 0 for row in log)


class TestEvaluation:
    def test_the_best_is_kept_wherever_it_comes(self, make_trainer: Callable[..., Trainer]) -> None:
        """The first model is measured, but never kept; of equals the one that has learnt longer is."""
        figures = iter([0.95, 0.1, 0.7, 0.7, 0.3])
        trainer = make_trainer({"figure": lambda _: {"figure": next(figures)}}, steps=4, eval_every=1, keep=9)
        trainer.run()
        assert (trainer.progress.best, trainer.progress.best_step) == (0.7, 3)
        assert same_weights(trainer.best_folder, trainer.folder / "checkpoints" / "step-000003")
        assert not same_weights(trainer.best_folder, trainer.folder / "checkpoints" / "step-000002")

    def test_evaluating_changes_nothing(self, make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
        """Not the weights, not the random numbers of training: a run without is the same run."""
        with_evaluations = make_trainer(
            {"figure": lambda _: {"figure": float(torch.rand(()))}}, eval_every=1, dropout=0.1
        )
        with_evaluations.run()
        measured = {name: p.clone() for name, p in with_evaluations.module.state_dict().items()}
        (tmp_path / "run" / "state.pt").unlink()
        without = make_trainer(eval_every=1, dropout=0.1)
        without.run()
        assert all(torch.equal(measured[name], tensor) for name, tensor in without.module.state_dict().items())
        assert without.module.training

    def test_own_files_and_a_suite(self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path) -> None:
        """All are measured at once; the suite's mean decides, in its absence the first file."""
        for name in ("dev", "other"):
            (tmp_path / name).mkdir()
            write_records(toy_records[:30] if name == "dev" else toy_records[30:50], tmp_path / name / "pairs.jsonl.gz")
        suite = tmp_path / "suite" / "sts"
        suite.mkdir(parents=True)
        pairs = [{"a": "zoo ice", "b": "zoo ice van", "score": 4}, {"a": "zoo ice", "b": "gem owl", "score": 0}]
        pairs.append({"a": "pie net", "b": "pie owl", "score": 2})
        (suite / "toy.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        train(
            toy_records,
            tmp_path / "model",
            start=str(toy_checkpoint),
            options=TrainingOptions(**{**SHORT, "held_out": 20}),
            evaluate_on=[tmp_path / "dev" / "pairs.jsonl.gz", tmp_path / "other" / "pairs.jsonl.gz"],
            suite=tmp_path / "suite",
            device="cpu",
        )
        figures = rows(tmp_path / "model" / "training" / "evaluation.csv")
        assert next(name for name in figures[0] if name != "step") == "suite"
        measured = [name for name in figures[0] if name.endswith("nDCG@10")]
        assert len(measured) == 3
        assert "held out nDCG@10" in measured
        model = Instructor.from_pretrained(tmp_path / "model", device="cpu")
        best = max(reversed(figures[1:]), key=lambda row: row["suite"])  # the later of equals
        expected = PairRetrieval("pairs", toy_records[:30])(model)["pairs nDCG@10"]
        assert any(best[name] == pytest.approx(expected, abs=1e-5) for name in measured)

    def test_an_evaluation_file_that_is_not_there_is_told_at_once(
        self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path
    ) -> None:
        with pytest.raises(FileNotFoundError, match=r"missing\.jsonl"):
            train(
                toy_records,
                tmp_path / "model",
                start=str(toy_checkpoint),
                evaluate_on=[tmp_path / "missing.jsonl"],
                device="cpu",
            )

    def test_no_evaluation_keeps_the_last(
        self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path
    ) -> None:
        train(
            toy_records, tmp_path / "model", start=str(toy_checkpoint), options=TrainingOptions(**SHORT), device="cpu"
        )
        assert not (tmp_path / "model" / "training" / "evaluation.csv").exists()
        assert same_weights(tmp_path / "model", tmp_path / "model" / "training" / "checkpoints" / "step-000003")


class TestPairRetrieval:
    def test_figures(self) -> None:
        """By words in common: the first query's positives come first and third, the second's one comes second."""

        class CommonWords:
            def encode(self, texts: Sequence[str], instruction: str | None = None) -> np.ndarray:
                assert instruction == "" or instruction is None
                return np.array([[float(word in text.split()) for word in "abcde"] for text in texts])

        def record(query: str, pos: str, *neg: str) -> Record:
            return Record(
                InstructedText("", query), InstructedText("", pos), tuple(InstructedText("", n) for n in neg), 1
            )

        records = [record("a b c", "a b c", "a b c d"), record("a b c", "a b d"), record("e d", "d", "e d")]
        figures = PairRetrieval("mine", records)(CommonWords())
        ideal = 1 + 1 / math.log2(3)
        first, second = (1 + 1 / math.log2(4)) / ideal, 1 / math.log2(3)
        assert figures == {"mine accuracy@1": 0.5, "mine nDCG@10": pytest.approx((first + second) / 2)}

    def test_each_text_has_its_own_instruction(self, toy_checkpoint: Path) -> None:
        model = Instructor.from_pretrained(toy_checkpoint, device="cpu")
        seen: list[tuple[str, str]] = []

        class Watched:
            def encode(self, texts: Sequence[str], instruction: str | None = None) -> Any:
                seen.extend((instruction or "", text) for text in texts)
                return model.encode(texts, instruction=instruction)

        records = [
            Record(InstructedText(f"q{n % 2}: ", f"question {n}"), InstructedText(f"d{n % 3}: ", f"answer {n}"), (), 1)
            for n in range(6)
        ]
        PairRetrieval("mine", records)(Watched())
        assert sorted(seen) == sorted([*(r.query for r in records), *(r.pos for r in records)])

    def test_too_few_documents(self) -> None:
        record = Record(InstructedText("", "q"), InstructedText("", "d"), (), 1)
        with pytest.raises(ValueError, match="mine holds 1 different documents; at least two are needed"):
            PairRetrieval("mine", [record, record])


class TestOptimiser:
    @pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
    def test_schedules(self, make_trainer: Callable[..., Trainer], schedule: str) -> None:
        trainer = make_trainer(
            steps=20, batch_size=1, schedule=schedule, warmup_ratio=0.25, learning_rate=1e-3, log_every=1
        )
        trainer.run()

        def expected(step: int) -> float:
            if step < 5:
                return 1e-3 * step / 5
            done = (step - 5) / 15
            return 1e-3 * {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[schedule]

        found = [row["learning_rate"] for row in rows(trainer.folder / "log.csv")]
        assert found == pytest.approx([expected(step) for step in range(20)], rel=1e-4)

    def test_weight_decay_is_of_the_matrices(self, make_trainer: Callable[..., Trainer]) -> None:
        trainer = make_trainer(weight_decay=0.1, learning_rate=1e-2)
        names = {parameter: name for name, parameter in trainer.module.named_parameters()}
        decayed = {
            names[p] for group in trainer.optimizer.param_groups for p in group["params"] if group["weight_decay"]
        }
        plain = {
            names[p] for group in trainer.optimizer.param_groups for p in group["params"] if not group["weight_decay"]
        }
        assert decayed | plain == set(names.values())
        assert plain == {name for name in names.values() if "norm" in name}
        assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.0, 0.1}
        assert {group["betas"] for group in trainer.optimizer.param_groups} == {(0.9, 0.999)}

    @pytest.mark.parametrize("longest", [0.0, 1e-3])
    def test_gradients_are_clipped(self, make_trainer: Callable[..., Trainer], longest: float) -> None:
        trainer = make_trainer(max_grad_norm=longest)
        norms = []

        def watch(optimiser: torch.optim.Optimizer, *_: object) -> None:
            gradients = [p.grad for group in optimiser.param_groups for p in group["params"]]
            norms.append(torch.cat([gradient.reshape(-1) for gradient in gradients]).norm().item())

        trainer.optimizer.optimizer.register_step_pre_hook(watch)
        trainer.run()
        assert len(norms) == 3
        assert all(norm == pytest.approx(longest, rel=1e-2) if longest else norm > 0.1 for norm in norms)

    def test_what_no_text_fits_behind_is_told_before_the_first_step(
        self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path
    ) -> None:
        long = replace(toy_records[-1], neg=(InstructedText("Represent " * 60, "a"),))
        options = TrainingOptions(**{**SHORT, "max_length": 32})
        with pytest.raises(ValueError, match=r"the instruction has .* tokens, which leaves no room"):
            train([*toy_records[:-1], long], tmp_path / "m", start=str(toy_checkpoint), options=options, device="cpu")
        assert not (tmp_path / "m" / "training" / "log.csv").exists()

    def test_a_run_on_the_cpu_decides_nothing_for_the_next(self) -> None:
        options = TrainingOptions()
        make_accelerator(options, "cpu")
        assert PartialState()._cpu
        make_accelerator(options, None)
        assert not PartialState()._cpu

    def test_epochs(self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path) -> None:
        options = TrainingOptions(**{**SHORT, "epochs": 1.5, "held_out": 10, "batch_size": 100})
        train(toy_records, tmp_path / "model", start=str(toy_checkpoint), options=options, device="cpu")
        left = len(toy_records) - 10
        assert rows(tmp_path / "model" / "training" / "log.csv")[-1]["step"] == math.ceil(1.5 * left / 100)

    def test_epochs_of_tasks_smaller_than_a_batch(
        self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path
    ) -> None:
        """Which are batches: three passes over two of them are six steps."""
        records = [replace(record, task_id=place % 2) for place, record in enumerate(toy_records[:40])]
        options = TrainingOptions(**{**SHORT, "epochs": 3, "batch_size": 128})
        train(records, tmp_path / "model", start=str(toy_checkpoint), options=options, device="cpu")
        assert rows(tmp_path / "model" / "training" / "log.csv")[-1]["step"] == 6

    def test_the_newest_checkpoints_are_kept(self, make_trainer: Callable[..., Trainer]) -> None:
        """By their steps: by name, a million would come first."""
        trainer = make_trainer(keep=2)
        for step in (999_998, 999_999, 1_000_000):
            trainer.progress.step = step
            trainer._save()
        names = {path.name for path in (trainer.folder / "checkpoints").iterdir()}
        assert names == {"step-999999", "step-1000000"}

    def test_chunks_make_no_difference(self, make_trainer: Callable[..., Trainer]) -> None:
        found = []
        for chunk_tokens in (None, 50):
            trainer = make_trainer(dropout=0.0, chunk_tokens=chunk_tokens)
            trainer.module.double()  # in float32 a relu at zero may go either way
            loss, _ = trainer.compute_gradient(trainer.source[0])
            found.append((loss, [p.grad.clone() for p in trainer.module.parameters()]))
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
        for one, other in zip(found[0][1], found[1][1], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


class TestStart:
    """Every kind of model that there is to go on from."""

    FORMS: Mapping[str, Mapping[str, Any]] = {
        "INSTRUCTOR": {"original_classes": True, "transformer_path": "0_Transformer", "weights": "bin"},
        "GTR": {"prompts": None, "weights": "bin"},
        "with prompts": {"prompts": {"query": "Represent this: ", "document": "Represent that: "}},
        "no dense layer": {"dense": None},
        "T5 v1.1": {"shape": {"feed_forward_proj": "gated-gelu", "num_layers": 2}},
        "spiece.model alone": {"spiece": True},
    }

    @pytest.mark.parametrize("form", FORMS)
    def test_from(self, make_checkpoint: MakeCheckpoint, toy_records: list[Record], tmp_path: Path, form: str) -> None:
        folder = make_checkpoint(**{"shape": {"num_layers": 1}, **self.FORMS[form]})
        before = Instructor.from_pretrained(folder, device="cpu")
        output = train(
            toy_records, tmp_path / "model", start=str(folder), options=TrainingOptions(**SHORT), device="cpu"
        )
        after = Instructor.from_pretrained(output, device="cpu")
        assert (after.dimension, after.max_length) == (before.dimension, before.max_length)
        texts = [record.query.text for record in toy_records[:5]]
        similarity = (before.encode(texts) * after.encode(texts)).sum(-1)
        assert (similarity < 1 - 1e-4).all()
        assert (similarity > 0.1).all()
        assert after.query_instruction == "Represent the toy question: "

    def test_prompts_where_instructions_differ(
        self, make_checkpoint: MakeCheckpoint, toy_records: list[Record], tmp_path: Path
    ) -> None:
        """They stay the model's; its own, else the defaults."""
        first = toy_records[0]
        records = [replace(first, query=InstructedText("Represent it: ", first.query.text)), *toy_records[1:]]
        for prompts in ({"query": "Represent this: ", "document": "Represent that: "}, None):
            folder = make_checkpoint(shape={"num_layers": 1}, prompts=prompts)
            output = tmp_path / ("plain" if prompts is None else "prompted")
            train(records, output, start=str(folder), options=TrainingOptions(**SHORT), device="cpu")
            before, after = Instructor.from_pretrained(folder), Instructor.from_pretrained(output)
            assert after.query_instruction == before.query_instruction
            assert after.document_instruction == before.document_instruction

    def test_from_a_folder_without_normalise(
        self, make_checkpoint: MakeCheckpoint, toy_records: list[Record], tmp_path: Path
    ) -> None:
        """As some GTR and plain T5 folders are."""
        folder = make_checkpoint(shape={"num_layers": 1})
        modules = json.loads((folder / "modules.json").read_text())
        (folder / "modules.json").write_text(json.dumps([m for m in modules if "Normalize" not in m["type"]]))
        output = train(
            toy_records, tmp_path / "model", start=str(folder), options=TrainingOptions(**SHORT), device="cpu"
        )
        kinds = [module["type"].rsplit(".", 1)[-1] for module in json.loads((output / "modules.json").read_text())]
        assert kinds == ["Transformer", "Pooling", "Dense", "Normalize"]

    def test_half_precision_weights_are_trained_in_float32(
        self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path
    ) -> None:
        Instructor.from_pretrained(toy_checkpoint, device="cpu", dtype="bfloat16").save_pretrained(tmp_path / "half")
        output = train(
            toy_records,
            tmp_path / "model",
            start=str(tmp_path / "half"),
            options=TrainingOptions(**SHORT),
            device="cpu",
        )
        assert {tensor.dtype for tensor in weights(output).values()} == {torch.float32}
        assert json.loads((output / "config.json").read_text())["torch_dtype"] == "float32"

    def test_from_nothing(self, toy_records: list[Record], tmp_path: Path) -> None:
        """Sizes, and a vocabulary that is learnt from the records."""
        start = Start(init="d_model=32,num_layers=2,num_heads=4,d_kv=8,d_ff=64,dimension=16,vocab_size=60")
        options = TrainingOptions(**{**TOY, "steps": 30, "held_out": 40})
        output = train(toy_records, tmp_path / "model", start=start, options=options, device="cpu")
        model = Instructor.from_pretrained(output, device="cpu")
        assert model.dimension == 16
        assert weights(output)[
            "encoder.embed_tokens.weight" if "encoder.embed_tokens.weight" in weights(output) else "shared.weight"
        ].shape == (60, 32)
        figures = rows(output / "training" / "evaluation.csv")
        assert max(row["held out nDCG@10"] for row in figures) > figures[0]["held out nDCG@10"] + 0.2

    def test_from_nothing_with_a_tokenizer(
        self, tokenizer_folder: Path, toy_records: list[Record], tmp_path: Path
    ) -> None:
        start = Start(init="d_model=32,num_layers=1,d_kv=8", tokenizer=str(tokenizer_folder))
        output = train(toy_records, tmp_path / "model", start=start, options=TrainingOptions(**SHORT), device="cpu")
        assert Instructor.from_pretrained(output).dimension == 32
        assert not (output / "training" / "tokenizer.json").exists()

    def test_max_length(self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path) -> None:
        options = TrainingOptions(**SHORT, max_length=24)
        output = train(toy_records, tmp_path / "model", start=str(toy_checkpoint), options=options, device="cpu")
        assert Instructor.from_pretrained(output).max_length == 24

    def test_prompts_of_ones_own(self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path) -> None:
        prompts = {"query": "Represent my question: "}
        output = train(
            toy_records,
            tmp_path / "model",
            start=str(toy_checkpoint),
            options=TrainingOptions(**SHORT),
            prompts=prompts,
            device="cpu",
        )
        assert json.loads((output / "config_sentence_transformers.json").read_text())["prompts"] == prompts

    @pytest.mark.parametrize("sides", [("", "Represent it: "), ("Represent it: ", ""), ("", "")], ids=str)
    def test_empty_instructions(
        self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path, sides: tuple[str, str]
    ) -> None:
        """They are the model's: what it has learnt is what it does, its card says and sentence-transformers does."""
        query, document = sides
        records = [
            Record(
                InstructedText(query, record.query.text),
                InstructedText(document, record.pos.text),
                tuple(InstructedText(document, text) for _, text in record.neg),
                record.task_id,
            )
            for record in toy_records
        ]
        output = train(
            records, tmp_path / "model", start=str(toy_checkpoint), options=TrainingOptions(**SHORT), device="cpu"
        )
        card = (output / "README.md").read_text()
        assert f'model.encode(["a question"], instruction="{query}")' in card
        assert f'model.encode(["a document", "another one"], instruction="{document}")' in card
        theirs = SentenceTransformer(str(output), device="cpu")
        theirs.save_pretrained(str(tmp_path / "theirs"))
        Instructor.from_pretrained(output, device="cpu").save_pretrained(tmp_path / "ours")
        for folder in (output, tmp_path / "theirs", tmp_path / "ours"):
            model = Instructor.from_pretrained(folder, device="cpu")
            assert (model.query_instruction, model.document_instruction) == sides
            np.testing.assert_allclose(model.encode_query(["zoo ice"]), theirs.encode_query(["zoo ice"]), atol=1e-5)
            np.testing.assert_allclose(model.encode_document("zoo"), theirs.encode_document("zoo"), atol=1e-5)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"model": "mini", "init": "d_model=32"}, "not both"),
            ({"tokenizer": "folder"}, "a checkpoint has its own"),
            ({"init": "d_modell=32"}, "no size 'd_modell'"),
        ],
    )
    def test_errors(self, settings: dict[str, str], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Start(**settings)

    def test_a_model_that_is_not_there(self, toy_records: list[Record], tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="nowhere"):
            train(toy_records, tmp_path / "model", start=str(tmp_path / "nowhere"), device="cpu")


class TestPrecision:
    @pytest.mark.parametrize("gradient_cache", [False, True])
    def test_bfloat16(
        self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path, gradient_cache: bool
    ) -> None:
        """Close to float32 in its losses, whose weights it keeps; in the same process as runs of other precision."""
        losses = {}
        for precision in ("float32", "bfloat16"):
            options = TrainingOptions(
                **{**SHORT, "steps": 6},
                precision=precision,  # type: ignore[arg-type]
                log_every=1,
                dropout=0.0,
                gradient_cache=gradient_cache,
                chunk_tokens=64,
            )
            output = train(toy_records, tmp_path / precision, start=str(toy_checkpoint), options=options, device="cpu")
            assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in weights(output).values())
            losses[precision] = [row["loss"] for row in rows(output / "training" / "log.csv")]
        assert losses["bfloat16"] != losses["float32"]
        assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)

    def test_float16_needs_a_gpu(self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path) -> None:
        options = TrainingOptions(**SHORT, precision="float16")
        with pytest.raises(ValueError, match="can't train in float16 on a CPU, which computes bfloat16 and float32"):
            train(toy_records, tmp_path / "model", start=str(toy_checkpoint), options=options, device="cpu")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
    def test_a_device_that_is_not_there(self, toy_records: list[Record], tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="runs on cpu, not on 'cuda'"):
            train(toy_records, tmp_path / "model", options=TrainingOptions(**SHORT), device="cuda")

    def test_gradient_checkpointing_changes_nothing(self, make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
        found = []
        for checkpointing in (False, True):
            trainer = make_trainer(gradient_checkpointing=checkpointing, dropout=0.1)
            trainer.run()
            found.append({name: tensor.clone() for name, tensor in trainer.module.state_dict().items()})
            (tmp_path / "run" / "state.pt").unlink()
        assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


class TestErrors:
    def test_no_records(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no records"):
            train([], tmp_path / "model", device="cpu")

    def test_tasks_of_single_records(self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path) -> None:
        single = [Record(r.query, r.pos, r.neg, place) for place, r in enumerate(toy_records[:5])]
        with pytest.raises(ValueError, match="at least 2 records"):
            train(single, tmp_path / "model", start=str(toy_checkpoint), device="cpu")

    def test_some_tasks_of_single_records(
        self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Are left out, and told: a document's id may have been taken for the task's."""
        records = [replace(record, task_id=max(place, 9)) for place, record in enumerate(toy_records[:20], -5)]
        train(records, tmp_path / "model", start=str(toy_checkpoint), options=TrainingOptions(**SHORT), device="cpu")
        assert "5 of 6 tasks have fewer than 2 records and are left out, 5 of 20 records" in caplog.text

    def test_a_damaged_record(self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path) -> None:
        path = tmp_path / "records.jsonl"
        write_records(toy_records[:5], path)
        with path.open("a") as file:
            file.write('{"query": ["a"], "pos": ["a", "b"], "task_id": 1}\n')
        with pytest.raises(RecordError, match=r"records\.jsonl, line 6, record 6, field query"):
            train(path, tmp_path / "model", start=str(toy_checkpoint), device="cpu")
        assert not (tmp_path / "model" / "training" / "settings.json").exists()

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"missing\.jsonl"):
            train(tmp_path / "missing.jsonl", tmp_path / "model", device="cpu")

    def test_a_run_that_diverges_says_so(self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path) -> None:
        """Rather than saving weights that are no numbers."""
        options = TrainingOptions(**{**SHORT, "steps": 20, "learning_rate": 1e30, "warmup_ratio": 0.0})
        with pytest.raises(ValueError, match=r"the loss at step \d+ is nan: lower learning_rate \(1e\+30\)"):
            train(toy_records, tmp_path / "model", start=str(toy_checkpoint), options=options, device="cpu")

    def test_nothing_to_learn_from(self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path) -> None:
        options = TrainingOptions(**SHORT, contrastive_weight=0)
        with pytest.raises(ValueError, match="nothing can be learnt with contrastive_weight 0 and no teacher"):
            train(toy_records, tmp_path / "model", start=str(toy_checkpoint), options=options, device="cpu")

    def test_records_of_any_kind(self, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path) -> None:
        """A generator is as good as a list; files and records together are told apart, not dropped."""

        def generated() -> Iterable[Record]:
            yield from toy_records

        train(
            generated(), tmp_path / "model", start=str(toy_checkpoint), options=TrainingOptions(**SHORT), device="cpu"
        )
        write_records(toy_records, tmp_path / "records.jsonl")
        mixed: Any = [tmp_path / "records.jsonl", toy_records[0]]
        dictionaries: Any = [toy_records[0], toy_records[1].to_json()]
        with pytest.raises(TypeError, match=r"records\[1\] is of type dict, expected a Record"):
            train(dictionaries, tmp_path / "other", start=str(toy_checkpoint), device="cpu")
        with pytest.raises(TypeError, match="all files or all records, got both"):
            train(mixed, tmp_path / "mixed", start=str(toy_checkpoint), options=TrainingOptions(**SHORT), device="cpu")


class TestOptions:
    def test_defaults_are_the_papers(self) -> None:
        options = TrainingOptions()
        assert (options.steps, options.learning_rate, options.warmup_ratio) == (20_000, 2e-5, 0.1)
        assert (options.temperature, options.max_negatives, options.mixing, options.variant) == (0.01, 4, 1.0, "paper")
        assert options.max_length is None

    @pytest.mark.parametrize(
        ("name", "wrong"),
        [
            ("steps", 0),
            ("epochs", 0),
            ("epochs", -1.0),
            ("batch_size", 0),
            ("learning_rate", 0.0),
            ("learning_rate", float("nan")),
            ("warmup_ratio", 1.1),
            ("schedule", "triangular"),
            ("weight_decay", -0.1),
            ("max_grad_norm", -1.0),
            ("temperature", 0.0),
            ("variant", "other"),
            ("max_negatives", -1),
            ("mixing", 0.0),
            ("max_length", 1),
            ("instruction_paraphrase", 1.5),
            ("instruction_dropout", -0.1),
            ("word_dropout", 1.0),
            ("teacher_weight", -1.0),
            ("contrastive_weight", -1.0),
            ("lora_rank", -1),
            ("lora_alpha", 0),
            ("dropout", 1.0),
            ("precision", "int8"),
            ("chunk_tokens", 0),
            ("log_every", 0),
            ("eval_every", -1),
            ("save_every", -1),
            ("keep", -1),
            ("held_out", -1),
            ("seed", -1),
        ],
    )
    def test_a_value_outside_its_range_is_named(self, name: str, wrong: object) -> None:
        with pytest.raises(ValueError, match=rf"^{name} must be .*, got {wrong!r}"):
            TrainingOptions(**{name: wrong})  # type: ignore[arg-type]

    def test_json(self) -> None:
        written = json.loads(json.dumps(TrainingOptions(freeze=("embeddings", "layers:2")).to_json()))
        assert written["freeze"] == ["embeddings", "layers:2"]
        assert TrainingOptions(**{**written, "freeze": tuple(written["freeze"])}).to_json() == written
