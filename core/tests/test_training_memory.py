"""How many tokens training computes together on a GPU: the memory that they take, counted and measured."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anytask import device_memory, encoder
from anytask.batching import TokenizedText, pack
from anytask.device_memory import chunk_tokens, trained_bytes_per_token
from anytask.encoder import T5Config, T5Encoder
from anytask.pooling import SentenceHead

TINY = {"vocab_size": 50, "d_model": 64, "d_kv": 16, "d_ff": 256, "num_layers": 3, "num_heads": 4}
LENGTHS = range(4, 40)


def tiny(feed_forward: str = "relu", dropout: float = 0.1) -> T5Encoder:
    torch.manual_seed(0)
    made = T5Encoder(T5Config(**TINY, feed_forward_proj=feed_forward), dropout)  # type: ignore[arg-type]
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return made.train()


def kept_bytes(model: T5Encoder, dtype: torch.dtype, lengths: Sequence[int]) -> int:
    """Memory of the tensors that the graph of a packed batch keeps, but for the weights and their copies in `dtype`."""
    batch = pack([TokenizedText(np.ones(length, dtype=np.int32), 0) for length in lengths])
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    precision = nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with precision:
            hidden = model(batch.token_ids, batch.groups)
        vectors = F.normalize(SentenceHead(None)(hidden, batch.pool_mask, batch.groups), dim=-1)
    assert vectors.requires_grad
    for weight in model.parameters():
        kept.pop(weight.untyped_storage().data_ptr(), None)
    matrices = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    copies = 0 if dtype == torch.float32 else sum(dtype.itemsize * weight.numel() for weight in matrices)
    return sum(kept.values()) - copies


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("feed_forward", ["relu", "gelu", "gated-gelu", "gated-relu"])
def test_what_a_token_takes(
    monkeypatch: pytest.MonkeyPatch, feed_forward: str, dropout: float, dtype: torch.dtype
) -> None:
    """As attention keeps it on a GPU: no weights, neither for their dropout nor for the gradient of the bias."""

    def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, _rate: float) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype), scale=1.0)

    monkeypatch.setattr(encoder, "attention_with_dropout", attention)
    model = tiny(feed_forward, dropout)
    model.relative_attention_bias.requires_grad_(False)
    measured = kept_bytes(model, dtype, LENGTHS)
    counted = sum(length * trained_bytes_per_token(model, dtype, length) for length in LENGTHS)
    assert measured <= counted <= 1.2 * measured


def test_checkpointed_layers_keep_their_inputs() -> None:
    plain = trained_bytes_per_token(tiny(), torch.bfloat16, 32)
    checkpointed = tiny()
    checkpointed.gradient_checkpointing = True
    inputs = 4 * TINY["d_model"] * TINY["num_layers"]
    assert inputs < trained_bytes_per_token(checkpointed, torch.bfloat16, 32) < plain / 2 + inputs


class TestChunks:
    SHAPES: ClassVar = {
        "base": T5Config(32_128, 768, 64, 3072, 12, 12),
        "XL": T5Config(32_128, 1024, 128, 16_384, 24, 32),
    }

    def tokens(
        self,
        monkeypatch: pytest.MonkeyPatch,
        shape: str,
        free: float | None,
        dtype: torch.dtype = torch.bfloat16,
        trained: bool = True,
    ) -> int:
        monkeypatch.setattr(device_memory, "_free_bytes", lambda _: None if free is None else int(free * 1e9))
        with torch.device("meta"):
            model = T5Encoder(self.SHAPES[shape], 0.1).requires_grad_(trained)
        return chunk_tokens(model, torch.device("cuda"), dtype, max_length=512)

    def test_fits_into_what_is_free(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With room for gradients and the optimiser: 12 bytes a weight, and 2 for the copies in bfloat16."""
        for shape, free, weights in (("base", 16, 110e6), ("XL", 80, 1240e6)):
            tokens = self.tokens(monkeypatch, shape, free)
            with torch.device("meta"):
                each = trained_bytes_per_token(T5Encoder(self.SHAPES[shape], 0.1), torch.bfloat16, 512)
            assert 1024 < tokens < 32_768
            assert tokens * each == pytest.approx(0.6 * (free * 1e9 - 14 * weights), rel=0.02)

    def test_bounds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.tokens(monkeypatch, "base", 140) == 32_768
        assert self.tokens(monkeypatch, "XL", 12) == 1024
        assert self.tokens(monkeypatch, "XL", None) == 4096

    def test_more_where_less_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tokens = self.tokens(monkeypatch, "XL", 60)
        assert self.tokens(monkeypatch, "XL", 60, torch.float32) < tokens
        assert self.tokens(monkeypatch, "XL", 60, trained=False) > tokens

    def test_on_a_cpu(self) -> None:
        assert chunk_tokens(tiny(), torch.device("cpu"), torch.float32, max_length=512) == 4096
