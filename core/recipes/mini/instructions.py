"""Instructions in the template's many wordings, so that `mini` meets more than those of its own tasks."""

from __future__ import annotations

from itertools import product

from anytask import Instruction

DOMAINS = (None, "medical", "Wikipedia", "scientific", "computer science", "news", "legal", "technical", "forum")
QUERIES = {
    "question": ("retrieving supporting documents", "retrieving answers", "retrieving duplicate questions"),
    "query": ("retrieving relevant passages", "retrieving relevant documents"),
    "sentence": ("measuring semantic similarity", "finding a sentence with the same meaning", "clustering by topic"),
    "title": ("retrieving the document", "clustering by topic", "classifying its topic"),
    "utterance": ("classifying the speaker's intent", "retrieval"),
}
DOCUMENTS = {
    "document": ("retrieval", "clustering by topic"),
    "passage": ("retrieval", "answering questions"),
    "paragraph": ("retrieval", "classifying its topic"),
    "abstract": ("retrieval", "clustering by topic"),
    "answer": ("retrieval",),
    "article": ("retrieval", "classifying its topic"),
}


def _all(types: dict[str, tuple[str, ...]]) -> list[str]:
    return [
        str(Instruction(text_type, domain, objective))
        for domain, (text_type, objectives) in product(DOMAINS, types.items())
        for objective in objectives
    ]


FOR_SHORT_TEXTS = _all(QUERIES)
FOR_LONG_TEXTS = _all(DOCUMENTS)
