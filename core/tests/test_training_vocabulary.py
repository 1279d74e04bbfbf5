"""Vocabularies learned from text: T5's kind, the same every time, refused when the text doesn't give them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from anytask import CheckpointError
from anytask.tokenization import InstructionTokenizer
from anytask.training.vocabulary import read_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(sentences: list[str]) -> Tokenizer:
    return train_tokenizer(sentences, 800)


def test_is_of_t5s_kind(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(token) for token in ("<pad>", "</s>", "<unk>")] == [0, 1, 2]
    assert tokenizer.get_vocab_size() == 800
    assert len(tokenizer.get_vocab()) == 800
    assert max(map(len, tokenizer.get_vocab())) <= 16
    encoding = tokenizer.encode("The statement  is\nexecuted.")
    assert encoding.ids[-1] == 1
    assert encoding.tokens[0].startswith("▁")
    assert 2 not in encoding.ids
    assert tokenizer.decode(encoding.ids) == "The statement is executed."
    assert InstructionTokenizer(tokenizer, 16)(["a text"], ["Represent: "])[0].ids[-1] == 1


def test_learned_from_the_text(tokenizer: Tokenizer, sentences: list[str]) -> None:
    assert {"▁the", "▁object", "▁expression"} <= set(tokenizer.get_vocab())
    characters = sum(map(len, sentences[:200]))
    tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch(sentences[:200]))
    assert characters / tokens > 2.5


def test_normalises_compatibility_forms(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("ﬁle").ids == tokenizer.encode("file").ids
    assert tokenizer.encode("File").ids != tokenizer.encode("file").ids


def test_lower_case(sentences: list[str]) -> None:
    tokenizer = train_tokenizer(sentences, 800, lowercase=True)
    assert tokenizer.encode("THE FILE").ids == tokenizer.encode("the file").ids
    assert not any(piece != piece.lower() for piece in tokenizer.get_vocab())


def test_keeps_every_character_of_an_alphabet(sentences: list[str]) -> None:
    rare = "Ŵ"
    tokenizer = train_tokenizer([*sentences, f"a {rare} once"], 800)
    assert 2 not in tokenizer.encode(rare).ids
    assert 2 in tokenizer.encode("語").ids


def test_many_characters_leave_the_rarest_unknown(sentences: list[str]) -> None:
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 400)))
    tokenizer = train_tokenizer([*sentences * 5, rare], 800)
    assert 2 in tokenizer.encode(rare).ids
    assert 2 not in tokenizer.encode("zebra").ids


def test_words_longer_than_a_line_of_sentencepiece(sentences: list[str]) -> None:
    joined = " ".join(sentences[:500])
    assert train_tokenizer([joined], 500).get_vocab_size() == 500
    assert train_tokenizer(["ab" * 5000, *sentences[:500]], 400).get_vocab_size() == 400


def test_another_process_gives_the_same_vocabulary(tokenizer: Tokenizer, sentences: list[str], tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("\n".join(sentences), "utf-8")
    script = (
        "import sys; from anytask.training.vocabulary import train_tokenizer;"
        "train_tokenizer(open(sys.argv[1], encoding='utf-8'), 800).save(sys.argv[2])"
    )
    subprocess.run(
        [sys.executable, "-c", script, tmp_path / "texts", tmp_path / "tokenizer.json"],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=True,
    )
    tokenizer.save(str(tmp_path / "expected.json"))
    assert (tmp_path / "tokenizer.json").read_bytes() == (tmp_path / "expected.json").read_bytes()


@pytest.mark.parametrize(
    ("texts", "size", "words"),
    [
        (["a few words only"], 1000, ["too small for vocab_size 1,000", "pieces", "give more text"]),
        ([], 1000, ["no text"]),
        (["  ", "\n"], 1000, ["no text"]),
        (["text"], 3, ["vocab_size", "3"]),
        ([" ".join(map(chr, range(0x4E00, 0x4E00 + 3000)))], 500, ["vocab_size 500 is too small", "characters"]),
    ],
)
def test_refuses_what_gives_no_vocabulary(texts: list[str], size: int, words: list[str]) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        train_tokenizer(texts, size)
    assert all(word in str(caught.value) for word in words), caught.value


def test_reads_what_was_saved(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = "Represent the text: é 語 file."
    for place in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        assert read_tokenizer(place).encode(text).ids == tokenizer.encode(text).ids


def test_reads_a_sentencepiece_model(tokenizer_folder: Path, tmp_path: Path) -> None:
    for name in ("spiece.model", "config.json"):
        (tmp_path / name).write_bytes((tokenizer_folder / name).read_bytes())
    expected = read_tokenizer(tokenizer_folder).encode("the file").ids
    assert read_tokenizer(tmp_path).encode("the file").ids == expected
    assert read_tokenizer(tmp_path / "spiece.model").encode("the file").ids == expected


def test_says_why_a_tokenizer_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer at .*missing\.json.*nothing"):
        read_tokenizer(tmp_path / "missing.json")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        read_tokenizer(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"broken\.json is no tokenizer"):
        read_tokenizer(tmp_path / "broken.json")
