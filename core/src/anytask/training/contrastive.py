"""INSTRUCTOR's contrastive loss (arXiv 2212.09741, section 2.2), in both directions, over the negatives of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bidirectional_contrastive_loss(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor | None = None,
    *,
    temperature: float = 0.01,
    query_ids: Tensor | None = None,
    positive_ids: Tensor | None = None,
) -> Tensor:
    """For each query, softmax over its positive against every positive and negative of the batch; for each positive,
    over its query against every query; the mean of the two.

    Args:
        queries, positives: unit vectors [n, d]; row i of both is a pair.
        negatives: unit vectors [m, d] of hard negatives, of whichever queries; None for none.
        temperature: divides the cosines.
        query_ids, positive_ids: [n] integers, equal for equal texts. Where given, a text that also occurs as another
            row's is left out of that row's negatives: it is no negative.

    Returns:
        scalar, the mean over the batch.
    """
    target = torch.arange(len(queries), device=queries.device)
    candidates = positives if negatives is None else torch.cat([positives, negatives])
    forward = queries @ candidates.T / temperature
    backward = positives @ queries.T / temperature
    if query_ids is not None or positive_ids is not None:
        same = torch.zeros(len(queries), len(queries), dtype=torch.bool, device=queries.device)
        for ids in (query_ids, positive_ids):
            if ids is not None:
                same |= ids[:, None] == ids[None, :]
        same.fill_diagonal_(False)
        forward[:, : len(positives)].masked_fill_(same, float("-inf"))
        backward.masked_fill_(same, float("-inf"))
    return (F.cross_entropy(forward, target) + F.cross_entropy(backward, target)) / 2
