"""Gradient caching and checkpointing on a real T5 in float64 with dropout, against one plain backward pass."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from anytask.batching import PackedBatch, TokenizedText, pack, plan_batches
from anytask.checkpoint import load_checkpoint
from anytask.tokenization import InstructionTokenizer
from anytask.training import TextKeys, contrastive_loss
from anytask.training.gradient_cache import BatchGradient, choose_attention
from anytask.training.module import SentenceEncoder

MakeCheckpoint = Callable[..., Path]
Gradients = dict[str, Tensor]
PAIRS, NEGATIVES = 5, 7
CHUNK_TOKENS = pytest.mark.parametrize("chunk_tokens", [1, 100, 10**6])


def in_batch_loss(vectors: Tensor) -> Tensor:
    """Of queries, positives and hard negatives, one text being in twice."""
    queries, positives, negatives = vectors.split([PAIRS, PAIRS, NEGATIVES])
    keys = torch.arange(len(vectors))
    keys[1] = keys[0]
    return contrastive_loss(queries, positives, negatives, temperature=0.05, keys=TextKeys(*keys.split([5, 5, 7])))


@dataclass
class Model:
    """A module in float64 and a batch for it."""

    module: SentenceEncoder
    texts: Sequence[TokenizedText]

    def chunks(self, tokens: int) -> tuple[Tensor, list[PackedBatch]]:
        plan = list(plan_batches([len(text.ids) for text in self.texts], tokens))
        order = torch.tensor([place for places in plan for place in places])
        return torch.argsort(order), [pack([self.texts[place] for place in places]) for places in plan]

    def embed(self, chunk: PackedBatch) -> Tensor:
        vectors: Tensor = self.module(chunk.token_ids, chunk.pool_mask, chunk.groups)
        return vectors

    def plain(self, tokens: int, seed: int = 1) -> tuple[float, Gradients, Tensor]:
        """Loss, gradients and the generator's state after one forward pass of all chunks and one backward pass."""
        restore, chunks = self.chunks(tokens)
        self.module.zero_grad()
        torch.manual_seed(seed)
        loss = in_batch_loss(torch.cat([self.embed(chunk) for chunk in chunks])[restore])
        after = torch.get_rng_state()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item(), self.gradients(), after

    def through(self, cached: bool, tokens: int, seed: int = 1) -> tuple[float, Gradients, Tensor]:
        """The same by `BatchGradient`."""
        restore, chunks = self.chunks(tokens)
        self.module.zero_grad()
        torch.manual_seed(seed)
        loss = BatchGradient(self.embed, cached=cached)(chunks, lambda vectors: in_batch_loss(vectors[restore]))
        return loss.item(), self.gradients(), torch.get_rng_state()

    def gradients(self) -> Gradients:
        return {
            name: parameter.grad.clone()
            for name, parameter in self.module.named_parameters()
            if parameter.grad is not None
        }


