"""Retrievers over real vector stores, in chains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.language_models import ParrotFakeChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore, VectorStoreRetriever

from anytask import Instructor
from langchain_anytask import InstructorEmbeddings

QUESTION = "When do comets lose gas?"
COSINE = {"hnsw:space": "cosine"}
REOPEN = """
import json, sys
from langchain_anytask import InstructorEmbeddings
from langchain_chroma import Chroma

store = Chroma("reopened", embedding_function=InstructorEmbeddings(), persist_directory=sys.argv[1])
found = store.similarity_search_with_score(sys.argv[2], k=5)
print(json.dumps([[document.page_content, score] for document, score in found]))
"""


@pytest.fixture(params=["in memory", "chroma"])
def store(
    texts: list[str], request: pytest.FixtureRequest, embeddings: InstructorEmbeddings, tmp_path: Path
) -> VectorStore:
    if request.param == "in memory":
        return InMemoryVectorStore.from_texts(texts, embeddings)
    return Chroma.from_texts(texts, embeddings, persist_directory=str(tmp_path), collection_metadata=COSINE)


def expected_cosines(texts: list[str], model: Instructor, question: str) -> dict[str, float]:
    """Texts by falling cosine of their document vector to the question's query vector."""
    cosines = model.encode_document(texts) @ model.encode_query(question)
    return {texts[index]: float(cosines[index]) for index in np.argsort(-cosines)}


def contents(documents: list[Document]) -> list[str]:
    return [document.page_content for document in documents]


def chain_over(retriever: VectorStoreRetriever) -> Runnable[str, str]:
    prompt = ChatPromptTemplate.from_template("Context:\n{context}\n\nQuestion: {question}")
    context = retriever | (lambda documents: "\n".join(contents(documents)))
    return {"context": context, "question": RunnablePassthrough()} | prompt | ParrotFakeChatModel() | StrOutputParser()


async def test_a_retriever_ranks_by_query_and_document_instruction(
    texts: list[str], store: VectorStore, model: Instructor
) -> None:
    expected = list(expected_cosines(texts, model, QUESTION))
    retriever = store.as_retriever(search_kwargs={"k": 3})
    assert contents(retriever.invoke(QUESTION)) == expected[:3]
    assert contents(await retriever.ainvoke(QUESTION)) == expected[:3]


async def test_a_chain(texts: list[str], store: VectorStore, model: Instructor) -> None:
    chain = chain_over(store.as_retriever(search_kwargs={"k": 2}))
    questions = [QUESTION, "How is a table searched?"]
    expected = []
    for question in questions:
        context = "\n".join(list(expected_cosines(texts, model, question))[:2])
        expected.append(f"Context:\n{context}\n\nQuestion: {question}")
    assert chain.invoke(questions[0]) == expected[0]
    assert chain.batch(questions) == expected
    assert await chain.abatch(questions) == expected
    assert "".join([part async for part in chain.astream(questions[1])]) == expected[1]


def test_a_text_finds_itself(texts: list[str], tmp_path: Path) -> None:
    instruction = "Represent the sentence for finding duplicates: "
    embeddings = InstructorEmbeddings(query_instruction=instruction, document_instruction=instruction)
    in_memory = InMemoryVectorStore.from_texts(texts, embeddings)
    chroma = Chroma.from_texts(texts, embeddings, persist_directory=str(tmp_path), collection_metadata=COSINE)
    for text in texts:
        (document, cosine), (same, distance) = (
            store.similarity_search_with_score(text, k=1)[0] for store in (in_memory, chroma)
        )
        assert document.page_content == same.page_content == text
        assert cosine == pytest.approx(1, abs=1e-5)
        assert distance == pytest.approx(0, abs=1e-5)


def test_the_instruction_of_one_search(texts: list[str], store: VectorStore, embeddings: InstructorEmbeddings) -> None:
    vector = embeddings.embed_query(texts[2], instruction="Represent the document for retrieval: ")
    assert contents(store.similarity_search_by_vector(vector, k=1)) == [texts[2]]


def test_maximal_marginal_relevance(store: VectorStore) -> None:
    retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 3, "fetch_k": 5})
    assert len(set(contents(retriever.invoke(QUESTION)))) == 3


def test_chroma_is_reopened_by_another_process(
    texts: list[str], embeddings: InstructorEmbeddings, model: Instructor, tmp_path: Path
) -> None:
    Chroma.from_texts(
        texts,
        embeddings,
        collection_name="reopened",
        persist_directory=str(tmp_path),
        collection_metadata=COSINE,
    )
    command = [sys.executable, "-c", REOPEN, str(tmp_path), QUESTION]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    expected = expected_cosines(texts, model, QUESTION)
    assert [text for text, _ in found] == list(expected)
    np.testing.assert_allclose([1 - distance for _, distance in found], list(expected.values()), atol=1e-4)
