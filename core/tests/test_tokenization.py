"""INSTRUCTOR's rules for tokens and pool, against a slow and literal statement of them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer, models, normalizers, pre_tokenizers, processors

from anytask.batching import TokenizedText
from anytask.tokenization import CHUNK, InstructionTokenizer, end_token

INSTRUCTION = "Represent the statement: "
MAX_LENGTH = 24
PIECES = [
    *"abcdeRt: .-é²",
    *("the", "statement", "Represent", "ing", ": ", "  ", "\t", "\n", "\u00a0", "\x1c"),
    *("\u0301", "\u200b", "\u200d", "\u00ad", "ﬁ", "ﷺ", "\u0e33", "가", "\x00"),
    *("漢", "字", "💡", "</s>", "<unk>", "<pad>", "<extra_id_3>"),
]
strings = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


class ObservedTokenizer:
    """A real tokenizer of the tokenizers library, and what it was asked to tokenize."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.seen: list[str] = []

    def encode(self, text: str, **options: Any) -> Encoding:
        self.seen.append(text)
        return self.tokenizer.encode(text, **options)

    def encode_batch_fast(self, texts: Sequence[str]) -> list[Encoding]:
        self.seen += texts
        encodings: list[Encoding] = self.tokenizer.encode_batch_fast(texts)
        return encodings

    def copy(self) -> Tokenizer:
        return Tokenizer.from_str(self.tokenizer.to_str())


