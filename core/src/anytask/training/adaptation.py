"""Which weights a run changes: frozen parts, and low-rank adapters (LoRA, arXiv 2106.09685) through peft."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from anytask.checkpoint import Checkpoint
from anytask.encoder import T5Encoder
from anytask.training.module import SentenceEncoder
from anytask.training.options import TrainingOptions

MATRICES = ["qkv", "o", "wi", "wo"]


def adapted(checkpoint: Checkpoint, options: TrainingOptions) -> SentenceEncoder:
    """The checkpoint's modules, taken over, with what `options` freezes frozen and the adapters it asks for."""
    torch.manual_seed(options.seed)
    checkpoint.encoder.gradient_checkpointing = options.gradient_checkpointing
    module = SentenceEncoder(checkpoint, dropout=options.dropout)
    if options.lora_rank:
        add_adapters(module, options.lora_rank, options.lora_alpha)
    freeze(module, checkpoint.encoder, options.freeze)
    return module


def freeze(module: SentenceEncoder, encoder: T5Encoder, parts: Sequence[str]) -> None:
    """Take parts of the model out of training.

    Args:
        module: the whole model.
        encoder: its encoder; the adapters that are on a part's matrices are frozen with it.
        parts: of "embeddings", "position_bias", "layers:N" (the first N), "encoder" (everything but the dense layer).

    Raises:
        ValueError: another part, more layers than there are, or nothing left to train.
    """
    for part in parts:
        for frozen in _modules(encoder, part):
            frozen.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError(
            f"with {', '.join(parts)} frozen nothing is left to train"
            + ("; the model has no dense layer" if module.head.dense is None else "")
        )


def _modules(encoder: T5Encoder, part: str) -> Sequence[nn.Module]:
    name, _, count = part.partition(":")
    layers = encoder.config.num_layers
    if part == "embeddings":
        return [encoder.embed_tokens]
    if part == "position_bias":
        return [encoder.relative_attention_bias]
    if part == "encoder":
        return [encoder]
    if name == "layers" and count.isdecimal() and 0 < int(count) <= layers:
        return list(encoder.blocks[: int(count)])
    raise ValueError(
        f"can't freeze {part!r}: expected embeddings, position_bias, encoder or layers:N with N up to {layers}"
    )


def add_adapters(module: SentenceEncoder, rank: int, alpha: int | None) -> None:
    """Freeze the encoder and put low-rank adapters on its matrices; the dense layer is trained as it is.

    Raises:
        ImportError: peft isn't installed.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise ImportError(f'LoRA needs peft ({error}); install it with: pip install "anytask[train]"') from error
    scale = 2 * rank if alpha is None else alpha
    config = LoraConfig(r=rank, lora_alpha=scale, target_modules=MATRICES)
    module.encoder.requires_grad_(False)
    module.encoder = LoraModel(module.encoder, config, "default")


def merged(module: SentenceEncoder) -> SentenceEncoder:
    """A copy with the adapters added into the matrices; its weights are the model's to save."""
    plain = copy.deepcopy(module)
    if not isinstance(plain.encoder, T5Encoder):
        plain.encoder = plain.encoder.merge_and_unload()
    return plain
