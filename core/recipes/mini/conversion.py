"""A T5 encoder that begins where a BERT encoder has got to: the teacher's layers, fitted to T5's form without training.

The two differ in four ways. BERT normalises the sum of each sub-layer and its input (post-norm), T5 the input alone
(pre-norm); BERT's norms take off the mean, and its matrices have biases; BERT's positions are vectors added to the
tokens', T5's are a bias on the attention logits by distance. So:

- The residual stream keeps BERT's basis up to one factor for each dimension, the product of the gains and inverse
  standard deviations of the norms passed so far, which T5's norm gains undo where a sub-layer reads.
- Each matrix is fitted by ridge regression, with BERT's own as the prior, from what the converted layers below really
  give to what BERT computed there from the same texts. Biases, means and the error made so far go into the fit.
- T5 has one table of position biases for all layers. What BERT's logits have beyond the fitted ones, averaged by
  distance, is a profile for each head; the heads of each layer are put into the order in which their profiles agree
  best, and the table is the layers' mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from transformers import BertModel

from anytask.encoder import LengthGroup, T5Config, T5Encoder, relative_position_bucket

RIDGE = 1e-3
"""Weight of the prior, as a share of the inputs' mean square."""
BATCH = 64


@dataclass
class Activations:
    """What BERT computes for some texts, token after token without `[CLS]`, texts of equal length side by side."""

    groups: list[LengthGroup] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)
    outputs: dict[str, list[Tensor]] = field(default_factory=dict)
    deviations: dict[str, list[Tensor]] = field(default_factory=dict)

    def of(self, name: str) -> Tensor:
        return torch.cat(self.outputs[name])

    def deviation(self, name: str) -> float:
        """Mean standard deviation of a norm's input."""
        return float(torch.cat(self.deviations[name]).mean())

    def forget(self, prefix: str) -> None:
        for name in [name for name in self.outputs if name.startswith(prefix)]:
            del self.outputs[name]


@torch.inference_mode()
def activations(bert: BertModel, texts: Sequence[Sequence[int]]) -> Activations:
    """Run BERT over texts of token ids, `[CLS]` first and `[SEP]` last, and keep what the conversion is fitted to."""
    found = Activations()

    def keep(name: str) -> object:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            found.outputs.setdefault(name, []).append(output[:, 1:].reshape(-1, output.shape[-1]).clone())

        return hook

    def measure(name: str) -> object:
        def hook(_: nn.Module, inputs: tuple[Tensor]) -> None:
            found.deviations.setdefault(name, []).append(inputs[0][:, 1:].std(-1, unbiased=False).reshape(-1))

        return hook

    hooks = [bert.embeddings.register_forward_hook(keep("embedded"))]
    for number, layer in enumerate(bert.encoder.layer):
        parts = {
            "q": layer.attention.self.query,
            "k": layer.attention.self.key,
            "v": layer.attention.self.value,
            "attended": layer.attention.output,
            "wi": layer.intermediate.dense,
            "fed": layer.output,
        }
        hooks += [part.register_forward_hook(keep(f"{number}.{name}")) for name, part in parts.items()]
        norms = {"attended": layer.attention.output.LayerNorm, "fed": layer.output.LayerNorm}
        hooks += [norm.register_forward_pre_hook(measure(f"{number}.{name}")) for name, norm in norms.items()]
    ordered = sorted(texts, key=len)
    at = row = 0
    while at < len(ordered):
        length = len(ordered[at])
        batch = [ids for ids in ordered[at : at + BATCH] if len(ids) == length]
        bert(torch.tensor(batch))
        found.tokens.append(torch.tensor(batch)[:, 1:].reshape(-1))
        found.groups.append(LengthGroup(row, len(batch), length - 1))
        at, row = at + len(batch), row + len(batch) * (length - 1)
    for hook in hooks:
        hook.remove()
    return found


