"""Index Python's language reference into Chroma with one Haystack pipeline, and ask it questions with another.

Runs offline with the bundled model: pip install ./core ./integrations/haystack chroma-haystack
"""

from __future__ import annotations

import os
import pydoc_data.topics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

from haystack import Document, Pipeline
from haystack.components.preprocessors import DocumentSplitter
from haystack.components.writers import DocumentWriter
from haystack_integrations.components.embedders.anytask import InstructorDocumentEmbedder, InstructorTextEmbedder
from haystack_integrations.components.retrievers.chroma import ChromaEmbeddingRetriever
from haystack_integrations.document_stores.chroma import ChromaDocumentStore

TOPICS = ["context-managers", "dict", "exceptions", "for", "function", "global", "import", "lambda", "try", "with"]
QUESTIONS = ["How do I make sure that a file is closed?", "What happens when no handler matches an error?"]


def indexing_pipeline(store: ChromaDocumentStore) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("splitter", DocumentSplitter(split_by="word", split_length=100))
    pipeline.add_component("embedder", InstructorDocumentEmbedder(meta_fields_to_embed=["topic"]))
    pipeline.add_component("writer", DocumentWriter(store))
    pipeline.connect("splitter.documents", "embedder.documents")
    pipeline.connect("embedder.documents", "writer.documents")
    return pipeline


def query_pipeline(store: ChromaDocumentStore) -> Pipeline:
    instruction = "Represent the Python question for retrieving supporting documents: "
    pipeline = Pipeline()
    pipeline.add_component("embedder", InstructorTextEmbedder(instruction=instruction))
    pipeline.add_component("retriever", ChromaEmbeddingRetriever(store, top_k=2))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    return pipeline


def main(questions: list[str]) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        store = ChromaDocumentStore(persist_path=str(Path(folder) / "chroma"), distance_function="cosine")
        topics = [Document(content=pydoc_data.topics.topics[name], meta={"topic": name}) for name in TOPICS]
        written = indexing_pipeline(store).run({"splitter": {"documents": topics}})["writer"]["documents_written"]
        print(f"{written} passages of {len(topics)} topics")

        file = Path(folder) / "query.yaml"
        file.write_text(query_pipeline(store).dumps())
        querying = Pipeline.loads(file.read_text())  # as a server would, elsewhere and later
        for question in questions:
            print(f"\n{question}")
            for document in querying.run({"embedder": {"text": question}})["retriever"]["documents"]:
                print(f"  [{document.meta['topic']}] {' '.join((document.content or '').split())[:100]} ...")


if __name__ == "__main__":
    main(sys.argv[1:] or QUESTIONS)
