"""The model as it is trained: packed texts in, unit vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anytask.checkpoint import Checkpoint
from anytask.encoder import LengthGroup


class SentenceEncoder(nn.Module):
    """A checkpoint's encoder and head as one module, with weights in float32 (or float64).

    Args:
        checkpoint: its modules are taken over, not copied.
        dropout: in training; None takes what the checkpoint's config.json says.
    """

    def __init__(self, checkpoint: Checkpoint, *, dropout: float | None = None) -> None:
        super().__init__()
        self.encoder: Any = checkpoint.encoder.float()
        self.head = checkpoint.head.float()
        checkpoint.encoder.dropout = float(checkpoint.config.get("dropout_rate", 0.0)) if dropout is None else dropout

    def forward(self, token_ids: Tensor, pool_mask: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        """A packed batch (see `anytask.batching.PackedBatch`) to unit vectors [texts, dimension], in packed order."""
        hidden = self.encoder(token_ids, groups)
        with torch.autocast(hidden.device.type, enabled=False):
            return F.normalize(self.head(hidden, pool_mask, groups), dim=-1)
