"""Tokens of a text with its instruction, and which of them the mean is taken over.

The rules are those of the published InstructorEmbedding 1.0.1, for whose vectors the released checkpoints were made:
the instruction as given and the stripped text are joined, the result is stripped; the pool starts after as many
tokens as the stripped instruction has alone. Where the original is unsound (it pools an instruction of one token, and
returns a zero vector when nothing is left to pool), the pool is the text's tokens by their character offsets, at least
`</s>`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from tokenizers import Encoding, Tokenizer

from anytask.batching import TokenizedText

OnLong = Literal["truncate", "error"]
CHARACTERS_PER_TOKEN = 16
"""The longest piece of a T5 vocabulary: a text is first looked at up to `max_length` times this many characters."""
WIDEN = 16
"""How many times more of a text is looked at when that was not enough."""
CHUNK = 1024
"""Texts handed to the tokenizer at a time."""


def end_token(tokenizer: Tokenizer) -> int:
    """The id of the one special token that a T5 tokenizer adds, `</s>` at the end.

    The padding and truncation that the tokenizer was saved with are turned off.

    Raises:
        ValueError: it adds none, several, or adds it in front.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    special = tokenizer.encode("").ids
    if len(special) != 1 or tokenizer.encode("a").ids[-1:] != special:
        raise ValueError(
            f"the tokenizer adds {len(special)} special tokens to a text; a T5 tokenizer adds one, `</s>` at the end. "
            "Use the tokenizer.json of a T5 checkpoint"
        )
    return int(special[0])


class InstructionTokenizer:
    """A checkpoint's own tokenizer with INSTRUCTOR's rules for instructions.

    Args:
        tokenizer: a `tokenizers.Tokenizer` that ends every text with one special token, `</s>`.
        max_length: most tokens of a text, its instruction and `</s>` included.

    Raises:
        ValueError: another kind of tokenizer, or a `max_length` without room for a text.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        if max_length < 2:
            raise ValueError(f"max_length must leave room for a token and `</s>`, got {max_length}")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.eos = end_token(tokenizer)
        self._unknown = _unknown_id(tokenizer)

    def instruction_tokens(self, instruction: str) -> list[int]:
        """Token ids of the stripped instruction alone, without `</s>`.

        Raises:
            ValueError: it leaves no room for a text, or isn't valid Unicode.
        """
        return self._tokenize_instruction(instruction).ids

    def _tokenize_instruction(self, instruction: str) -> _Instruction:
        stripped = instruction.strip()
        try:
            encoding = self.tokenizer.encode(stripped, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError):
            raise ValueError(f"the instruction {instruction[:60]!r} {_unicode_error(stripped)}") from None
        ids: list[int] = encoding.ids
        if len(ids) > self.max_length - 2:
            raise ValueError(
                f"the instruction has {len(ids)} tokens, which leaves no room for a text within max_length "
                f"{self.max_length}: shorten it or load the model with a larger max_length. "
                f"It begins {instruction[:60]!r}"
            )
        closed = bool(ids) and ids[-1] != self._unknown and encoding.offsets[-1][1] == len(stripped)
        return _Instruction(ids, closed)

    def __call__(
        self, texts: Sequence[str], instructions: Sequence[str], on_long: OnLong = "truncate"
    ) -> list[TokenizedText]:
        """Tokenize each text with its instruction (one each, "" for none).

        Raises:
            ValueError: an instruction leaves no room; a text isn't valid Unicode (lone surrogates) or, with
                `on_long="error"`, is too long: the message names its index.
        """
        return [text for chunk in self.chunks(texts, instructions, on_long) for text in chunk]

    def chunks(
        self, texts: Sequence[str], instructions: Sequence[str], on_long: OnLong = "truncate", size: int = CHUNK
    ) -> Iterator[list[TokenizedText]]:
        """The same as the tokenizer's call, `size` texts at a time, when they are asked for.

        Invalid Unicode is told before the first of them.
        """
        for index, text in enumerate(texts if len(texts) > size else ()):
            if not text.isascii() and (problem := _unicode_error(text)):
                raise ValueError(f"text {index} {problem}")
        alone = {instruction: self._tokenize_instruction(instruction) for instruction in dict.fromkeys(instructions)}
        for start in range(0, len(texts), size):
            chunk = [
                _Joined(text, instruction, alone[instruction])
                for text, instruction in zip(
                    texts[start : start + size], instructions[start : start + size], strict=True
                )
            ]
            tokenized: list[TokenizedText] = []
            for offset, (joined, ids) in enumerate(zip(chunk, self._encode(chunk, start), strict=True)):
                truncated = len(ids) > self.max_length
                if truncated and on_long == "error":
                    raise ValueError(
                        f"text {start + offset} has more tokens with its instruction than max_length "
                        f'{self.max_length}; shorten or split it, or pass on_long="truncate" to embed its beginning'
                    )
                if truncated:
                    ids = [*ids[: self.max_length - 1], self.eos]
                pool_start = self._pool_start(joined, ids)
                tokenized.append(TokenizedText(np.array(ids, dtype=np.int32), pool_start, truncated))
            yield tokenized

    def _encode(self, chunk: Sequence[_Joined], start: int) -> Iterator[list[int]]:
        """Token ids with `</s>`; those of a text over the limit may end early, but never within the limit.

        They are the first ones of the whole text's, unless a single word goes on from within the limit beyond the
        characters that are looked at: it is then cut into pieces as if it ended there.
        """
        window = self.max_length * CHARACTERS_PER_TOKEN
        try:
            encodings = self.tokenizer.encode_batch_fast([joined.string[:window] for joined in chunk])
        except (UnicodeEncodeError, TypeError):
            raise _invalid_unicode(chunk, start) from None
        for joined, encoding in zip(chunk, encodings, strict=True):
            yield self._widen(joined.string, encoding.ids, window)

    def _widen(self, string: str, ids: list[int], window: int) -> list[int]:
        """Look at more of `string` until it is whole or its tokens pass the limit by a margin no cut reaches into."""
        while window < len(string) and len(ids) <= self.max_length + CHARACTERS_PER_TOKEN:
            window *= WIDEN
            ids = self.tokenizer.encode(string[:window]).ids
        return ids

    def _pool_start(self, joined: _Joined, ids: list[int]) -> int:
        alone = joined.instruction
        n = len(alone.ids)
        if not n:
            return 0
        if alone.closed and ids[:n] == alone.ids and not joined.composes:
            return n
        encoding = self.tokenizer.encode(joined.string[: self.max_length * CHARACTERS_PER_TOKEN])
        if n < len(ids) and not joined.merges(encoding):
            return n
        return min(joined.first_text_token(encoding), len(ids) - 1)

    def __getstate__(self) -> dict[str, object]:
        return {"tokenizer": self.tokenizer.to_str(), "max_length": self.max_length}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(Tokenizer.from_str(str(state["tokenizer"])), int(str(state["max_length"])))  # type: ignore[misc]


@dataclass(frozen=True)
class _Instruction:
    """Tokens of a stripped instruction alone."""

    ids: list[int]
    closed: bool
    """Its last token is known and holds its last character: none of these tokens can also hold a text's characters."""


class _Joined:
    """The string that is tokenized, and where in it the instruction ends and the text begins."""

    __slots__ = ("instruction", "instruction_end", "string", "text_start")

    def __init__(self, text: str, instruction: str, alone: _Instruction) -> None:
        text = text.strip()
        self.string = (instruction + text).strip()
        self.text_start = len(self.string) - len(text)
        self.instruction_end = len(instruction.strip())
        self.instruction = alone

    @property
    def composes(self) -> bool:
        """Whether normalization may make one character of the instruction's last and the text's first."""
        first = self.string[self.text_start : self.text_start + 1]
        if first.isascii():
            return False
        head = unicodedata.normalize("NFKC", first)[:1]
        return unicodedata.category(head).startswith("M") or "\u1160" <= head <= "\u11ff"

    def merges(self, encoding: Encoding) -> bool:
        """Whether one token holds characters of both the instruction and the text."""
        return any(
            start < self.instruction_end and end > self.text_start
            for start, end in encoding.offsets
            if self.text_start < len(self.string)
        )

    def first_text_token(self, encoding: Encoding) -> int:
        """Index of the first token with a character of the text, else of `</s>`."""
        for index, (_, end) in enumerate(encoding.offsets[:-1]):
            if end > self.text_start:
                return index
        return len(encoding.ids) - 1


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """The id of the unknown token, which the tokenizer fuses with an unknown neighbour."""
    unknown = tokenizer.token_to_id("<unk>")
    return unknown if isinstance(unknown, int) else None


def _invalid_unicode(chunk: Sequence[_Joined], start: int) -> ValueError:
    for offset, joined in enumerate(chunk):
        if problem := _unicode_error(joined.string):
            return ValueError(f"text {start + offset} {problem}")
    return ValueError(f"the tokenizer refused one of the texts {start} to {start + len(chunk) - 1}")


def _unicode_error(string: str) -> str:
    """What makes `string` impossible to encode, for messages; empty when nothing does."""
    try:
        string.encode("utf-8")
    except UnicodeEncodeError as error:
        return (
            f"holds U+{ord(string[error.start]):04X}, half of a surrogate pair, which is no character; "
            'decode the source with errors="replace" or drop it'
        )
    return ""
