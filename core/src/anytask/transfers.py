"""Tensors between the CPU and a device, without either waiting for the other where the device is a CUDA one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

STEPS_IN_FLIGHT = 2
"""Steps launched before the first one's vectors are waited for."""

Step = TypeVar("Step")


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy of a CPU tensor on `device`; to a GPU through pinned memory, in the order of its stream."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Returning:
    """A tensor on its way to the CPU."""

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(tensor.device))
        else:
            self._host = tensor.cpu()

    def wait(self) -> Tensor:
        """The tensor, once it has arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._host


def in_flight(launch: Callable[[Step], Tensor], steps: Iterable[Step]) -> Iterator[tuple[Step, Tensor]]:
    """Each step with what `launch` gives for it, on the CPU and in their order.

    Later steps are launched before an earlier one's result is waited for, so that the device always has work.
    """
    flying: deque[tuple[Step, Returning]] = deque()
    for step in steps:
        flying.append((step, Returning(launch(step))))
        if len(flying) > STEPS_IN_FLIGHT:
            first, returning = flying.popleft()
            yield first, returning.wait()
    for step, returning in flying:
        yield step, returning.wait()
