"""Train `mini` from what `prepare.py` wrote: first the teacher's vectors, then the same from behind
instructions together with INSTRUCTOR's contrastive task, last the mean of two checkpoints.

    python core/recipes/mini/train.py --prepared build/mini --out build/mini/model

Both stages are runs of `anytask.training.trainer.Trainer`: killed at any point, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from batches import SEED, MiniBatches, Stage
from store import TextStore

from anytask.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from anytask.training.initialise import Sizes, new_checkpoint
from anytask.training.options import TrainingOptions
from anytask.training.report.curves import draw_curves
from anytask.training.run import check_settings, make_accelerator
from anytask.training.trainer import Trainer

SIZES = Sizes(d_model=256, num_layers=4, num_heads=4, d_kv=64, d_ff=1024, dimension=384)
MAX_TOKENS = 128
CHECKPOINT_STEPS = 250
DISTIL = TrainingOptions(
    learning_rate=1e-3,
    warmup_ratio=0.1,
    schedule="cosine",
    weight_decay=0.01,
    dropout=0.0,
    precision="bfloat16",
    log_every=50,
    save_every=CHECKPOINT_STEPS,
    seed=SEED,
)
INSTRUCT = TrainingOptions(
    learning_rate=4e-4,
    warmup_ratio=0.05,
    schedule="cosine",
    weight_decay=0.01,
    temperature=0.05,
    contrastive_weight=0.1,
    dropout=0.0,
    precision="bfloat16",
    log_every=50,
    save_every=CHECKPOINT_STEPS,
    keep=100,
    seed=SEED + 1,
)


def run(checkpoint: Checkpoint, store: TextStore, stage: Stage, options: TrainingOptions, folder: Path) -> Checkpoint:
    """Train a stage in `folder`, or go on with it."""
    check_settings(folder, {**asdict(stage), **options.to_json(), "sizes": asdict(SIZES)})
    trainer = Trainer(
        checkpoint, options, MiniBatches(store, stage, options.seed), make_accelerator(options, None), folder
    )
    trainer.run()
    draw_curves(folder)
    return trainer.trained()


def average(folders: Sequence[Path], out: Path) -> None:
    """Write the mean of the weights of several checkpoints of a run, in float16: it is steadier than any of them."""
    mean = load_checkpoint(folders[0])
    others = [load_checkpoint(folder) for folder in folders[1:]]
    for part in ("encoder", "head"):
        states = [getattr(checkpoint, part).state_dict() for checkpoint in (mean, *others)]
        getattr(mean, part).load_state_dict(
            {name: sum(state[name].float() for state in states) / len(states) for name in states[0]}
        )
    mean.encoder.half()
    mean.head.half()
    save_checkpoint(mean, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("build/mini"))
    parser.add_argument("--out", type=Path, default=Path("build/mini/model"))
    parser.add_argument("--distil-steps", type=int, default=2700)
    parser.add_argument("--instruct-steps", type=int, default=700)
    arguments = parser.parse_args()
    store = TextStore(arguments.prepared, MAX_TOKENS)
    print(f"{len(store.teacher):,} taught texts, {len(store.ends) - 1:,} in all", flush=True)
    token_vectors = np.load(arguments.prepared / "vocabulary_vectors.npy")
    new = new_checkpoint(SIZES, store.tokenizer, seed=SEED, token_vectors=token_vectors)
    stage = Stage(arguments.distil_steps, tokens=4096, instructed=0.3)
    distilled = run(new, store, stage, DISTIL, arguments.out / "distil")
    stage = Stage(arguments.instruct_steps, tokens=4096, instructed=0.85, contrastive_tokens=2048)
    run(distilled, store, stage, INSTRUCT, arguments.out / "instruct")
    chosen = sorted({min(CHECKPOINT_STEPS, arguments.instruct_steps), arguments.instruct_steps})
    average(
        [arguments.out / "instruct" / "checkpoints" / f"step-{step:06d}" for step in chosen], arguments.out / "mini"
    )


if __name__ == "__main__":
    main()
