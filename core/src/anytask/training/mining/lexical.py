"""Candidates by shared words: BM25 through the package bm25s."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


class LexicalIndex:
    """BM25 (Lucene's variant, k1 1.5, b 0.75) over lower-cased words of two characters or more, of any language.

    Args:
        texts: [m] documents.

    Raises:
        ImportError: bm25s isn't installed.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        try:
            import bm25s
        except ImportError as error:
            raise ImportError(
                f'BM25 candidates need bm25s ({error}); install it with: pip install "anytask[train]"'
            ) from error
        self._tokenize = bm25s.tokenize
        self._bm25 = None
        words = self._words(texts)
        if any(words):
            self._bm25 = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
            self._bm25.index(words, show_progress=False)

    def search(self, queries: Sequence[str], k: int) -> list[Indices]:
        """For each query the indices of the documents with the highest scores, best first.

        At most `k`, and only documents that share a word with the query; equal scores are ordered by the lower index.
        """
        return [self._search(words, k) for words in self._words(queries)]

    def _search(self, words: list[str], k: int) -> Indices:
        if self._bm25 is None or not words:
            return np.empty(0, dtype=np.int64)
        scores = self._bm25.get_scores(words)
        # Few documents share a word: sorting those is faster than bm25s's own selection among all.
        found = np.flatnonzero(scores)
        if len(found) > k:
            found = found[scores[found] >= np.partition(scores[found], -k)[-k]]
        best: Indices = found[np.argsort(-scores[found], kind="stable")[:k]]
        return best

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        words: list[list[str]] = self._tokenize(
            list(texts), lower=True, stopwords=None, return_ids=False, show_progress=False
        )
        return words
