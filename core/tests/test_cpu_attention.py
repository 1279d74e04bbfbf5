"""The attention of packed steps beside the textbook's, text by text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anytask.cpu_attention import StepAttention
from anytask.encoder import LengthGroup, T5Config

CONFIG = T5Config(vocab_size=10, d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=3)
LENGTHS = [[(1, 1)], [(2, 16)], [(1, 17)], [(1, 40), (3, 33), (2, 32), (5, 15), (1, 2), (4, 1)]]


def laid_out(counts_and_lengths: list[tuple[int, int]]) -> list[LengthGroup]:
    groups, start = [], 0
    for count, length in counts_and_lengths:
        groups.append(LengthGroup(start, count, length))
        start += count * length
    return groups


def textbook(qkv: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k' + bias) v of one text, [L, 3 * H * K] to [L, H * K], in double precision."""
    q, k, v = qkv.double().view(len(qkv), 3, CONFIG.num_heads, CONFIG.d_kv).permute(1, 2, 0, 3)
    weights = (q @ k.transpose(1, 2) + bias[:, : len(qkv), : len(qkv)]).softmax(-1)
    return (weights @ v).transpose(0, 1).flatten(1)


@pytest.mark.parametrize("counts_and_lengths", LENGTHS)
def test_every_text_sees_itself_alone(counts_and_lengths: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    groups = laid_out(counts_and_lengths)
    longest = max(group.length for group in groups)
    bias = torch.randn(CONFIG.num_heads, longest, longest)
    attention = StepAttention(CONFIG, groups, bias)
    for _ in range(2):  # layer after layer
        attention.qkv.copy_(torch.randn(attention.qkv.shape) * 3)
        contexts = attention()
        for group in groups:
            for start in range(group.start, group.start + group.count * group.length, group.length):
                rows = slice(start, start + group.length)
                expected = textbook(attention.qkv[rows], bias)
                torch.testing.assert_close(contexts[rows].double(), expected, atol=2e-5, rtol=1e-5)


def test_the_company_of_a_text_does_not_change_a_bit() -> None:
    torch.manual_seed(0)
    bias = torch.randn(CONFIG.num_heads, 21, 21)
    text = torch.randn(21, 3 * CONFIG.num_heads * CONFIG.d_kv)
    alone = StepAttention(CONFIG, [LengthGroup(0, 1, 21)], bias)
    alone.qkv.copy_(text)
    beside = StepAttention(CONFIG, laid_out([(2, 21), (3, 9)]), bias)
    beside.qkv.copy_(torch.full(beside.qkv.shape, 1e30))
    beside.qkv[:21] = text
    assert torch.equal(alone(), beside()[:21])
