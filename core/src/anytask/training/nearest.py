"""Exact nearest neighbours by inner product, in blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def top_k(
    queries: Vectors, corpus: Vectors, k: int, *, block: int = 4096, device: str | torch.device = "cpu"
) -> tuple[Indices, Vectors]:
    """The `k` rows of `corpus` with the highest inner product with each query, best first; equal scores are ordered by
    the lower index.

    Every pair is scored, in float32, but no more than `block` x `block` scores are held at a time; either side may be
    a memory map.

    Args:
        queries: [n, d].
        corpus: [m, d].
        k: cut to m.
        block: most queries, and most rows of the corpus, in one matrix product.
        device: where the products are computed.

    Returns:
        int64 [n, k] rows of `corpus`, and their float32 [n, k] scores.

    Raises:
        ValueError: the shapes don't fit, `k` is negative, `block` is less than 1, or a score is not finite.
    """
    if queries.ndim != 2 or corpus.ndim != 2 or queries.shape[1] != corpus.shape[1]:
        raise ValueError(
            f"expected queries [n, d] and corpus [m, d] of the same d, got {queries.shape} and {corpus.shape}"
        )
    if k < 0 or block < 1:
        raise ValueError(f"k must be at least 0 and block at least 1, got k={k}, block={block}")
    k = min(k, len(corpus))
    indices = np.empty((len(queries), k), dtype=np.int64)
    scores = np.empty((len(queries), k), dtype=np.float32)
    if k == 0:
        return indices, scores
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        best_scores, best_indices = _top_k_of_block(_tensor(queries[rows], device), corpus, k, block)
        indices[rows], scores[rows] = best_indices.cpu().numpy(), best_scores.cpu().numpy()
    if not np.isfinite(scores).all():
        raise ValueError("the vectors give scores that are not finite; are there NaNs or infinities in them?")
    return indices, scores


def _top_k_of_block(queries: Tensor, corpus: Vectors, k: int, block: int) -> tuple[Tensor, Tensor]:
    best_scores = queries.new_empty(len(queries), 0)
    best_indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(corpus), block):
        part = _tensor(corpus[start : start + block], queries.device)
        scores, indices = _ordered_top_k(queries @ part.T, k)
        # What comes first has the lower index: a stable sort keeps it first among equals.
        best_scores, order = torch.cat([best_scores, scores], dim=1).sort(dim=1, descending=True, stable=True)
        best_indices = torch.cat([best_indices, indices + start], dim=1).gather(1, order)[:, :k]
        best_scores = best_scores[:, :k]
    return best_scores, best_indices


def _ordered_top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`torch.topk` with equal scores ordered by index; of those equal to the last it takes the lowest indices."""
    width = scores.shape[1]
    top, indices = scores.topk(min(k + 1, width), dim=1)
    if k < width:
        tied = (top[:, k - 1] == top[:, k]).nonzero().squeeze(1)
        top, indices = top[:, :k], indices[:, :k].clone()
        indices[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    indices = indices.sort(dim=1).values
    top, order = scores.gather(1, indices).sort(dim=1, descending=True, stable=True)
    return top, indices.gather(1, order)


def _tensor(rows: Vectors, device: str | torch.device) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32, device=device)
