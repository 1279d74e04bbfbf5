"""Rows of activations as bytes, by the compiled kernels and by torch's operators."""

from __future__ import annotations

import pytest
import torch

from anytask.encoder import ACTIVATIONS
from anytask.row_codes import LARGEST, RowCodes

pytestmark = pytest.mark.usefixtures("with_and_without_kernels")


def bytes_of(rows: torch.Tensor, follows: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole numbers that a product multiplies, and the step between them."""
    row_codes = RowCodes(follows)
    codes, step = row_codes(rows.clone())
    assert codes.dtype == torch.uint8
    return codes.int() - row_codes.zero, step


class TestRows:
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

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_that_are_not_finite_have_no_step(self, value: float) -> None:
        rows = torch.ones(3, 40)
        rows[1, 7] = value
        factor, gain = torch.ones(3, 1), torch.ones(40)
        row_codes = RowCodes()
        made = [
            row_codes(rows.clone()),
            row_codes.normed(rows.clone(), gain, 1e-6),
            row_codes.normed(torch.ones(3, 40), rows[1], 1e-6),
        ]
        if value != -float("inf"):  # whose GELU is zero
            made.append(RowCodes("gelu").activated(rows.clone(), factor))
        for _, steps in made:
            assert not bool(steps[1].isfinite().all())


class TestActivated:
    @pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_new", "silu"])
    @pytest.mark.parametrize("spread", [1e-4, 1.0, 50.0])
    def test_are_those_of_the_activation(self, activation: str, spread: float) -> None:
        torch.manual_seed(0)
        factor = torch.rand(20, 1) + 0.1
        x = torch.randn(20, 333) * spread / factor
        exact = ACTIVATIONS[activation]((x * factor).double())
        row_codes = RowCodes(activation)
        given = x.relu() if activation == "relu" else x
        codes, step = row_codes.activated(given.clone(), factor)
        error = (codes.double() - row_codes.zero) * step - exact
        assert bool((error.abs() <= 0.51 * step + 1e-5).all())

    def test_gelu_of_numbers_far_out(self) -> None:
        x = torch.tensor([[-1e30, -300.0, -9.0, -4.0, 0.0, 4.0, 9.0, 300.0]])
        codes, step = RowCodes("gelu").activated(x.clone(), torch.ones(1, 1))
        values = (codes.int() - 32) * step
        assert values[0, -1] == pytest.approx(300, rel=1e-5)
        assert float(values[0, :5].abs().max()) == 0


class TestNormed:
    @pytest.mark.parametrize("epsilon", [1e-6, 0.1])
    @pytest.mark.parametrize("width", [5, 16, 64, 333])
    def test_are_those_of_the_norm(self, width: int, epsilon: float) -> None:
        torch.manual_seed(0)
        x, gain = torch.randn(20, width) * torch.logspace(-8, 8, 20).view(-1, 1), torch.randn(width)
        codes, step = RowCodes().normed(x.clone(), gain, epsilon)
        exact = torch.nn.functional.rms_norm(x.double(), (width,), gain.double(), epsilon)
        error = (codes.double() - 128) * step - exact
        assert bool((error.abs() <= 0.501 * step).all())
        assert bool((step <= exact.abs().amax(1, keepdim=True) / 127 * 1.001).all())
