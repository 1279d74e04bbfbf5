"""`InstructorTextEmbedder`: queries to vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from haystack import component
from haystack_integrations.components.embedders.anytask.base import InstructorEmbedder

from anytask import Instruction


@component
@dataclass(eq=False, repr=False)
class InstructorTextEmbedder(InstructorEmbedder):
    """Embeds a string, such as a query, with an INSTRUCTOR model and the instruction for queries.

    For the documents it is compared with, use `InstructorDocumentEmbedder`.

    >>> from haystack_integrations.components.embedders.anytask import InstructorTextEmbedder
    >>> embedder = InstructorTextEmbedder(instruction="Represent the medical question for retrieving documents: ")
    >>> len(embedder.run("What slows a heart?")["embedding"])
    384

    Args:
        query_instruction: the instruction of the text, also called `instruction`.

    The other settings are those of `InstructorEmbedder`.
    """

    query_instruction: str | Instruction | None = field(default=None, kw_only=True)

    side_instruction: ClassVar[Literal["query_instruction"]] = "query_instruction"

    @component.output_types(embedding=list[float])
    def run(self, text: str, instruction: str | None = None) -> dict[str, list[float]]:
        """Embed a string.

        Args:
            text: what to embed.
            instruction: in place of the component's, for this call; of an `Instruction`, its `str`.

        Returns:
            `embedding`: the vector, as many numbers as the model has dimensions.

        Raises:
            TypeError: `text` is no string.
            ValueError: invalid Unicode, or an instruction without room for text.
        """
        _require_string(text)
        return {"embedding": self.embedder.embed_queries([text], instruction)[0].tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str, instruction: str | None = None) -> dict[str, list[float]]:
        """`run` without blocking the event loop; calls that run at the same time share batches."""
        _require_string(text)
        vectors = await self.embedder.aembed_queries([text], instruction)
        return {"embedding": vectors[0].tolist()}


def _require_string(text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(
            f"InstructorTextEmbedder expects a string as input, got {type(text).__name__}. "
            "To embed a list of Documents, use the InstructorDocumentEmbedder."
        )
