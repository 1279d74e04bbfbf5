"""Adaptation to a handful of labelled examples: what moves, what it is good for, what it refuses."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from anytask import Instructor
from anytask.checkpoint import load_checkpoint
from anytask.tokenization import InstructionTokenizer
from anytask.training import TrainingOptions
from anytask.training.few_shot import DEFAULT_INSTRUCTION, CentroidAccuracy, Example, LabelledBatches, adapt

pytestmark = pytest.mark.usefixtures("no_curves")

MakeCheckpoint = Callable[..., Path]
KEYWORDS = {
    "fruit": ["apple", "pear", "plum", "grape"],
    "metal": ["iron", "zinc", "gold", "lead"],
    "bird": ["robin", "crow", "swan", "gull"],
}
FILLERS = ["the", "a", "of", "to", "in", "on", "at", "by", "for", "with", "from", "is", "was", "be", "it", "this"]
INSTRUCTION = "Represent the words for sorting them: "


def labelled(count: int, seed: int) -> list[Example]:
    """Texts that a keyword among words without meaning tells apart, `count` of each label."""
    chosen = random.Random(seed)
    examples = []
    for label, keywords in KEYWORDS.items():
        for place in range(count):
            words = [*chosen.choices(FILLERS, k=4), keywords[place % len(keywords)]]
            chosen.shuffle(words)
            examples.append(Example(" ".join(words), label))
    return examples


TRAIN, TEST = labelled(12, 0), labelled(20, 1)


def accuracies(output: Path) -> list[float]:
    with (output / "training" / "evaluation.csv").open(newline="") as file:
        return [float(row["accuracy"]) for row in csv.DictReader(file)]


def moved(before: Path, after: Path) -> set[str]:
    """Names of the encoder's weights that aren't bit-identical."""
    old, new = (
        {name.replace("shared", "encoder.embed_tokens"): t for name, t in load_file(f / "model.safetensors").items()}
        for f in (before, after)
    )
    assert old.keys() == new.keys()
    return {name for name, tensor in old.items() if not torch.equal(tensor, new[name])}


def dense(folder: Path) -> torch.Tensor:
    return load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"]


@pytest.fixture(scope="module")
def with_adapters(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("adapters") / "model"
    model = str(toy_checkpoint)
    return adapt(
        TRAIN, output, model=model, evaluate_on=TEST, instruction=INSTRUCTION, learning_rate=1e-2, device="cpu"
    )


@pytest.fixture(scope="module")
def frozen(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapt(
        TRAIN,
        tmp_path_factory.mktemp("frozen") / "model",
        model=str(toy_checkpoint),
        evaluate_on=TEST,
        freeze=("encoder",),
        learning_rate=3e-2,
        device="cpu",
    )


class TestAccuracy:
    def test_rises_with_adapters(self, with_adapters: Path) -> None:
        """On texts of the keywords that no example has."""
        found = accuracies(with_adapters)
        assert found[0] < 0.8
        assert max(found) > max(0.85, found[0] + 0.15)

    def test_rises_with_the_dense_layer_alone(self, frozen: Path) -> None:
        found = accuracies(frozen)
        assert max(found) > found[0] + 0.08

    def test_is_that_of_the_model(self, with_adapters: Path, frozen: Path) -> None:
        """What is saved is the best of the evaluations after the first step."""
        for folder, instruction in ((with_adapters, INSTRUCTION), (frozen, DEFAULT_INSTRUCTION)):
            model = Instructor.from_pretrained(folder, device="cpu")
            measured = CentroidAccuracy(TRAIN, TEST, instruction)(model)["accuracy"]
            assert measured == pytest.approx(max(accuracies(folder)[1:]), abs=0.02)

    def test_centroids(self) -> None:
        class Places:
            """Texts are numbers on a line."""

            def encode(self, texts: Sequence[str], instruction: str) -> np.ndarray:
                assert instruction == INSTRUCTION
                return np.array([[float(text), 1.0] for text in texts])

        examples = [Example("0", "low"), Example("2", "low"), Example("8", "high"), Example("14", "high")]
        test = [Example("5", "low"), Example("7", "high"), Example("5.9", "high"), Example("20", "high")]
        figures = CentroidAccuracy(examples, test, INSTRUCTION)(Places())  # type: ignore[arg-type]
        assert figures == {"accuracy": 0.75}


class TestWeights:
    def test_adapters_are_merged_into_the_matrices(self, toy_checkpoint: Path, with_adapters: Path) -> None:
        names = moved(toy_checkpoint, with_adapters)
        assert len(names) == 2 * 6
        assert not any("norm" in name or "relative" in name or "embed" in name for name in names)

    def test_a_frozen_encoder_is_bit_identical(self, toy_checkpoint: Path, frozen: Path) -> None:
        assert moved(toy_checkpoint, frozen) == set()
        assert not torch.equal(dense(toy_checkpoint), dense(frozen))

    def test_a_model_without_a_dense_layer_gets_one(self, make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
        """Which changes nothing before the first step."""
        folder = make_checkpoint(shape={"num_layers": 1}, dense=None)
        output = adapt(
            TRAIN, tmp_path / "model", model=str(folder), freeze=("encoder",), steps=1, warmup_ratio=1.0, device="cpu"
        )
        before, after = Instructor.from_pretrained(folder), Instructor.from_pretrained(output)
        assert after.dimension == before.dimension == 32
        assert dense(output).shape == (32, 32)
        np.testing.assert_allclose(after.encode(["a b"]), before.encode(["a b"]), atol=1e-6)

    def test_of_the_bundled_model(self, tmp_path: Path) -> None:
        """The default start, at its defaults, in few steps."""
        output = adapt(TRAIN, tmp_path / "model", steps=2, batch_size=4, device="cpu")
        mini, adapted = Instructor.from_pretrained("mini"), Instructor.from_pretrained(output)
        assert adapted.dimension == mini.dimension
        assert adapted.query_instruction == adapted.document_instruction == DEFAULT_INSTRUCTION
        settings = json.loads((output / "training" / "settings.json").read_text())
        assert (settings["lora_rank"], settings["held_out"], settings["steps"]) == (8, 0, 2)


class TestFolder:
    def test_prompts_and_card(self, with_adapters: Path) -> None:
        model = Instructor.from_pretrained(with_adapters)
        assert model.query_instruction == model.document_instruction == INSTRUCTION
        card = (with_adapters / "README.md").read_text()
        assert all(told in card for told in ("fruit", "metal", "bird", INSTRUCTION.strip(), "accuracy", "lora_rank"))
        assert not any(told in card for told in ("max_negatives", "word_dropout", "held_out"))

    def test_an_empty_instruction(self, toy_checkpoint: Path, tmp_path: Path) -> None:
        output = adapt(TRAIN, tmp_path / "model", model=str(toy_checkpoint), instruction="", steps=1, device="cpu")
        model = Instructor.from_pretrained(output)
        assert (model.query_instruction, model.document_instruction) == ("", "")
        assert 'instruction=""' in (output / "README.md").read_text()

    def test_the_same_call_goes_on_and_another_is_refused(self, frozen: Path, toy_checkpoint: Path) -> None:
        """Other examples, evaluations or options are other runs; the message doesn't recite the examples."""
        before = (frozen / "2_Dense" / "model.safetensors").read_bytes()
        given: dict[str, Any] = {
            "examples": TRAIN,
            "evaluate_on": TEST,
            "model": str(toy_checkpoint),
            "freeze": ("encoder",),
            "learning_rate": 3e-2,
        }

        def again(**changes: Any) -> None:
            arguments = {**given, **changes}
            adapt(arguments.pop("examples"), frozen, device="cpu", **arguments)

        again()
        assert (frozen / "2_Dense" / "model.safetensors").read_bytes() == before
        for name, value in (("examples", TRAIN[:-1]), ("evaluate_on", TEST[1:])):
            with pytest.raises(ValueError, match=f"other settings \\({name} differ\\)"):
                again(**{name: value})
        for name, value in (("steps", 9), ("instruction", "a: ")):
            with pytest.raises(ValueError, match=f"other settings \\({name} was"):
                again(**{name: value})
        assert (frozen / "2_Dense" / "model.safetensors").read_bytes() == before


