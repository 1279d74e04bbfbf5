"""The loss of a step: contrastive over pairs, distillation over texts that have a teacher's vector, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anytask.training.contrastive import TextKeys, Variant, contrastive_loss
from anytask.training.distillation import distillation_loss


@dataclass(frozen=True)
class Roles:
    """What the texts of a batch are: queries, their positives, hard negatives and others, in this order.

    Args:
        pairs: n, the number of queries and of positives.
        negatives: m.
        keys: [texts] int64, equal for equal texts.
        taught: [t] int64, which texts have a teacher's vector.
        teacher: [t, e] unit vectors.
    """

    pairs: int
    negatives: int
    keys: Tensor
    taught: Tensor | None = None
    teacher: Tensor | None = None

    def sides(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The rows [texts, ...] of the queries, of the positives and of the negatives."""
        ends = self.pairs, 2 * self.pairs, 2 * self.pairs + self.negatives
        return rows[: ends[0]], rows[ends[0] : ends[1]], rows[ends[1] : ends[2]]

    def to(self, device: torch.device) -> Roles:
        """The same on another device."""
        moved: dict[str, Any] = {name: getattr(self, name) for name in ("keys", "taught", "teacher")}
        return replace(self, **{name: rows.to(device) for name, rows in moved.items() if rows is not None})


@dataclass(frozen=True)
class Objective:
    """The weighted sum of the losses that a batch has the texts for.

    Args:
        gather: rows of this process to those of all.
    """

    temperature: float = 0.01
    variant: Variant = "paper"
    mask_false_negatives: bool = True
    contrastive_weight: float = 1.0
    teacher_weight: float = 1.0
    gather: Callable[[Tensor], Tensor] = lambda rows: rows

    def __call__(self, vectors: Tensor, roles: Roles) -> tuple[Tensor, dict[str, float]]:
        """Args:
            vectors: unit vectors [texts, d] of this process's batch.
            roles: of the same texts.

        Returns:
            the loss over the joint batch of all processes, and its parts by name.

        Raises:
            ValueError: no part has a weight.
        """
        total = vectors.new_zeros(())
        parts: dict[str, float] = {}
        if roles.pairs and self.contrastive_weight:
            contrastive = self._contrastive(vectors, roles)
            parts["contrastive"] = contrastive.item()
            total = total + self.contrastive_weight * contrastive
        if roles.taught is not None and roles.teacher is not None and self.teacher_weight:
            teacher = F.normalize(self.gather(roles.teacher).to(vectors.dtype), dim=-1)
            distilled = distillation_loss(self.gather(vectors[roles.taught]), teacher)
            parts["distillation"] = distilled.item()
            total = total + self.teacher_weight * distilled
        if not parts:
            raise ValueError(
                f"nothing can be learnt with contrastive_weight {self.contrastive_weight} and "
                + ("no teacher" if roles.taught is None else f"teacher_weight {self.teacher_weight}")
            )
        return total, parts

    def _contrastive(self, vectors: Tensor, roles: Roles) -> Tensor:
        queries, positives, negatives = (self.gather(side) for side in roles.sides(vectors))
        keys = TextKeys(*map(self.gather, roles.sides(roles.keys))) if self.mask_false_negatives else None
        return contrastive_loss(
            queries, positives, negatives, temperature=self.temperature, variant=self.variant, keys=keys
        )
