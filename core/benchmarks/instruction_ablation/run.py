"""Do instructions help when tasks of both kinds are trained together? Figure 3 of INSTRUCTOR (arXiv 2212.09741) in
small.

    python core/benchmarks/instruction_ablation/run.py --data FOLDER

A small model is trained on symmetric tasks, on asymmetric ones and on both, with their instructions and without, from
the same start, for as many steps, with every seed; then measured on tasks of both kinds. Killed at any point, the same
command goes on. `--out` keeps the models, their figures, `table.md` and `figure.svg`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import measure
from mixture import MIXTURES, Task, read_tasks, without_instructions
from report import Row, write_report

from anytask import Instructor
from anytask.checkpoint import load_checkpoint, save_checkpoint
from anytask.files.whole import write_json
from anytask.hub import resolve
from anytask.training.initialise import new_checkpoint, parse_sizes
from anytask.training.options import TrainingOptions
from anytask.training.run import train

INSTRUCTIONS = ("with", "without")
START = "start"
HELD_OUT, SUITE = "held out", "suite"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/instruction_ablation"))
    parser.add_argument("--sizes", default="d_model=128,num_layers=2,num_heads=2,d_ff=512,dimension=256")
    parser.add_argument("--mixtures", nargs="+", choices=list(MIXTURES), default=list(MIXTURES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--jobs", type=int, default=1, help="models trained or measured at the same time")
    arguments = parser.parse_args()
    out: Path = arguments.out
    start = new_model(arguments.sizes, out / START)
    tasks = read_tasks(arguments.data, Instructor.from_pretrained("mini", device="cpu"))
    forms = {"with": tasks, "without": [without_instructions(task) for task in tasks]}
    starts = [Row(START, instructions, 0, start) for instructions in INSTRUCTIONS]
    trained = [
        Row(mixture, instructions, seed, out / f"{mixture}-{instructions}-{seed}")
        for mixture, seed, instructions in product(arguments.mixtures, range(arguments.seeds), INSTRUCTIONS)
    ]
    rows = starts + trained
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        runs = [pool.submit(run, row, forms[row.instructions], start, options(row, arguments)) for row in trained]
        runs += [pool.submit(measure_held_out, row, forms[row.instructions]) for row in starts]
        for done in runs:
            done.result()
        write_report(rows, [HELD_OUT], out)
        for done in [pool.submit(measure_suite, row, arguments.data / "dev") for row in rows]:
            done.result()
    print(write_report(rows, [HELD_OUT, SUITE], out))


def new_model(sizes: str, folder: Path) -> Path:
    """A model that knows words but no instruction: `mini`'s token vectors, and new layers."""
    if not folder.is_dir():
        mini = load_checkpoint(resolve("mini"))
        vectors = mini.encoder.embed_tokens.weight.detach().float().numpy()
        save_checkpoint(new_checkpoint(parse_sizes(sizes), mini.tokenizer, seed=0, token_vectors=vectors), folder)
    return folder


def options(row: Row, arguments: argparse.Namespace) -> TrainingOptions:
    return TrainingOptions(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        dropout=0.0,
        held_out=0,
        log_every=50,
        save_every=max(1, arguments.steps // 3),
        keep=0,
        seed=row.seed,
    )


def run(row: Row, tasks: Sequence[Task], start: Path, recipe: TrainingOptions) -> None:
    """Train a model, or go on with it, and measure it."""
    if not (row.folder / "README.md").is_file():
        chosen = [task for task in tasks if task.name in MIXTURES[row.mixture]]
        records = [record for task in chosen for record in task.records]
        train(records, row.folder, start=str(start), options=recipe, device="cpu")
    measure_held_out(row, tasks)


def measure_held_out(row: Row, tasks: Sequence[Task]) -> None:
    if not row.path(HELD_OUT).is_file():
        model = Instructor.from_pretrained(row.folder, device="cpu")
        write_json(row.path(HELD_OUT), measure.held_out(model, tasks))


def measure_suite(row: Row, suite: Path) -> None:
    if not row.path(SUITE).is_file():
        model = Instructor.from_pretrained(row.folder, device="cpu")
        choice = "right" if row.instructions == "with" else "none"
        write_json(row.path(SUITE), measure.suite(model, suite, choice))


if __name__ == "__main__":
    main()
