"""The attention of packed steps beside the textbook's, text by text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anytask import kernels
from anytask.cpu_attention import DistanceBias, step_attention
from anytask.encoder import LengthGroup, T5Config, relative_position_bucket

pytestmark = pytest.mark.usefixtures("with_and_without_kernels")

LENGTHS = [[(1, 1)], [(2, 16)], [(1, 17)], [(1, 40), (3, 33), (2, 32), (5, 15), (1, 2), (4, 1)], [(2, 130)]]
WIDTHS = [1, 8, 16, 24, 64, 80, 128]


def config_of(width: int) -> T5Config:
    return T5Config(vocab_size=10, d_model=24, d_kv=width, d_ff=32, num_layers=1, num_heads=3)


def laid_out(counts_and_lengths: list[tuple[int, int]]) -> list[LengthGroup]:
    groups, start = [], 0
    for count, length in counts_and_lengths:
        groups.append(LengthGroup(start, count, length))
        start += count * length
    return groups


def textbook(config: T5Config, qkv: Tensor, weight: Tensor) -> Tensor:
    """softmax(q k' + bias) v of one text, [L, 3 * H * K] to [L, H * K], in double precision."""
    q, k, v = qkv.double().view(len(qkv), 3, config.num_heads, config.d_kv).permute(1, 2, 0, 3)
    place = torch.arange(len(qkv))
    bucket = relative_position_bucket(place[None] - place[:, None], 32, 128)
    weights = (q @ k.transpose(1, 2) + weight.double()[bucket].permute(2, 0, 1)).softmax(-1)
    return (weights @ v).transpose(0, 1).flatten(1)


@pytest.mark.parametrize("counts_and_lengths", LENGTHS)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_text_sees_itself_alone(counts_and_lengths: list[tuple[int, int]], width: int) -> None:
    torch.manual_seed(0)
    config, groups = config_of(width), laid_out(counts_and_lengths)
    weight = torch.randn(32, 3)
    bias = DistanceBias(config, weight, groups[0].length + 4)
    attention = step_attention(config, groups, bias)
    tokens = sum(group.count * group.length for group in groups)
    for factor in (None, torch.rand(tokens, 1) + 0.5):  # layer after layer
        qkv = torch.randn(tokens, 9 * width) * 3 / width**0.3
        contexts = attention(qkv, factor)
        scaled = qkv if factor is None else qkv * factor
        for group in groups:
            for start in range(group.start, group.start + group.count * group.length, group.length):
                rows = slice(start, start + group.length)
                expected = textbook(config, scaled[rows], weight)
                torch.testing.assert_close(contexts[rows].double(), expected, atol=2e-5, rtol=1e-5)


def test_the_company_of_a_text_does_not_change_a_bit() -> None:
    torch.manual_seed(0)
    config = config_of(8)
    bias = DistanceBias(config, torch.randn(32, 3), 21)
    text = torch.randn(21, 72)
    alone = step_attention(config, [LengthGroup(0, 1, 21)], bias)(text, None)
    groups = laid_out([(2, 21), (3, 9)])
    # torch's kernel reads the keys behind a text, with no weight
    for company in (1e30, torch.inf, torch.nan) if kernels.available() else (1e30,):
        rows = torch.full((69, 72), company)
        rows[:21] = text
        assert torch.equal(step_attention(config, groups, bias)(rows, None)[:21], alone)
        rows = torch.full((69, 72), company)
        rows[-9:] = text[:9]
        short = step_attention(config, [LengthGroup(0, 1, 9)], bias)(text[:9].clone(), None)
        assert torch.equal(step_attention(config, groups, bias)(rows, None)[-9:], short)


def test_scores_far_apart() -> None:
    config = config_of(16)
    bias = DistanceBias(config, torch.zeros(32, 3), 30)
    qkv = torch.randn(30, 144) * 300
    contexts = step_attention(config, [LengthGroup(0, 1, 30)], bias)(qkv, None)
    torch.testing.assert_close(contexts.double(), textbook(config, qkv, torch.zeros(32, 3)), atol=0.05, rtol=1e-3)


def test_what_is_not_finite_shows() -> None:
    config = config_of(16)
    bias = DistanceBias(config, torch.zeros(32, 3), 30)
    qkv = torch.randn(30, 144)
    qkv[4, 50] = torch.nan
    contexts = step_attention(config, [LengthGroup(0, 1, 30)], bias)(qkv, None)
    assert contexts.isnan().any()
    broken = DistanceBias(config, torch.full((32, 3), torch.nan), 30)
    assert step_attention(config, [LengthGroup(0, 1, 30)], broken)(torch.randn(30, 144), None).isnan().any()
