"""Rows of activations as bytes, for products with int8 matrices: each row by its own peak, as it comes.

No calibration is needed, and what a text's bytes are doesn't depend on its company. The kernels (`anytask.kernels`)
read each row once; where they aren't compiled, torch's operators give the same numbers in several passes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anytask import kernels
from anytask.encoder import ACTIVATIONS
from anytask.kernels.structures import Codes
from anytask.rms import inverse_rms

LARGEST = 127
"""Largest magnitude of an int8 weight or a signed activation; -128 is left out, so that both signs reach as far."""
SMALLEST_STEP = 1e-30
"""Between the levels of a row of zeros, by whose peak nothing could be divided."""
DEEPEST = {"relu": 0.0, "gelu": 0.17, "gelu_new": 0.1701, "silu": 0.2785}
"""How far below zero an activation reaches at most, rounded up."""
CODES_BELOW_ZERO = 32
"""Of the 256 codes of a row that follows such an activation, those for what lies below zero."""
WHOLE = 1.5 * 2**23
"""Added to a float32 number between -2^22 and 2^22, it rounds to the next whole number and has that in its low bits."""


class RowCodes:
    """The bytes of one kind of row.

    Args:
        follows: the activation that the rows come from, if they do: hardly any codes are needed below zero then.

    Attributes:
        zero: the byte that stands for zero.
        codes: for the kernels.

    Each method gives bytes [T, d] and what a step between two of them is worth in each row, [T, 1] float32.
    """

    def __init__(self, follows: str | None = None) -> None:
        deepest = 0.0 if follows is None else DEEPEST[follows]
        self._follows = follows
        self.zero = LARGEST + 1 if follows is None else CODES_BELOW_ZERO if deepest else 0
        self._smallest_step = max(deepest / CODES_BELOW_ZERO, SMALLEST_STEP)
        self.codes = Codes(self.zero, self._smallest_step)
        self._levels = torch.tensor(255.0 - self.zero, dtype=torch.float32, device="cpu")
        self._rounding = torch.tensor(WHOLE + self.zero, dtype=torch.float32, device="cpu")

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The bytes of x [T, d] float32, which may be overwritten."""
        if kernels.available():
            return kernels.quantise(x, self.codes)
        peak = x.amax(-1, keepdim=True)
        if self._follows is None:
            peak = torch.maximum(peak, x.amin(-1, keepdim=True).neg_())  # without writing all magnitudes
        step = peak.div_(self._levels).clamp_min_(self._smallest_step)
        # the sum's low bits are the whole number; torch converts no floats to uint8 with vector instructions
        return x.mul_(step.reciprocal()).add_(self._rounding).view(torch.int32).to(torch.uint8), step

    def activated(self, x: Tensor, factor: Tensor | None) -> tuple[Tensor, Tensor]:
        """The bytes of the activation, if there is one, of x [T, d] times each row's factor [T, 1].

        x may be overwritten. ReLU has been applied already: products do so for nothing, before the factor too.
        """
        if self._follows in (None, "relu"):
            codes, step = self(x)
            return codes, step if factor is None else step.mul_(factor)
        if factor is not None and self._follows == "gelu" and kernels.available():
            return kernels.quantise_gelu(x, factor, self.codes)
        return self(ACTIVATIONS[self._follows](x if factor is None else x.mul_(factor)))

    def normed(self, x: Tensor, gain: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """The bytes of T5's layer norm of x [T, d], with its gain [d]."""
        if kernels.available():
            return kernels.quantise_normed(x, gain, epsilon, self.codes)
        codes, step = self(x * gain)
        return codes, step.mul_(inverse_rms(x, epsilon))
