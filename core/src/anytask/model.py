"""`Instructor`: a checkpoint that embeds texts together with instructions."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, get_args

import torch
from torch import Tensor

from anytask.calls import Answer, Calls, EncodeCall
from anytask.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, stored_precision
from anytask.cpu_encoder import CpuEncoder
from anytask.engine import EncodingEngine, packs
from anytask.errors import TruncationWarning
from anytask.hub import resolve
from anytask.inputs import InstructionLike, Texts, split_inputs
from anytask.instruction import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION
from anytask.output import Output, Vectors
from anytask.precision import Precision
from anytask.tokenization import InstructionTokenizer, OnLong

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names of a checkpoint's prompts that mean the document side, as sentence-transformers looks them up."""
NOT_THE_CALLER = tuple(str(Path(module).parent) + os.sep for module in (__file__, asyncio.__file__))
"""Folders whose frames a warning doesn't point to."""


class Instructor:
    """An INSTRUCTOR model (arXiv 2212.09741): the embedding of a text depends on the instruction it comes with.

    Made by `from_pretrained`, or as `Instructor(name_or_path)`. Safe to use from many threads, in forked workers and
    pickled; vectors don't depend on batch size, order or company (to 1e-5 in float32).

    >>> model = Instructor.from_pretrained("mini")
    >>> model.encode("How is the weather?", instruction="Represent the question for classification: ").shape
    (384,)
    """

    name_or_path: str
    _checkpoint: Checkpoint
    _engine: EncodingEngine
    _tokenizer: InstructionTokenizer

    def __init__(self, name_or_path: str | Path = "mini", **options: Any) -> None:
        """`from_pretrained(name_or_path, **options)`, as the original package spells it."""
        self.__setstate__(self.from_pretrained(name_or_path, **options).__getstate__())

    def _start(self) -> None:
        """What a process or a copy needs of its own: the queue of concurrent calls and its worker."""
        self._calls = Calls(self._tokenizer, self._engine)
        _live.add(self)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "mini",
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        max_length: int | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Instructor:
        """Load a checkpoint: a bundled model by name, a local folder, or a hub id.

        Args:
            name_or_path: "mini" (bundled, no network), a folder in the sentence-transformers layout, or a hub id such
                as "hkunlp/instructor-large" or "sentence-transformers/gtr-t5-base".
            device: a torch device; None takes a GPU where there is one, else the CPU.
            dtype: "float32", "bfloat16", "float16" or, on a CPU, "int8": precision of the matrix products. None takes
                float32, or int8 on a CPU for a checkpoint that is stored so, as "mini" is.
            max_length: most tokens of a text with its instruction; None takes the checkpoint's, else 512.
            revision: branch, tag or commit on the hub.
            token: for private repositories; True takes the stored one.
            cache_dir: instead of the hub's cache folder.
            local_files_only: never go to the network.

        Raises:
            CheckpointError: no such model, or its files are missing, damaged or not those of a T5 encoder.
            ValueError: an unknown dtype, or a device that isn't there.
        """
        asked, place = None if dtype is None else as_dtype(dtype), as_device(device)
        folder = resolve(
            name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        precision = asked or stored_precision(folder, place)
        checkpoint = load_checkpoint(folder, pack=precision if packs(place, precision) else None)
        if max_length is not None:
            checkpoint.max_length = max_length
        return cls.from_checkpoint(checkpoint, name=str(name_or_path), device=place, dtype=precision)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        name: str = "",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "float32",
    ) -> Instructor:
        """A model of modules in memory, which it takes over and converts to `dtype` in place.

        Raises:
            ValueError: an unknown dtype, or a device that isn't there.
        """
        model = cls.__new__(cls)
        encoder = checkpoint.packed or checkpoint.encoder
        model._engine = EncodingEngine(encoder, checkpoint.head, as_device(device), as_dtype(dtype))
        packed = model._engine.encoder if isinstance(model._engine.encoder, CpuEncoder) else None
        model._checkpoint = replace(checkpoint, packed=packed)
        model._tokenizer = InstructionTokenizer(checkpoint.tokenizer, checkpoint.max_length)
        model.name_or_path = name
        model._start()
        return model

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._engine.dimension

    @property
    def max_length(self) -> int:
        """Most tokens of a text, its instruction and the end token included; the rest is cut."""
        return self._tokenizer.max_length

    @property
    def device(self) -> torch.device:
        return self._engine.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the matrix products."""
        return self._engine.dtype

    @property
    def query_instruction(self) -> str:
        """What `encode_query` uses by default: the checkpoint's prompt "query", else the project's default."""
        return self._prompt(QUERY_PROMPTS, DEFAULT_QUERY_INSTRUCTION)

    @property
    def document_instruction(self) -> str:
        """What `encode_document` uses by default: the checkpoint's prompt "document", else the project's default."""
        return self._prompt(DOCUMENT_PROMPTS, DEFAULT_DOCUMENT_INSTRUCTION)

    def _prompt(self, names: Sequence[str], default: str) -> str:
        prompts = self._checkpoint.prompts
        return next((prompts[name] for name in names if name in prompts), default)

    def encode(
        self,
        texts: Texts,
        instruction: InstructionLike | Sequence[InstructionLike] | None = None,
        *,
        batch_tokens: int | None = None,
        normalize: bool = True,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        show_progress: bool | Callable[[int], object] = False,
        as_tensor: bool = False,
        on_long: OnLong = "truncate",
        device: Sequence[str | torch.device] | None = None,
    ) -> Any:
        """Embed texts with an instruction. Small calls of several threads that run at the same time share batches.

        Args:
            texts: a string, a list of strings, or a list of (instruction, text) pairs.
            instruction: one for all texts or one per text; None embeds the texts as they are.
            batch_tokens: most tokens computed in one step; None suits the device.
            normalize: give unit vectors.
            truncate_dim: keep this many leading dimensions (then normalise).
            precision: "float32", "float16", "int8" or "binary" (see `anytask.precision.quantize`).
            show_progress: draw a progress bar on standard error; or a function that is called with the number of texts
                done after each step.
            as_tensor: give a torch tensor (on the CPU) instead of a numpy array.
            on_long: "truncate" cuts the tail of texts over `max_length` and warns once with their number, "error"
                raises.
            device: devices that share the work, such as ["cuda:0", "cuda:1"] or ["cpu", "cpu"], each with a process of
                its own. The processes are kept for later calls that name the same devices, until `close`.

        Returns:
            float32 [n, dimension]; [dimension] for a single string; [0, dimension] for an empty list.

        Raises:
            TypeError: something in `texts` is no string; the message names its index and type.
            ValueError: an instruction without room for text, invalid Unicode, an unknown option.
            WorkerError: a process of `device` ended.
        """
        single, plain, instructions = _inputs(texts, instruction)
        output = Output(normalize, truncate_dim, precision, as_tensor)
        call = self._call(plain, instructions, output, batch_tokens, on_long)
        with _advance(show_progress, len(call)) as advance:
            if device is not None:
                answer = self._calls.encode_on(device, call, advance)
            elif show_progress:
                answer = self._calls.encode_alone(call, advance)
            else:
                answer = self._calls.encode(call)
        return self._vectors(answer, call, single)

    def encode_query(self, texts: Texts, instruction: InstructionLike | None = None, **options: Any) -> Any:
        """`encode` with the query instruction: the one given, else the checkpoint's, else the default.

        `instruction=""` embeds without one.
        """
        return self.encode(texts, self.query_instruction if instruction is None else instruction, **options)

    def encode_document(self, texts: Texts, instruction: InstructionLike | None = None, **options: Any) -> Any:
        """`encode` with the document instruction: the one given, else the checkpoint's, else the default."""
        return self.encode(texts, self.document_instruction if instruction is None else instruction, **options)

    async def aencode(
        self,
        texts: Texts,
        instruction: InstructionLike | Sequence[InstructionLike] | None = None,
        *,
        batch_tokens: int | None = None,
        normalize: bool = True,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        as_tensor: bool = False,
        on_long: OnLong = "truncate",
    ) -> Any:
        """`encode` without blocking the event loop; calls that run at the same time share batches.

        Arguments, result and errors are those of `encode`. A large call is computed in parts, between which others
        get their turn; cancelling it ends it with the part at work.
        """
        single, plain, instructions = _inputs(texts, instruction)
        output = Output(normalize, truncate_dim, precision, as_tensor)
        call = self._call(plain, instructions, output, batch_tokens, on_long)
        return self._vectors(await self._calls.aencode(call), call, single)

    async def aencode_query(self, texts: Texts, instruction: InstructionLike | None = None, **options: Any) -> Any:
        """`encode_query` without blocking the event loop."""
        return await self.aencode(texts, self.query_instruction if instruction is None else instruction, **options)

    async def aencode_document(self, texts: Texts, instruction: InstructionLike | None = None, **options: Any) -> Any:
        """`encode_document` without blocking the event loop."""
        return await self.aencode(texts, self.document_instruction if instruction is None else instruction, **options)

    def _call(
        self, texts: list[str], instructions: list[str], output: Output, batch_tokens: int | None, on_long: OnLong
    ) -> EncodeCall:
        output.check(self.dimension)
        if batch_tokens is not None and batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
        if on_long not in get_args(OnLong):
            raise ValueError(f"on_long must be one of {', '.join(get_args(OnLong))}, got {on_long!r}")
        return EncodeCall(texts, instructions, output, batch_tokens, on_long)

    def _vectors(self, answer: Answer, call: EncodeCall, single: bool) -> Any:
        if answer.truncated:
            warning = TruncationWarning(answer.truncated, len(call), self.max_length)
            warnings.warn(warning, stacklevel=_level_of_caller())
        return answer.vectors[0] if single else answer.vectors

    @staticmethod
    def similarity(a: Vectors, b: Vectors) -> Any:
        """Cosine of every vector of `a` ([n, d] or [d]) with every one of `b` ([m, d] or [d]).

        Returns:
            [n, m], a torch tensor when either of them is one, else a numpy array.

        Raises:
            ValueError: vectors of different dimensions, or binary ones, which have no cosine.
        """
        left, right = (_as_rows(side) for side in (a, b))
        if left.shape[-1] != right.shape[-1]:
            raise ValueError(f"vectors of {left.shape[-1]} and {right.shape[-1]} dimensions can't be compared")
        cosine = torch.nn.functional.normalize(left, dim=-1) @ torch.nn.functional.normalize(right, dim=-1).T
        return cosine if isinstance(a, Tensor) or isinstance(b, Tensor) else cosine.numpy()

    def save_pretrained(self, folder: str | Path, dtype: str | torch.dtype | None = None) -> None:
        """Write a checkpoint folder.

        anytask, sentence-transformers and transformers load it; one of int8 matrices, a quarter of the size, anytask
        alone.

        Args:
            dtype: of the weights, as for `from_pretrained`; None takes the model's.

        Raises:
            ValueError: an unknown dtype.
        """
        checkpoint = self._checkpoint if dtype is None else self._checkpoint.in_precision(as_dtype(dtype))
        save_checkpoint(checkpoint, Path(folder).expanduser())

    def close(self) -> None:
        """End the processes that `encode(device=[...])` started. The model can be used further."""
        self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_calls"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def __repr__(self) -> str:
        return (
            f"Instructor({self.name_or_path!r}, dimension={self.dimension}, device={str(self.device)!r}, "
            f"dtype={_name(self.dtype)!r})"
        )


