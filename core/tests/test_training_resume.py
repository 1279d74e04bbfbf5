"""Runs that are killed, at any change to a file and at any time, and go on to the weights of one that wasn't."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from anytask import Instructor
from anytask.training import Record, TrainingOptions
from anytask.training.medi.record_files import write_records
from anytask.training.run import train

pytestmark = pytest.mark.usefixtures("no_curves")

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
WEIGHTS = ("model.safetensors", "2_Dense/model.safetensors")

# Forks a child per run, which kills itself at the n-th change to a file under the output.
KILLER = textwrap.dedent("""
    import itertools
    import json
    import os
    import random
    import shutil
    import signal
    import sys
    import traceback
    from pathlib import Path

    from anytask import Instructor
    from anytask.training import TrainingOptions
    from anytask.training.run import train
    from anytask.training.start import Start

    # What a run imports, once for all of them.
    import accelerate, matplotlib.backends.backend_agg, matplotlib.figure, sklearn.metrics, transformers
    import torch.utils.tensorboard
    from transformers import get_scheduler

    CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


    def kill_at(change, folder):
        count = 0

        def watch(event, arguments):
            nonlocal count
            if event not in CHANGES or not str(arguments[0]).startswith(str(folder)):
                return
            if event == "open" and isinstance(arguments[1], str) and not set(arguments[1]) & set("wax+"):
                return
            count += 1
            if count == change:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)


    def run(output, change=None):
        \"\"\"Whether it came to its end; it was killed if not.\"\"\"
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if change is not None:
                    kill_at(change, output.parent)
                train(
                    records,
                    output,
                    start=Start(**start),
                    options=TrainingOptions(**options),
                    teacher=teacher,
                    device="cpu",
                )
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        if status and os.WTERMSIG(status) != signal.SIGKILL:
            raise SystemExit(f"the run failed instead of being killed or going on: {status}")
        return status == 0


    def same(found, expected):
        for path in sorted(expected.rglob("*")):
            name = path.relative_to(expected)
            of_the_model = path.suffix in (".safetensors", ".json") and name.parts[0] != "training"
            if (of_the_model or name.name == "evaluation.csv") and (found / name).read_bytes() != path.read_bytes():
                raise SystemExit(f"{found / name} is not what the whole run wrote")
        left = list(found.parent.rglob(".*"))
        if left:
            raise SystemExit(f"left lying about: {left}")


    records, folder, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    start, options = json.loads(sys.argv[4]), json.loads(sys.argv[5])
    teacher = Instructor.from_pretrained(sys.argv[6], device="cpu") if len(sys.argv) > 6 else None
    whole = folder / "whole" / "model"
    assert run(whole)
    kills = 0
    if mode == "each":
        for change in itertools.count(1):
            output = folder / f"killed-{change}" / "model"
            if run(output, change):
                break
            kills += 1
            assert run(output)
            same(output, whole)
            shutil.rmtree(output.parent)
    else:
        chosen = random.Random(int(mode))
        output = folder / "killed" / "model"
        for _ in range(6):
            kills += not run(output, chosen.randrange(3, 70))
        assert run(output)
        same(output, whole)
        shutil.copytree(output, folder / "model")
    print(json.dumps({"kills": kills}))
