"""One of the trainers that `training_speed.py` compares, as a process of its own.

It says its loss before training, as a line of JSON; then it trains, in turns: a line comes in with the number of
steps, and one goes out with the seconds that they took and the peak memory so far.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peak import peak_megabytes

TEMPERATURE = 0.01
LEARNING_RATE = 2e-5
DROPOUT = 0.1
STEPS = 10_000
"""More than are ever run: the schedule's length."""


@dataclass(frozen=True)
class Rival:
    """A trainer and its settings.

    Args:
        mini_batch: of the cached loss; for ours, any number asks for the cache.
    """

    name: str
    ours: bool
    precision: str
    mini_batch: int | None = None


@dataclass(frozen=True)
class Work:
    """What all rivals are given.

    Args:
        model: a folder.
        records: a file of MEDI records, in the order of the batches.
    """

    model: str
    records: str
    batch_size: int
    threads: int


class Stopped(Exception):
    """The parent process has seen enough."""


class Turns:
    """A hook of the optimiser: after each step it counts, and at the end of a turn waits for the next.

    Lines come in with the steps of a turn, and go out with the seconds that it took.
    """

    def __init__(self, out: Any) -> None:
        self.out = out
        self.left = 1  # a first step to warm up
        self.start()

    def start(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if self.left:
            return
        seconds = {"wall": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}
        self.say({**seconds, "peak": peak_megabytes()})
        line = sys.stdin.readline()
        if not line:
            raise Stopped
        self.left = int(line)
        self.start()

    def say(self, message: dict[str, float]) -> None:
        print(json.dumps(message), file=self.out, flush=True)


def train_ours(rival: Rival, work: Work, folder: Path) -> tuple[float, Callable[[], object]]:
    """The loss before training, and what trains."""
    import torch

    from anytask.batching import pack
    from anytask.tokenization import InstructionTokenizer
    from anytask.training.batches import TaskBatches
    from anytask.training.collation import PairBatches
    from anytask.training.medi.record_files import read_records
    from anytask.training.options import TrainingOptions
    from anytask.training.pair_store import PairStore
    from anytask.training.run import make_accelerator
    from anytask.training.start import Start
    from anytask.training.trainer import Trainer

    class InOrder(TaskBatches):
        def __getitem__(self, step: int) -> tuple[str, Any]:
            return self.names[0], np.arange(step * work.batch_size, (step + 1) * work.batch_size) % len(store)

    options = TrainingOptions(
        steps=STEPS,
        batch_size=work.batch_size,
        learning_rate=LEARNING_RATE,
        dropout=DROPOUT,
        temperature=TEMPERATURE,
        precision=rival.precision,  # type: ignore[arg-type]
        gradient_cache=rival.mini_batch is not None,
        log_every=STEPS,
        held_out=0,
        eval_every=STEPS,
    )
    accelerator = make_accelerator(options, "cpu")
    store = PairStore.write(read_records(work.records), folder / "records.arrow")
    checkpoint = Start(model=work.model).checkpoint(store, folder, max_length=None, seed=0)
    plan = InOrder(store.tasks(), work.batch_size, STEPS)
    batches = PairBatches(store, plan, InstructionTokenizer(checkpoint.tokenizer, checkpoint.max_length), options)
    trainer = Trainer(checkpoint, options, batches, accelerator, folder)
    first = batches[0]
    order = sorted(range(len(first.texts)), key=lambda place: len(first.texts[place].ids))
    packed = pack([first.texts[place] for place in order])
    trainer.module.eval()
    with torch.no_grad(), accelerator.autocast():
        vectors = trainer.module(packed.token_ids, packed.pool_mask, packed.groups)
    loss, _ = trainer.objective(vectors[torch.argsort(torch.tensor(order))], first.roles)
    return float(loss) / 2, trainer.run


def train_theirs(rival: Rival, work: Work, folder: Path) -> tuple[float, Callable[[], object]]:
    """As `train_ours`."""
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )

    model = SentenceTransformer(
        work.model, device="cpu", model_kwargs={"dtype": "float32"}, config_kwargs={"dropout_rate": DROPOUT}
    )
    model.set_pooling_include_prompt(False)
    rows, prompts = [], {}
    for line in Path(work.records).read_text("utf-8").splitlines():
        record = json.loads(line)
        negatives = record["neg"] if isinstance(record["neg"][0], list) else [record["neg"]]
        sides = {"anchor": record["query"], "positive": record["pos"]}
        sides |= {f"negative_{number}": negative for number, negative in enumerate(negatives, 1)}
        prompts = {name: instruction for name, (instruction, _) in sides.items()}
        rows.append({name: text for name, (_, text) in sides.items()})
    both: dict[str, Any] = {
        "scale": 1 / TEMPERATURE,
        "directions": ("query_to_doc", "doc_to_query"),
        "partition_mode": "per_direction",
    }
    if rival.mini_batch is None:
        loss = MultipleNegativesRankingLoss(model, **both)
    else:
        loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=rival.mini_batch, **both)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(folder),
            max_steps=STEPS,
            per_device_train_batch_size=work.batch_size,
            learning_rate=LEARNING_RATE,
            warmup_steps=STEPS // 10,
            max_grad_norm=1.0,
            bf16=rival.precision == "bfloat16",
            use_cpu=True,
            prompts=prompts,
            batch_sampler=in_order,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        loss=loss,
    )
    model.eval()
    features, labels = trainer.collect_features(trainer.data_collator(rows[: work.batch_size]))
    with torch.no_grad(), trainer.accelerator.autocast():
        value = float(MultipleNegativesRankingLoss(model, **both)(features, labels))
    return value, trainer.train


def in_order(dataset: Any, batch_size: int, drop_last: bool, **_: object) -> Any:
    """Batches as the rows come."""
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from torch.utils.data import SequentialSampler

    return DefaultBatchSampler(SequentialSampler(dataset), batch_size, drop_last)


def work_as(rival: Rival, work: Work) -> None:
    """A process of a rival: say the loss, then train in turns."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print isn't a message
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        loss, train = (train_ours if rival.ours else train_theirs)(rival, work, Path(folder))
        turns = Turns(out)
        turns.say({"loss": loss, "before": peak_megabytes()})
        register_optimizer_step_post_hook(turns)
        with contextlib.suppress(Stopped):
            train()


def heard(line: str) -> dict[str, float]:
    """What a process said."""
    said: dict[str, float] = json.loads(line)
    return said


def message(rival: Rival, work: Work) -> str:
    """The argument with which this file is run."""
    return json.dumps({"rival": asdict(rival), "work": asdict(work)})


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    work_as(Rival(**given["rival"]), Work(**given["work"]))
