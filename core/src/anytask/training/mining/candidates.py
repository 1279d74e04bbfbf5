"""The distinct texts of a task's records: queries, documents, and which documents can be negatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from anytask.training.medi.records import InstructedText, Record

Indices = npt.NDArray[np.int64]


def identity(text: str) -> str:
    """What makes two texts the same: all but the white space at their ends, which the encoder strips."""
    return text.strip()


class TaskTexts:
    """The texts of a task's records, each distinct one once.

    The candidates for negatives are the positives, then the records' negatives, then the corpus, one for each text that
    isn't blank; a text that occurs with several instructions is a candidate with the first.

    Args:
        records: at least one.
        corpus: further candidates; they get the instruction that most positives have.

    Attributes:
        queries: distinct queries.
        documents: the candidates, then the positives that are none: those of a text that is a candidate with another
            instruction, and blank ones.
        candidate_count: how many of the documents are candidates.
        query_of, positive_of: [records] rows of `queries` and `documents`.
    """

    def __init__(self, records: Sequence[Record], corpus: Iterable[str] = ()) -> None:
        instruction = Counter(record.pos.instruction for record in records).most_common(1)[0][0]
        candidates: dict[str, InstructedText] = {}
        for document in (
            *(record.pos for record in records),
            *(negative for record in records for negative in record.neg),
        ):
            candidates.setdefault(identity(document.text), document)
        for text in corpus:
            candidates.setdefault(identity(text), InstructedText(instruction, text))
        candidates.pop("", None)
        self._row_of_text = {text: row for row, text in enumerate(candidates)}
        self.candidate_count = len(candidates)

        rows = {(document.instruction, text): row for row, (text, document) in enumerate(candidates.items())}
        self.documents = list(candidates.values())
        for record in records:
            pair = (record.pos.instruction, identity(record.pos.text))
            if pair not in rows:
                rows[pair] = len(rows)
                self.documents.append(record.pos)
        self.positive_of = _array(rows[record.pos.instruction, identity(record.pos.text)] for record in records)

        places: dict[tuple[str, str], int] = {}
        self.queries: list[InstructedText] = []
        for record in records:
            if places.setdefault((record.query.instruction, identity(record.query.text)), len(places)) == len(
                self.queries
            ):
                self.queries.append(record.query)
        self.query_of = _array(places[record.query.instruction, identity(record.query.text)] for record in records)

        self._positives: dict[str, set[str]] = {}
        for record in records:
            self._positives.setdefault(identity(record.query.text), set()).add(identity(record.pos.text))

    def known(self, query: InstructedText) -> Indices:
        """Candidates that are no negatives of a query: its own text, and every positive of that text, whatever the
        instructions."""
        text = identity(query.text)
        return _array(
            self._row_of_text[known] for known in {text, *self._positives[text]} if known in self._row_of_text
        )


def _array(rows: Iterable[int]) -> Indices:
    return np.fromiter(rows, dtype=np.int64)
