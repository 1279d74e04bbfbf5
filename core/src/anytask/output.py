"""How the vectors of a call leave it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from anytask.precision import Precision, quantize

Vectors = npt.NDArray[Any] | Tensor


@dataclass(frozen=True)
class Output:
    """What `Instructor.encode` is asked to do with raw vectors; its arguments have these names."""

    normalize: bool = True
    truncate_dim: int | None = None
    precision: Precision = "float32"
    as_tensor: bool = False

    def check(self, dimension: int) -> None:
        """
        Raises:
            ValueError: what the model's vectors of `dimension` can't be turned into.
        """
        if self.truncate_dim is not None and not 1 <= self.truncate_dim <= dimension:
            raise ValueError(
                f"truncate_dim must be from 1 to the model's dimension {dimension}, got {self.truncate_dim}"
            )
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}")

    def finish(self, vectors: Tensor) -> Vectors:
        """Raw vectors [n, dimension] to what the caller asked for."""
        vectors = vectors[:, : self.truncate_dim]
        if self.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        compact = quantize(np.ascontiguousarray(vectors.numpy()), self.precision)
        return torch.from_numpy(compact) if self.as_tensor else compact