def _inputs(
    texts: Texts, instruction: InstructionLike | Sequence[InstructionLike] | None
) -> tuple[bool, list[str], list[str]]:
    single = isinstance(texts, str)
    items: Iterable[object] = [texts] if isinstance(texts, str) else texts
    return single, *split_inputs(items, instruction)


def _advance(
    show_progress: bool | Callable[[int], object], total: int
) -> AbstractContextManager[Callable[[int], object]]:
    """What is called with the number of texts done: the caller's own function, a bar's, or none."""
    if callable(show_progress):
        return nullcontext(show_progress)
    if not show_progress:
        return nullcontext(lambda _: None)
    from anytask.progress import progress

    return progress("embedding", total)


def _level_of_caller() -> int:
    """The `stacklevel` with which the caller of this function warns at the line that called into the package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(NOT_THE_CALLER):
        frame, level = frame.f_back, level + 1
    return level


def _as_rows(vectors: Vectors) -> Tensor:
    rows = torch.as_tensor(vectors)
    if rows.dtype == torch.uint8:
        raise ValueError("binary vectors have no cosine; compare them by Hamming distance")
    return rows.float().reshape(-1, rows.shape[-1])


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in DTYPES.values():
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    return chosen


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def as_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r}, expected one such as 'cpu', 'cuda' or 'cuda:1': {reason}") from error


_live: weakref.WeakSet[Instructor] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Threads don't survive a fork: give each model a new worker, and OpenMP, whose team is gone, one thread."""
    if _live:
        torch.set_num_threads(1)
    for model in list(_live):
        model._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