@pytest.fixture(scope="module")
def plain(tokenizer_folder: Path) -> ObservedTokenizer:
    """The checkpoint's tokenizer as the tokenizers library reads it."""
    return ObservedTokenizer(Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json")))


@pytest.fixture(scope="module")
def tokenizer(plain: ObservedTokenizer) -> InstructionTokenizer:
    return InstructionTokenizer(plain.copy(), 512)


@pytest.fixture(scope="module")
def short(plain: ObservedTokenizer) -> InstructionTokenizer:
    return InstructionTokenizer(plain.copy(), MAX_LENGTH)


def one(tokenizer: InstructionTokenizer, text: str, instruction: str = "") -> TokenizedText:
    (tokenized,) = tokenizer([text], [instruction])
    return tokenized


def as_tuple(tokenized: TokenizedText) -> tuple[list[int], int, bool]:
    return tokenized.ids.tolist(), tokenized.pool_start, tokenized.truncated


def reference(plain: ObservedTokenizer, text: str, instruction: str, max_length: int) -> tuple[list[int], int, bool]:
    """Token ids, first pooled token, whether it was cut: everything tokenized whole, rule by rule."""
    text = text.strip()
    joined = (instruction + text).strip()
    whole: Encoding = plain.encode(joined)
    n = len(plain.encode(instruction.strip()).ids) - 1  # without its </s>

    ids = whole.ids
    if len(ids) > max_length:
        ids = [*ids[: max_length - 1], ids[-1]]
    end = len(ids) - 1
    if n == 0:
        return ids, 0, ids != whole.ids

    text_begins, instruction_ends = len(joined) - len(text), len(instruction.strip())
    spans = whole.offsets[:-1]
    of_the_text = [i for i, (_, stop) in enumerate(spans) if stop > text_begins]
    of_both = [i for i in of_the_text if spans[i][0] < instruction_ends]
    if of_both or n > end:
        n = of_the_text[0] if of_the_text else end
    return ids, min(n, end), ids != whole.ids


class TestJoining:
    @settings(max_examples=400, deadline=None)
    @given(text=strings, instruction=strings)
    @example(text="\u0301éRepresent", instruction="éR")
    def test_any_strings_follow_the_literal_rules(
        self, short: InstructionTokenizer, plain: ObservedTokenizer, text: str, instruction: str
    ) -> None:
        if len(plain.encode(instruction.strip()).ids) - 1 > MAX_LENGTH - 2:
            with pytest.raises(ValueError, match="no room for a text"):
                one(short, text, instruction)
        else:
            assert as_tuple(one(short, text, instruction)) == reference(plain, text, instruction, MAX_LENGTH)

    @pytest.mark.parametrize(
        ("text", "instruction", "joined"),
        [
            ("  How\n", "Represent the statement: ", "Represent the statement: How"),
            ("How", "Represent the statement:", "Represent the statement:How"),
            ("How", "  Represent the statement:\t ", "Represent the statement:\t How"),
            ("How", " ", "How"),
            ("\u00a0How\x1c", "", "How"),
            ("  ", "Represent the statement: ", "Represent the statement:"),
        ],
    )
    def test_text_stripped_instruction_as_given_result_stripped(
        self, tokenizer: InstructionTokenizer, plain: ObservedTokenizer, text: str, instruction: str, joined: str
    ) -> None:
        assert one(tokenizer, text, instruction).ids.tolist() == plain.encode(joined).ids

    def test_the_instructions_trailing_space_makes_other_tokens(self, tokenizer: InstructionTokenizer) -> None:
        spaced, tight = one(tokenizer, "the rest", "Represent: "), one(tokenizer, "the rest", "Represent:")
        assert spaced.ids.tolist() != tight.ids.tolist()

    def test_special_tokens_in_a_text_are_what_the_tokenizer_makes_of_them(
        self, tokenizer: InstructionTokenizer, plain: ObservedTokenizer
    ) -> None:
        text = "a </s> b <pad> <unk> <extra_id_0>"
        assert one(tokenizer, text, INSTRUCTION).ids.tolist() == plain.encode(INSTRUCTION + text).ids

    def test_instructions_may_differ_per_text(self, tokenizer: InstructionTokenizer) -> None:
        texts, instructions = ["one", "two", "three"], ["", INSTRUCTION, "Represent: "]
        together = [as_tuple(tokenized) for tokenized in tokenizer(texts, instructions)]
        assert together == [as_tuple(one(tokenizer, text, own)) for text, own in zip(texts, instructions, strict=True)]

    def test_order_is_kept_over_many_chunks(self, tokenizer: InstructionTokenizer) -> None:
        texts = [f"text {number}" for number in range(2 * CHUNK + 3)]
        tokenized = tokenizer(texts, [INSTRUCTION] * len(texts))
        for number in (0, CHUNK - 1, CHUNK, 2 * CHUNK, 2 * CHUNK + 2):
            assert as_tuple(tokenized[number]) == as_tuple(one(tokenizer, texts[number], INSTRUCTION))

    def test_no_texts(self, tokenizer: InstructionTokenizer) -> None:
        assert tokenizer([], []) == []


class TestPool:
    @pytest.mark.parametrize("instruction", [INSTRUCTION, "Represent: ", "  Represent the statement  for search : "])
    def test_starts_after_the_stripped_instructions_own_tokens(
        self, tokenizer: InstructionTokenizer, plain: ObservedTokenizer, instruction: str
    ) -> None:
        alone = plain.encode(instruction.strip(), add_special_tokens=False).ids
        tokenized = one(tokenizer, "the rest of it", instruction)
        assert tokenized.pool_start == len(alone)
        assert tokenized.ids[: len(alone)].tolist() == alone
        assert tokenizer.instruction_tokens(instruction) == alone

    @pytest.mark.parametrize("instruction", ["", " ", "\n\t"])
    def test_without_an_instruction_all_tokens_count(self, tokenizer: InstructionTokenizer, instruction: str) -> None:
        assert one(tokenizer, "the text", instruction).pool_start == 0

    def test_an_instruction_of_one_token_is_left_out_too(
        self, tokenizer: InstructionTokenizer, plain: ObservedTokenizer
    ) -> None:
        assert plain.encode("the").tokens == ["▁the", "</s>"]
        assert one(tokenizer, "statement", "the ").pool_start == 1

    @pytest.mark.parametrize("text", ["", "   ", "\u200b", "\u200b \u200b"])
    def test_a_text_without_tokens_pools_the_end_token(
        self, tokenizer: InstructionTokenizer, plain: ObservedTokenizer, text: str
    ) -> None:
        for instruction in ("", "the ", INSTRUCTION):
            tokenized = one(tokenizer, text, instruction)
            assert tokenized.ids.tolist() == plain.encode(instruction.strip()).ids
            assert tokenized.pool_start == len(tokenized.ids) - 1

    @pytest.mark.parametrize(
        ("text", "instruction", "merged"),
        [
            ("e", "th", "▁the"),
            ("e statement", "Represent th", "▁the"),
            ("atement of the function", "Represent the st", "▁statement"),
        ],
    )
    def test_a_token_of_both_belongs_to_the_text(
        self, tokenizer: InstructionTokenizer, plain: ObservedTokenizer, text: str, instruction: str, merged: str
    ) -> None:
        tokens = plain.encode(instruction + text).tokens
        tokenized = one(tokenizer, text, instruction)
        assert tokenized.pool_start == tokens.index(merged)
        assert tokenized.pool_start != len(plain.encode(instruction, add_special_tokens=False).ids)

    @pytest.mark.parametrize(
        ("text", "instruction", "fused"),
        [("字", "漢", "漢字"), ("字 the", "Represent 漢", "漢字"), ("字字", "Represent the 漢漢", "漢漢字字")],
    )
    def test_unknown_characters_that_fuse_across_the_joint_belong_to_the_text(
        self, tokenizer: InstructionTokenizer, plain: ObservedTokenizer, text: str, instruction: str, fused: str
    ) -> None:
        tokens = plain.encode(instruction + text).tokens
        assert one(tokenizer, text, instruction).pool_start == tokens.index(fused)

    def test_unknown_characters_on_either_side_of_a_space_stay_apart(
        self, tokenizer: InstructionTokenizer, plain: ObservedTokenizer
    ) -> None:
        n = len(plain.encode("Represent 漢", add_special_tokens=False).ids)
        assert one(tokenizer, "字", "Represent 漢 ").pool_start == n

    @pytest.mark.parametrize(("text", "instruction"), [("\u0301", "statement e"), ("\u0301 the", "Represent: e")])
    def test_characters_that_the_normaliser_joins_follow_their_offsets(
        self, tokenizer: InstructionTokenizer, plain: ObservedTokenizer, text: str, instruction: str
    ) -> None:
        assert "é" in plain.encode(instruction + text).tokens
        assert as_tuple(one(tokenizer, text, instruction)) == reference(plain, text, instruction, 512)

    def test_fewer_tokens_together_than_the_instruction_has_alone(self) -> None:
        vocabulary = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -1.0), ("e", -1.0), ("▁é", -1.0)]
        composing = Tokenizer(models.Unigram(vocabulary, 0, byte_fallback=False))
        composing.normalizer = normalizers.NFC()
        composing.pre_tokenizer = pre_tokenizers.Metaspace()
        composing.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
        tokenizer = InstructionTokenizer(composing, 512)
        assert (len(tokenizer.instruction_tokens("e")), one(tokenizer, "\u0301", "e").ids.tolist()) == (2, [4, 1])
        assert one(tokenizer, "\u0301", "e").pool_start in (0, 1)

    def test_an_instruction_that_ends_in_a_dropped_character(
        self, tokenizer: InstructionTokenizer, plain: ObservedTokenizer
    ) -> None:
        # the joiner has no token in the instruction alone, and fuses with the text's own one
        text, instruction = "\u200dthe", "Represent\u00a0\u200d"
        assert as_tuple(one(tokenizer, text, instruction)) == reference(plain, text, instruction, 512)


