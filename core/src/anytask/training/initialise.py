"""New models: T5's random initialisation for any sizes, token vectors taken from another model, a dense layer added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Generator, Tensor, nn

from anytask.checkpoint import Checkpoint, embedding_rows
from anytask.configuration import DEFAULT_MAX_LENGTH
from anytask.encoder import Block, T5Config, T5Encoder
from anytask.instruction import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION
from anytask.pooling import SentenceHead
from anytask.tokenization import end_token
from anytask.training.sizes import Sizes as Sizes
from anytask.training.sizes import parse_sizes as parse_sizes

DROPOUT_RATE = 0.1
"""T5's in training."""
RESIDUAL_SCALE = 0.1
"""How much smaller than T5's the layers' outputs are where token vectors are given, which they should not drown."""

SMALLEST_SPREAD = 1e-6
"""Below it, token vectors of unit length differ by rounding only."""


def new_checkpoint(
    sizes: Sizes,
    tokenizer: Tokenizer,
    *,
    seed: int,
    max_length: int = DEFAULT_MAX_LENGTH,
    token_vectors: npt.NDArray[Any] | None = None,
) -> Checkpoint:
    """A model with random weights in float32.

    The weights are drawn as T5's are (Mesh TensorFlow's factors, which transformers' T5 has too): normal, the token
    embeddings of standard deviation 1, each matrix of the inverse root of its inputs, q of a further inverse root of
    `d_kv` in the place of attention's scaling. The dense layer is a random orthogonal map: at first, vectors have the
    cosines of the mean they are made of.

    `token_vectors` gives a model that begins as a bag of words: each token embedding is that vector, unit length,
    centred, brought to `d_model` by principal components; layers start near zero, and the dense layer, if it is as
    wide as the vectors, takes the mean back to where they came from. Vectors of each piece (with a space for its `▁`)
    by the teacher that the model is going to be distilled from save most of the training.

    Args:
        sizes: what to make.
        tokenizer: gives `vocab_size` where `sizes` don't.
        seed: of the random weights; torch's own generators are left alone.
        max_length: most tokens of a text with its instruction.
        token_vectors: [vocab_size, any] one vector for each token id.

    Raises:
        ValueError: more token ids than `vocab_size`, or `token_vectors` of another shape or not finite.
    """
    rows = embedding_rows(tokenizer)
    vocab_size = rows if sizes.vocab_size is None else sizes.vocab_size
    if rows > vocab_size:
        raise ValueError(f"the tokenizer has {rows:,} token ids, more than vocab_size {vocab_size:,}")
    shape = sizes.shape(vocab_size)
    generator = Generator().manual_seed(seed)
    with torch.device("meta"):
        encoder = T5Encoder(shape)
    encoder.to_empty(device="cpu")
    _initialise(encoder, generator)
    dense = _orthogonal(sizes.d_model, sizes.dimension, generator) if sizes.dimension else None
    if token_vectors is not None:
        _take_token_vectors(encoder, dense, torch.as_tensor(np.asarray(token_vectors)))
    return Checkpoint(
        encoder=encoder.eval(),
        head=SentenceHead(dense),
        tokenizer=tokenizer,
        max_length=max_length,
        prompts={"query": DEFAULT_QUERY_INSTRUCTION, "document": DEFAULT_DOCUMENT_INSTRUCTION},
        config=_config(shape, tokenizer),
        tokenizer_config=_tokenizer_config(tokenizer, max_length),
    )


def with_dense(checkpoint: Checkpoint, dimension: int, *, seed: int = 0) -> Checkpoint:
    """The checkpoint with a dense layer to `dimension`, for an encoder that has none (a plain T5).

    The layer is a random orthogonal map, so the model's cosines stay what they were where `dimension` is `d_model` or
    more. The encoder is shared, not copied.

    Raises:
        ValueError: there is a dense layer, or `dimension` is less than 1.
    """
    if (present := checkpoint.head.dense) is not None:
        raise ValueError(
            f"the checkpoint has a dense layer already, from {present.in_features} to {present.out_features}"
        )
    if dimension < 1:
        raise ValueError(f"dimension must be at least 1, got {dimension}")
    weight = checkpoint.encoder.embed_tokens.weight
    dense = _orthogonal(weight.shape[1], dimension, Generator().manual_seed(seed))
    return replace(checkpoint, head=SentenceHead(dense.to(weight.device, weight.dtype)))


