"""Instructions in the unified template of the INSTRUCTOR paper (arXiv 2212.09741, section 2.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass

TEMPLATE = re.compile(
    r"represent\s+(?:the|a|an)\s+(?P<subject>\S.*?)(?:\s+for\s+(?P<objective>\S.*?))?\s*[:;]?\s*", re.I | re.S
)


@dataclass(frozen=True)
class Instruction:
    """What an embedding is for: `Represent the (domain) (text type) for (task objective): `.

    White space in the parts is brought to single spaces.

    Args:
        text_type: the kind of text, one word or more ("question", "news headline").
        domain: where the text comes from ("Wikipedia", "medical"); may be left out.
        objective: the task, as a gerund ("retrieving supporting documents"); may be left out.

    >>> str(Instruction(text_type="question", domain="Wikipedia", objective="retrieving supporting documents"))
    'Represent the Wikipedia question for retrieving supporting documents: '
    """

    text_type: str
    domain: str | None = None
    objective: str | None = None

    def __post_init__(self) -> None:
        for field in ("text_type", "domain", "objective"):
            value = getattr(self, field)
            if value is None and field != "text_type":
                continue
            if not isinstance(value, str):
                raise TypeError(f"Instruction {field} must be a string, got {type(value).__name__}")
            words = value.split()
            if not words:
                raise ValueError(f"Instruction {field} is blank; leave it out or say what it is")
            object.__setattr__(self, field, " ".join(words))

    def __str__(self) -> str:
        subject = self.text_type if self.domain is None else f"{self.domain} {self.text_type}"
        objective = "" if self.objective is None else f" for {self.objective}"
        return f"Represent the {subject}{objective}: "

    @classmethod
    def parse(cls, text: str) -> Instruction:
        """The inverse of `str`.

        The template alone doesn't say where the domain ends, so the text type is taken to be the subject's last word
        and the domain the words before it: `str(Instruction.parse(s)) == s` for every `s` that `str` gives, while
        a text type of several words comes back with its first ones in the domain.

        Raises:
            ValueError: `text` doesn't follow the template.
        """
        match = TEMPLATE.fullmatch(text.strip())
        if match is None:
            raise ValueError(
                f"{text!r} does not follow 'Represent the (domain) (text type) for (task objective): '; "
                "pass it to encode() as a plain string instead"
            )
        *domain, text_type = match["subject"].split()
        return cls(text_type=text_type, domain=" ".join(domain) or None, objective=match["objective"])


DEFAULT_QUERY_INSTRUCTION = str(Instruction("question", objective="retrieving supporting documents"))
DEFAULT_DOCUMENT_INSTRUCTION = str(Instruction("document", objective="retrieval"))
