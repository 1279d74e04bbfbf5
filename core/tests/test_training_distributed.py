"""Two real processes over gloo, started by torchrun and by accelerate: the gradients and the losses of one process on
the joined batch."""

from __future__ import annotations

import csv
import json
import os
import runpy
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anytask import Instructor
from anytask.training import InstructedText, Record, adaptation
from anytask.training.medi.record_files import write_records
from anytask.training.teacher import TeacherVectors

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
TORCHRUN = ["torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
ACCELERATE = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]

GRADIENTS = textwrap.dedent("""
    import json
    import sys
    from pathlib import Path

    import torch
    from accelerate import Accelerator

    from anytask.checkpoint import load_checkpoint
    from anytask.tokenization import InstructionTokenizer
    from anytask.training import TrainingOptions, adaptation
    from anytask.training.batches import TaskBatches
    from anytask.training.collation import PairBatches
    from anytask.training.pair_store import PairStore
    from anytask.training.medi.record_files import read_records
    from anytask.training.teacher import TeacherVectors
    from anytask.training.trainer import Meter, Trainer


    class InFloat64(adaptation.SentenceEncoder):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.double()


    adaptation.SentenceEncoder = InFloat64
    model, records, teacher, output, runs = sys.argv[1:]
    accelerator = Accelerator(cpu=True)
    found = {}
    for name, settings in json.loads(runs).items():
        with accelerator.main_process_first():
            store = PairStore.write(read_records(records), f"{output}.{name}.arrow")
        options = TrainingOptions(steps=1, batch_size=7, dropout=0.0, temperature=0.05, chunk_tokens=64, **settings)
        checkpoint = load_checkpoint(Path(model))
        batches = PairBatches(
            store,
            TaskBatches(store.tasks(), options.batch_size, options.steps, seed=options.seed),
            InstructionTokenizer(checkpoint.tokenizer, checkpoint.max_length),
            options,
            teacher=TeacherVectors(Path(teacher)),
            process=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        trainer = Trainer(checkpoint, options, batches, accelerator, Path(output).parent)
        loss, parts = trainer.compute_gradient(batches[0])
        gradients = {
            name.removeprefix("module."): parameter.grad
            for name, parameter in trainer.module.named_parameters()
            if parameter.requires_grad
        }
        meter, roles = Meter(), batches[0].roles
        meter.add(loss, parts, batches[0])
        means = meter.means(accelerator)
        found[name] = {"loss": loss, "parts": parts, "gradients": gradients, "sizes": (roles.pairs, roles.negatives)}
        found[name]["tokens an example"] = means["tokens_per_second"] / means["examples_per_second"]
    torch.save(found, f"{output}.{accelerator.process_index}")
""")
RUNS: dict[str, dict[str, Any]] = {
    "plain": {"teacher_weight": 0},
    "cached": {"teacher_weight": 0, "gradient_cache": True},
    "released": {"teacher_weight": 0, "gradient_cache": True, "variant": "released"},
    "no negatives": {"teacher_weight": 0, "max_negatives": 0},
    "teacher": {"gradient_cache": True},
    "teacher alone": {"contrastive_weight": 0},
    "checkpointed": {"gradient_checkpointing": True},
    "cached and checkpointed": {"gradient_cache": True, "gradient_checkpointing": True},
    "frozen": {"gradient_cache": True, "freeze": ["embeddings", "layers:1"]},
    "adapters": {"gradient_cache": True, "lora_rank": 2},
}