@torch.no_grad()
def _initialise(encoder: T5Encoder, generator: Generator) -> None:
    config = encoder.config
    inner = config.num_heads * config.d_kv

    def normal(weight: Tensor, std: float) -> None:
        weight.normal_(std=std, generator=generator)

    normal(encoder.embed_tokens.weight, 1.0)
    normal(encoder.relative_attention_bias.weight, config.d_model**-0.5)
    encoder.final_norm.weight.fill_(1.0)
    for block in encoder.blocks:
        assert isinstance(block, Block)
        block.attention_norm.weight.fill_(1.0)
        block.feed_forward_norm.weight.fill_(1.0)
        normal(block.attention.qkv.weight, config.d_model**-0.5)
        block.attention.qkv.weight[:inner] *= config.d_kv**-0.5
        normal(block.attention.o.weight, inner**-0.5)
        normal(block.feed_forward.wi.weight, config.d_model**-0.5)
        normal(block.feed_forward.wo.weight, config.d_ff**-0.5)


def _orthogonal(d_model: int, dimension: int, generator: Generator) -> nn.Linear:
    dense = nn.Linear(d_model, dimension, bias=False, device="meta").to_empty(device="cpu")
    nn.init.orthogonal_(dense.weight, generator=generator)
    return dense


@torch.no_grad()
def _take_token_vectors(encoder: T5Encoder, dense: nn.Linear | None, vectors: Tensor) -> None:
    rows, d_model = encoder.embed_tokens.weight.shape
    if vectors.ndim != 2 or len(vectors) != rows:
        raise ValueError(f"token_vectors must be [{rows}, any], one for each token id, got {list(vectors.shape)}")
    unit = F.normalize(vectors.double(), dim=-1)
    centred = unit - unit.mean(0)
    if not centred.isfinite().all() or centred.abs().max() < SMALLEST_SPREAD:
        raise ValueError("token_vectors must be finite and differ from each other")
    width = vectors.shape[1]
    kept = min(width, d_model)
    components = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :kept]  # the largest first
    projected = centred @ components
    scale = projected.square().mean().sqrt()
    encoder.embed_tokens.weight.copy_(F.pad(projected / scale, (0, d_model - kept)))
    encoder.relative_attention_bias.weight.zero_()
    for block in encoder.blocks:
        assert isinstance(block, Block)
        block.attention.o.weight *= RESIDUAL_SCALE
        block.feed_forward.wo.weight *= RESIDUAL_SCALE
    if dense is not None and dense.out_features == width:
        dense.weight.copy_(F.pad(components * scale, (0, d_model - kept)))


def _config(shape: T5Config, tokenizer: Tokenizer) -> dict[str, Any]:
    """A whole `config.json`, as transformers reads a T5's."""
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        **vars(shape),
        "dropout_rate": DROPOUT_RATE,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "pad_token_id": _padding(tokenizer),
        "eos_token_id": end_token(tokenizer),
        "decoder_start_token_id": _padding(tokenizer),
    }


def _tokenizer_config(tokenizer: Tokenizer, max_length: int) -> dict[str, Any]:
    """A whole `tokenizer_config.json`, with which transformers reads `tokenizer.json` as it is."""
    unknown = {"unk_token": "<unk>"} if tokenizer.token_to_id("<unk>") is not None else {}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "eos_token": tokenizer.id_to_token(end_token(tokenizer)),
        "pad_token": tokenizer.id_to_token(_padding(tokenizer)),
        **unknown,
    }


def _padding(tokenizer: Tokenizer) -> int:
    """The id that fills up a batch: `<pad>`, else the end token, for padding is masked."""
    padding = tokenizer.token_to_id("<pad>")
    return end_token(tokenizer) if padding is None else int(padding)
