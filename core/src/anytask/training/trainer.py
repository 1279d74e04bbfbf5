"""The training loop: steps, schedule, log, evaluation, and checkpoints from which a killed run goes on."""

from __future__ import annotations

import math
import random
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from anytask.batching import PackedBatch, pack, plan_batches
from anytask.checkpoint import Checkpoint, save_checkpoint
from anytask.device_memory import chunk_tokens
from anytask.files.whole import whole_file
from anytask.model import Instructor
from anytask.prefetch import ahead
from anytask.training.adaptation import adapted, merged
from anytask.training.collation import TextBatch
from anytask.training.distributed import gather_rows
from anytask.training.gradient_cache import BatchGradient
from anytask.training.objective import Objective
from anytask.training.options import TrainingOptions
from anytask.training.report.run_log import RunLog

if TYPE_CHECKING:
    from accelerate import Accelerator

STATE = "state.pt"
"""Name of the file that a run goes on from."""
EVALUATIONS = 10
"""Evaluations of a run that doesn't say how often."""


class BatchSource(Protocol):
    """The batches of a run, each a function of its step alone."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int) -> TextBatch: ...


Evaluation = Callable[[Instructor], Mapping[str, float]]


@dataclass
class Progress:
    """How far a run is, as its state file says."""

    step: int = 0
    best: float = float("-inf")
    best_step: int = 0


class Trainer:
    """Trains a checkpoint's modules on a source of batches.

    Args:
        checkpoint: the model, whose modules are trained in place.
        options: the recipe.
        source: as many batches as there are steps.
        accelerator: device, precision and processes.
        folder: where log, curves and checkpoints go.
        evaluations: each gives figures of a model; the first figure of the first says which model is best.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: TrainingOptions,
        source: BatchSource,
        accelerator: Accelerator,
        folder: Path,
        evaluations: Mapping[str, Evaluation] | None = None,
    ) -> None:
        self.checkpoint, self.source, self.options, self.folder = checkpoint, source, options, folder
        self.accelerator = accelerator
        self.evaluations = evaluations or {}
        self.steps = len(source)
        module = adapted(checkpoint, options)
        self.optimizer = self.make_optimizer(module)
        self.scheduler = _schedule(self.optimizer, options, self.steps)
        prepared: tuple[nn.Module, torch.optim.Optimizer] = accelerator.prepare(module, self.optimizer)
        self.module, self.optimizer = prepared
        self.objective = Objective(
            temperature=options.temperature,
            variant=options.variant,
            mask_false_negatives=not options.keep_false_negatives,
            contrastive_weight=options.contrastive_weight,
            teacher_weight=options.teacher_weight,
            gather=partial(gather_rows, accelerator=accelerator),
        )
        self.gradient = BatchGradient(
            self._embed,
            cached=options.gradient_cache,
            backward=accelerator.backward,
            defer_sync=partial(accelerator.no_sync, self.module),
        )
        self.chunk_tokens = options.chunk_tokens or chunk_tokens(
            checkpoint.encoder,
            accelerator.device,
            getattr(torch, options.precision),
            max_length=checkpoint.max_length,
        )
        self.eval_every = options.eval_every or max(1, self.steps // EVALUATIONS)
        self.save_every = options.save_every or self.eval_every
        self.progress = Progress()

    def make_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """AdamW; weight decay is of the matrices only."""
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        groups = [
            {
                "params": [parameter for parameter in trained if parameter.ndim > 1],
                "weight_decay": self.options.weight_decay,
            },
            {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
        rate = self.options.learning_rate
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, fused=True)

    @property
    def state_file(self) -> Path:
        return self.folder / STATE

    @property
    def best_folder(self) -> Path:
        """The checkpoint with the best figure so far."""
        return self.folder / "best"

    def run(self) -> None:
        """Train from where the state file says, else from the start, to the last step.

        Raises:
            ValueError: processes don't find the same state; a loss that isn't finite.
        """
        self._resume()
        steps = self.accelerator.gather(torch.tensor([self.progress.step], device=self.accelerator.device)).tolist()
        if len(set(steps)) > 1:
            raise ValueError(
                f"the processes would go on from different steps, {steps}: {self.folder} must be on a disk that all "
                "machines share"
            )
        main = self.accelerator.is_main_process
        log = RunLog(self.folder, self.steps, console=main)
        if main:
            log.resume(self.progress.step)
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.module.train()
        coming = ((step, self.source[step]) for step in range(self.progress.step, self.steps))
        with log, closing(ahead(coming)) as batches:
            if self.progress.step == 0:
                self._evaluate(log)
            meter = Meter()
            for step, batch in batches:
                _seed(self.options.seed, step, self.accelerator.process_index)
                loss, parts = self.compute_gradient(batch)
                if not math.isfinite(loss):
                    raise ValueError(
                        f"the loss at step {step + 1} is {loss}: lower learning_rate ({self.options.learning_rate}), "
                        "train in float32 if it was less, or look for what is odd in the records"
                    )
                if self.options.max_grad_norm:
                    self.accelerator.clip_grad_norm_(parameters, self.options.max_grad_norm)
                rate = self.scheduler.get_last_lr()[0]
                self.optimizer.step()
                self.scheduler.step()
                self.optimizer.zero_grad(set_to_none=True)
                meter.add(loss, parts, batch)
                self.progress.step = step + 1
                if self._due(self.options.log_every):
                    figures = meter.means(self.accelerator)
                    if main:
                        log.log(step + 1, {**figures, "learning_rate": rate})
                    meter = Meter()
                if self._due(self.eval_every):
                    self._evaluate(log)
                if self._due(self.save_every):
                    self._save()

    def compute_gradient(self, batch: TextBatch) -> tuple[float, dict[str, float]]:
        """Add the joint batch's gradient to the parameters'; gives the loss and its parts."""
        order, chunks = self._chunks(batch)
        device = self.accelerator.device
        restore = torch.argsort(torch.tensor(order, device=device))
        roles = batch.roles.to(device)
        processes: int = self.accelerator.num_processes
        parts: dict[str, float] = {}

        def loss(vectors: Tensor) -> Tensor:
            total, found = self.objective(vectors[restore], roles)
            parts.update(found)
            return total * processes  # DistributedDataParallel takes the mean over processes

        value = self.gradient(chunks, loss) / processes
        return float(value), parts

    def _chunks(self, batch: TextBatch) -> tuple[list[int], list[PackedBatch]]:
        """The order in which the texts are embedded, and the packed chunks."""
        plan = list(plan_batches([len(text.ids) for text in batch.texts], self.chunk_tokens))
        chunks = [pack([batch.texts[index] for index in indices]).to(self.accelerator.device) for indices in plan]
        return [index for indices in plan for index in indices], chunks

    def _embed(self, chunk: PackedBatch) -> Tensor:
        vectors: Tensor = self.module(chunk.token_ids, chunk.pool_mask, chunk.groups)
        return vectors

    def _due(self, every: int) -> bool:
        return self.progress.step % every == 0 or self.progress.step == self.steps

    def trained(self) -> Checkpoint:
        """A copy of the model as it is now, adapters merged, ready to be saved or used."""
        plain = merged(self.accelerator.unwrap_model(self.module))
        return replace(self.checkpoint, encoder=plain.encoder, head=plain.head)

    def _evaluate(self, log: RunLog) -> None:
        """Measure the model, and keep it if it is the best; of equals the later, which has learnt longer."""
        if self.evaluations and self.accelerator.is_main_process:
            model = Instructor.from_checkpoint(self.trained(), device=self.accelerator.device)
            figures: dict[str, float] = {}
            for evaluation in self.evaluations.values():
                figures.update(evaluation(model))
            log.evaluation(self.progress.step, figures)
            decisive = next(iter(figures.values()))
            if decisive >= self.progress.best and self.progress.step:
                self.progress.best, self.progress.best_step = decisive, self.progress.step
                replace_folder(self.best_folder, self.trained())
        self.accelerator.wait_for_everyone()

    def _save(self) -> None:
        """Write a checkpoint folder and the state, each whole; older ones go."""
        if self.accelerator.is_main_process:
            module = self.accelerator.unwrap_model(self.module)
            replace_folder(self.folder / "checkpoints" / f"step-{self.progress.step:06d}", self.trained())
            scaler = self.accelerator.scaler
            state = {
                "module": module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "progress": vars(self.progress),
            }
            with whole_file(self.state_file) as path:
                torch.save(state, path)
            kept = _checkpoints(self.folder / "checkpoints")
            for old in kept[: max(0, len(kept) - self.options.keep)]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        if not self.state_file.is_file():
            return
        state = torch.load(self.state_file, map_location="cpu", weights_only=True)
        self.accelerator.unwrap_model(self.module).load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])


