"""Dropout's share, scale and gradient, and that it is the generator's alone to decide."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anytask.dropout import attention_with_dropout, dropout

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)


@DTYPES
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.93])
def test_share_and_scale(dtype: torch.dtype, rate: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 333, dtype=dtype, requires_grad=True)
    out = dropout(x, rate)
    assert (out.dtype, out.shape) == (dtype, x.shape)
    share = (out == 0).double().mean(dim=0)
    assert float(share.mean()) == pytest.approx(rate, abs=0.003)
    assert float((share - rate).abs().max()) < 0.1, "no column has another rate"
    torch.testing.assert_close(out.max(), torch.tensor(1 / (1 - rate), dtype=dtype), rtol=1e-2, atol=0)
    out.backward(torch.full_like(out, 2.0))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 2 * out.detach())


def test_no_rate_changes_nothing() -> None:
    x = torch.randn(5, 7)
    state = torch.random.get_rng_state()
    assert dropout(x, 0.0) is x
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_generator_decides() -> None:
    x = torch.ones(40, 50)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return dropout(x, 0.3)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    torch.manual_seed(1)
    assert not torch.equal(dropout(x, 0.3), dropout(x, 0.3))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8])
def test_any_number_of_values(count: int) -> None:
    assert dropout(torch.ones(count), 0.4).shape == (count,)


def test_gradient_is_of_the_same_mask() -> None:
    x = torch.randn(11, dtype=torch.float64, requires_grad=True)

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return dropout(x, 0.3)

    assert torch.autograd.gradcheck(seeded, (x,))


def heads(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 5, dtype=torch.float64).to(dtype) for _ in range(3))
    return q, k, v, torch.randn(3, 9, 9, dtype=torch.promote_types(dtype, torch.float32))


@DTYPES
def test_attention_without_dropout_is_torchs(dtype: torch.dtype) -> None:
    q, k, v, bias = heads(dtype)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(dtype), scale=1.0)
    found = attention_with_dropout(q, k, v, bias, 0.0)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03 if dtype == torch.bfloat16 else 1e-6)


def test_attention_drops_weights_not_values() -> None:
    """In the mean over many masks it is attention without dropout; a single one is not."""
    q, k, v, bias = heads(torch.float32)
    whole = attention_with_dropout(q, k, v, bias, 0.0)
    torch.manual_seed(1)
    drawn = torch.stack([attention_with_dropout(q, k, v, bias, 0.2) for _ in range(4000)])
    assert float((drawn[0] - whole).abs().max()) > 0.1
    torch.testing.assert_close(drawn.mean(dim=0), whole, rtol=0, atol=0.06)


def test_attention_under_autocast() -> None:
    q, k, v, bias = heads(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention_with_dropout(q, k, v, bias, 0.0)
    assert torch.equal(found, attention_with_dropout(q, k, v, bias, 0.0))
