"""The axes that a finished model's vectors lie on, so that it can go on learning from the teacher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from teacher import Teacher

from anytask.batching import TokenizedText, pack, plan_batches
from anytask.checkpoint import Checkpoint
from anytask.training.module import SentenceEncoder

CHUNK_TOKENS = 8192


def axes_of(model: Checkpoint, teacher: Teacher, texts: Sequence[TokenizedText]) -> NDArray[np.float32]:
    """The rotation [d, d] that brings the teacher's vectors nearest to the model's (Schönemann, 1966).

    A model that was trained on one run's principal axes doesn't lie on another run's: the small ones differ with the
    least difference in numbers.

    Args:
        teacher: without a rotation.
        texts: without an instruction.
    """
    theirs = teacher.vectors([text.ids for text in texts])
    rotation, _ = orthogonal_procrustes(theirs, vectors_of(model, texts))
    return rotation.astype(np.float32)


@torch.inference_mode()
def vectors_of(model: Checkpoint, texts: Sequence[TokenizedText]) -> NDArray[np.float32]:
    """Unit vectors [n, d] of n texts."""
    encoder = SentenceEncoder(model, dropout=0.0).eval()
    found: list[NDArray[np.float32]] = []
    order: list[int] = []
    for places in plan_batches([len(text.ids) for text in texts], CHUNK_TOKENS):
        batch = pack([texts[place] for place in places])
        found.append(encoder(batch.token_ids, batch.pool_mask, batch.groups).numpy())
        order += places
    return np.concatenate(found)[np.argsort(order)]
