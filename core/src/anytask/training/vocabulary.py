"""A vocabulary learned from one's own text, for models that start from nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from anytask import checkpoint
from anytask.configuration import names_in
from anytask.errors import CheckpointError

DEFAULT_VOCAB_SIZE = 32_000
"""The pieces of T5's own vocabulary."""
SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
"""In the order of their ids, which is T5's."""
MAX_PIECE_LENGTH = 16
"""Characters of the longest piece, T5's too; `anytask.tokenization` counts on it."""
COVERAGE = 0.9995
"""The share of a text's characters that get a piece each, as in T5, where there are too many to give one to all."""


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, lowercase: bool = False) -> Tokenizer:
    """Learn a vocabulary as T5's is made: a SentencePiece Unigram model over NFKC text.

    The same texts give the same vocabulary. Ten million characters take ten seconds and 0.3 GB; some tens of millions,
    drawn from the whole, are enough for any vocabulary.

    Args:
        texts: read once and held in memory.
        vocab_size: pieces, the special tokens `<pad>` (0), `</s>` (1) and `<unk>` (2) among them.
        lowercase: lower-case all text, in training and in use.

    Returns:
        A tokenizer that splits at white space, writes a word's beginning as `▁` and ends every text with `</s>`.

    Raises:
        ValueError: the text has no `vocab_size` different pieces, or more different characters than that.
        ImportError: sentencepiece is not installed.
    """
    try:
        from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
    except ImportError as error:
        raise ImportError(
            f'training a tokenizer needs sentencepiece ({error}); install it with: pip install "anytask[train]"'
        ) from error
    if vocab_size <= len(SPECIAL_TOKENS):
        raise ValueError(f"vocab_size must be more than the {len(SPECIAL_TOKENS)} special tokens, got {vocab_size}")
    normalizer = normalizers.Sequence([normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])])
    lines = [line for text in texts if (line := " ".join(normalizer.normalize_str(text).split()))]
    if not lines:
        raise ValueError("there is no text to learn a vocabulary from; all texts are empty")
    characters: set[str] = set()
    for line in lines:
        characters.update(line)
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            normalization_rule_name="identity",
            max_sentencepiece_length=MAX_PIECE_LENGTH,
            max_sentence_length=max(len(line.encode()) for line in lines) + 1,
            character_coverage=1.0 if len(characters) <= vocab_size // 4 else COVERAGE,
            num_threads=4,  # the order of summation, and so the vocabulary, depends on it
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _unfit(error, vocab_size, sum(map(len, lines))) from error
    trained = SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [(trained.id_to_piece(i), trained.get_score(i)) for i in range(vocab_size)]
    return _tokenizer(pieces, normalizer)


def read_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, or of a folder that holds one (or a `spiece.model`, which is converted).

    Raises:
        CheckpointError: there is none, it can't be read, or it isn't one of T5's kind, which ends texts with `</s>`.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return checkpoint.read_tokenizer(path)
    if not path.is_file():
        raise CheckpointError(f"no tokenizer at {path}: its folder holds {names_in(path.parent)}")
    return checkpoint.read_tokenizer_file(path)


def _tokenizer(pieces: list[tuple[str, float]], normalizer: normalizers.Normalizer) -> Tokenizer:
    end = pieces[SPECIAL_TOKENS.index("</s>")][0]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=SPECIAL_TOKENS.index("<unk>")))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, SPECIAL_TOKENS.index(end))]
    )
    return tokenizer


def _unfit(error: RuntimeError, vocab_size: int, characters: int) -> ValueError:
    """What SentencePiece refused, in words that say what to do."""
    message = str(error)
    if most := re.search(r"value <= (\d+)", message):
        return ValueError(
            f"the text ({characters:,} characters) is too small for vocab_size {vocab_size:,}: it has "
            f"{int(most[1]):,} pieces; give more text or a smaller vocab_size"
        )
    if least := re.search(r"required_chars\. (\d+) vs (\d+)", message):
        return ValueError(
            f"vocab_size {vocab_size:,} is too small for the text, which has {int(least[2]):,} different characters "
            "and special tokens"
        )
    return ValueError(f"no vocabulary of {vocab_size:,} pieces can be learned from the text: {message}")
