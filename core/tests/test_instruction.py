"""The instruction template: writing it, reading it back, refusing what is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anytask import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION, Instruction

PARTS = st.one_of(
    st.text(min_size=1),
    st.text(alphabet="for :;\t\n aé文", min_size=1),
    st.lists(st.sampled_from(["for", "the", "Represent", "question", ":", ";", "  ", "\u00a0"]), min_size=1).map(
        " ".join
    ),
).filter(lambda part: part.strip())


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        (Instruction("sentence"), "Represent the sentence: "),
        (Instruction("sentence", domain="medical"), "Represent the medical sentence: "),
        (Instruction("sentence", objective="clustering"), "Represent the sentence for clustering: "),
        (
            Instruction(text_type="question", domain="Wikipedia", objective="retrieving supporting documents"),
            "Represent the Wikipedia question for retrieving supporting documents: ",
        ),
    ],
)
def test_template(instruction: Instruction, text: str) -> None:
    assert str(instruction) == text
    assert Instruction.parse(text) == instruction


def test_defaults_are_those_of_the_documentation() -> None:
    assert DEFAULT_QUERY_INSTRUCTION == "Represent the question for retrieving supporting documents: "
    assert DEFAULT_DOCUMENT_INSTRUCTION == "Represent the document for retrieval: "


@given(text_type=PARTS, domain=st.none() | PARTS, objective=st.none() | PARTS)
def test_parse_inverts_str(text_type: str, domain: str | None, objective: str | None) -> None:
    text = str(Instruction(text_type, domain=domain, objective=objective))
    assert str(Instruction.parse(text)) == text


WORD = st.text(alphabet="abcxyzéß文-'", min_size=1)
WORDS = st.lists(WORD, min_size=1, max_size=3).map(" ".join)


@given(text_type=WORD, domain=st.none() | WORDS, objective=st.none() | WORDS)
def test_parse_finds_the_parts_of_a_one_word_text_type(
    text_type: str, domain: str | None, objective: str | None
) -> None:
    instruction = Instruction(text_type, domain=domain, objective=objective)
    assert Instruction.parse(str(instruction)) == instruction


def test_a_text_type_of_several_words_leaves_its_first_ones_to_the_domain() -> None:
    parsed = Instruction.parse("Represent the Amazon product review for classification: ")
    assert parsed == Instruction("review", domain="Amazon product", objective="classification")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("represent a Science title;", ("title", "Science", None)),
        ("Represent the  news   headline for\nclustering", ("headline", "news", "clustering")),
        ("  Represent an answer for retrieval for chat:  ", ("answer", None, "retrieval for chat")),
    ],
)
def test_parse_takes_the_forms_people_write(text: str, parts: tuple[str, str | None, str | None]) -> None:
    parsed = Instruction.parse(text)
    assert (parsed.text_type, parsed.domain, parsed.objective) == parts


@pytest.mark.parametrize("text", ["", "query: ", "Represent", "Represent the", "Classify the text: "])
def test_parse_refuses_what_is_not_the_template(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not follow 'Represent the .* plain string"):
        Instruction.parse(text)


def test_white_space_in_the_parts_does_not_reach_the_text() -> None:
    instruction = Instruction(" news\theadline ", domain="\nBBC", objective="finding  duplicates ")
    assert str(instruction) == "Represent the BBC news headline for finding duplicates: "
    assert instruction == Instruction("news headline", domain="BBC", objective="finding duplicates")


@pytest.mark.parametrize("field", ["text_type", "domain", "objective"])
@pytest.mark.parametrize("blank", ["", "  ", "\n\u00a0"])
def test_blank_parts(field: str, blank: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is blank"):
        Instruction(**{"text_type": "text", field: blank})


@pytest.mark.parametrize(
    ("field", "value"), [("text_type", None), ("text_type", 3), ("domain", b"x"), ("objective", 1.5)]
)
def test_parts_of_another_type(field: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{field} must be a string, got {type(value).__name__}"):
        Instruction(**{"text_type": "text", field: value})


def test_instructions_are_values() -> None:
    instruction = Instruction("text")
    assert len({instruction, Instruction("text"), Instruction("title")}) == 2
    with pytest.raises(AttributeError):
        instruction.text_type = "title"  # type: ignore[misc]
