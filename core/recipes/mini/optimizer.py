"""Muon for the matrices of the layers, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

OTHERS_RATE = 0.3
"""AdamW's learning rate, as a share of Muon's."""


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
            Muon(matrices, lr=learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            AdamW(others, lr=OTHERS_RATE * learning_rate, weight_decay=0.0, fused=True),
        ]
    )
