"""What callers hand to `encode`, checked and brought to one form: texts and as many instructions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from anytask.instruction import Instruction

if TYPE_CHECKING:
    import numpy.typing as npt

InstructionLike: TypeAlias = str | Instruction
Text: TypeAlias = "str | Sequence[InstructionLike]"
"""A text, or the pair (instruction, text)."""
Texts: TypeAlias = "Text | Sequence[Text] | npt.NDArray[np.str_] | Iterable[Text]"


def split_inputs(
    texts: Iterable[object], instruction: InstructionLike | Sequence[InstructionLike] | None
) -> tuple[list[str], list[str]]:
    """Texts and their instructions ("" for none), of equal length.

    Args:
        texts: strings or (instruction, text) pairs, which may be mixed when `instruction` is None.
        instruction: one for all texts, one per text, or None.

    Raises:
        TypeError: something that is no text, named by its index and type.
        ValueError: a pair of another length, pairs together with `instruction`, or another number of instructions.
    """
    if isinstance(texts, np.ndarray) and texts.ndim:
        texts = texts.tolist()  # rows of a two-dimensional array are pairs
    if isinstance(texts, (bytes, bytearray, dict, np.ndarray)) or not isinstance(texts, Iterable):
        raise TypeError(f"texts must be a string or a list of strings or (instruction, text) pairs, got {_type(texts)}")
    items = list(texts)
    pairs = [index for index, item in enumerate(items) if isinstance(item, (list, tuple))]
    if pairs and instruction is not None:
        raise ValueError(
            f"text {pairs[0]} brings its own instruction as a pair, and the call has one too (instruction=, or the one "
            "that encode_query and encode_document use); give one of them, pairs to encode() alone"
        )
    instructions = _spread(instruction, len(items))
    plain: list[str] = []
    for index, item in enumerate(items):
        if isinstance(item, (list, tuple)):
            if len(item) != 2:
                raise ValueError(f"text {index} is a sequence of {len(item)}, expected the pair (instruction, text)")
            instructions[index] = _as_text(item[0], f"the instruction of text {index}", allow_instruction=True)
            item = item[1]
        plain.append(_as_text(item, f"text {index}"))
    return plain, instructions


def _spread(instruction: InstructionLike | Sequence[InstructionLike] | None, count: int) -> list[str]:
    if instruction is None:
        return [""] * count
    if isinstance(instruction, (str, Instruction)):
        return [_as_text(instruction, "instruction", allow_instruction=True)] * count
    if isinstance(instruction, (bytes, dict)) or not isinstance(instruction, Iterable):
        raise TypeError(f"instruction must be a string, an Instruction or a list of them, got {_type(instruction)}")
    spread = [_as_text(item, f"instruction {index}", allow_instruction=True) for index, item in enumerate(instruction)]
    if len(spread) != count:
        raise ValueError(f"got {len(spread)} instructions for {count} texts; give one for all, or one per text")
    return spread


def _as_text(item: object, name: str, allow_instruction: bool = False) -> str:
    if isinstance(item, str):
        return str.__str__(item)  # the characters, whatever a subclass such as an enumeration prints
    if allow_instruction and isinstance(item, Instruction):
        return str(item)
    raise TypeError(f"{name} must be a string, got {_type(item)}")


def _type(item: object) -> str:
    return "None" if item is None else type(item).__name__
