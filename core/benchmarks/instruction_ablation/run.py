"""Do instructions help when tasks of both kinds are trained together? Figure 3 of INSTRUCTOR (arXiv 2212.09741) in
small.

    python core/benchmarks/instruction_ablation/run.py --data FOLDER

A small model is trained on symmetric tasks, on asymmetric ones and on both, with their instructions and without, from
the same start, for as many steps, with every seed; then measured on tasks of both kinds. Killed at any point, the same
command goes on. `--out` keeps the models, their figures, `table.md` and `figure.svg`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import measure
from mixture import MIXTURES, read_tasks, without_instructions
from report import Row, write_report

from anytask import Instructor
from anytask.checkpoint import load_checkpoint, save_checkpoint
from anytask.hub import resolve
from anytask.training.files import write_json
from anytask.training.initialise import new_checkpoint, parse_sizes
from anytask.training.options import TrainingOptions
from anytask.training.run import train

INSTRUCTIONS = ("with", "without")
START = "start"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/instruction_ablation"))
    parser.add_argument("--sizes", default="d_model=128,num_layers=2,num_heads=2,d_ff=512,dimension=256")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    out: Path = arguments.out
    start = new_model(arguments.sizes, out / START)
    tasks = read_tasks(arguments.data, Instructor.from_pretrained("mini", device="cpu"))
    forms = {"with": tasks, "without": [without_instructions(task) for task in tasks]}
    rows = [Row(START, instructions, 0, start) for instructions in INSTRUCTIONS]
    for seed, mixture, instructions in product(range(arguments.seeds), MIXTURES, INSTRUCTIONS):
        folder = out / f"{mixture}-{instructions}-{seed}"
        rows.append(Row(mixture, instructions, seed, folder))
        options = TrainingOptions(
            steps=arguments.steps,
            batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            dropout=0.0,
            held_out=0,
            log_every=50,
            save_every=max(1, arguments.steps // 3),
            keep=0,
            seed=seed,
        )
        if not (folder / "README.md").is_file():
            chosen = [task for task in forms[instructions] if task.name in MIXTURES[mixture]]
            records = [record for task in chosen for record in task.records]
            train(records, folder, start=str(start), options=options, device="cpu")
    for row in rows:
        add(row, "held out", lambda model, row=row: measure.held_out(model, forms[row.instructions]))
    write_report(rows, out)
    for row in rows:
        choice = "right" if row.instructions == "with" else "none"
        add(row, "suite", lambda model, choice=choice: measure.suite(model, arguments.data / "dev", choice))
    print(write_report(rows, out))


def new_model(sizes: str, folder: Path) -> Path:
    """A model that knows words but no instruction: `mini`'s token vectors, and new layers."""
    if not folder.is_dir():
        mini = load_checkpoint(resolve("mini"))
        vectors = mini.encoder.embed_tokens.weight.detach().float().numpy()
        save_checkpoint(new_checkpoint(parse_sizes(sizes), mini.tokenizer, seed=0, token_vectors=vectors), folder)
    return folder


def add(row: Row, name: str, figures: Callable[[Instructor], measure.Figures]) -> None:
    """Measure a row's model, unless that was done before."""
    path = row.folder / f"{row.instructions} {name}.json"
    if not path.is_file():
        write_json(path, figures(Instructor.from_pretrained(row.folder, device="cpu")))
    row.figures[name] = json.loads(path.read_text("utf-8"))


if __name__ == "__main__":
    main()