""")
OPTIONS: dict[str, Any] = {
    "steps": 6,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "temperature": 0.05,
    "held_out": 30,
    "eval_every": 2,
    "save_every": 3,
    "log_every": 1,
    "keep": 1,
    "dropout": 0.1,
    "chunk_tokens": 100,
}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def records_file(toy_records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "toy.jsonl.gz"
    write_records(toy_records, path)
    return path


def killed(
    folder: Path, mode: str, records: Path, start: dict[str, str], options: dict[str, Any], *teacher: Path
) -> int:
    """Run to the end with kills on the way, compare with the whole run; gives how often it was killed."""
    process = subprocess.run(
        [sys.executable, "-c", KILLER, records, folder, mode, json.dumps(start), json.dumps(options), *teacher],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-5000:]
    return int(json.loads(process.stdout.splitlines()[-1])["kills"])


def test_killed_again_and_again(toy_checkpoint: Path, records_file: Path, tmp_path: Path) -> None:
    """At changes to files in all parts of a run, resumed each time: each step once, the same weights."""
    assert killed(tmp_path, "0", records_file, {"model": str(toy_checkpoint)}, OPTIONS) >= 4
    log, whole = (rows(tmp_path / side / "training" / "log.csv") for side in ("model", "whole/model"))
    assert [row["step"] for row in log] == [str(step) for step in range(1, 7)]
    assert [row["loss"] for row in log] == [row["loss"] for row in whole]
    assert [row["step"] for row in rows(tmp_path / "model" / "training" / "evaluation.csv")] == ["0", "2", "4", "6"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["1", "2", "3"])
@pytest.mark.parametrize(
    "options",
    [
        {"gradient_cache": True, "gradient_checkpointing": True, "word_dropout": 0.2, "instruction_paraphrase": 0.5},
        {"lora_rank": 2, "save_every": 1},
        {"precision": "bfloat16", "held_out": 0},
    ],
    ids=str,
)
def test_of_every_kind(
    toy_checkpoint: Path, records_file: Path, tmp_path: Path, options: dict[str, Any], mode: str
) -> None:
    start = {"model": str(toy_checkpoint)}
    assert killed(tmp_path, mode, records_file, start, {**OPTIONS, **options}) >= 4


@pytest.mark.slow
def test_killed_at_each_change(toy_checkpoint: Path, records_file: Path, tmp_path: Path) -> None:
    """Whatever file is being written, renamed or removed."""
    options = {**OPTIONS, "steps": 4, "eval_every": 2, "save_every": 2, "held_out": 20}
    assert killed(tmp_path, "each", records_file, {"model": str(toy_checkpoint)}, options) > 60


@pytest.mark.slow
def test_from_nothing_with_a_teacher(toy_checkpoint: Path, records_file: Path, tmp_path: Path) -> None:
    """The vocabulary and the teacher's vectors are made once and kept."""
    start = {"init": "d_model=32,num_layers=1,num_heads=4,d_kv=8,d_ff=64,vocab_size=60"}
    options = {**OPTIONS, "steps": 2, "eval_every": 2, "save_every": 1, "held_out": 20}
    assert killed(tmp_path, "each", records_file, start, options, toy_checkpoint) > 60


