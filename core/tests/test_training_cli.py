"""`anytask train`: every option of the recipe, errors in a line, and what it says where an extra is missing."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from anytask import Instructor
from anytask.cli import app
from anytask.training import Record, TrainingOptions
from anytask.training.medi.record_files import write_records

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
pytestmark = pytest.mark.usefixtures("no_curves")

SHORT = ["--steps", 2, "--batch-size", 8, "--held-out", 20, "--device", "cpu"]


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, ["train", *map(str, arguments)])


def succeeded(result: Result) -> Result:
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def told(result: Result) -> str:
    """The one line that a failed command says."""
    assert result.exit_code == 1, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "Traceback" not in result.output
    return lines[0]


@pytest.fixture(scope="module")
def records(toy_records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "toy.json"
    write_records(toy_records, path)
    return path


def test_help_has_every_option() -> None:
    text = " ".join(succeeded(run("--help")).output.split())
    for field in fields(TrainingOptions):
        assert f"--{field.name.replace('_', '-')}" in text
    assert "20000" in text
    assert "torchrun --nproc-per-node 2 -m anytask train" in text
    assert "Example: anytask train" in text


def test_a_run(records: Path, toy_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    result = succeeded(run(records, "--output", output, "--model", toy_checkpoint, *SHORT))
    assert f"trained: {output}" in result.output
    assert "step 2/2" in result.output
    assert "held out nDCG@10" in result.output
    assert Instructor.from_pretrained(output).dimension == 24


def test_options_reach_the_recipe(
    records: Path, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path
) -> None:
    """All of them, by the settings that the run keeps."""
    write_records(toy_records[:20], tmp_path / "dev.jsonl")
    given = {
        "steps": 3,
        "epochs": 0.05,
        "batch_size": 6,
        "learning_rate": 1e-3,
        "warmup_ratio": 0.2,
        "schedule": "cosine",
        "weight_decay": 0.01,
        "max_grad_norm": 0.5,
        "temperature": 0.1,
        "variant": "released",
        "max_negatives": 2,
        "mixing": 2.0,
        "max_length": 48,
        "instruction_paraphrase": 0.1,
        "instruction_dropout": 0.1,
        "word_dropout": 0.1,
        "teacher_weight": 0.5,
        "contrastive_weight": 2.0,
        "lora_rank": 2,
        "lora_alpha": 3,
        "dropout": 0.05,
        "precision": "bfloat16",
        "chunk_tokens": 200,
        "log_every": 1,
        "eval_every": 2,
        "save_every": 2,
        "keep": 1,
        "held_out": 12,
        "seed": 3,
    }
    flags = {"keep_false_negatives", "gradient_cache", "gradient_checkpointing"}
    assert {field.name for field in fields(TrainingOptions)} == {*given, *flags, "freeze"}
    arguments = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]
    arguments += [f"--{name.replace('_', '-')}" for name in flags]
    arguments += ["--freeze", "embeddings", "--freeze", "layers:1", "--eval", tmp_path / "dev.jsonl"]
    arguments += ["--teacher", "mini", "--licence", "mit", "--device", "cpu", "--model", toy_checkpoint]
    succeeded(run(records, "--output", tmp_path / "model", *arguments))
    settings = json.loads((tmp_path / "model" / "training" / "settings.json").read_text())
    assert {name: settings[name] for name in given} == given
    assert all(settings[name] is True for name in flags)
    assert settings["freeze"] == ["embeddings", "layers:1"]
    assert settings["model"] == str(toy_checkpoint)
    with (tmp_path / "model" / "training" / "evaluation.csv").open(newline="") as file:
        figures = list(csv.DictReader(file))
    assert {"dev.jsonl nDCG@10", "held out nDCG@10"} <= figures[0].keys()
    assert "license: mit" in (tmp_path / "model" / "README.md").read_text()


def test_several_files_and_a_new_model(records: Path, toy_records: list[Record], tmp_path: Path) -> None:
    other = [Record(r.query, r.pos, r.neg, "other") for r in toy_records[:100]]
    write_records(other, tmp_path / "other.jsonl.gz")
    sizes = "d_model=16,num_layers=1,d_kv=8,d_ff=32,dimension=8,vocab_size=60"
    output = tmp_path / "model"
    succeeded(run(records, tmp_path / "other.jsonl.gz", "--output", output, "--init", sizes, *SHORT, "--log-every", 1))
    assert Instructor.from_pretrained(output).dimension == 8
    assert all(task in (output / "README.md").read_text() for task in ("toy", "other"))


class TestFewShot:
    @pytest.fixture
    def examples(self, tmp_path: Path) -> Path:
        rows = [{"text": f"{word} {n}", "label": word} for word in ("good", "bad", 3) for n in range(4)]
        (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "examples.jsonl"

    def test_a_run(self, examples: Path, toy_checkpoint: Path, tmp_path: Path) -> None:
        """With its own defaults but for what is given."""
        output = tmp_path / "model"
        arguments = ["--few-shot", "--model", toy_checkpoint, "--steps", 3, "--eval", examples, "--device", "cpu"]
        result = succeeded(run(examples, "--output", output, *arguments, "--instruction", "Represent the mood: "))
        assert f"adapted: {output}" in result.output
        assert "accuracy" in result.output
        settings = json.loads((output / "training" / "settings.json").read_text())
        assert (settings["steps"], settings["lora_rank"], settings["temperature"]) == (3, 8, 0.1)
        assert Instructor.from_pretrained(output).query_instruction == "Represent the mood: "

    def test_frozen(self, examples: Path, toy_checkpoint: Path, tmp_path: Path) -> None:
        output = tmp_path / "model"
        arguments = ["--few-shot", "--model", toy_checkpoint, "--steps", 2, "--freeze", "encoder", "--device", "cpu"]
        succeeded(run(examples, "--output", output, *arguments))
        before, after = (load_file(folder / "model.safetensors") for folder in (toy_checkpoint, output))
        bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        assert torch.equal(before[bias], after[bias])
        assert json.loads((output / "training" / "settings.json").read_text())["lora_rank"] == 0

    @pytest.mark.parametrize("option", [["--init", "d_model=32"], ["--suite", "x"], ["--teacher", "mini"]], ids=str)
    def test_what_it_has_no_use_for(self, examples: Path, tmp_path: Path, option: list[str]) -> None:
        line = told(run(examples, "--output", tmp_path / "model", "--few-shot", *option))
        assert f"{option[0]} goes without --few-shot" in line

    def test_records_instead_of_examples(self, records: Path, tmp_path: Path) -> None:
        assert "toy.json" in told(run(records, "--output", tmp_path / "model", "--few-shot", "--device", "cpu"))


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--learning-rate", 0], "learning_rate must be positive, got 0.0"),
            (["--steps", 0], "steps must be at least 1, got 0"),
            (["--freeze", "head"], "can't freeze 'head'"),
            (["--precision", "float16"], "can't train in float16 on a CPU"),
            (["--init", "d_model=8", "--model", "mini"], "not both"),
            (["--tokenizer", "somewhere"], "a checkpoint has its own"),
            (["--instruction", "Represent: "], "--instruction goes with --few-shot"),
            (["--eval", "missing.jsonl"], "missing.jsonl"),
            (["--suite", "missing"], "missing"),
            (["--teacher", "./missing"], "missing"),
            (["--model", "./missing"], "missing"),
            (["--contrastive-weight", 0], "contrastive_weight 0"),
            (["--init", "d_model=8,num_heads=1"], "too small for vocab_size 32,000"),
        ],
        ids=str,
    )
    def test_in_a_line(self, records: Path, tmp_path: Path, arguments: list[object], message: str) -> None:
        assert message in told(run(records, "--output", tmp_path / "model", "--device", "cpu", *arguments))

    def test_a_choice_that_there_is_not(self, records: Path, tmp_path: Path) -> None:
        result = run(records, "--output", tmp_path / "model", "--schedule", "triangular")
        assert result.exit_code == 2
        assert "triangular" in result.output

    def test_no_such_file(self, tmp_path: Path) -> None:
        assert "nowhere.jsonl" in told(
            run(tmp_path / "nowhere.jsonl", "--output", tmp_path / "model", "--device", "cpu")
        )

    def test_a_damaged_record(self, tmp_path: Path) -> None:
        (tmp_path / "bad.jsonl").write_text('{"query": ["a", "b"], "pos": ["a", 3], "task_id": 1}\n')
        line = told(run(tmp_path / "bad.jsonl", "--output", tmp_path / "model", "--device", "cpu"))
        assert "bad.jsonl, line 1, record 1, field pos[1]" in line

    def test_other_options_than_before(self, records: Path, toy_checkpoint: Path, tmp_path: Path) -> None:
        arguments = [records, "--output", tmp_path / "model", "--model", toy_checkpoint, *SHORT]
        succeeded(run(*arguments))
        assert "learning_rate was 2e-05, is 0.1" in told(run(*arguments, "--learning-rate", 0.1))


BLOCKED = textwrap.dedent("""
    import importlib.abc, os, sys
    from anytask.cli import app

    class Missing(importlib.abc.MetaPathFinder):
        def __init__(self, missing):
            self.missing = missing

        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == self.missing:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for missing in sys.argv.pop(1).split(","):
        if os.fork() == 0:
            sys.meta_path.insert(0, Missing(missing))
            app(prog_name="anytask")
        print(missing, os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
""")


def test_a_missing_extra_is_told_before_anything_is_done(records: Path, toy_checkpoint: Path, tmp_path: Path) -> None:
    """Also of packages that are needed at the very end."""
    extras = ["accelerate", "pyarrow", "peft", "matplotlib", "tensorboard"]
    arguments = ["train", records, "--output", tmp_path / "model", "--model", toy_checkpoint, *SHORT, "--lora-rank", 2]
    process = subprocess.run(
        [sys.executable, "-c", BLOCKED, ",".join(extras), *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.stdout.splitlines() == [f"{name} 1" for name in extras]
    lines = process.stderr.splitlines()
    assert len(lines) == len(extras)
    for name, line in zip(extras, lines, strict=True):
        assert line.startswith("error:")
        assert f"'{name}'" in line or f"'{name}." in line
        assert 'pip install "anytask[train]"' in line
    assert not (tmp_path / "model" / "training" / "log.csv").exists()


def test_what_needs_no_extra() -> None:
    """The package, the records, the losses and the help of the command."""
    script = textwrap.dedent("""
        import contextlib, io, sys
        sys.argv = ["anytask"]
        import anytask
        from anytask.training import Record, TrainingOptions, contrastive_loss
        from anytask.cli import app
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            app(["train", "--help"])
        print(*sorted({name.split(".")[0] for name in sys.modules}))
    """)
    process = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=True
    )
    loaded = set(process.stdout.split())
    assert {"anytask", "torch", "typer"} <= loaded
    heavy = {"accelerate", "peft", "pyarrow", "transformers", "matplotlib", "tensorboard", "sklearn", "sentencepiece"}
    assert not heavy & loaded
