"""Training that also brings the student's tokens near the teacher's, layer after layer, and labelled texts near the
others of their label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from optimizer import muon
from prototypes import prototype_loss
from teacher import Lesson
from torch import Tensor, nn

from anytask.training.collation import TextBatch
from anytask.training.trainer import Trainer

LABEL_TEMPERATURE = 0.2
"""So high that texts of a label, which are told from the others long since, go on coming together."""


@dataclass(frozen=True)
class TaughtBatch(TextBatch):
    """A batch whose last texts are the teacher's too.

    Args:
        lesson: what the teacher says of them, in their order.
        labels: [n] int64 of the first n texts; None if they have none.
        parts: [2, m] places of labelled texts and of their parts that have the label.
    """

    lesson: Lesson
    labels: Tensor | None = None
    parts: NDArray[np.int64] | None = None


class ImitatingTrainer(Trainer):
    """A `Trainer` for a converted teacher: what its sub-layers read is to be what the teacher's read.

    The objective gets the tokens' mean squared error, relative to the teacher's variance, as a mean over sub-layers;
    the loss of labelled texts; and, where only a part of such a text has the label, its cosine distance to what that
    part's vector is: the rest is to be left out of it.
    """

    def make_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return muon(module, self.options.learning_rate)

    def compute_gradient(self, batch: TextBatch) -> tuple[float, dict[str, float]]:
        assert isinstance(batch, TaughtBatch)
        lesson = batch.lesson
        order, (chunk,) = self._chunks(batch)
        device = self.accelerator.device
        with _states(self.accelerator.unwrap_model(self.module)) as states:
            vectors = self._embed(chunk)
        restore = torch.argsort(torch.tensor(order, device=device))
        vectors = vectors[restore]
        total, parts = self.objective(vectors, batch.roles.to(device))
        if batch.labels is not None:
            labelled = vectors[: len(batch.labels)]
            loss = prototype_loss(labelled, batch.labels.to(device), temperature=LABEL_TEMPERATURE)
            total = total + loss
            parts["labels"] = loss.item()
            if batch.parts is not None and batch.parts.size:
                whole, part = (vectors[places] for places in batch.parts)
                distance = (1 - (whole * part.detach()).sum(-1)).mean()
                total = total + distance
                parts["parts"] = distance.item()
        first = len(batch.texts) - len(lesson.ends)
        ours, theirs = _rows(batch, order, first, lesson)
        ours, theirs = ours.to(device), theirs.to(device)
        error = torch.stack(
            [_error(mine[ours], its[theirs].float()) for mine, its in zip(states, lesson.states, strict=True)]
        ).mean()
        total = total + error
        self.accelerator.backward(total)
        return total.item(), {**parts, "layers": error.item()}


def _error(ours: Tensor, theirs: Tensor) -> Tensor:
    return F.mse_loss(ours, theirs) / theirs.var()


@contextmanager
def _states(model: Any) -> Iterator[list[Tensor]]:
    """What the norms hand on behind each sub-layer, the last through the dense layer: [tokens, d] each."""
    found: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> None:
        found.append(output)

    def finish(_: nn.Module, __: Any, output: Tensor) -> None:
        with torch.autocast(output.device.type, enabled=False):
            found.append(model.head.dense(output))

    encoder = model.encoder
    norms = [norm for block in encoder.blocks for norm in (block.attention_norm, block.feed_forward_norm)][1:]
    hooks = [norm.register_forward_hook(keep) for norm in norms]
    hooks.append(encoder.final_norm.register_forward_hook(finish))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _rows(batch: TextBatch, order: Sequence[int], first: int, lesson: Lesson) -> tuple[Tensor, Tensor]:
    """The rows of the taught texts' own tokens in the packed batch and, in the same order, in the lesson."""
    starts = np.concatenate([[0], lesson.ends])
    ours: list[NDArray[np.int64]] = []
    theirs: list[NDArray[np.int64]] = []
    row = 0
    for index in order:
        text = batch.texts[index]
        if index >= first:
            ours.append(np.arange(row + text.pool_start, row + len(text.ids)))
            theirs.append(np.arange(starts[index - first], starts[index - first + 1]))
        row += len(text.ids)
    return torch.from_numpy(np.concatenate(ours)), torch.from_numpy(np.concatenate(theirs))