@pytest.mark.slow
def test_the_command_killed_at_any_time(toy_checkpoint: Path, records_file: Path, tmp_path: Path) -> None:
    """`anytask train` with SIGKILL from outside, at lines of its log that chance chooses."""
    options = {**OPTIONS, "steps": 40, "eval_every": 4, "save_every": 4, "chunk_tokens": 300}
    arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]

    def command(output: Path) -> list[str]:
        model = ["--model", str(toy_checkpoint), "--device", "cpu", "--output", str(output)]
        return [sys.executable, "-m", "anytask", "train", str(records_file), *model, *arguments]

    subprocess.run(command(tmp_path / "whole"), env=ENVIRONMENT, check=True, capture_output=True)
    log = tmp_path / "killed" / "training" / "log.csv"
    chosen, kills = random.Random(0), 0
    for line in sorted(chosen.sample(range(1, 36), 4)):
        process = subprocess.Popen(
            command(tmp_path / "killed"), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and (log.read_text().count("\n") if log.exists() else 0) < line:
            time.sleep(0.01)
        time.sleep(chosen.uniform(0, 0.05))
        process.kill()
        kills += process.wait() != 0
    assert kills >= 2
    subprocess.run(command(tmp_path / "killed"), env=ENVIRONMENT, check=True, capture_output=True)
    for name in WEIGHTS:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    logs, figures = (
        [rows(tmp_path / side / "training" / name) for side in ("killed", "whole")]
        for name in ("log.csv", "evaluation.csv")
    )
    assert [(row["step"], row["loss"]) for row in logs[0]] == [(row["step"], row["loss"]) for row in logs[1]]
    assert figures[0] == figures[1]


@pytest.fixture(scope="module")
def finished(toy_checkpoint: Path, toy_records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = TrainingOptions(**{**OPTIONS, "steps": 2})
    output = tmp_path_factory.mktemp("run") / "model"
    return train(toy_records, output, start=str(toy_checkpoint), options=options, device="cpu")


class TestSettings:
    def again(self, finished: Path, records: list[Record], start: Path | str, **changes: Any) -> None:
        arguments = {
            name: changes.pop(name) for name in ("evaluate_on", "prompts", "teacher", "suite") if name in changes
        }
        options = TrainingOptions(**{**OPTIONS, "steps": 2, **changes})
        train(records, finished, start=str(start), options=options, device="cpu", **arguments)

    def test_a_finished_run_is_left_as_it_is(
        self, finished: Path, toy_checkpoint: Path, toy_records: list[Record]
    ) -> None:
        """Its files are what they were, and so is a card that was rewritten by hand."""
        card = finished / "README.md"
        card.write_text("My own words.")
        names = sorted(str(path.relative_to(finished)) for path in finished.rglob("*") if "tfevents" not in path.name)
        contents = {name: (finished / name).read_bytes() for name in names if (finished / name).is_file()}
        self.again(finished, toy_records, toy_checkpoint)
        found = sorted(str(path.relative_to(finished)) for path in finished.rglob("*") if "tfevents" not in path.name)
        assert found == names
        changed = {name for name, content in contents.items() if (finished / name).read_bytes() != content}
        assert changed <= {"training/curves.png", "curves.png"}
        assert card.read_text() == "My own words."

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("seed", 7, "seed was 0, is 7"),
            ("steps", 9, "steps was 2, is 9"),
            ("learning_rate", 0.5, r"learning_rate was 0\.01, is 0\.5"),
            ("freeze", ("embeddings",), r"freeze was \[\], is \['embeddings'\]"),
            ("lora_rank", 2, "lora_rank was 0, is 2"),
            ("held_out", 5, "held_out was 30, is 5"),
            ("prompts", {"query": "a: "}, "prompts was None, is {'query': 'a: '}"),
        ],
    )
    def test_other_options_are_refused(
        self, finished: Path, toy_checkpoint: Path, toy_records: list[Record], name: str, value: object, message: str
    ) -> None:
        before = [(finished / weights).read_bytes() for weights in WEIGHTS]
        with pytest.raises(ValueError, match=f"holds a run with other settings \\({message}\\); go on with the same"):
            self.again(finished, toy_records, toy_checkpoint, **{name: value})
        assert [(finished / weights).read_bytes() for weights in WEIGHTS] == before

    def test_another_model_is_refused(self, finished: Path, toy_records: list[Record]) -> None:
        with pytest.raises(ValueError, match=r"other settings \(model was '.*', is 'mini'\)"):
            self.again(finished, toy_records, "mini")

    def test_other_records_are_refused_and_harm_nothing(
        self, finished: Path, toy_checkpoint: Path, toy_records: list[Record]
    ) -> None:
        kept = (finished / "training" / "records.arrow").read_bytes()
        with pytest.raises(ValueError, match=r"other settings \(records differ\); go on with the same"):
            self.again(finished, toy_records[1:], toy_checkpoint)
        assert (finished / "training" / "records.arrow").read_bytes() == kept
        assert not list(finished.rglob(".*"))
        self.again(finished, toy_records, toy_checkpoint)

    def test_other_evaluations_are_refused(
        self, finished: Path, toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path
    ) -> None:
        """Their figures wouldn't compare with those that have chosen the best so far."""
        write_records(toy_records[:10], tmp_path / "dev.jsonl")
        with pytest.raises(ValueError, match="evaluate_on was None, is "):
            self.again(finished, toy_records, toy_checkpoint, evaluate_on=[tmp_path / "dev.jsonl"])

    def test_a_teacher_that_comes_late_is_refused(
        self, finished: Path, toy_checkpoint: Path, toy_records: list[Record]
    ) -> None:
        with pytest.raises(ValueError, match="teacher was None"):
            self.again(finished, toy_records, toy_checkpoint, teacher=Instructor.from_pretrained("mini"))

    def test_what_may_change(self, finished: Path, toy_checkpoint: Path, toy_records: list[Record]) -> None:
        self.again(finished, toy_records, toy_checkpoint, log_every=5, keep=3)


def test_a_run_of_files_knows_them_again(toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path) -> None:
    """By their content: a copy elsewhere is the same records, a changed file isn't."""
    options = TrainingOptions(**{**OPTIONS, "steps": 2})
    paths = [tmp_path / "records.jsonl", tmp_path / "copy" / "records.json.gz"]
    paths[1].parent.mkdir()
    for path in paths:
        write_records(toy_records, path)
        train(path, tmp_path / "model", start=str(toy_checkpoint), options=options, device="cpu")
    work = tmp_path / "model" / "training"
    kept = [(work / name).read_bytes() for name in ("records.arrow", "records.json")]
    write_records(toy_records[:-1], paths[0])
    with pytest.raises(ValueError, match="records differ"):
        train(paths[0], tmp_path / "model", start=str(toy_checkpoint), options=options, device="cpu")
    assert [(work / name).read_bytes() for name in ("records.arrow", "records.json")] == kept


def test_another_teacher_is_refused(toy_checkpoint: Path, toy_records: list[Record], tmp_path: Path) -> None:
    options = TrainingOptions(**{**OPTIONS, "steps": 2, "held_out": 0})

    def run(teacher: Instructor) -> None:
        train(
            toy_records, tmp_path / "model", start=str(toy_checkpoint), options=options, teacher=teacher, device="cpu"
        )

    mini, other = Instructor.from_pretrained("mini"), Instructor.from_pretrained(toy_checkpoint)
    run(mini)
    run(mini)
    with pytest.raises(ValueError, match="of another teacher"):
        run(other)
