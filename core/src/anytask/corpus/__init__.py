"""Embedding corpora: files of any size to Parquet or Chroma, in parts that a killed process goes on with.

>>> from anytask import Embedder
>>> from anytask.corpus import Columns, CorpusJob, embed_corpus
>>> job = CorpusJob(["passages.jsonl"], Embedder(), Columns(id="id", keep={"title": None}))  # doctest: +SKIP
>>> embed_corpus(job, "passages.parquet")  # doctest: +SKIP
"""

from __future__ import annotations

try:
    import pyarrow  # noqa: F401
except ImportError as error:
    raise ImportError(
        f'anytask.corpus needs pyarrow ({error}); install it with: pip install "anytask[embed]"'
    ) from error

from anytask.corpus.formats import Format, InputError
from anytask.corpus.job import CorpusJob
from anytask.corpus.rows import BadRowError, Columns
from anytask.corpus.run import Progress, Summary, embed_corpus
from anytask.corpus.vectors import read_description, read_vectors

__all__ = [
    "BadRowError",
    "Columns",
    "CorpusJob",
    "Format",
    "InputError",
    "Progress",
    "Summary",
    "embed_corpus",
    "read_description",
    "read_vectors",
]