def run(module: Sequence[str], *arguments: object, timeout: int = 300) -> str:
    """What a Python module (with its own arguments) wrote to standard error; it must succeed."""
    process = subprocess.run(
        [sys.executable, "-m", *module, *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stderr


def uneven_records() -> list[Record]:
    """Seven, of which the second process gets three; only the first process's have hard negatives, of uneven number.

    One text is a positive on both processes, and a hard negative of one is a question of the other.
    """

    def side(kind: str, text: str) -> InstructedText:
        return InstructedText(f"Represent the {kind} for search: ", text)

    words = ["one", "two words", "three words here", "four", "five words of some length here", "six", "seven seven"]
    return [
        Record(
            side("question", f"what is {word}"),
            side("answer", "the same" if place in (0, 3) else f"an answer about {word}"),
            tuple(side("answer", f"what is {words[n]}") for n in range(place)),
            "task",
        )
        for place, word in enumerate(words)
    ]


Found = dict[str, Any]


@pytest.fixture(scope="module")
def found(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, Found]]:
    """By run, what one process found and what each of two did."""
    folder = tmp_path_factory.mktemp("gradients")
    records = uneven_records()
    write_records(records, folder / "records.jsonl")
    TeacherVectors.of_records(records, Instructor.from_pretrained("mini"), folder / "teacher")
    script = folder / "gradients.py"
    script.write_text(GRADIENTS)
    arguments = [toy_checkpoint, folder / "records.jsonl", folder / "teacher"]
    run([*TORCHRUN, str(script)], *arguments, folder / "two", json.dumps(RUNS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptation, "SentenceEncoder", adaptation.SentenceEncoder)  # which the script replaces
        patch.setattr(sys, "argv", [str(script), *map(str, arguments), str(folder / "one"), json.dumps(RUNS)])
        runpy.run_path(str(script))
    sides = {name: torch.load(folder / name) for name in ("one.0", "two.0", "two.1")}
    return {name: {side: result[name] for side, result in sides.items()} for name in RUNS}


@pytest.mark.parametrize("name", RUNS)
def test_gradients_are_the_joined_batchs(found: Mapping[str, Mapping[str, Found]], name: str) -> None:
    alone, *both = (found[name][side] for side in ("one.0", "two.0", "two.1"))
    assert alone["sizes"][0] == 7
    assert sorted(process["sizes"][0] for process in both) == [3, 4]
    assert sum(process["sizes"][1] for process in both) == alone["sizes"][1]
    for process in both:
        assert process["loss"] == pytest.approx(alone["loss"], rel=1e-10)
        assert process["parts"] == pytest.approx(alone["parts"], rel=1e-10)
        assert process["gradients"].keys() == alone["gradients"].keys()
        for parameter, gradient in process["gradients"].items():
            expected: Tensor = alone["gradients"][parameter]
            assert gradient.dtype == torch.float64
            if "lora_A" not in parameter:  # they have none at first, for lora_B is zero
                assert expected.norm() > 0
            assert float((gradient - expected).norm()) <= 1e-9 * float(expected.norm()), parameter


def test_the_speed_is_that_of_all_processes(found: Mapping[str, Mapping[str, Found]]) -> None:
    """Their examples differ in length."""
    alone, *both = (found["plain"][side]["tokens an example"] for side in ("one.0", "two.0", "two.1"))
    assert both == pytest.approx([alone, alone])


def test_the_split_is_uneven(found: Mapping[str, Mapping[str, Found]]) -> None:
    sizes = [found["plain"][side]["sizes"] for side in ("two.0", "two.1")]
    assert sizes[0][0] != sizes[1][0]
    assert sizes[0][1] != sizes[1][1]
    assert all(found["no negatives"][side]["sizes"][1] == 0 for side in ("one.0", "two.0", "two.1"))
    assert found["teacher"]["one.0"]["parts"].keys() == {"contrastive", "distillation"}


def test_cached_gradients_are_the_plain_ones(found: Mapping[str, Mapping[str, Found]]) -> None:
    for side in ("one.0", "two.0", "two.1"):
        plain, cached = (found[name][side]["gradients"] for name in ("plain", "cached"))
        assert all(torch.allclose(plain[name], cached[name], rtol=1e-9, atol=1e-12) for name in plain)


TRAIN = [
    "--steps",
    8,
    "--batch-size",
    16,
    "--dropout",
    0,
    "--learning-rate",
    1e-3,
    "--temperature",
    0.05,
    "--log-every",
    1,
]
TRAIN += ["--held-out", 20, "--device", "cpu"]


def log(folder: Path, name: str = "log.csv") -> list[dict[str, str]]:
    with (folder / "training" / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def records_file(toy_records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "toy.jsonl"
    write_records(toy_records, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_a_run_of_two_processes(
    launcher: Sequence[str], toy_checkpoint: Path, records_file: Path, tmp_path: Path
) -> None:
    """One output, written once, with the losses and the vectors of the run of one process."""
    command = ["anytask", "train", str(records_file), "--model", str(toy_checkpoint), *map(str, TRAIN)]
    module = [*launcher, "-m", *command] if "torch" in launcher[0] else [*launcher, "--module", *command]
    told = run(module, "--output", tmp_path / "two")
    run(command, "--output", tmp_path / "one")
    losses = [[float(row["loss"]) for row in log(tmp_path / name)] for name in ("one", "two")]
    assert [row["step"] for row in log(tmp_path / "two")] == [str(step) for step in range(1, 9)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    figures = [log(tmp_path / name, "evaluation.csv") for name in ("one", "two")]
    assert [row["step"] for row in figures[0]] == [row["step"] for row in figures[1]]
    one, two = (Instructor.from_pretrained(tmp_path / name) for name in ("one", "two"))
    texts = ["where is the oak near the sun and ink", "zoo ice van"]
    torch.testing.assert_close(two.encode(texts, as_tensor=True), one.encode(texts, as_tensor=True), rtol=0, atol=1e-4)
    names = [
        {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*")} for name in ("one", "two")
    ]
    assert {name for name in names[1] if "tfevents" not in name} == {
        name for name in names[0] if "tfevents" not in name
    }
    assert told.count("step 8/8") == 1


@pytest.mark.slow
def test_few_shot_adaptation_of_two_processes(toy_checkpoint: Path, tmp_path: Path) -> None:
    examples = tmp_path / "examples.jsonl"
    rows = [{"text": f"{word} {place}", "label": word} for word in ("good", "bad") for place in range(4)]
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [
        "--few-shot",
        "--steps",
        6,
        "--log-every",
        1,
        "--dropout",
        0,
        "--device",
        "cpu",
        "--model",
        toy_checkpoint,
    ]
    command = ["anytask", "train", str(examples), *map(str, options)]
    run([*TORCHRUN, "-m", *command], "--output", tmp_path / "two")
    run(command, "--output", tmp_path / "one")
    losses = [[float(row["loss"]) for row in log(tmp_path / name)] for name in ("one", "two")]
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.slow
def test_a_batch_too_small_for_two_processes_is_told(toy_checkpoint: Path, records_file: Path, tmp_path: Path) -> None:
    """And ends the run instead of leaving one process to wait for the other."""
    command = ["anytask", "train", str(records_file), "--model", str(toy_checkpoint), "--device", "cpu"]
    command += ["--batch-size", "1", "--steps", "2", "--output", str(tmp_path / "out")]
    process = subprocess.run(
        [sys.executable, "-m", *TORCHRUN, "-m", *command],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert process.returncode != 0
    assert "batch_size 1 gives some of 2 processes nothing" in process.stderr
