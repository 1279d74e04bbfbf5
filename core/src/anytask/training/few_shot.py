"""Adapting a model to a new task from a handful of labelled examples, most of its weights frozen.

The contrastive loss over pairs of examples with the same label; texts of other labels are the negatives, those of the
same label are none. Low-rank adapters and the dense layer learn; with the encoder frozen, the dense layer alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from anytask.checkpoint import Checkpoint
from anytask.configuration import lasting_prompts
from anytask.instruction import Instruction
from anytask.model import Instructor
from anytask.tokenization import InstructionTokenizer
from anytask.training.collation import TextBatch
from anytask.training.objective import Roles
from anytask.training.options import TrainingOptions
from anytask.training.run import finish, make_accelerator
from anytask.training.run_folder import WORK, check_settings, remove_leftovers
from anytask.training.start import Start
from anytask.training.trainer import Trainer

DEFAULT_INSTRUCTION = str(Instruction("text", objective="classification"))
DEFAULTS: dict[str, Any] = {
    "steps": 60,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "temperature": 0.1,
    "lora_rank": 8,
    "held_out": 0,
}
"""Where few-shot adaptation differs from `TrainingOptions`' defaults."""
FROZEN: dict[str, Any] = {"lora_rank": 0, "learning_rate": 1e-4}
"""And where it differs further with the encoder frozen: the dense layer alone forgets sooner than it learns."""


WITHOUT_EFFECT = (
    *("epochs", "max_length", "mixing", "held_out", "max_negatives", "keep_false_negatives", "teacher_weight"),
    *("instruction_paraphrase", "instruction_dropout", "word_dropout"),
)
"""Options of `TrainingOptions` that labelled examples have no use for."""


@dataclass(frozen=True)
class Example:
    """A labelled text."""

    text: str
    label: str


class LabelledBatches:
    """Pairs of two different examples with the same label, labels drawn evenly; a function of seed and step.

    Args:
        examples: at least two labels, each with at least two examples.
        tokenizer, instruction: what the texts are tokenized with.
        options: batch size, steps, seed.
        process, processes: this one takes every `processes`-th pair from `process` on.

    Raises:
        ValueError: too few labels, or a label with a single example.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: InstructionTokenizer,
        instruction: str,
        options: TrainingOptions,
        *,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        labels = sorted({example.label for example in examples})
        self.rows = [
            np.array([row for row, example in enumerate(examples) if example.label == label]) for label in labels
        ]
        if len(labels) < 2:
            raise ValueError(f"there are examples of {len(labels)} label(s); at least two are needed to tell apart")
        lonely = [label for label, rows in zip(labels, self.rows, strict=True) if len(rows) < 2]
        if lonely:
            raise ValueError(f"the label {lonely[0]!r} has a single example; give at least two of each")
        texts = [example.text for example in examples]
        self.tokenized = tokenizer(texts, [instruction] * len(texts))
        self.options, self.process, self.processes = options, process, processes

    def __len__(self) -> int:
        return self.options.steps

    def __getitem__(self, step: int) -> TextBatch:
        rng = np.random.default_rng([self.options.seed, 5, step])
        rounds = math.ceil(self.options.batch_size / len(self.rows))
        labels = np.concatenate([rng.permutation(len(self.rows)) for _ in range(rounds)])[: self.options.batch_size]
        pairs = np.array([rng.choice(self.rows[label], size=2, replace=False) for label in labels])
        pairs, labels = pairs[self.process :: self.processes], labels[self.process :: self.processes]
        texts = [self.tokenized[row] for row in pairs.T.reshape(-1)]
        keys = torch.from_numpy(np.concatenate([labels, labels]).astype(np.int64))
        return TextBatch("few-shot", texts, Roles(len(pairs), 0, keys))


def adapt(
    examples: Sequence[Example],
    output: str | Path,
    *,
    model: str | None = None,
    instruction: str = DEFAULT_INSTRUCTION,
    evaluate_on: Sequence[Example] = (),
    licence: str | None = None,
    device: str | None = None,
    **options: Any,
) -> Path:
    """Adapt a model to labelled examples; minutes on a CPU.

    Args:
        examples: at least two of each label.
        output: becomes a model folder, as in `anytask.training.train`; its prompts are `instruction`.
        model: where to start; None is the bundled one.
        instruction: what the texts are embedded with, in training and afterwards.
        evaluate_on: other labelled texts; how many of them a nearest-centroid classifier of `examples` gets right is
            measured before, during and after, and decides which model is kept.
        options: of `TrainingOptions`, over `DEFAULTS`, but those `WITHOUT_EFFECT`; `freeze=("encoder",)` trains the
            dense layer only.

    Returns:
        the output folder.

    Raises:
        ValueError: too few examples; options that don't go together, or have no effect here.
    """
    if idle := [name for name in options if name in WITHOUT_EFFECT]:
        raise ValueError(f"{', '.join(idle)}: of no effect in few-shot adaptation; leave it out")
    frozen = FROZEN if "encoder" in options.get("freeze", ()) else {}
    recipe = TrainingOptions(**{**DEFAULTS, **frozen, **options})
    start = Start(model=model)
    accelerator = make_accelerator(recipe, device)
    output = Path(output).expanduser()
    work = output / WORK
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            remove_leftovers(output)
        given = {"examples": _digest(examples), "evaluate_on": _digest(evaluate_on), "instruction": instruction}
        check_settings(work, {**given, **vars(start), **recipe.to_json()})
        checkpoint = with_dense_layer(start.load())
    checkpoint.prompts = lasting_prompts({"query": instruction, "document": instruction})
    batches = LabelledBatches(
        examples,
        InstructionTokenizer(checkpoint.tokenizer, checkpoint.max_length),
        instruction,
        recipe,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    evaluations = {"accuracy": CentroidAccuracy(examples, evaluate_on, instruction)} if evaluate_on else {}
    trainer = Trainer(checkpoint, recipe, batches, accelerator, work, evaluations)
    trainer.run()
    if accelerator.is_main_process:
        counts = Counter(f"label {example.label}" for example in examples)
        data = {"tasks": counts, "instructions": dict.fromkeys(counts, (instruction, instruction))}
        finish(trainer, output, start=start, data=data, licence=licence, unused=WITHOUT_EFFECT)
    accelerator.wait_for_everyone()
    return output


def _digest(examples: Sequence[Example]) -> str:
    return hashlib.sha256(json.dumps([[example.text, example.label] for example in examples]).encode()).hexdigest()


class CentroidAccuracy:
    """Share of texts whose label is that of the nearest mean of the examples' vectors."""

    def __init__(self, examples: Sequence[Example], test: Sequence[Example], instruction: str) -> None:
        self.examples, self.test, self.instruction = examples, test, instruction

    def __call__(self, model: Instructor) -> dict[str, float]:
        from sklearn.neighbors import NearestCentroid

        train, test = (
            model.encode([example.text for example in side], instruction=self.instruction)
            for side in (self.examples, self.test)
        )
        classifier = NearestCentroid().fit(train, [example.label for example in self.examples])
        return {"accuracy": float(classifier.score(test, [example.label for example in self.test]))}


def with_dense_layer(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint, where it has no dense layer with one that changes nothing yet."""
    if checkpoint.head.dense is None:
        width = checkpoint.encoder.config.d_model
        checkpoint.head.dense = nn.Linear(width, width, bias=False)
        nn.init.eye_(checkpoint.head.dense.weight)
    return checkpoint
