"""Instructions for tasks, by the unified template of INSTRUCTOR (arXiv 2212.09741, section 2.3):
`Represent the (domain) (text type) for (task objective): `.

A Super-NaturalInstructions task is annotated from what it says of itself. The objective is its first category's, from
`CATEGORIES`, or else the task's name; the text type is the first kind of text that the definition names as given, else
the category's; the domain is the first of the task's domains, in the words of `DOMAINS` or its own, or without any the
source's name. Its pairs are of one kind of text, so both sides have the same instruction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from anytask.instruction import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION, Instruction
from anytask.training.building.json_rows import check_text
from anytask.training.building.superni import SuperNITask


class TaskInstructions(NamedTuple):
    """The instructions of a task's queries and of its positives and negatives; equal for symmetric tasks."""

    query: str
    pos: str


DEFAULT_LABELLED = TaskInstructions(*2 * (str(Instruction("text", objective="classification")),))
DEFAULT_PAIRED = TaskInstructions(DEFAULT_QUERY_INSTRUCTION, DEFAULT_DOCUMENT_INSTRUCTION)

CATEGORIES = {
    "answer generation": ("question", "finding its answer"),
    "answer verification": ("question and answer", "verifying the answer"),
    "answerability classification": ("question", "judging whether it can be answered"),
    "cause effect classification": ("sentence", "identifying cause and effect"),
    "classification": ("text", "classification"),
    "code to text": ("code", "describing what it does"),
    "coherence classification": ("text", "judging its coherence"),
    "commonsense classification": ("statement", "judging it by common sense"),
    "coreference resolution": ("text", "resolving coreferences"),
    "data to text": ("data record", "putting it into words"),
    "dialogue act recognition": ("utterance", "recognising its dialogue act"),
    "dialogue generation": ("dialogue", "generating the response"),
    "dialogue state tracking": ("dialogue", "tracking its state"),
    "discourse connective identification": ("sentence", "identifying the discourse connective"),
    "discourse relation classification": ("sentence", "classifying the discourse relation"),
    "entity generation": ("entity", "finding a related entity"),
    "entity relation classification": ("sentence", "classifying the relation of its entities"),
    "ethics classification": ("statement", "judging its ethics"),
    "explanation": ("question and answer", "explaining the answer"),
    "fact verification": ("claim", "verifying the fact"),
    "fill in the blank": ("sentence", "filling in the blank"),
    "gender classification": ("text", "classifying gender"),
    "grammar error correction": ("sentence", "correcting its grammar"),
    "grammar error detection": ("sentence", "detecting errors of grammar"),
    "information extraction": ("text", "extracting information"),
    "intent identification": ("text", "identifying the intent"),
    "irony detection": ("text", "detecting irony"),
    "keyword tagging": ("text", "finding its keywords"),
    "language identification": ("text", "identifying its language"),
    "linguistic probing": ("sentence", "probing its grammar"),
    "long text generation": ("text", "generating a longer text"),
    "mathematics": ("problem", "solving it"),
    "named entity recognition": ("sentence", "recognising named entities"),
    "negotiation strategy detection": ("dialogue", "detecting the strategy of negotiation"),
    "number conversion": ("text", "converting its numbers"),
    "overlap extraction": ("pair of sentences", "extracting what they share"),
    "paper review": ("paper", "reviewing it"),
    "paraphrasing": ("sentence", "finding a sentence with the same meaning"),
    "poem generation": ("text", "generating a poem"),
    "pos tagging": ("sentence", "tagging parts of speech"),
    "preposition prediction": ("sentence", "predicting the preposition"),
    "program execution": ("program input", "computing the output"),
    "punctuation error detection": ("sentence", "detecting errors of punctuation"),
    "question answering": ("question", "finding its answer"),
    "question decomposition": ("question", "finding its sub-questions"),
    "question generation": ("passage", "generating a question about it"),
    "question rewriting": ("question", "rewriting it"),
    "question understanding": ("question", "understanding what it asks"),
    "section classification": ("paragraph", "classifying its section"),
    "sentence composition": ("sentence", "composing a related sentence"),
    "sentence compression": ("sentence", "compressing it"),
    "sentence expansion": ("sentence", "elaborating it"),
    "sentence ordering": ("sentences", "ordering them"),
    "sentence perturbation": ("sentence", "changing its meaning"),
    "sentiment analysis": ("text", "classifying its sentiment"),
    "spam classification": ("message", "detecting spam"),
    "speaker identification": ("dialogue", "identifying the speaker"),
    "speaker relation classification": ("dialogue", "classifying the speakers' relation"),
    "spelling error detection": ("sentence", "detecting errors of spelling"),
    "stance detection": ("text", "detecting its stance"),
    "stereotype detection": ("sentence", "detecting stereotypes"),
    "story composition": ("story", "completing the story"),
    "structured text generation": ("text", "generating structured text"),
    "style transfer": ("text", "changing its style"),
    "summarization": ("text", "summarising it"),
    "text categorization": ("text", "classifying its topic"),
    "text completion": ("text", "completing it"),
    "text matching": ("text", "finding what matches it"),
    "text quality evaluation": ("text", "judging its quality"),
    "text simplification": ("sentence", "simplifying it"),
    "text to code": ("description", "finding the code"),
    "textual entailment": ("premise and hypothesis", "classifying entailment"),
    "title generation": ("text", "finding its title"),
    "toxic language detection": ("text", "detecting toxic language"),
    "translation": ("sentence", "finding its translation"),
    "word analogy": ("words", "completing the analogy"),
    "word relation classification": ("words", "classifying their relation"),
    "word semantics": ("word", "finding words of related meaning"),
    "wrong candidate generation": ("question", "finding a wrong answer"),
}
"""Text type and objective by category, in lower case."""