@pytest.fixture(scope="module")
def tokenizer(toy_checkpoint: Path) -> InstructionTokenizer:
    return InstructionTokenizer(load_checkpoint(toy_checkpoint).tokenizer, 64)


class TestBatches:
    def batches(
        self, tokenizer: InstructionTokenizer, process: int = 0, processes: int = 1, **options: Any
    ) -> LabelledBatches:
        chosen = TrainingOptions(**{"steps": 40, "batch_size": 12, **options})
        return LabelledBatches(TRAIN, tokenizer, INSTRUCTION, chosen, process=process, processes=processes)

    def test_pairs_of_different_examples_with_one_label(self, tokenizer: InstructionTokenizer) -> None:
        batches = self.batches(tokenizer)
        place = {tuple(text.ids): row for row, text in enumerate(batches.tokenized)}
        labels: Counter[str] = Counter()
        pairs = set()
        assert len(batches) == 40
        for step in range(40):
            batch = batches[step]
            assert (batch.roles.pairs, batch.roles.negatives) == (12, 0)
            rows = [place[tuple(text.ids)] for text in batch.texts]
            queries, positives, _ = batch.roles.sides(batch.roles.keys)
            assert torch.equal(queries, positives)
            for query, positive, key in zip(rows[:12], rows[12:], queries.tolist(), strict=True):
                assert query != positive
                assert TRAIN[query].label == TRAIN[positive].label == sorted(KEYWORDS)[key]
                labels[TRAIN[query].label] += 1
                pairs.add((query, positive))
        assert set(labels.values()) == {160}
        assert len(pairs) > 200

    @pytest.mark.parametrize("count", [20, 32, 77])
    def test_all_labels_are_drawn_evenly(self, tokenizer: InstructionTokenizer, count: int) -> None:
        examples = [Example(f"{text} {label}", f"{label:02}") for label in range(count) for text in ("one", "two")]
        chosen = TrainingOptions(steps=60, batch_size=32)
        batches = LabelledBatches(examples, tokenizer, INSTRUCTION, chosen)
        drawn = Counter(key for step in range(60) for key in batches[step].roles.keys.tolist())
        assert sum(drawn.values()) == 2 * 60 * 32
        assert len(drawn) == count
        assert max(drawn.values()) < 2 * min(drawn.values())

    def test_a_function_of_seed_and_step(self, tokenizer: InstructionTokenizer) -> None:
        def rows(batches: LabelledBatches, step: int) -> list[list[int]]:
            return [text.ids.tolist() for text in batches[step].texts]

        first = self.batches(tokenizer)
        forwards = [rows(first, step) for step in range(4)]
        assert [rows(self.batches(tokenizer), step) for step in (3, 0)] == [forwards[3], forwards[0]]
        assert rows(self.batches(tokenizer, seed=1), 0) != forwards[0]

    def test_processes_share_a_batch(self, tokenizer: InstructionTokenizer) -> None:
        whole = self.batches(tokenizer)[5]
        parts = [self.batches(tokenizer, process, 3)[5] for process in range(3)]
        assert [part.roles.pairs for part in parts] == [4, 4, 4]
        joined = sorted(text.ids.tolist() for part in parts for text in part.texts)
        assert joined == sorted(text.ids.tolist() for text in whole.texts)

    @pytest.mark.parametrize(
        ("examples", "message"),
        [
            ([], r"examples of 0 label\(s\); at least two"),
            ([Example("a", "x"), Example("b", "x")], r"examples of 1 label\(s\); at least two"),
            ([Example("a", "x"), Example("b", "x"), Example("c", "y")], "label 'y' has a single example"),
        ],
    )
    def test_too_few_examples(
        self, toy_checkpoint: Path, tmp_path: Path, examples: list[Example], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            adapt(examples, tmp_path / "model", model=str(toy_checkpoint), device="cpu")
        adapt(TRAIN, tmp_path / "model", model=str(toy_checkpoint), steps=1, device="cpu")  # corrected, it goes

    @pytest.mark.parametrize("options", [{"epochs": 3}, {"held_out": 5}, {"max_length": 32, "word_dropout": 0.1}])
    def test_options_without_effect_are_refused(self, tmp_path: Path, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=f"{', '.join(options)}: of no effect in few-shot adaptation"):
            adapt(TRAIN, tmp_path / "model", device="cpu", **options)

    def test_an_option_that_there_is_not(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match="lora_rnak"):
            adapt(TRAIN, tmp_path / "model", lora_rnak=2, device="cpu")
