"""Packed batches: which texts go through the encoder together, and how their tokens are laid out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anytask.encoder import LengthGroup
from anytask.transfers import to_device


@dataclass(frozen=True)
class TokenizedText:
    """One text as the encoder sees it: its token ids, instruction and `</s>` included."""

    ids: npt.NDArray[np.int32]
    pool_start: int
    """The first token that counts in the mean; the tokens before it are the instruction's."""
    truncated: bool = False


@dataclass(frozen=True)
class PackedBatch:
    """Texts laid end to end, those of equal length side by side."""

    token_ids: Tensor  # [T] int64
    pool_mask: Tensor  # [T] float32
    groups: tuple[LengthGroup, ...]

    def to(self, device: torch.device) -> PackedBatch:
        if device.type == self.token_ids.device.type:
            return self
        return PackedBatch(to_device(self.token_ids, device), to_device(self.pool_mask, device), self.groups)


def pack(texts: Sequence[TokenizedText]) -> PackedBatch:
    """Lay out `texts`, which must be ordered by length."""
    token_ids = np.concatenate([text.ids for text in texts]).astype(np.int64)
    # torch's memory: MKL's last bits depend on the alignment
    mask = torch.ones(len(token_ids), dtype=torch.float32, device="cpu")
    pool_mask = mask.numpy()
    start = 0
    groups = []
    for length, same in groupby(texts, key=lambda text: len(text.ids)):
        first, count = start, 0
        for text in same:
            pool_mask[start : start + text.pool_start] = 0.0
            start += length
            count += 1
        groups.append(LengthGroup(first, count, length))
    return PackedBatch(torch.from_numpy(token_ids), mask, tuple(groups))


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of the texts of each batch: longest first, at most `batch_tokens` tokens, at least one text."""
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and tokens + lengths[index] > batch_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch
