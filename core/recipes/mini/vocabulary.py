"""The teacher's WordPiece vocabulary as a T5 tokenizer: one `</s>` at the end, pieces of other scripts left out."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

from tokenizers import Tokenizer

RENAMED = {"[PAD]": "<pad>", "[SEP]": "</s>", "[UNK]": "<unk>"}
"""BERT's special tokens that have a use in T5; in the order of T5's ids."""


def t5_tokenizer(tokenizer_json: Path) -> tuple[Tokenizer, list[int]]:
    """The tokenizer, and for each of its ids the teacher's."""
    content = json.loads(tokenizer_json.read_text("utf-8"))
    theirs: dict[str, int] = content["model"]["vocab"]
    kept = [*RENAMED, *(piece for piece in sorted(theirs, key=theirs.__getitem__) if is_latin(piece))]
    content["model"]["vocab"] = {RENAMED.get(piece, piece): number for number, piece in enumerate(kept)}
    content["model"]["unk_token"] = RENAMED["[UNK]"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"] = [
        {"id": number, "content": name, "special": True, **flags} for number, name in enumerate(RENAMED.values())
    ]
    content["truncation"] = content["padding"] = None
    text, end = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [text, end],
        "pair": [text, end, {"Sequence": {"id": "B", "type_id": 0}}, end],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [kept.index("[SEP]")], "tokens": ["</s>"]}},
    }
    return Tokenizer.from_str(json.dumps(content)), [theirs[piece] for piece in kept]


def is_latin(piece: str) -> bool:
    """Whether all letters of a piece are Latin ones; special tokens aren't."""
    if len(piece) > 2 and piece.startswith("[") and piece.endswith("]"):
        return False
    return all(
        character.isascii()
        or not unicodedata.category(character).startswith("L")
        or "LATIN" in unicodedata.name(character, "")
        for character in piece.removeprefix("##")
    )
