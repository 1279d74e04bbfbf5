"""What runs in a worker process of `anytask.devices`: an engine on one device."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from anytask.batching import TokenizedText
from anytask.cpu_encoder import CpuEncoder, float_state
from anytask.encoder import T5Config, T5Encoder
from anytask.engine import EncodingEngine, packs
from anytask.pooling import SentenceHead
from anytask.shared_arrays import Layout, SharedTensors
from anytask.weights import is_quantised

DENSE = "dense."
"""Begins the names of the dense layer's weights beside those of the encoder."""
DONE = None
"""What a worker sends after a task."""


@dataclass(frozen=True)
class Assignment:
    """What a worker is started with."""

    device: str
    dtype: torch.dtype
    threads: int
    """Of torch, within the process."""
    config: T5Config
    weights: Layout


@dataclass(frozen=True)
class Task:
    """Texts to embed: those from `first` to before `last` of a call.

    The call's shared tensors, in the order in which its texts are computed: token_ids [T] int32; starts [n + 1] int64,
    where each text's tokens begin; pool_starts [n] int32; vectors [n, dimension] float32, not normalised, which the
    workers fill.
    """

    call: Layout
    first: int
    last: int
    batch_tokens: int | None


def weights_of(engine: EncodingEngine) -> dict[str, Tensor]:
    """All that a worker needs to build the engine anew, on the CPU."""
    dense = engine.head.dense
    state = engine.encoder.state_dict() | ({} if dense is None else _prefixed(dense.state_dict()))
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def serve(assignment: Assignment, connection: Connection) -> None:
    """Main function of a worker: compute tasks until the connection is closed.

    Sends how many tokens a step takes when it is ready; then, for each task, the number of texts of each step when that
    is done, and `DONE`; or the exception that kept it from that.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Control-C is the parent's, who ends its workers
    torch.set_num_threads(assignment.threads)
    try:
        weights = SharedTensors.attach(assignment.weights)
        engine = _engine(assignment, weights.tensors)
        if engine.device.type != "cpu":  # there, what needs no conversion is used where it lies
            weights.close()
        connection.send(engine.batch_tokens)
    except BaseException as error:
        connection.send(_sendable(error))
        _leave()
    try:
        while True:
            task = connection.recv()
            shared: SharedTensors | None = None
            try:
                shared = SharedTensors.attach(task.call)
                _compute(engine, shared, task, connection.send)
                connection.send(DONE)
            except Exception as error:
                connection.send(_sendable(error))
            if shared is not None:
                with suppress(BufferError):  # of tensors that something of an error still holds
                    shared.close()
    except (EOFError, OSError):  # the parent has closed its end, or is no more
        _leave()


def _leave() -> NoReturn:
    """End at once: the interpreter would close shared memory in which tensors still lie, and complain."""
    os._exit(0)


def _compute(engine: EncodingEngine, shared: SharedTensors, task: Task, advance: Callable[[int], object]) -> None:
    starts = shared["starts"][task.first : task.last + 1].tolist()
    pool_starts = shared["pool_starts"][task.first : task.last].tolist()
    token_ids = shared["token_ids"].numpy()
    texts = [
        TokenizedText(token_ids[start:end], pool_start)
        for start, end, pool_start in zip(starts[:-1], starts[1:], pool_starts, strict=True)
    ]
    shared["vectors"][task.first : task.last] = engine.embed(texts, task.batch_tokens, advance)


def _engine(assignment: Assignment, weights: Mapping[str, Tensor]) -> EncodingEngine:
    device, dtype = torch.device(assignment.device), assignment.dtype
    dense_state = {name.removeprefix(DENSE): t for name, t in weights.items() if name.startswith(DENSE)}
    state = {name: tensor for name, tensor in weights.items() if not name.startswith(DENSE)}
    encoder: T5Encoder | CpuEncoder
    if packs(device, dtype):
        encoder = CpuEncoder(assignment.config, state, dtype)
    else:
        with torch.device("meta"):
            encoder = T5Encoder(assignment.config)
        encoder.load_state_dict(float_state(state) if is_quantised(state) else state, assign=True)
    return EncodingEngine(encoder, SentenceHead(_dense(dense_state)), device, dtype)


def _dense(state: Mapping[str, Tensor]) -> nn.Linear | None:
    if not state:
        return None
    outputs, inputs = state["weight"].shape
    dense = nn.Linear(inputs, outputs, bias="bias" in state)
    dense.load_state_dict(dict(state))
    return dense


def _prefixed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {DENSE + name: tensor for name, tensor in state.items()}


def _sendable(error: BaseException) -> Any:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