DOMAINS = {
    "biology -> bioinformatics": "biomedical",
    "biology -> clinical knowledge": "clinical",
    "books": "book",
    "captions -> image captions": "image caption",
    "captions -> video captions": "video caption",
    "code": "programming",
    "code -> repo -> stack overflow": "programming",
    "commonsense": "commonsense",
    "commonsense -> stories": "story",
    "countries": "geography",
    "food": "cooking",
    "game": "game",
    "global facts": "world knowledge",
    "government and politics": "political",
    "healthcare": "medical",
    "knowledge base": "knowledge base",
    "law": "legal",
    "mathematics": "mathematical",
    "medicine": "medical",
    "miscellaneous": "",
    "movies": "film",
    "narrative": "story",
    "natural science": "scientific",
    "news": "news",
    "personal narratives": "personal story",
    "public places": "local business",
    "reviews": "review",
    "reviews -> books": "book review",
    "reviews -> food": "food review",
    "reviews -> movies": "film review",
    "school science textbooks": "school science",
    "scientific research papers": "scientific",
    "social media": "social media",
    "social media -> reddit": "Reddit",
    "social media -> twitter": "Twitter",
    "stereotypes": "",
    "stories": "story",
    "web": "web",
    "wikipedia": "Wikipedia",
}
"""Words for domains, in lower case; of a path that isn't here the longest beginning that is, or else its last name."""

TEXT_TYPES = (
    "question and answer", "math word problem", "abstract", "answer", "article", "caption", "claim", "clue", "command",
    "context", "conversation", "description", "dialog", "dialogue", "document", "entity", "essay", "event", "fact",
    "headline", "hypothesis", "list", "message", "paper", "paragraph", "passage", "phrase", "poem", "post", "premise",
    "problem", "product", "prompt", "query", "question", "recipe", "review", "sentence", "snippet", "statement",
    "story", "summary", "table", "text", "title", "topic", "tweet", "utterance", "word",
)  # fmt: skip
GIVEN = re.compile(
    r"\b(?:given|provided|presented|shown|input|based on|read|from|find)\b"
    r"(?:(?!\b(?:write|generate|create|construct|ask|task|job)\b)[^.]){0,50}?"
    rf"\b({'|'.join(sorted(TEXT_TYPES, key=len, reverse=True))})s?\b",
    re.I | re.S,
)


