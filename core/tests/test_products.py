"""Products with a matrix, in each of the ways that a machine may have for them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from anytask import kernels
from anytask.linear import quantised
from anytask.products import byte_product, float_product, onednn, panels, plain

ROWS = (1, 2, 13, 14, 15, 29, 100)
SHAPES = [(32, 4), (96, 40), (160, 772)]
"""Outputs and inputs."""
WAYS = {"panels": panels, "onednn": onednn, "plain": plain}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way that products are computed."""
    name: str = request.param
    if name == "panels":
        if not kernels.available():
            pytest.skip("the kernels aren't compiled for this processor")
        monkeypatch.setattr(onednn, "packs_bfloat16", lambda: False)
    else:
        monkeypatch.setattr(kernels, "_kernels", lambda: None)
    if name == "onednn":
        if not onednn.packs_float():
            pytest.skip("torch has no oneDNN")
    else:
        monkeypatch.setattr(onednn, "packs_float", lambda: False)
        monkeypatch.setattr(onednn, "packs_int8", lambda: False)
    return name


class TestFloats:
    @pytest.mark.parametrize("activation", [None, "relu", "gelu", "gelu_new", "silu"])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_are_those_of_the_textbook(self, way: str, shape: tuple[int, int], activation: str | None) -> None:
        torch.manual_seed(0)
        weight = torch.randn(shape)
        product = float_product(weight, activation)
        assert isinstance(product, WAYS[way].FloatProduct)
        assert torch.equal(product.weight(), weight)
        activate = {
            None: lambda x: x, "relu": F.relu, "gelu": F.gelu, "silu": F.silu,
            "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
        }[activation]  # fmt: skip
        for count in ROWS:
            x, factor = torch.randn(count, shape[1]), torch.rand(count, 1) + 0.5
            for given in (None, factor):
                scaled = x.double() if given is None else x.double() * given
                expected = activate(scaled @ weight.double().T)
                tolerance = 3e-6 * shape[1] ** 0.5 + (2e-5 if activation == "gelu" else 0)
                out = product(x.clone(), given)
                torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=1e-5)
                rows = torch.randn(count, shape[0])
                expected += rows
                product.add(x.clone(), given, rows)
                torch.testing.assert_close(rows.double(), expected, atol=tolerance, rtol=1e-5)

    @pytest.mark.usefixtures("way")
    def test_with_bfloat16_are_multiplied_in_float32_where_the_processor_has_no_instructions_for_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(onednn, "packs_bfloat16", lambda: False)
        weight, x = torch.randn(64, 40).bfloat16(), torch.randn(20, 40)
        product = float_product(weight)
        torch.testing.assert_close(product(x.clone(), None), x @ weight.float().T)
        assert torch.equal(product.weight().bfloat16(), weight)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.usefixtures("way")
    def test_of_numbers_that_are_not_finite_are_not_either(self, value: float) -> None:
        weight, x = torch.randn(32, 16), torch.randn(20, 16)
        weight[2, 5] = value
        out = float_product(weight, "relu")(torch.zeros(20, 16), None)
        assert out[:, 2].isnan().all()
        x[7, 5] = value
        out = float_product(torch.randn(32, 16))(x, None)
        assert not out[7].isfinite().any()
        assert out[:7].isfinite().all()
        assert out[8:].isfinite().all()


class TestBytes:
    @pytest.mark.parametrize("relu", [False, True])
    @pytest.mark.parametrize("zero", [0, 32, 128])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_are_exact(self, way: str, shape: tuple[int, int], zero: int, relu: bool) -> None:
        if way == "onednn" and not onednn.packs_int8():
            pytest.skip("the processor doesn't multiply bytes exactly")
        torch.manual_seed(0)
        weight, scale = quantised(torch.randn(shape))
        product = byte_product(weight, scale, zero, relu=relu)
        assert torch.equal(product.weight(), weight)
        for count in ROWS:
            codes = torch.randint(0, 256, (count, shape[1]), dtype=torch.uint8)
            sums = (codes.long() - zero) @ weight.long().T
            expected = sums.float() * scale
            if relu:
                expected.relu_()
            out = product(codes)
            torch.testing.assert_close(out, expected, atol=0, rtol=1e-6)
            factor, rows = torch.rand(count, 1), torch.randn(count, shape[0])
            added = rows + expected * factor
            product.add(codes, factor, rows)
            torch.testing.assert_close(rows, added, atol=1e-6, rtol=1e-5)

    def test_by_kernels_take_every_way_that_the_processor_has(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if not kernels.available():
            pytest.skip("the kernels aren't compiled for this processor")
        monkeypatch.setattr(onednn, "packs_int8", lambda: False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        weight, scale = quantised(torch.randn(64, 48))
        codes = torch.randint(0, 256, (30, 48), dtype=torch.uint8)
        product = byte_product(weight, scale, 128)
        assert isinstance(product, panels.ByteProduct if kernels.multiplies_bytes() else panels.WidenedByteProduct)
        monkeypatch.setattr(kernels, "multiplies_bytes", lambda: False)
        widened = byte_product(weight, scale, 128)
        assert isinstance(widened, panels.WidenedByteProduct)
        assert torch.equal(widened(codes), product(codes))
        assert torch.equal(widened.weight(), weight)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shape", [(33, 16), (32, 6)])
def test_matrices_of_any_shape_are_multiplied(shape: tuple[int, int]) -> None:
    """Those that don't fill panels too."""
    weight, x = torch.randn(shape), torch.randn(5, shape[1])
    torch.testing.assert_close(float_product(weight)(x.clone(), None), x @ weight.T)
    whole, scale = quantised(weight)
    codes = torch.randint(0, 256, (5, shape[1]), dtype=torch.uint8)
    expected = ((codes.long() - 128) @ whole.long().T).float() * scale
    torch.testing.assert_close(byte_product(whole, scale, 128)(codes), expected)
