"""Questions with the text that they were asked of, from tasks that are to make or to answer a question: there the text
is what is given, here the question is to find it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from corpus import cut, instances

OF_SENTENCES = (
    "task003_mctaco_question_generation_event_duration",
    "task009_mctaco_question_generation_event_ordering",
    "task012_mctaco_question_generation_absolute_timepoint",
    "task015_mctaco_question_generation_frequency",
    "task040_qasc_question_generation",
    "task1325_qa_zre_question_generation_on_subject_relation",
    "task1326_qa_zre_question_generation_from_answer",
    "task1327_qa_zre_answer_generation_from_question",
    "task1552_scitail_question_generation",
    "task1580_eqasc-perturbed_question_generation",
)
OF_PASSAGES = (
    "task461_qasper_question_generation",
    "task519_aquamuse_question_generation",
    "task596_mocha_question_generation",
    "task739_lhoestq_question_generation",
    "task886_quail_question_generation",
    "task917_coqa_question_generation",
    "task1567_propara_question_generation",
)
OF_FORUMS = (
    "task1437_doqa_cooking_question_generation",
    "task1594_yahoo_answers_topics_question_generation",
    "task1657_gooaq_question_generation",
)
HEADING = re.compile(r"^(?:context|passage|sentence|fact) ?: ", re.IGNORECASE)
QUESTION = "\nQuestion : "
GIVEN_TOO = re.compile(r"\n(?:Answer|Subject) : ")
"""What else some tasks give, so that the question is about that."""


def questions(data: Path, names: tuple[str, ...]) -> Iterator[tuple[str, str, None]]:
    """Pairs of a question and its text, without a hard negative, from the tasks of these names."""
    for instance in instances(data, *names):
        text, _, asked = HEADING.sub("", instance["input"]).partition(QUESTION)
        yield cut(asked or instance["output"]), cut(GIVEN_TOO.split(text)[0]), None