class Meter:
    """Means of what happened since the last line of the log."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps = self.examples = self.tokens = 0
        self.started = time.monotonic()

    def add(self, loss: float, parts: Mapping[str, float], batch: TextBatch) -> None:
        for name, value in {"loss": loss, **(parts if len(parts) > 1 else {})}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self.examples += batch.roles.pairs or len(batch.texts)
        self.tokens += batch.tokens

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """By step, and by second over all processes, each of which has to call this."""
        seconds = time.monotonic() - self.started
        counts = torch.tensor([[self.examples, self.tokens]], device=accelerator.device)
        examples, tokens = accelerator.gather(counts).sum(0).tolist()
        means = {name: value / self.steps for name, value in self.sums.items()}
        return {**means, "examples_per_second": examples / seconds, "tokens_per_second": tokens / seconds}


def replace_folder(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as a whole folder in the place of an older one."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    save_checkpoint(checkpoint, new)
    shutil.rmtree(folder, ignore_errors=True)
    new.replace(folder)


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints by their steps; by name, a million would come before 999,999."""
    steps = {path.name.removeprefix("step-"): path for path in folder.glob("step-*")}
    return [steps[step] for step in sorted(filter(str.isdecimal, steps), key=int)]


def _schedule(optimizer: torch.optim.Optimizer, options: TrainingOptions, steps: int) -> Any:
    from transformers import get_scheduler

    name = "constant_with_warmup" if options.schedule == "constant" else options.schedule
    return get_scheduler(
        name, optimizer, num_warmup_steps=round(options.warmup_ratio * steps), num_training_steps=steps
    )


def _seed(seed: int, step: int, process: int) -> None:
    """Set all generators: what a step draws depends on the seed, the step and the process alone."""
    value = int(np.random.SeedSequence([seed, 3, step, process]).generate_state(1)[0])
    random.seed(value)
    torch.manual_seed(value)
