"""The loss of labelled texts: each is to be nearer to the others of its label than to those of another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def prototype_loss(vectors: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Softmax over the labels of a batch, each represented by the mean of its texts' vectors, of which a text's own is
    left out: prototypical networks (Snell et al., 2017, arXiv 1703.05175).

    Args:
        vectors: unit vectors [n, d].
        labels: [n] int64.
        temperature: divides the cosines.

    Returns:
        scalar, the mean over the texts that aren't the only one of their label; 0 if all are.
    """
    own = torch.unique(labels, return_inverse=True)[1]
    of_label = F.one_hot(own).to(vectors.dtype)
    sums = of_label.T @ vectors
    without_own = sums - of_label[:, :, None] * vectors[:, None]
    logits = (F.normalize(without_own, dim=-1) @ vectors[:, :, None]).squeeze(-1) / temperature
    has_others = of_label.sum(0)[own] > 1
    losses = F.cross_entropy(logits, own, reduction="none")
    return losses[has_others].sum() / has_others.sum().clamp(min=1)