class TestLength:
    @settings(max_examples=60, deadline=None)
    @given(words=st.integers(0, 40), max_length=st.integers(10, 40))
    def test_the_tail_is_cut_and_the_end_token_kept(
        self, plain: ObservedTokenizer, words: int, max_length: int
    ) -> None:
        limited = InstructionTokenizer(plain.copy(), max_length)
        text = "the " * words
        whole = plain.encode((INSTRUCTION + text).strip()).ids
        tokenized = one(limited, text, INSTRUCTION)
        assert tokenized.truncated == (len(whole) > max_length)
        assert len(tokenized.ids) == min(len(whole), max_length)
        assert tokenized.ids[:-1].tolist() == whole[: len(tokenized.ids) - 1]
        assert tokenized.ids[-1] == plain.tokenizer.token_to_id("</s>")
        alone = plain.encode(INSTRUCTION.strip(), add_special_tokens=False).ids
        assert tokenized.ids[: len(alone)].tolist() == alone

    def test_an_instruction_needs_room_for_one_token_of_text(
        self, tokenizer: InstructionTokenizer, plain: ObservedTokenizer
    ) -> None:
        n = len(tokenizer.instruction_tokens(INSTRUCTION))
        fitting = InstructionTokenizer(plain.copy(), n + 2)
        tokenized = one(fitting, "the the the", INSTRUCTION)
        assert (len(tokenized.ids), tokenized.pool_start, tokenized.truncated) == (n + 2, n, True)
        tight = InstructionTokenizer(plain.copy(), n + 1)
        with pytest.raises(ValueError, match=rf"has {n} tokens.*max_length {n + 1}"):
            one(tight, "the", INSTRUCTION)

    def test_error_instead_of_truncation_names_the_text(self, tokenizer: InstructionTokenizer) -> None:
        texts = ["the"] * (CHUNK + 5)
        texts[CHUNK + 3] = "the " * 600
        with pytest.raises(ValueError, match=rf"text {CHUNK + 3} .* max_length 512"):
            tokenizer(texts, [INSTRUCTION] * len(texts), on_long="error")
        assert not one(
            tokenizer, "the " * (511 - len(tokenizer.instruction_tokens(INSTRUCTION))), INSTRUCTION
        ).truncated

    @pytest.mark.parametrize("max_length", [1, 0, -5])
    def test_a_limit_without_room(self, plain: ObservedTokenizer, max_length: int) -> None:
        with pytest.raises(ValueError, match=f"max_length.*{max_length}"):
            InstructionTokenizer(plain.copy(), max_length)


