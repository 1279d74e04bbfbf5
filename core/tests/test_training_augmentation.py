"""Rewordings of instructions and texts with words left out, drawn from the generator that is given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytask import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION, Instruction
from anytask.training.augmentation import Augmentation, paraphrases, word_dropout
from anytask.training.medi.records import InstructedText

QUESTION = "Represent the Wikipedia question for retrieving supporting documents: "


class TestParaphrases:
    def test_of_a_question(self) -> None:
        found = paraphrases(QUESTION)
        assert found[0] == QUESTION
        assert len(set(found)) == len(found) > 100
        assert {
            "Represent a Wikipedia question for retrieving supporting documents: ",
            "Represent this Wikipedia question for finding supporting documents; Input: ",
            "Encode the Wikipedia question to search for supporting documents: ",
            "represent the wikipedia question for searching for supporting documents: ",
        } <= set(found)
        assert all("wikipedia question" in wording.lower() for wording in found)
        assert all("supporting documents" in wording for wording in found)
        assert all(wording.endswith((": ", "; Input: ", "; input: ")) for wording in found)
        assert found == paraphrases(QUESTION)

    def test_of_the_released_records(self) -> None:
        released = "Represent the Wikipedia question for retrieving supporting documents; Input: "
        found = paraphrases(released)
        assert found[0] == released
        assert set(found) == set(paraphrases(QUESTION))
        assert paraphrases("Represent the sentence; Input:")[0] == "Represent the sentence; Input:"
        assert "Embed this sentence: " in paraphrases("Represent the sentence; Input:")

    def test_of_the_defaults(self) -> None:
        assert "Represent the document for search: " in paraphrases(DEFAULT_DOCUMENT_INSTRUCTION)
        assert "Embed a question to find supporting documents: " in paraphrases(DEFAULT_QUERY_INSTRUCTION)

    def test_an_objective_without_synonyms_is_kept(self) -> None:
        found = paraphrases("Represent the poem for feeling its metre: ")
        assert all("for feeling its metre" in wording for wording in found)
        assert len(found) > 10

    def test_a_verb_alone_gets_no_preposition(self) -> None:
        found = paraphrases("Represent the sentence for clustering: ")
        assert "Represent the sentence for grouping: " in found
        assert not any(" to cluster" in wording for wording in found)

    @pytest.mark.parametrize(
        ("subject", "article"),
        [
            ("abstract", "an"),
            ("question", "a"),
            ("utterance", "an"),
            ("user question", "a"),
            ("university essay", "a"),
            ("European law", "a"),
            ("Email", "an"),
            ("unclear sentence", "an"),
        ],
    )
    def test_indefinite_article(self, subject: str, article: str) -> None:
        found = paraphrases(f"Represent the {subject} for clustering: ")
        assert f"Represent {article} {subject} for clustering: " in found

    def test_plurals_have_no_singular_article(self) -> None:
        found = paraphrases("Represent the notes of a speaker for retrieval: ")
        assert "Embed these notes of a speaker for search: " in found
        assert not any(f" {article} notes" in wording.lower() for wording in found for article in ("a", "this"))
        assert "Represent a gloss: " in paraphrases("Represent the gloss: ")

    @pytest.mark.parametrize(
        "instruction",
        [
            "",
            "query: ",
            "Find the answer to the question",
            "Represent",
            "Represent the example for the following task: Given two numbers, add them; Input: ",
            "Represent the review. Is it positive? ",
            "Represent the text for a task:\nsum it up: ",
        ],
    )
    def test_other_instructions_come_back_alone(self, instruction: str) -> None:
        assert paraphrases(instruction) == [instruction]

    def test_the_list_is_the_callers(self) -> None:
        paraphrases(QUESTION).clear()
        assert paraphrases(QUESTION)

    @given(st.text())
    def test_any_string_is_its_own_first(self, text: str) -> None:
        assert paraphrases(text)[0] == text

    @given(
        st.sampled_from(["news", "medical", None]), st.sampled_from(["title", "answer"]), st.text("abc ", min_size=1)
    )
    def test_rewordings_in_the_template_keep_the_parts(self, domain: str | None, kind: str, objective: str) -> None:
        if not objective.strip():
            return
        given_parts = Instruction(kind, domain, objective)
        same = [wording for wording in paraphrases(str(given_parts)) if wording.startswith("Represent the ")]
        assert Instruction.parse(same[0]) == given_parts


class TestWordDropout:
    def test_leaves_out_about_as_many_as_asked(self) -> None:
        text = " ".join(f"word{number}" for number in range(2000))
        kept = word_dropout(text, 0.3, np.random.default_rng(0)).split()
        assert len(kept) == pytest.approx(1400, abs=100)
        assert kept == [word for word in text.split() if word in set(kept)]

    def test_is_decided_by_the_generator(self) -> None:
        text = "one two three four five six seven eight nine ten"
        results = [word_dropout(text, 0.5, np.random.default_rng(seed)) for seed in (1, 1, 2)]
        assert results[0] == results[1] != results[2]

    @given(st.text(), st.floats(0, 1), st.integers(0, 100))
    def test_words_are_kept_in_order_and_at_least_one(self, text: str, probability: float, seed: int) -> None:
        words = text.split()
        kept = iter(word_dropout(text, probability, np.random.default_rng(seed)).split())
        remaining = list(kept)
        assert bool(remaining) == bool(words)
        position = iter(words)
        assert all(word in position for word in remaining)

    def test_certain_dropout_keeps_one(self) -> None:
        found = {word_dropout("a b c", 1.0, np.random.default_rng(seed)) for seed in range(30)}
        assert found == {"a", "b", "c"}

    @pytest.mark.parametrize("text", ["", "   ", "single", " 这是一个没有空格的句子 "])
    def test_texts_of_one_word_stay(self, text: str) -> None:
        assert word_dropout(text, 1.0, np.random.default_rng(0)) == text

    def test_zero_changes_nothing(self) -> None:
        assert word_dropout(" a\n  b\t", 0.0, np.random.default_rng(0)) == " a\n  b\t"

    def test_keeps_the_space_between(self) -> None:
        found = {word_dropout("a\n  b c", 0.4, np.random.default_rng(seed)) for seed in range(50)}
        assert "a\n  b" in found
        assert "b c" in found


class TestAugmentation:
    side = InstructedText(QUESTION, "a text of some words to be left out or not")

    def test_of_nothing_gives_the_same(self) -> None:
        assert Augmentation()(self.side, np.random.default_rng(0)) == self.side

    def test_is_decided_by_the_generator(self) -> None:
        augment = Augmentation(0.8, 0.3, 0.1)
        first, again = ([augment(self.side, rng) for _ in range(50)] for rng in map(np.random.default_rng, (7, 7)))
        assert first == again
        assert len(set(first)) > 40

    def test_probabilities(self) -> None:
        rng = np.random.default_rng(0)
        augment = Augmentation(instruction_paraphrase=0.5, instruction_dropout=0.2)
        found = [augment(self.side, rng) for _ in range(2000)]
        assert all(side.text == self.side.text for side in found)
        shares = [
            sum(side.instruction == "" for side in found) / 2000,
            sum(side.instruction == QUESTION for side in found) / 2000,
        ]
        assert shares == pytest.approx([0.2, 0.4], abs=0.04)
        reworded = {side.instruction for side in found} - {"", QUESTION}
        assert reworded <= set(paraphrases(QUESTION))
        assert len(reworded) > 0.9 * len(paraphrases(QUESTION))

    def test_texts_of_a_record_vary_together(self) -> None:
        rng = np.random.default_rng(0)
        augment = Augmentation(instruction_paraphrase=0.5, word_dropout=0.3, instruction_dropout=0.3)
        document = InstructedText(DEFAULT_DOCUMENT_INSTRUCTION, self.side.text)
        texts = set()
        for _ in range(200):
            query, same, other = augment.together([self.side, self.side, document], rng)
            assert query.instruction == same.instruction
            assert (query.instruction == "") == (other.instruction == "")
            assert (query.instruction in ("", QUESTION)) == (other.instruction in ("", DEFAULT_DOCUMENT_INSTRUCTION))
            texts.add(query.text == same.text)
        assert texts == {True, False}  # words are left out of each text by itself

    def test_other_instructions_are_kept(self) -> None:
        side = InstructedText("query: ", "text")
        assert Augmentation(instruction_paraphrase=1.0)(side, np.random.default_rng(0)) == side

    @pytest.mark.parametrize("name", ["instruction_paraphrase", "word_dropout", "instruction_dropout"])
    @pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
    def test_wrong_probabilities(self, name: str, value: float) -> None:
        with pytest.raises(ValueError, match=f"{name} must be a probability from 0 to 1"):
            Augmentation(**{name: value})
