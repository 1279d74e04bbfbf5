"""A LangChain retriever with instruction-conditioned embeddings, offline: which function of Python's library does it?

    pip install ./core ./integrations/langchain
    python examples/langchain_retriever.py ["Your question"]

It finds passages and prints the grounded prompt; put any chat model behind the chain (`| ChatOpenAI(...)`) to get
an answer instead.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator

from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_anytask import InstructorEmbeddings

MODULES = (
    "bisect calendar collections functools glob heapq itertools os.path random shutil string tempfile time zipfile"
)
PROMPT = PromptTemplate.from_template("Answer from this manual:\n\n{context}\n\nQuestion: {question}\nAnswer:")


def manual() -> Iterator[Document]:
    """One document for each public function and class of the modules: its first paragraph."""
    for name in MODULES.split():
        for member, value in inspect.getmembers(importlib.import_module(name), callable):
            text = inspect.getdoc(value)
            if text and not member.startswith("_"):
                paragraph, *_ = text.split("\n\n")
                yield Document(f"{name}.{member}: {paragraph}")


def join(documents: list[Document]) -> str:
    return "\n".join(document.page_content for document in documents)


def main() -> None:
    embeddings = InstructorEmbeddings(
        query_instruction="Represent the programming question for retrieving documentation: ",
        document_instruction="Represent the documentation for retrieval: ",
        show_progress=True,
    )
    store = InMemoryVectorStore(embeddings)
    store.add_documents(list(manual()))
    retriever = store.as_retriever(search_kwargs={"k": 4})
    chain = {"context": retriever | join, "question": RunnablePassthrough()} | PROMPT
    question = " ".join(sys.argv[1:]) or "How do I copy a folder with everything in it?"
    print(chain.invoke(question).to_string())


if __name__ == "__main__":
    main()
