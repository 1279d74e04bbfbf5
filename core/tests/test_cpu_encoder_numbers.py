"""What the packed encoder computes faster than by the book: bytes by a sum, one table of the position bias."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from anytask.checkpoint import load_checkpoint
from anytask.cpu_encoder import CpuEncoder
from anytask.encoder import ACTIVATIONS, LengthGroup
from anytask.linear import LARGEST, Int8Linear, quantised


def bytes_of(rows: torch.Tensor, follows: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole numbers that a product multiplies, and the step between them."""
    product = Int8Linear(*quantised(torch.randn(4, rows.shape[1])), follows=follows)
    codes, step = product._quantised(rows.clone())
    assert codes.dtype == torch.uint8
    return codes.int() - product._zero_point, step


class TestQuantisedRows:
    @pytest.mark.parametrize("follows", [None, "relu"])
    @pytest.mark.parametrize("peak", [1e-20, 1.0, 1e20])
    def test_are_rounded_to_the_nearest_level(self, follows: str | None, peak: float) -> None:
        rows = torch.rand(30, 500, generator=torch.Generator().manual_seed(0)) * peak
        rows = rows if follows else rows * 2 - peak
        codes, step = bytes_of(rows, follows)
        assert codes.abs().amax(1).unique().tolist() == [255 if follows else LARGEST]
        error = codes.double() * step - rows
        assert bool((error.abs() <= 0.5001 * step).all())

    @pytest.mark.parametrize("follows", ["gelu", "gelu_new", "silu"])
    @pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 10.0, 1e6])
    def test_that_follow_an_activation_reach_as_far_below_zero_as_it_does(self, follows: str, spread: float) -> None:
        rows = ACTIVATIONS[follows](torch.linspace(-5, 5, 10_001).mul(spread).view(1, -1))
        rows = torch.cat([rows, ACTIVATIONS[follows](torch.linspace(-5, -0.1, 10_001)).view(1, -1)])
        codes, step = bytes_of(rows, follows)
        assert codes.min() >= -32
        assert codes.max() <= 223
        error = codes.double() * step - rows
        assert bool((error.abs() <= 0.5001 * step).all())

    def test_that_lie_between_two_levels_go_to_the_even_one(self) -> None:
        rows = torch.tensor([[127.0, -127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 0.0]])
        codes, step = bytes_of(rows, None)
        assert step.item() == 1
        assert codes.tolist() == rows.round().int().tolist() == [[127, -127, 0, 2, 2, 0, -2, 126, 0]]
        rows = torch.tensor([[255.0, 254.5, 0.5, 1.5, 128.5, 0.0]])
        codes, _ = bytes_of(rows, "relu")
        assert codes.tolist() == [[255, 254, 0, 2, 128, 0]]

    @pytest.mark.parametrize("follows", [None, "relu", "gelu"])
    def test_of_zeros_stay_so(self, follows: str | None) -> None:
        codes, step = bytes_of(torch.zeros(2, 8), follows)
        assert not codes.any()
        assert bool((step > 0).all())


def test_position_bias_does_not_depend_on_the_lengths_before(make_checkpoint: Callable[..., Path]) -> None:
    plain = load_checkpoint(make_checkpoint(shape={"initializer_factor": 1.0})).encoder.float().eval()
    packed = CpuEncoder(plain.config, plain.state_dict(), torch.float32)
    for length in (9, 40, 1, 200, 40, 150):
        ids = torch.arange(3, 3 + length)
        groups = [LengthGroup(0, 1, length)]
        with torch.inference_mode():
            torch.testing.assert_close(packed(ids, groups), plain(ids, groups), atol=1e-5, rtol=1e-5)
