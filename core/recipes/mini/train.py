"""Train `mini` from what `prepare.py` wrote: first the teacher's vectors, then tasks behind their instructions beside
them; last, int8.

    python core/recipes/mini/train.py --prepared build/mini --out build/mini/model

With `--further FOLDER` the second stage alone, from the finished model in that folder.

Both stages are runs of `anytask.training.trainer.Trainer`: killed at any point, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

from averaging import between
from axes import axes_of
from batches import SEED, MiniBatches, Stage
from imitation import ImitatingTrainer
from store import NOTHING, Prepared
from teacher import Teacher, computes_bfloat16, teacher_folder
from vocabulary import t5_tokenizer

from anytask import Instructor
from anytask.checkpoint import Checkpoint, load_checkpoint
from anytask.files.work_folder import digest
from anytask.training.options import TrainingOptions
from anytask.training.report.curves import draw_curves
from anytask.training.run import check_settings, make_accelerator

DISTIL = TrainingOptions(
    learning_rate=1e-3,
    warmup_ratio=0.05,
    schedule="cosine",
    dropout=0.0,
    chunk_tokens=1 << 20,
    log_every=20,
    save_every=100,
    seed=SEED,
)
INSTRUCT = replace(DISTIL, learning_rate=3e-4, temperature=0.05, contrastive_weight=0.15, seed=SEED + 1)

SHARE = 0.95
"""How far the result is on the way from the second stage's start to its end, unless it is told."""
AXES_TEXTS = 16_384
"""Texts that a finished model's axes are found by."""


def run(
    checkpoint: Checkpoint,
    prepared: Prepared,
    teacher: Teacher,
    stage: Stage,
    options: TrainingOptions,
    folder: Path,
    **about: str,
) -> Checkpoint:
    """Train a stage in `folder`, or go on with it, if need be in the precision of another machine.

    Args:
        about: what else must be the same to go on.
    """
    check_settings(folder, {"stage": asdict(stage), "options": options.to_json(), **about})
    if computes_bfloat16():
        options = replace(options, precision="bfloat16")
    batches = MiniBatches(prepared, stage, options.seed, teacher)
    trainer = ImitatingTrainer(checkpoint, options, batches, make_accelerator(options, None), folder)
    trainer.run()
    draw_curves(folder)
    return trainer.trained()


def instruct(
    start: Checkpoint, prepared: Prepared, teacher: Teacher, steps: int, folder: Path, **about: str
) -> Checkpoint:
    """The second stage, from `start` to its end."""
    stage = Stage(steps, taught_tokens=2048, instructed=0.7, task_tokens=3072, sentence_topics=True)
    return run(deepcopy(start), prepared, teacher, stage, INSTRUCT, folder, **about)


def start_on(prepared: Prepared, kept: Sequence[int], model: Path) -> tuple[Checkpoint, Teacher]:
    """A finished model, and the teacher on its axes."""
    start = load_checkpoint(model)
    texts = [prepared.texts.text(place, NOTHING) for place in range(min(AXES_TEXTS, len(prepared.texts)))]
    return start, Teacher.load(kept, axes_of(start, Teacher.load(kept), texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("build/mini"))
    parser.add_argument("--out", type=Path, default=Path("build/mini/model"))
    parser.add_argument("--further", type=Path, metavar="FOLDER", help="a finished model, to be taught further")
    parser.add_argument("--distil-steps", type=int, default=800)
    parser.add_argument("--instruct-steps", type=int, default=1000)
    parser.add_argument("--share", type=float, default=SHARE, help="of the second stage's way that is kept")
    arguments = parser.parse_args()
    prepared = Prepared(arguments.prepared)
    kept = t5_tokenizer(teacher_folder() / "tokenizer.json")[1]
    if arguments.further:
        start, teacher = start_on(prepared, kept, arguments.further)
        folder, about = arguments.out / "further", {"from": digest(arguments.further)}
    else:
        teacher = Teacher.load(kept, prepared.rotation)
        converted = load_checkpoint(arguments.prepared / "start")
        stage = Stage(arguments.distil_steps, taught_tokens=4096, instructed=0.3)
        start = run(converted, prepared, teacher, stage, DISTIL, arguments.out / "distil")
        folder, about = arguments.out / "instruct", {}
    instructed = instruct(start, prepared, teacher, arguments.instruct_steps, folder, **about)
    mini = between(start, instructed, arguments.share)
    Instructor.from_checkpoint(mini, dtype="int8", device="cpu").save_pretrained(arguments.out / "mini")


if __name__ == "__main__":
    main()
