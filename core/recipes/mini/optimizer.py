"""Muon for the matrices of the layers, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from teacher import computes_bfloat16
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

OTHERS_RATE = 0.3
"""AdamW's learning rate, as a share of Muon's."""
NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315
"""Muon's coefficients of x, x^3 and x^5 (Jordan et al., 2024)."""
ITERATIONS = 5
MOMENTUM = 0.95
ADAMW_SCALE = 0.2
"""Root mean square of AdamW's steps, to which the matrices' are brought (Liu et al., 2025, section 2.2)."""


def equalised(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """About the nearest matrix whose singular values are all 1: Newton-Schulz iterations, multiplied in `dtype`."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix).to(dtype)
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


class Muon(Optimizer):
    """Muon with Nesterov's momentum. torch's own multiplies in bfloat16 alone, which takes several times as long as
    float32 where a processor has no instructions for it.
    """

    def __init__(self, matrices: Iterable[Tensor], learning_rate: float) -> None:
        super().__init__(matrices, {"lr": learning_rate})
        self.dtype = torch.bfloat16 if computes_bfloat16() else torch.float32

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    state = self.state[matrix]
                    if not state:
                        state["momentum_buffer"] = torch.zeros_like(matrix)
                    momentum = state["momentum_buffer"]
                    momentum.lerp_(matrix.grad, 1 - MOMENTUM)
                    step = equalised(matrix.grad.lerp(momentum, MOMENTUM), self.dtype)
                    matrix.sub_(step, alpha=group["lr"] * ADAMW_SCALE * max(matrix.shape) ** 0.5)
        return loss


class Together(Optimizer):
    """Several optimizers as one: their parameter groups, their states, their steps."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def muon(module: nn.Module, learning_rate: float) -> Together:
    """Muon (Jordan et al., 2024; Liu et al., 2025, arXiv 2502.16982) at AdamW's scale of learning rates.

    It makes the singular values of each matrix's step equal, so that the few dimensions in which BERT's states are
    large don't keep the others from being learnt.
    """
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in module.named_parameters():
        is_table = any(part in name for part in ("embed_tokens", "relative_attention_bias"))
        (matrices if parameter.ndim == 2 and not is_table else others).append(parameter)
    return Together(
        [
            Muon(matrices, learning_rate),
            AdamW(others, lr=OTHERS_RATE * learning_rate, weight_decay=0.0, fused=True),
        ]
    )
