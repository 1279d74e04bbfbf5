"""Instrumentation events and callbacks reach their handlers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.anytask import InstructorEmbedding

SECRET = "hf_nobody_may_read_this"


class Recorder(BaseEventHandler):
    events: list[Any] = Field(default_factory=list)

    def handle(self, event: Any, **_: Any) -> None:
        self.events.append(event)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    dispatcher = get_dispatcher()
    handler = Recorder()
    dispatcher.add_event_handler(handler)
    yield handler
    dispatcher.event_handlers.remove(handler)


@pytest.fixture
def spans() -> Iterator[SimpleSpanHandler]:
    dispatcher = get_dispatcher()
    handler = SimpleSpanHandler()
    dispatcher.add_span_handler(handler)
    yield handler
    dispatcher.span_handlers.remove(handler)


async def test_instrumentation_events(recorder: Recorder, texts: list[str]) -> None:
    embed_model = InstructorEmbedding(embed_batch_size=3, token=SECRET)
    query = embed_model.get_query_embedding("a fern")
    batch = embed_model.get_text_embedding_batch(texts)
    assert await embed_model.aget_query_embedding("a fern") == pytest.approx(query, abs=1e-5)
    await embed_model.aget_text_embedding_batch(texts)

    starts = [event for event in recorder.events if isinstance(event, EmbeddingStartEvent)]
    ends = [event for event in recorder.events if isinstance(event, EmbeddingEndEvent)]
    assert len(starts) == 6
    assert [event.chunks for event in ends] == [["a fern"], texts[:3], texts[3:]] * 2
    assert ends[0].embeddings == [query]
    assert ends[1].embeddings + ends[2].embeddings == batch
    assert starts[0].model_dict["class_name"] == "InstructorEmbedding"
    assert starts[0].model_dict["model_name"] == "mini"
    assert SECRET not in str([event.model_dump() for event in recorder.events])


def test_cached_vectors_have_events_too(recorder: Recorder) -> None:
    embed_model = InstructorEmbedding(embeddings_cache=SimpleKVStore())
    vectors = [embed_model.get_text_embedding("a fern") for _ in range(2)]
    assert [event.embeddings for event in recorder.events if isinstance(event, EmbeddingEndEvent)] == [
        [vector] for vector in vectors
    ]


def test_spans_are_not_doubled(spans: SimpleSpanHandler) -> None:
    InstructorEmbedding().get_query_embedding("a fern")
    names = [span.id_.rsplit("-", 5)[0] for span in spans.completed_spans]
    assert sorted(name.split(".")[1] for name in names) == ["_get_query_embedding", "get_query_embedding"]


async def test_callbacks(texts: list[str]) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    embed_model = InstructorEmbedding(callback_manager=CallbackManager([handler]), embed_batch_size=3, token=SECRET)
    query = embed_model.get_query_embedding("a fern")
    embed_model.get_text_embedding_batch(texts)
    await embed_model.aget_text_embedding_batch(texts)
    pairs = handler.get_event_pairs(CBEventType.EMBEDDING)
    chunks = [end.payload[EventPayload.CHUNKS] for _, end in pairs]
    assert chunks == [["a fern"], texts[:3], texts[3:], texts[:3], texts[3:]]
    assert pairs[0][1].payload[EventPayload.EMBEDDINGS] == [query]
    assert SECRET not in str([event.payload for pair in pairs for event in pair])


def test_callbacks_of_the_settings() -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    Settings.callback_manager = CallbackManager([handler])
    Settings.embed_model = InstructorEmbedding()
    Settings.embed_model.get_query_embedding("a fern")
    assert len(handler.get_event_pairs(CBEventType.EMBEDDING)) == 1
