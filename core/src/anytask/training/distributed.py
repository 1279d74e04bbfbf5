"""Sharing vectors between processes, so that each one's loss is over the joint batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator


def gather_rows(rows: Tensor, accelerator: Accelerator) -> Tensor:
    """The rows of all processes, in the order of the processes, which may have different numbers of them.

    Args:
        rows: [n, ...] of this process.

    Returns:
        [sum of n, ...]; the own rows keep their graph, the others have none. Every process that computes the loss of
        these rows gets its gradient by its own, so that the sum over processes is the joint batch's gradient.
    """
    if accelerator.num_processes == 1:
        return rows
    counts = accelerator.gather(torch.tensor([len(rows)], device=rows.device)).tolist()
    padded = torch.zeros(max(counts), *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    padded[: len(rows)] = rows.detach()
    everyone = accelerator.gather(padded).split(max(counts)) if max(counts) else [padded] * len(counts)
    parts = [part[:count] for part, count in zip(everyone, counts, strict=True)]
    parts[accelerator.process_index] = rows
    return torch.cat(parts)
