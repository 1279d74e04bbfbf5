"""`InstructorDocumentEmbedder`: documents to documents with vectors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from haystack import Document, component
from haystack_integrations.components.embedders.anytask.base import InstructorEmbedder

from anytask import Instruction
from anytask.background import in_background


@component
@dataclass(eq=False, repr=False)
class InstructorDocumentEmbedder(InstructorEmbedder):
    """Embeds documents with an INSTRUCTOR model and the instruction for documents.

    For the query they are compared with, use `InstructorTextEmbedder`.

    >>> from haystack import Document
    >>> from haystack_integrations.components.embedders.anytask import InstructorDocumentEmbedder
    >>> embedder = InstructorDocumentEmbedder(meta_fields_to_embed=["title"], progress_bar=False)
    >>> result = embedder.run([Document(content="They slow the heart.", meta={"title": "Beta blockers"})])
    >>> len(result["documents"][0].embedding)
    384

    Args:
        meta_fields_to_embed: fields of a document's meta that are embedded ahead of its content; those that a
            document doesn't have are left out.
        embedding_separator: stands between these fields and the content.
        document_instruction: the instruction of the documents, also called `instruction`.

    The other settings are those of `InstructorEmbedder`.
    """

    meta_fields_to_embed: list[str] | None = None
    embedding_separator: str = "\n"
    document_instruction: str | Instruction | None = field(default=None, kw_only=True)

    side_instruction: ClassVar[Literal["document_instruction"]] = "document_instruction"

    def __post_init__(self) -> None:
        # Not through super(): its class is the one that @component made another of.
        InstructorEmbedder.__post_init__(self)
        if isinstance(self.meta_fields_to_embed, str):
            raise TypeError(f"meta_fields_to_embed must be a list of names, got {self.meta_fields_to_embed!r}")
        self.meta_fields_to_embed = list(self.meta_fields_to_embed or [])

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document], instruction: str | None = None) -> dict[str, list[Document]]:
        """Embed documents.

        Args:
            documents: a document without content is embedded by its meta fields, else as an empty text.
            instruction: in place of the component's, for this call; of an `Instruction`, its `str`.

        Returns:
            `documents`: copies in the same order with `embedding` set; the given ones stay as they are.

        Raises:
            TypeError: something in `documents` is no Document.
            ValueError: invalid Unicode, or an instruction without room for text.
        """
        texts = self._texts(documents)
        vectors = self.embedder.embed_documents(texts, instruction, show_progress=self.progress_bar)
        return _embedded(documents, vectors)

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document], instruction: str | None = None) -> dict[str, list[Document]]:
        """`run` without blocking the event loop, and without a progress bar; concurrent calls share batches."""
        texts = self._texts(documents)
        vectors = await self.embedder.aembed_documents(texts, instruction)
        return await in_background(_embedded, documents, vectors)

    def _texts(self, documents: list[Document]) -> list[str]:
        if not isinstance(documents, list):
            raise TypeError(_expected(type(documents).__name__))
        for index, document in enumerate(documents):
            if not isinstance(document, Document):
                raise TypeError(_expected(f"{type(document).__name__} at index {index}"))
        return [self._text(document) for document in documents]

    def _text(self, document: Document) -> str:
        meta = [document.meta.get(name) for name in self.meta_fields_to_embed or ()]
        parts = [*(str(value) for value in meta if value is not None), document.content or ""]
        return self.embedding_separator.join(parts)


def _expected(given: str) -> str:
    return (
        f"InstructorDocumentEmbedder expects a list of Documents as input, got {given}. "
        "To embed a string, use the InstructorTextEmbedder."
    )


def _embedded(documents: list[Document], vectors: Any) -> dict[str, list[Document]]:
    pairs = zip(documents, vectors, strict=True)
    return {"documents": [replace(document, embedding=vector.tolist()) for document, vector in pairs]}
