"""The texts of a task, as they are before they become pairs, and what makes two of them the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple


def text_key(text: str) -> str:
    """What is equal for texts that differ in case and white space only."""
    return " ".join(text.casefold().split())


@dataclass
class LabelledTexts:
    """Texts and their labels, of equal number."""

    pairs_by: ClassVar[str] = "same label"
    texts: list[str]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def distinct(self) -> LabelledTexts:
        """Each text once. One that comes with several labels is left out: it would be its own hard negative."""
        first: dict[str, int] = {}
        labels: dict[str, set[str]] = {}
        for place, (text, label) in enumerate(zip(self.texts, self.labels, strict=True)):
            first.setdefault(text_key(text), place)
            labels.setdefault(text_key(text), set()).add(label)
        return self.chosen([place for key, place in first.items() if key and len(labels[key]) == 1])

    def chosen(self, places: list[int]) -> LabelledTexts:
        return LabelledTexts([self.texts[place] for place in places], [self.labels[place] for place in places])


@dataclass
class TextOutputs:
    """Inputs and all outputs that are accepted for each."""

    pairs_by: ClassVar[str] = "similar output"
    inputs: list[str]
    outputs: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.inputs)

    def distinct(self) -> TextOutputs:
        """Each input once, with the outputs of all its occurrences: it would be its own hard negative."""
        inputs: dict[str, str] = {}
        outputs: dict[str, dict[str, str]] = {}
        for text, accepted in zip(self.inputs, self.outputs, strict=True):
            key = text_key(text)
            inputs.setdefault(key, text)
            for output in accepted:
                outputs.setdefault(key, {}).setdefault(text_key(output), output)
        kept = [key for key in inputs if key and outputs.get(key)]
        return TextOutputs([inputs[key] for key in kept], [tuple(outputs[key].values()) for key in kept])

    def chosen(self, places: list[int]) -> TextOutputs:
        return TextOutputs([self.inputs[place] for place in places], [self.outputs[place] for place in places])


class TextPair(NamedTuple):
    """A query, its positive, and hard negatives where the data has them."""

    query: str
    pos: str
    neg: tuple[str, ...] = ()


@dataclass
class TextPairs:
    """The pairs of a task."""

    pairs_by: ClassVar[str] = "given"
    pairs: list[TextPair]

    def __len__(self) -> int:
        return len(self.pairs)

    def distinct(self) -> TextPairs:
        """Each pair once; pairs of a text with itself and negatives that are blank or one of the two are left out."""
        kept: dict[tuple[str, str], TextPair] = {}
        for query, pos, neg in self.pairs:
            keys = text_key(query), text_key(pos)
            if all(keys) and keys[0] != keys[1] and keys not in kept:
                others: dict[str, str] = {}
                for text in neg:
                    others.setdefault(text_key(text), text)
                kept[keys] = TextPair(query, pos, tuple(text for key, text in others.items() if key not in ("", *keys)))
        return TextPairs(list(kept.values()))

    def chosen(self, places: list[int]) -> TextPairs:
        return TextPairs([self.pairs[place] for place in places])
