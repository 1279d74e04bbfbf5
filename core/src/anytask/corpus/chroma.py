"""Finished shards into a Chroma collection that opens with the same embedding function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from anytask.corpus.rows import EMBEDDING, ID, TEXT
from anytask.corpus.vectors import as_matrix

if TYPE_CHECKING:
    from anytask.corpus.job import CorpusJob


class ChromaLoader:
    """Loads shards into a collection, which is made if it isn't there; rows of an id that is there are replaced.

    The embedding function is `chroma_anytask.InstructorEmbeddingFunction` with the job's model and instructions, so
    that the collection takes queries wherever `chroma_anytask` is imported; device and batch size are the job's own
    matter. Kept fields become metadata: nulls are left out, what Chroma can't hold is JSON.

    Args:
        target: the database's folder and the collection's name, "PATH/COLLECTION".
        job: of documents, whose vectors are float32 and whose texts are kept.

    Raises:
        ImportError: chroma-anytask isn't installed.
        ValueError: the job's vectors are no float32, the target names no collection, or it is there with other
            settings.
    """

    def __init__(self, target: str, job: CorpusJob) -> None:
        try:
            import chromadb
            from chromadb.errors import ChromaError

            from chroma_anytask import InstructorEmbeddingFunction
        except ImportError as error:
            raise ImportError(
                f"loading into Chroma needs its adapter ({error}); install it, in a checkout of the repository, with: "
                "pip install ./integrations/chroma"
            ) from error
        path = Path(target)
        if path.parent == path or not path.name:
            raise ValueError(f"{target!r}: expected PATH/COLLECTION, such as chroma_db/passages")
        if job.precision != "float32":
            raise ValueError(f"Chroma holds float32 vectors, not {job.precision}")
        self.name = f"Chroma, {target}"
        self._error: type[Exception] = ChromaError
        embedder = job.embedder
        function = InstructorEmbeddingFunction(
            embedder.model,
            document_instruction=job.instruction_for(embedder.load())
            if job.role == "query"
            else embedder.document_instruction,
            query_instruction=embedder.query_instruction,
            dtype=embedder.dtype,
            max_length=embedder.max_length,
            normalize=embedder.normalize,
            truncate_dim=embedder.truncate_dim,
            revision=embedder.revision,
            cache_dir=embedder.cache_dir,
            local_files_only=embedder.local_files_only,
        )
        client = chromadb.PersistentClient(str(path.parent))
        self._batch: int = client.get_max_batch_size()
        with _told(self._error):
            self._collection = client.get_or_create_collection(path.name, embedding_function=function)
        stored = self._collection.configuration_json["embedding_function"]["config"].get("dtype")
        if stored != embedder.dtype:
            raise ValueError(f"the collection {path.name!r} was built with another dtype; add --dtype {stored}")

    def load(self, shard: Path) -> None:
        """Add a shard's rows, or replace them.

        Raises:
            RuntimeError: Chroma refuses them, such as for an id that comes twice.
        """
        with pq.ParquetFile(shard) as file, _told(self._error):
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                for start in range(0, len(table), self._batch):
                    self._add(table.slice(start, self._batch))

    def _add(self, table: pa.Table) -> None:
        ids = table[ID].to_pylist()
        there = self._collection.get(ids=ids, include=["metadatas"])
        former = dict(zip(there["ids"], there["metadatas"] or [], strict=True))
        rows = table.drop_columns([ID, EMBEDDING, TEXT]).to_pylist() or [{}] * len(ids)
        metadatas: Any = [_metadata(row, former.get(id) or {}) for id, row in zip(ids, rows, strict=True)]
        self._collection.upsert(
            ids=ids,
            embeddings=as_matrix(table[EMBEDDING]),
            documents=table[TEXT].to_pylist(),
            metadatas=metadatas,
        )


class _told:
    """Chroma's errors as ones that commands tell in a line."""

    def __init__(self, kind: type[Exception]) -> None:
        self.kind = kind

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, self.kind):
            raise RuntimeError(f"Chroma: {error}") from error


def _metadata(
    row: Mapping[str, Any], former: Mapping[str, object]
) -> dict[str, str | int | float | bool | None] | None:
    """A row's metadata in place of its former ones, whose keys Chroma keeps unless they become None.

    Chroma takes no empty metadata.
    """
    found: dict[str, str | int | float | bool | None] = dict.fromkeys(former)
    found |= {
        name: value
        if isinstance(value, (str, int, float, bool))
        else json.dumps(value, ensure_ascii=False, default=str)
        for name, value in row.items()
        if value is not None
    }
    return found or None
