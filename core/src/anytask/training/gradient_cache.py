"""Gradients of a loss over a whole batch of texts whose activations needn't fit in memory at once.

Gao et al., 2021 (arXiv 2101.06983): the loss depends on the encoder through the vectors alone. So, in three steps:
embed the chunks of the batch one after another without a graph; compute the loss and its gradient by the vectors;
embed each chunk again, now with a graph, and send its vectors' gradient through it. The second pass draws the same
random numbers as the first, so that dropout leaves out the same activations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from anytask.batching import PackedBatch

Embed = Callable[[PackedBatch], Tensor]
Backward = Callable[[Tensor], object]


def choose_attention(device: torch.device) -> None:
    """Keep both passes to one attention kernel. On a GPU torch may take cuDNN's in the pass without a graph; where the
    position bias has a gradient it can't, and the kernel that it takes then drops other weights from the same random
    numbers. cuDNN's backward pass has also given NaN.
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


class RandomState:
    """The state of the random number generators on the CPU and on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        self.mps = torch.mps.get_rng_state() if device.type == "mps" else None

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)
        if self.mps is not None:
            torch.mps.set_rng_state(self.mps)


class BatchGradient:
    """Accumulates the gradient of a loss over the vectors of a batch that is embedded in chunks.

    Args:
        embed: a packed chunk to its vectors [texts, d], with a graph unless gradients are off.
        cached: hold the graph of one chunk at a time and compute each chunk twice; otherwise hold all graphs.
        backward: what `Tensor.backward` is replaced by (accelerate's, which scales for float16).
        defer_sync: makes a context in which gradients aren't reduced over processes, for all chunks but the last.
    """

    def __init__(
        self,
        embed: Embed,
        *,
        cached: bool,
        backward: Backward = Tensor.backward,
        defer_sync: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.embed = embed
        self.cached = cached
        self.backward = backward
        self.defer_sync = defer_sync

    def __call__(self, chunks: Sequence[PackedBatch], loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Add the gradient to the parameters'.

        Args:
            chunks: the batch, on the model's device.
            loss: of the vectors of all chunks, [texts, d] in the chunks' order; a scalar.

        Returns:
            the loss, detached.
        """
        again = self.cached and len(chunks) > 1
        device = chunks[0].token_ids.device
        states: list[RandomState] = []
        vectors: list[Tensor] = []
        for place, chunk in enumerate(chunks):
            states.append(RandomState(device))
            with self._sync(place == len(chunks) - 1 and not again), torch.set_grad_enabled(not again):
                vectors.append(self.embed(chunk))
        leaves = torch.cat([chunk.detach() for chunk in vectors]).requires_grad_()
        value = loss(leaves)
        (gradient,) = torch.autograd.grad(value, leaves)
        gradients = torch.split(gradient, [len(chunk) for chunk in vectors])
        if not again:
            self._send(vectors, gradients)
            return value.detach()
        after = RandomState(device)
        for place, (chunk, state, part) in enumerate(zip(chunks, states, gradients, strict=True)):
            with self._sync(place == len(chunks) - 1):
                state.restore()
                self._send([self.embed(chunk)], [part])
        after.restore()
        return value.detach()

    def _send(self, vectors: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Send `gradients` through the graphs of `vectors`, by way of a scalar that has them as its gradient."""
        self.backward(torch.stack([(a * b).sum() for a, b in zip(vectors, gradients, strict=True)]).sum())

    def _sync(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext() if last else self.defer_sync()
