"""Instructions in many wordings, the template's and free ones, so that `mini` meets more than those of its tasks."""

from __future__ import annotations

from itertools import product

from anytask import Instruction

DOMAINS = (
    *(None, "medical", "Wikipedia", "scientific", "computer science", "news", "legal", "technical", "forum"),
    *("travel", "cooking", "sports", "music", "finance", "banking", "shopping", "customer service", "history"),
    *("education", "weather", "software", "health", "politics", "religious", "gaming", "home", "social media"),
)
QUERIES = {
    "question": (
        *("retrieving supporting documents", "retrieving answers", "retrieving duplicate questions"),
        *("looking up what answers it", "finding a reply that helps", "finding whether somebody has asked it already"),
        *(
            "answering it from a collection",
            "locating the paragraph that settles it",
            "classifying the speaker's intent",
        ),
    ),
    "query": (
        *("retrieving relevant passages", "retrieving relevant documents"),
        *("finding what it asks for", "looking something up", "full-text search", "ranking results"),
    ),
    "sentence": (
        *("measuring semantic similarity", "finding a sentence with the same meaning", "clustering by topic"),
        *("telling how alike two sentences are", "finding what is said about the same matter", "comparison"),
    ),
    "title": (
        *("retrieving the document", "clustering by topic", "classifying its topic"),
        *("finding what belongs under it", "sorting by matter"),
    ),
    "utterance": (
        *("classifying the speaker's intent", "retrieval"),
        *("recognising what is asked for", "finding others that want this"),
    ),
    "request": ("classifying its intent", "telling what the user wants", "finding requests of the same purpose"),
    "post": ("clustering by topic", "retrieval", "finding posts about the same thing"),
    "headline": ("clustering by topic", "finding the article", "classifying its topic"),
    "summary": ("finding summaries of the same text", "retrieval", "telling how alike two summaries are"),
}
DOCUMENTS = {
    "document": ("retrieval", "clustering by topic", "looking it up", "finding documents about the same matter"),
    "passage": ("retrieval", "answering questions", "finding it again", "showing it to whoever asks about it"),
    "paragraph": ("retrieval", "classifying its topic", "full-text search", "sorting by matter"),
    "abstract": ("retrieval", "clustering by topic", "finding papers about the same matter"),
    "answer": ("retrieval", "finding the question's reply", "matching it with questions"),
    "article": ("retrieval", "classifying its topic", "finding articles like it"),
}
SENTENCE_TOPICS = ("classifying its topic", "telling what it is about")
FREE_FORMS = (
    "{Objective}: ",
    "{Objective}. {Subject}: ",
    "This {subject} is for {objective}: ",
    "{Subject}, to be used in {objective}: ",
    "The task is {objective}, given this {subject}: ",
    "I have a {subject} and my purpose is {objective}. ",
    "The purpose is {objective}; here is the {subject}: ",
    "Given a {subject}, help with {objective}: ",
    "Read this {subject} with {objective} in mind: ",
    "Use the following {subject} in {objective}: ",
    "Turn the {subject} into a vector for {objective}: ",
    "What matters about this {subject} is what {objective} needs: ",
    "Instruct: {objective}. {Subject}: ",
    "We are {objective}. The {subject} reads: ",
    "{Objective} of a {subject}, namely: ",
    "One more {subject} for {objective}: ",
)


def free_wordings(instruction: str) -> list[str]:
    """The instruction in forms other than the template's; alone if it doesn't follow that."""
    try:
        parts = Instruction.parse(instruction)
    except ValueError:
        return [instruction]
    if parts.objective is None:
        return [instruction]
    subject = parts.text_type if parts.domain is None else f"{parts.domain} {parts.text_type}"
    said = {"subject": subject, "objective": parts.objective}
    said |= {name.capitalize(): text[:1].upper() + text[1:] for name, text in said.items()}
    return [form.format(**said) for form in FREE_FORMS]


def _all(types: dict[str, tuple[str, ...]]) -> list[str]:
    return [
        str(Instruction(text_type, domain, objective))
        for domain, (text_type, objectives) in product(DOMAINS, types.items())
        for objective in objectives
    ]


FOR_SHORT_TEXTS = _all(QUERIES)
FOR_SHORT_TEXTS_WITH_TOPICS = _all(QUERIES | {"sentence": QUERIES["sentence"] + SENTENCE_TOPICS})
FOR_LONG_TEXTS = _all(DOCUMENTS)
