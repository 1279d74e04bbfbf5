"""From token vectors to one vector a text: the mean without the instruction, then the dense layer.

INSTRUCTOR paper (arXiv 2212.09741), section 2.1, and the modules `1_Pooling`, `2_Dense` and `3_Normalize` of its
checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anytask.encoder import LengthGroup, rows_of


def mean_pool(hidden: Tensor, pool_mask: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
    """Mean of each text's pooled tokens.

    Args:
        hidden: [T, d] token vectors of a packed batch.
        pool_mask: [T] float, 1 where the token counts (text and `</s>`), 0 on the instruction.
        groups: where the texts lie, as for the encoder.

    Returns:
        [texts, d], in packed order.
    """
    pool_mask = pool_mask.to(hidden.dtype)
    means = []
    for group, rows in zip(groups, rows_of(hidden, groups), strict=True):
        mask = pool_mask[group.rows].view(group.count, 1, group.length)
        tokens = rows.view(group.count, group.length, -1)
        means.append((mask @ tokens).squeeze(1) / mask.sum(-1))
    return torch.cat(means)


class SentenceHead(nn.Module):
    """Mean pooling and the optional dense layer (no activation; INSTRUCTOR's has no bias), in float32."""

    def __init__(self, dense: nn.Linear | None) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, hidden: Tensor, pool_mask: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        """As `mean_pool`, then the dense layer: [texts, dimension], not normalised."""
        return self.project(mean_pool(hidden, pool_mask, groups))

    def project(self, pooled: Tensor) -> Tensor:
        """The dense layer alone: [texts, d_model] to [texts, dimension]."""
        return pooled if self.dense is None else self.dense(pooled)