class Conversion:
    """Fits a T5 encoder to a BERT encoder's activations.

    Args:
        bert: the teacher.
        found: what it computes for some thousand tokens.
    """

    def __init__(self, bert: BertModel, found: Activations) -> None:
        self.bert, self.found = bert, found
        config = bert.config
        self.heads = config.num_attention_heads
        self.d_kv = config.hidden_size // self.heads
        self.encoder = T5Encoder(
            T5Config(
                vocab_size=config.vocab_size,
                d_model=config.hidden_size,
                d_kv=self.d_kv,
                d_ff=config.intermediate_size,
                num_layers=config.num_hidden_layers,
                num_heads=self.heads,
                feed_forward_proj="gelu",
            )
        ).eval()
        self.encoder.requires_grad_(False)

    @torch.inference_mode()
    def fit(self) -> tuple[T5Encoder, Tensor]:
        """The encoder, and the dense layer [d_model, d_model] from its mean to the teacher's."""
        order = torch.arange(self.heads).expand(len(self.encoder.blocks), -1)
        self.encoder.relative_attention_bias.weight.zero_()
        profiles, counts = self._pass(order)[2:]
        order, table = _agreement(profiles, counts)
        self.encoder.relative_attention_bias.weight.copy_(table.T)
        self.encoder.train().eval()
        stream, scale = self._pass(order)[:2]
        return self.encoder, self._finish(stream, scale)

    def _pass(self, order: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fit all layers from below, the heads of each in the given order.

        Returns:
            the stream, its factors, and the logits' profiles [layers, heads, buckets] with the buckets' sizes.
        """
        found, encoder = self.found, self.encoder
        buckets = encoder.config.relative_attention_num_buckets
        profiles, counts = torch.zeros(len(encoder.blocks), self.heads, buckets), torch.zeros(buckets)
        encoder.embed_tokens.weight.copy_(_embeddings(self.bert))
        stream = encoder.embed_tokens(torch.cat(found.tokens))
        scale = torch.ones(stream.shape[1])
        for number, block in enumerate(encoder.blocks):
            layer = self.bert.encoder.layer[number]
            rows = (order[number][:, None] * self.d_kv + torch.arange(self.d_kv)).reshape(-1)
            attention = layer.attention.self
            block.attention_norm.weight.copy_(_gain(stream, scale))
            read = block.attention_norm(stream)
            root = self.d_kv**-0.5
            wanted = torch.cat(
                [
                    found.of(f"{number}.q")[:, rows] * root,
                    found.of(f"{number}.k")[:, rows],
                    found.of(f"{number}.v")[:, rows],
                ],
                dim=1,
            )
            prior = torch.cat(
                [attention.query.weight[rows] * root, attention.key.weight[rows], attention.value.weight[rows]]
            )
            block.attention.qkv.weight.copy_(_ridge(read, wanted, prior))
            given = block.attention.qkv(read)
            context = self._context(given, wanted, profiles[number], counts)
            prior = layer.attention.output.dense.weight[:, rows] / scale[:, None]
            scale = scale * self._factor(number, "attended")
            block.attention.o.weight.copy_(_ridge(context, found.of(f"{number}.attended") / scale - stream, prior))
            stream = stream + block.attention.o(context)
            block.feed_forward_norm.weight.copy_(_gain(stream, scale))
            read = block.feed_forward_norm(stream)
            block.feed_forward.wi.weight.copy_(_ridge(read, found.of(f"{number}.wi"), layer.intermediate.dense.weight))
            hidden = F.gelu(block.feed_forward.wi(read))
            prior = layer.output.dense.weight / scale[:, None]
            scale = scale * self._factor(number, "fed")
            wanted = found.of(f"{number}.fed")
            block.feed_forward.wo.weight.copy_(_ridge(hidden, wanted / scale - stream, prior))
            stream = stream + block.feed_forward.wo(hidden)
        return stream, scale, profiles, counts

    def _factor(self, number: int, name: str) -> Tensor:
        layer = self.bert.encoder.layer[number]
        norm = layer.attention.output.LayerNorm if name == "attended" else layer.output.LayerNorm
        return norm.weight / self.found.deviation(f"{number}.{name}")

    def _context(self, given: Tensor, wanted: Tensor, profile: Tensor, counts: Tensor) -> Tensor:
        """Attention over the fitted q, k and v; what the wanted logits have beyond theirs is added to `profile`."""
        contexts = []
        sums = torch.zeros_like(profile)
        sizes = torch.zeros(profile.shape[1])
        for group in self.found.groups:
            q, k, v = self._split(given, group)
            wanted_q, wanted_k, _ = self._split(wanted, group)
            beyond = wanted_q @ wanted_k.mT - q @ k.mT
            beyond = (beyond - beyond.mean(-1, keepdim=True)).sum(0).reshape(self.heads, -1)
            position = torch.arange(group.length)
            bucket = relative_position_bucket(position[None] - position[:, None], profile.shape[1], 128).reshape(-1)
            sums.index_add_(1, bucket, beyond)
            sizes.index_add_(0, bucket, torch.full((group.length**2,), float(group.count)))
            bias = self.encoder.position_bias(group.length)[:, : group.length, : group.length]
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=1.0)
            contexts.append(context.transpose(1, 2).reshape(-1, self.heads * self.d_kv))
        profile.copy_(sums / sizes.clamp(min=1))
        counts.copy_(sizes)
        return torch.cat(contexts)

    def _split(self, rows: Tensor, group: LengthGroup) -> Tensor:
        shape = group.count, group.length, 3, self.heads, self.d_kv
        return rows[group.rows].view(shape).permute(2, 0, 3, 1, 4)

    def _finish(self, stream: Tensor, scale: Tensor) -> Tensor:
        self.encoder.final_norm.weight.copy_(_gain(stream, scale))
        wanted = self.found.of(f"{len(self.bert.encoder.layer) - 1}.fed")
        return _ridge(self.encoder.final_norm(stream), wanted, torch.eye(wanted.shape[1]))

    def means(self, rows: Tensor) -> Tensor:
        """The mean of each text's rows."""
        return torch.cat([rows[group.rows].view(group.count, group.length, -1).mean(1) for group in self.found.groups])


def _embeddings(bert: BertModel) -> Tensor:
    """Each token's vector as BERT's first layer gets it, with the mean of the first positions'."""
    table = bert.embeddings
    position = table.position_embeddings.weight[1:40].mean(0) + table.token_type_embeddings.weight[0]
    embedded: Tensor = table.LayerNorm(table.word_embeddings.weight + position)
    return embedded


def _gain(stream: Tensor, scale: Tensor) -> Tensor:
    """The norm gain that gives the stream its size back, times its factors."""
    return scale * stream.square().mean(1).sqrt().mean()


def _ridge(inputs: Tensor, wanted: Tensor, prior: Tensor) -> Tensor:
    """The matrix [out, in] that takes `inputs` to `wanted`, near `prior` where the inputs don't say."""
    inputs, prior = inputs.double(), prior.double()
    rest = wanted.double() - inputs @ prior.T
    gram = inputs.T @ inputs
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    return (prior + torch.linalg.solve(gram, inputs.T @ rest).T).float()


def _agreement(profiles: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """An order of each layer's heads [layers, heads] and the table [heads, buckets] nearest to all of them."""
    weight = (counts / counts.sum()).sqrt()
    table = profiles[0].clone()
    order = torch.arange(len(table)).expand(len(profiles), -1)
    for _ in range(20):
        costs = ((table[None, :, None] - profiles[:, None]) * weight).square().sum(-1)
        order = torch.from_numpy(np.stack([linear_sum_assignment(cost.numpy())[1] for cost in costs]))
        table = torch.stack([profile[heads] for profile, heads in zip(profiles, order, strict=True)]).mean(0)
    return order, table