@pytest.fixture
def counting(plain: ObservedTokenizer) -> tuple[InstructionTokenizer, ObservedTokenizer]:
    tokenizer = InstructionTokenizer(plain.copy(), 512)
    counter = ObservedTokenizer(tokenizer.tokenizer)
    tokenizer.tokenizer = counter  # type: ignore[assignment]
    return tokenizer, counter


class TestWork:
    def test_an_instruction_is_tokenized_once_and_a_text_once(
        self, counting: tuple[InstructionTokenizer, ObservedTokenizer]
    ) -> None:
        tokenizer, counter = counting
        texts = [f"text {number}" for number in range(CHUNK + 50)]
        tokenizer(texts, [INSTRUCTION, "Represent: "] * (len(texts) // 2))
        assert counter.seen.count(INSTRUCTION.strip()) == 1
        assert counter.seen.count("Represent:") == 1
        assert len(counter.seen) == 2 + len(texts)

    @pytest.mark.parametrize(
        ("unit", "instruction"), [("word the ", INSTRUCTION), ("ab", INSTRUCTION), ("a", ""), ("漢字. ", INSTRUCTION)]
    )
    def test_ten_megabytes_cost_no_more_than_their_beginning(
        self,
        counting: tuple[InstructionTokenizer, ObservedTokenizer],
        plain: ObservedTokenizer,
        unit: str,
        instruction: str,
    ) -> None:
        tokenizer, counter = counting
        text = unit * (10_000_000 // len(unit))
        tokenized = one(tokenizer, text, instruction)
        assert sum(map(len, counter.seen)) < 20_000
        assert as_tuple(tokenized) == reference(plain, text[:100_000], instruction, 512)

    @pytest.mark.parametrize(
        "text",
        [
            "the " + " " * 300_000 + "end",
            "the " + "\u200b" * 50_000 + "the " * 600,
            "漢" * 60_000 + " the end",
            "the " * 100 + "漢" * 9_000 + " the" * 600,
        ],
    )
    def test_looks_further_until_the_limit_is_reached(
        self, tokenizer: InstructionTokenizer, plain: ObservedTokenizer, text: str
    ) -> None:
        assert as_tuple(one(tokenizer, text, INSTRUCTION)) == reference(plain, text, INSTRUCTION, 512)

    def test_a_pickled_tokenizer_makes_the_same_tokens(self, short: InstructionTokenizer) -> None:
        copy = pickle.loads(pickle.dumps(short))
        text = "the statement of the function " * 3
        assert as_tuple(one(copy, text, INSTRUCTION)) == as_tuple(one(short, text, INSTRUCTION))


class TestUnicode:
    def test_half_a_surrogate_pair_in_a_text_names_its_index(self, tokenizer: InstructionTokenizer) -> None:
        texts = ["fine"] * (CHUNK + 2) + ["broken \udc80"]
        with pytest.raises(ValueError, match=rf"text {CHUNK + 2} holds U\+DC80.*errors=\"replace\""):
            tokenizer(texts, [""] * len(texts))

    def test_half_a_surrogate_pair_in_an_instruction_names_it(self, tokenizer: InstructionTokenizer) -> None:
        with pytest.raises(ValueError, match=r"the instruction 'Represent \\ud83d: ' holds U\+D83D"):
            one(tokenizer, "fine", "Represent \ud83d: ")


class TestKindOfTokenizer:
    def test_the_end_token_of_t5(self, plain: ObservedTokenizer) -> None:
        assert end_token(plain.copy()) == plain.tokenizer.token_to_id("</s>")

    def test_saved_padding_and_truncation_are_turned_off(self, plain: ObservedTokenizer) -> None:
        saved = plain.copy()
        saved.enable_padding(length=16)
        saved.enable_truncation(4)
        tokenizer = InstructionTokenizer(Tokenizer.from_str(saved.to_str()), 512)
        assert one(tokenizer, "the", INSTRUCTION).ids.tolist() == plain.encode(INSTRUCTION + "the").ids

    @pytest.mark.parametrize("template", ["$A", "<pad> $A </s>", "</s> $A", "$A </s> </s>"])
    def test_others_are_refused(self, plain: ObservedTokenizer, template: str) -> None:
        other = plain.copy()
        other.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(name, plain.tokenizer.token_to_id(name)) for name in ("<pad>", "</s>")]
        )
        with pytest.raises(ValueError, match="special tokens to a text; a T5 tokenizer adds one"):
            end_token(other)
