"""Answers from passages: builds a Chroma collection with INSTRUCTOR embeddings, finds, and asks a language model.

    python examples/chroma_rag.py --ask "How do I copy a whole directory tree?"
    python examples/chroma_rag.py --docs FOLDER --llm http://localhost:11434 --llm-model llama3.2

Without --docs the corpus is the docstrings of this Python's standard library. Running it again adds only what changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import chromadb
import httpx
import typer
from chromadb.api.models.Collection import Collection
from chromadb.config import Settings
from chromadb.errors import ChromaError
from rag_corpus import CorpusError, Passage, documents, standard_library
from rich.console import Console
from rich.text import Text

from anytask import Embedder
from anytask.progress import progress
from chroma_anytask import InstructorEmbeddingFunction

BATCH = 256
LLM_PATIENCE = 300
"""Seconds that a language model on a CPU may take."""

LIBRARY_QUESTIONS = (
    "How do I run a shell command and read its output?",
    "How do I pick a random element from a list?",
    "How can I find out which lines differ between two texts?",
)
PROMPT = """\
Answer the question with what the passages say, and cite them by their numbers. If they don't say it, answer that.

{passages}

Question: {question}
Answer:"""

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class ServerError(Exception):
    """The language model's server gave no answer; the message says why."""


@dataclass(frozen=True)
class LanguageModel:
    """A model behind an OpenAI-compatible server.

    Args:
        url: the server, with or without the path `/v1`, or of `/v1/chat/completions` itself.
        name: None takes the first that the server lists.
    """

    url: str
    name: str | None

    def answer(self, prompt: str) -> str:
        """The answer to one message.

        Raises:
            ServerError: no server there, or it answered with an error or with something else than a completion.
        """
        try:
            name = self.name or self._call("models")["data"][0]["id"]
            message = {"role": "user", "content": prompt}
            completion = self._call("chat/completions", {"model": name, "messages": [message]})
            answer = completion["choices"][0]["message"]["content"]
            if not isinstance(answer, str):
                raise TypeError(f"the content of its message is {answer!r:.80}")
            return answer.strip()
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerError(f"{self.url} doesn't answer like an OpenAI-compatible server: {error!r}") from error

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        base = self.url.rstrip("/").removesuffix("/chat/completions")
        url = f"{base}/{path}" if re.search(r"://[^/]+/", base) else f"{base}/v1/{path}"
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not re.fullmatch(r"[!-~]*", key):
            raise ServerError("OPENAI_API_KEY holds blanks or other characters that no key has")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        method = "GET" if body is None else "POST"
        try:
            response = httpx.request(method, url, json=body, headers=headers, timeout=LLM_PATIENCE)
            response.raise_for_status()
        except httpx.HTTPStatusError as error:
            status, text = error.response.status_code, error.response.text
            raise ServerError(f"{url} answered {status}: {textwrap.shorten(text, 300)}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerError(
                f"{url} can't be reached: {str(error).rstrip('.')}. Is the server of --llm running?"
            ) from error
        return response.json()


def open_collection(folder: Path, corpus: str, function: InstructorEmbeddingFunction) -> Collection:
    """The collection of a corpus, its model and its document instruction; each combination has its own."""
    config = function.get_config()
    settings = Embedder(model=config["model"], document_instruction=config["document_instruction"])
    client = chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
    name = re.sub(r"\.{2,}", ".", f"{corpus}-{settings.fingerprint('document')}")  # which Chroma allows in no name
    return client.get_or_create_collection(name, embedding_function=function)


def update(collection: Collection, passages: Sequence[Passage]) -> str:
    """Bring the collection to the passages, embedding only those that are new; gives a summary."""
    wanted = {passage.key: passage for passage in passages}
    records = collection.get(include=["metadatas"])
    stored = dict(zip(records["ids"], records["metadatas"] or [], strict=True))
    gone = [key for key in stored if key not in wanted]
    new = [key for key in wanted if key not in stored]
    moved = [key for key in wanted if key in stored and stored[key] != wanted[key].metadata]
    for keys in chunks(gone):
        collection.delete(keys)
    for keys in chunks(moved):
        collection.update(keys, metadatas=[wanted[key].metadata for key in keys])
    if new:
        with progress("embedding", len(new)) as advance:
            for keys in chunks(new):
                some = [wanted[key] for key in keys]
                collection.add(keys, documents=[p.text for p in some], metadatas=[p.metadata for p in some])
                advance(len(keys))
    return f"{len(new)} added, {len(gone)} removed, {len(wanted) - len(new)} unchanged"


def chunks(keys: list[str]) -> Iterator[list[str]]:
    return (keys[start : start + BATCH] for start in range(0, len(keys), BATCH))