def annotate(task: SuperNITask) -> TaskInstructions:
    """The instruction of a Super-NaturalInstructions task, for both sides."""
    category = task.categories[0].strip().lower() if task.categories else ""
    text_type, objective = CATEGORIES.get(category, ("text", f"the task of {_words(task.name)}"))
    if (given := GIVEN.search(task.definition)) is not None:
        text_type = given[1].lower()
    domain = next((words for words in map(_domain, task.domains) if words), None)
    if not task.domains:
        domain = _source(task.sources)
    if domain is not None and domain.split()[-1] == text_type:
        domain = " ".join(domain.split()[:-1]) or None
    instruction = str(Instruction(text_type, domain, objective))
    return TaskInstructions(instruction, instruction)


def read_instructions(path: str | Path) -> dict[str, TaskInstructions]:
    """Instructions by task name from a JSON file, whose other keys that begin with an underscore are notes.

    A task's are a string, for both sides, or an object with `query` and `pos`; one with `query` only, or with
    `"symmetric": true`, has the query's on both. The tail of MEDI's released instructions, `; Input: `, becomes the
    template's `: `.

    Raises:
        ValueError: the file isn't of that form; the message names it and the task.
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object of instructions by task name")
    return {
        name: _without_input_tail(parse_instructions(value, f"{path}, {name}"))
        for name, value in content.items()
        if not name.startswith("_")
    }


def parse_instructions(value: object, where: str) -> TaskInstructions:
    """Instructions from a JSON or TOML value: a string, the template's parts (`text_type`, and `domain`, `objective`),
    or a table of these by `query` and `pos`.

    Raises:
        ValueError: another value; the message begins with `where`.
    """
    if isinstance(value, dict) and "query" in value:
        if unknown := value.keys() - {"query", "pos", "symmetric"}:
            raise ValueError(f"{where}: unknown {', '.join(sorted(unknown))}; expected query, pos, symmetric")
        query = _instruction(value["query"], f"{where}.query")
        symmetric = value.get("symmetric", "pos" not in value)
        return TaskInstructions(query, query if symmetric else _instruction(value.get("pos"), f"{where}.pos"))
    instruction = _instruction(value, where)
    return TaskInstructions(instruction, instruction)


def _instruction(value: object, where: str) -> str:
    if not isinstance(value, Mapping):
        return check_text(value, where)
    if "text_type" not in value or value.keys() - {"text_type", "domain", "objective"}:
        raise ValueError(
            f"{where}: found {', '.join(map(str, value)) or 'nothing'}; expected text_type, "
            "and domain and objective where they are known"
        )
    parts: dict[str, Any] = dict(value)
    try:
        return str(Instruction(**parts))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _without_input_tail(instructions: TaskInstructions) -> TaskInstructions:
    return TaskInstructions(*(re.sub(r";\s*Input:\s*$", ": ", instruction) for instruction in instructions))


def _domain(name: str) -> str:
    path = [part.strip() for part in name.lower().split("->")]
    for depth in range(len(path), 0, -1):
        if (words := DOMAINS.get(" -> ".join(path[:depth]))) is not None:
            return words
    return path[-1]


def _words(name: str) -> str:
    """A task's name without its number."""
    return " ".join(re.sub(r"^task\d+", "", name).replace("_", " ").split()) or name


def _source(sources: tuple[str, ...]) -> str | None:
    """The first source's name, if it is a word."""
    name = sources[0].split("(")[0].split(",")[0].strip() if sources else ""
    return name if re.fullmatch(r"[A-Za-z]{3,}(?:[ -][A-Za-z]{3,})?", name) and name != "missing" else None
