"""What a run starts from: a checkpoint, or new weights with a vocabulary learnt from the records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from anytask.checkpoint import Checkpoint, load_checkpoint
from anytask.files.whole import whole_file
from anytask.hub import resolve
from anytask.training.initialise import new_checkpoint, parse_sizes
from anytask.training.pair_store import PairStore
from anytask.training.vocabulary import DEFAULT_VOCAB_SIZE, read_tokenizer, train_tokenizer

VOCABULARY_RECORDS = 200_000
"""Most records that a new vocabulary is learnt from, evenly spread."""


@dataclass(frozen=True)
class Start:
    """What training starts from.

    Args:
        model: a bundled model, a folder (INSTRUCTOR, GTR, T5) or a hub id.
        init: instead, sizes of a new model, such as "d_model=256,num_layers=4" (see `initialise.parse_sizes`).
        tokenizer: of a new model: a file or a folder; None learns a vocabulary from the records.

    Raises:
        ValueError: both a model and sizes, or a tokenizer for a model that has its own.
    """

    model: str | None = None
    init: str | None = None
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        if self.model is not None and self.init is not None:
            raise ValueError(f"give a model to go on from ({self.model}) or sizes of a new one ({self.init}), not both")
        if self.tokenizer is not None and self.init is None:
            raise ValueError("a tokenizer goes with the sizes of a new model; a checkpoint has its own")
        if self.init is not None:
            parse_sizes(self.init)

    @property
    def base(self) -> str | None:
        """The model that training goes on from; None for a new one."""
        return None if self.init is not None else self.model or "mini"

    def checkpoint(self, store: PairStore, folder: Path, *, max_length: int | None, seed: int) -> Checkpoint:
        """The model before training, weights in float32.

        Args:
            store: what a new vocabulary is learnt from.
            folder: keeps that vocabulary for a resumed run.
            max_length: None takes the checkpoint's.

        Raises:
            CheckpointError: no such model or tokenizer, or a damaged one.
        """
        if self.init is None:
            checkpoint = self.load()
        else:
            sizes = parse_sizes(self.init)
            kept = folder / "tokenizer.json"
            if self.tokenizer is None and not kept.is_file():
                learnt = train_tokenizer(_texts(store), sizes.vocab_size or DEFAULT_VOCAB_SIZE)
                with whole_file(kept) as partial:
                    learnt.save(str(partial))
            checkpoint = new_checkpoint(sizes, read_tokenizer(self.tokenizer or kept), seed=seed)
        if max_length is not None:
            checkpoint.max_length = max_length
        return checkpoint

    def load(self) -> Checkpoint:
        """The checkpoint to go on from, weights in float32."""
        checkpoint = load_checkpoint(resolve(self.base or ""))
        checkpoint.encoder.float()
        checkpoint.head.float()
        return checkpoint


def _texts(store: PairStore) -> Iterator[str]:
    for row in range(0, len(store), -(-len(store) // VOCABULARY_RECORDS)):
        record = store[row]
        for side in (record.query, record.pos, *record.neg):
            yield side.instruction
            yield side.text
