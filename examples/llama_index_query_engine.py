"""Ask questions of a few notes with LlamaIndex, offline: `python examples/llama_index_query_engine.py [question ...]`.

The language model is LlamaIndex' MockLLM, which answers with the prompt it was given; put a real one in its place.
"""

from __future__ import annotations

import sys

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.embeddings.anytask import InstructorEmbedding

NOTES = {
    "tomatoes": "Tomatoes want six hours of sun a day. Water them at the root, for wet leaves invite blight.",
    "ferns": "Ferns grow best in the shade of taller plants, in soil that never dries out.",
    "apples": "Prune apple trees in late winter, before the buds swell, and burn what is diseased.",
    "slugs": "Slugs shelter under boards by day and feed on seedlings at night. Copper tape keeps them off a pot.",
    "compost": "A compost heap needs air, moisture and as much brown matter as green. Turn it every few weeks.",
    "bees": "Borage, thyme and lavender feed bees from early summer until autumn.",
}
QUESTIONS = ["When should I cut back my fruit trees?", "How do I keep slugs away from my seedlings?"]


def main(questions: list[str]) -> None:
    Settings.llm = MockLLM()
    Settings.embed_model = InstructorEmbedding(
        query_instruction="Represent the gardening question for retrieving supporting documents: ",
        document_instruction="Represent the gardening document for retrieval: ",
    )
    documents = [Document(text=text, metadata={"note": name}) for name, text in NOTES.items()]
    engine = VectorStoreIndex.from_documents(documents, show_progress=True).as_query_engine(similarity_top_k=2)
    for question in questions:
        answer = engine.query(question)
        print(f"\n{question}")
        for hit in answer.source_nodes:
            print(f"  {hit.score:.3f}  {hit.node.metadata['note']:9} {hit.node.text}")
    print(f"\nWhat the language model is given for the last question:\n\n{answer}")


if __name__ == "__main__":
    main(sys.argv[1:] or QUESTIONS)