def respond(collection: Collection, question: str, top: int, model: LanguageModel | None) -> None:
    """Print the nearest passages, the prompt that is grounded in them and, given a model, its answer."""
    found = collection.query(query_texts=[question], n_results=top, include=["documents", "metadatas", "distances"])
    columns = (found["documents"], found["metadatas"], found["distances"])
    passages = []
    out.print(Text(f"\n? {question}\n", "bold"))
    for number, (text, metadata, distance) in enumerate(
        zip(*((column or [[]])[0] for column in columns), strict=True), 1
    ):
        title, place, body = metadata["title"], metadata["place"], text.partition("\n")[2]
        out.print(Text.assemble(f"[{number}] {1 - distance:.3f}  ", (f"{place}", "cyan"), f"  {title}"))
        out.print(Text(textwrap.indent(textwrap.shorten(body, 160, placeholder=" ..."), "    "), "dim"))
        passages.append(f"[{number}] {place}\n{title}\n{body}")
    prompt = PROMPT.format(passages="\n\n".join(passages), question=question)
    out.print(Text("\nprompt", "bold"))
    out.print(Text(textwrap.indent(prompt, "| ", lambda _: True)))
    if model is not None:
        out.print(Text("\nanswer", "bold"))
        out.print(Text(model.answer(prompt)))


def interactively(collection: Collection, top: int, model: LanguageModel | None) -> None:
    while True:
        try:
            question = out.input("\nQuestion (empty to leave): ").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if not question:
            return
        try:
            respond(collection, question, top, model)
        except ServerError as error:
            err.print(Text(f"error: {error}", "red"))


def questions_on(passages: Sequence[Passage]) -> list[str]:
    """Three questions that a corpus can answer: after titles of passages in different places."""
    titles = list(dict.fromkeys(passage.title for passage in passages))
    return [f"What is said about {title}?" for title in titles[:: max(1, len(titles) // 3)][:3]]


def read(docs: Path | None, limit: int | None) -> tuple[str, list[Passage]]:
    """A name for the corpus, of the characters that Chroma allows in names, and its passages."""
    if docs is None:
        name, passages = "python{}.{}".format(*sys.version_info), standard_library()
    else:
        folder = docs.resolve()
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"docs {folder.name} {hashlib.sha256(bytes(folder)).hexdigest()[:8]}")
        passages = documents(docs, complain=lambda message: err.print(Text(message, "yellow")))
    chosen = list(islice(passages, limit))
    label = docs or "the standard library's docstrings"
    err.print(f"{len(chosen)} passages read from {label}")
    return name, chosen


def main(
    docs: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of .md, .txt, .rst, .html and .pdf files."),
    ] = None,
    ask: Annotated[list[str] | None, typer.Option(help="A question; may be given more than once.")] = None,
    model: Annotated[str, typer.Option(help="Bundled name, folder of a checkpoint, or hub id.")] = "mini",
    query_instruction: Annotated[str | None, typer.Option(help="Instead of the checkpoint's.")] = None,
    document_instruction: Annotated[
        str | None, typer.Option(help="Instead of the checkpoint's; another one embeds the corpus anew.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of passages for a question.")] = 4,
    db: Annotated[Path, typer.Option(file_okay=False, help="Folder of the Chroma database.")] = Path("chroma_rag_db"),
    limit: Annotated[int | None, typer.Option(min=1, help="Take the corpus' first passages only.")] = None,
    llm: Annotated[
        str | None,
        typer.Option(help="URL of an OpenAI-compatible server to answer; its key is taken from OPENAI_API_KEY."),
    ] = None,
    llm_model: Annotated[str | None, typer.Option(help="Default: the first model that the server lists.")] = None,
) -> None:
    """Answer questions from passages: of Python's standard library, or of your own documents.

    Example: python examples/chroma_rag.py --docs notes --ask "What did we decide about the roof?"
    """
    try:
        function = InstructorEmbeddingFunction(
            model, document_instruction=document_instruction, query_instruction=query_instruction
        )
        language_model = LanguageModel(llm, llm_model) if llm else None
        start = time.perf_counter()
        corpus, passages = read(docs, limit)
        collection = open_collection(db, corpus, function)
        err.print(f"{update(collection, passages)} in {db}, {time.perf_counter() - start:.0f} s")
        if not ask and sys.stdin.isatty():
            interactively(collection, top, language_model)
            return
        for question in ask or (questions_on(passages) if docs else LIBRARY_QUESTIONS):
            respond(collection, question, top, language_model)
    except (CorpusError, ServerError, ChromaError, ValueError) as error:
        err.print(Text(f"error: {error}", "red"))
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