@pytest.fixture(scope="module")
def make_model(make_checkpoint: MakeCheckpoint, sentences: list[str]) -> Callable[..., Model]:
    folders = {form: make_checkpoint(shape={"feed_forward_proj": form}) for form in ("relu", "gated-gelu")}

    def make(dropout: float = 0.1, checkpointing: bool = False, feed_forward: str = "relu") -> Model:
        checkpoint = load_checkpoint(folders[feed_forward])
        checkpoint.encoder.gradient_checkpointing = checkpointing
        module = SentenceEncoder(checkpoint, dropout=dropout).double().train()
        texts = sentences[:: len(sentences) // (2 * PAIRS + NEGATIVES)][: 2 * PAIRS + NEGATIVES]
        tokenizer = InstructionTokenizer(checkpoint.tokenizer, 512)
        return Model(module, tokenizer(texts, ["Represent the line for search: "] * len(texts)))

    return make


def difference(found: Gradients, expected: Gradients) -> float:
    """The largest relative error of a parameter's gradient."""
    assert found.keys() == expected.keys()
    assert all(gradient.dtype == torch.float64 for gradient in found.values())
    return max(float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected)


@CHUNK_TOKENS
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("cached", [True, False])
def test_gradients_are_the_plain_ones(
    make_model: Callable[..., Model], cached: bool, checkpointing: bool, chunk_tokens: int
) -> None:
    """With the dropout of a plain pass over the same chunks; the random numbers that come next are the same too."""
    expected_loss, expected, expected_state = make_model().plain(chunk_tokens)
    loss, found, state = make_model(checkpointing=checkpointing).through(cached, chunk_tokens)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert difference(found, expected) < 1e-9
    assert torch.equal(state, expected_state)


def test_all_parameters_are_reached(make_model: Callable[..., Model]) -> None:
    model = make_model()
    _, found, _ = model.through(True, 60)
    assert found.keys() == dict(model.module.named_parameters()).keys()
    assert all(gradient.abs().max() > 0 for gradient in found.values())


def test_dropout_is_at_work(make_model: Callable[..., Model]) -> None:
    """Else the tests above would hold without the replay of random numbers."""
    model = make_model()
    assert difference(model.through(True, 150, seed=1)[1], model.through(True, 150, seed=2)[1]) > 1e-2


def test_without_replay_the_gradients_would_differ(
    make_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    _, expected, _ = model.plain(150)
    monkeypatch.setattr("anytask.training.gradient_cache.RandomState.restore", lambda _: None)
    assert difference(model.through(True, 150)[1], expected) > 1e-2


@CHUNK_TOKENS
def test_without_dropout_chunks_make_no_difference(make_model: Callable[..., Model], chunk_tokens: int) -> None:
    model = make_model(dropout=0.0)
    loss, expected, _ = model.plain(10**6)
    found = model.through(True, chunk_tokens)
    assert found[0] == pytest.approx(loss, rel=1e-12)
    assert difference(found[1], expected) < 1e-9


def test_attention_of_a_cpu_stays_as_it_is() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    choose_attention(torch.device("cpu"))
    assert torch.backends.cuda.cudnn_sdp_enabled() == before
    assert callable(torch.backends.cuda.enable_cudnn_sdp)


def test_gated_feed_forward(make_model: Callable[..., Model]) -> None:
    _, expected, _ = make_model(feed_forward="gated-gelu").plain(150)
    model = make_model(feed_forward="gated-gelu", checkpointing=True)
    assert difference(model.through(True, 150)[1], expected) < 1e-9


def test_after_a_step(make_model: Callable[..., Model]) -> None:
    """Nothing that was computed without a graph before the weights moved is used afterwards."""
    gradients = []
    for cached in (False, True):
        model = make_model(dropout=0.0)
        optimiser = torch.optim.SGD(model.module.parameters(), lr=0.05)
        for _ in range(3):
            _loss, found, _ = model.through(cached, 150)
            optimiser.step()
        gradients.append(found)
    assert difference(gradients[1], gradients[0]) < 1e-7


def test_gradients_accumulate(make_model: Callable[..., Model]) -> None:
    model = make_model(dropout=0.0)
    _, expected, _ = model.plain(10**6)
    restore, chunks = model.chunks(150)
    model.module.zero_grad()
    for _ in range(2):
        BatchGradient(model.embed, cached=True)(chunks, lambda vectors: in_batch_loss(vectors[restore]))
    assert difference(model.gradients(), {name: 2 * gradient for name, gradient in expected.items()}) < 1e-9


class Kept:
    """A tensor that a graph keeps for its backward pass."""

    alive: ClassVar[weakref.WeakSet[Kept]] = weakref.WeakSet()
    most = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        Kept.alive.add(self)
        Kept.most = max(Kept.most, sum(kept.tensor.numel() for kept in Kept.alive))

    @staticmethod
    def most_during(work: Callable[[], object]) -> int:
        """The largest number of elements that graphs keep at a time."""
        Kept.most = 0
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            work()
        assert not Kept.alive
        return Kept.most


def test_memory_holds_one_chunk(make_model: Callable[..., Model]) -> None:
    model, checkpointed = make_model(), make_model(checkpointing=True)
    _, chunks = model.chunks(60)
    assert len(chunks) > 5

    def one_chunk() -> None:
        model.embed(chunks[0]).sum().backward()  # type: ignore[no-untyped-call]

    single = Kept.most_during(one_chunk)
    assert Kept.most_during(lambda: model.through(True, 60)) < 1.3 * single
    assert Kept.most_during(lambda: model.through(False, 60)) > 4 * single
    assert Kept.most_during(lambda: checkpointed.through(False, 10**6)) < 0.7 * Kept.most_during(
        lambda: model.through(False, 10**6)
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_bfloat16(make_model: Callable[..., Model], checkpointing: bool) -> None:
    """The pass without a graph must not leave behind casts of the weights that the other pass then uses."""
    model = make_model(checkpointing=checkpointing)
    model.module.float()

    def embed(chunk: PackedBatch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model.embed(chunk)

    restore, chunks = model.chunks(150)
    gradients = []
    for cached in (False, True):
        model.module.zero_grad()
        torch.manual_seed(3)
        BatchGradient(embed, cached=cached)(chunks, lambda vectors: in_batch_loss(vectors[restore]))
        gradients.append(model.gradients())
    plain, cached_gradients = gradients
    assert cached_gradients.keys() == dict(model.module.named_parameters()).keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(
            cached_gradients[name], gradient, rtol=1e-5, atol=1e-7 + 1e-5 * float(gradient.abs().max())
        )


@pytest.mark.parametrize("cached", [True, False])
def test_gradients_are_reduced_over_processes_once(make_model: Callable[..., Model], cached: bool) -> None:
    """All chunks but the last are computed in the context that puts the reduction off."""
    model = make_model()
    _, chunks = model.chunks(60)
    deferred: list[bool] = []
    inside = False

    class Deferred:
        def __enter__(self) -> None:
            nonlocal inside
            inside = True

        def __exit__(self, *_: object) -> None:
            nonlocal inside
            inside = False

    def embed(chunk: PackedBatch) -> Tensor:
        deferred.append(inside)
        return model.embed(chunk)

    BatchGradient(embed, cached=cached, defer_sync=Deferred)(chunks, in_batch_loss)
    assert deferred[-len(chunks) :] == [True] * (len(chunks) - 1) + [False]
    assert deferred[: -len(chunks)] == ([True] * len(chunks) if cached else [])
