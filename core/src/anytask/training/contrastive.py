"""INSTRUCTOR's contrastive loss (arXiv 2212.09741, section 2.2): in-batch softmax in both directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Variant = Literal["paper", "released"]


@dataclass(frozen=True)
class TextKeys:
    """Integers that are equal for equal texts, by which false negatives are known.

    Args:
        queries, positives: [n].
        negatives: [m].
    """

    queries: Tensor
    positives: Tensor
    negatives: Tensor


def contrastive_loss(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor | None = None,
    *,
    temperature: float = 0.01,
    variant: Variant = "paper",
    keys: TextKeys | None = None,
) -> Tensor:
    """For each query, softmax over its positive against the batch's candidates; for each positive, its query against
    all queries. Each direction is the mean over the batch; the loss is their sum, as in the released code.

    Args:
        queries, positives: unit vectors [n, d]; row i of both is a pair.
        negatives: unit vectors [m, d] of hard negatives; any number per query, since all are everyone's.
        temperature: divides the cosines.
        variant: "paper" takes every positive and negative of the batch as candidates; "released" the query's own
            positive and the batch's negatives only, as the code published with the paper does.
        keys: leaves false negatives out: a candidate whose text is the query's own, or a positive of an equal query.

    Returns:
        scalar.

    Raises:
        ValueError: sides of different shapes, a temperature that isn't positive, an unknown variant.
    """
    _check(queries, positives, negatives, temperature, variant)
    count = len(queries)
    own = torch.arange(count, device=queries.device)
    if negatives is None:
        negatives = queries.new_empty(0, queries.shape[1])
    to_positives = queries @ positives.T / temperature
    to_negatives = queries @ negatives.T / temperature
    to_queries = to_positives.T
    if keys is not None:
        others = ~torch.eye(count, dtype=torch.bool, device=queries.device)
        same = _answers(keys, keys.positives) & others
        to_positives = to_positives.masked_fill(same, float("-inf"))
        to_queries = to_queries.masked_fill(same.T, float("-inf"))
        to_negatives = to_negatives.masked_fill(_answers(keys, keys.negatives), float("-inf"))
    if variant == "released":
        forward = F.cross_entropy(
            torch.cat([to_positives.diagonal()[:, None], to_negatives], dim=1), torch.zeros_like(own)
        )
    else:
        forward = F.cross_entropy(torch.cat([to_positives, to_negatives], dim=1), own)
    return forward + F.cross_entropy(to_queries, own)


def _answers(keys: TextKeys, candidates: Tensor) -> Tensor:
    """[n, c], whether the text of candidate j is query i's own or a positive of an equal query."""
    equal = (keys.queries[:, None] == keys.queries).float()
    positive = equal @ (keys.positives[:, None] == candidates).float() > 0
    return (keys.queries[:, None] == candidates) | positive


def _check(queries: Tensor, positives: Tensor, negatives: Tensor | None, temperature: float, variant: str) -> None:
    if queries.ndim != 2 or queries.shape != positives.shape or len(queries) == 0:
        raise ValueError(
            f"queries and positives must be [n, d] with n >= 1 and pair up row by row, got {tuple(queries.shape)} "
            f"and {tuple(positives.shape)}"
        )
    if negatives is not None and (negatives.ndim != 2 or negatives.shape[1] != queries.shape[1]):
        raise ValueError(f"negatives must be [m, {queries.shape[1]}], got {tuple(negatives.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if variant not in ("paper", "released"):
        raise ValueError(f"variant must be paper or released, got {variant!r}")
