"""The batches of `mini`'s two stages, each a function of the seed and the step alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from instructions import FOR_LONG_TEXTS, FOR_SHORT_TEXTS
from store import TextStore

from anytask.batching import TokenizedText
from anytask.instruction import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION
from anytask.training.collation import TextBatch
from anytask.training.objective import Roles

SEED = 0
WINDOW = 8192
"""Texts drawn at random that are sorted by length before they are cut into batches."""
LONG = 32
"""Tokens from which on a text gets a document's instruction rather than a query's."""
CONTRASTED = frozenset(
    {
        "boolq_question_passage",
        "eip_title_abstract",
        "medquad",
        "nq_qed",
        "openstax_exercise_solution",
        "openstax_glossary",
        "openstax_section_paragraph",
        "pep_title_abstract",
        "pubmedqa_question_abstract",
        "pubmedqa_question_conclusion",
        "scitldr_title_abstract",
        "scitldr_tldr_abstract",
        "snli_dev_test_triplets",
        "strategyqa_facts",
        "wikisplit",
        "wordnet_definitions",
    }
)
"""Tasks of the contrastive loss. Commands, verses, entity names and sums pull the space away from search."""


@dataclass(frozen=True)
class Stage:
    """What a stage's batches hold.

    Args:
        steps: how many there are.
        tokens: of texts with a teacher's vector, without their instructions.
        instructed: share of those texts that stand behind an instruction.
        contrastive_tokens: of pairs of one task.
    """

    steps: int
    tokens: int
    instructed: float
    contrastive_tokens: int = 0


class MiniBatches:
    """A stage's batches: pairs of one task first, if any, then texts with the teacher's vectors."""

    def __init__(self, store: TextStore, stage: Stage, stream: int) -> None:
        self.store, self.stage, self.stream = store, stage, stream
        self.instructions = [
            tuple(store.instruction_ids(text) for text in (task["query"], task["pos"])) for task in store.tasks
        ]
        self.general = tuple(
            store.instruction_ids(text) for text in (DEFAULT_QUERY_INSTRUCTION, DEFAULT_DOCUMENT_INSTRUCTION)
        )
        self.pool = [ids for pair in [*self.instructions, self.general] for ids in pair]
        self.short, self.long = (
            [store.instruction_ids(text) for text in texts] for texts in (FOR_SHORT_TEXTS, FOR_LONG_TEXTS)
        )
        self.none = np.array([], dtype=np.int32)
        self.planned: list[np.ndarray] = []
        self.epochs = 0

    def __len__(self) -> int:
        return self.stage.steps

    def __getitem__(self, step: int) -> TextBatch:
        rng = np.random.default_rng([SEED, self.stream, step])
        task, pairs, texts = (
            self.pairs(rng) if self.stage.contrastive_tokens else ("distillation", np.empty((0, 2)), [])
        )
        taught = self.taught(step)
        for index in taught:
            instructed = rng.random() < self.stage.instructed
            prefix = self.prefix(int(self.store.lengths(index)), rng) if instructed else self.none
            texts.append(self.store.text(index, prefix))
        keys = torch.from_numpy(np.concatenate([pairs.T.reshape(-1), taught]).astype(np.int64))
        roles = Roles(
            pairs=len(pairs),
            negatives=0,
            keys=keys,
            taught=torch.arange(2 * len(pairs), len(texts)),
            teacher=torch.from_numpy(self.store.teacher[taught]).float(),
        )
        return TextBatch(task, texts, roles)

    def taught(self, step: int) -> np.ndarray:
        """Texts of similar length, from windows of a new shuffle in each pass over them."""
        while len(self.planned) <= step:
            self.planned += self.plan(self.epochs)
            self.epochs += 1
        return self.planned[step]

    def plan(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng([SEED, epoch])
        order = rng.permutation(len(self.store.teacher))
        batches = []
        for start in range(0, len(order), WINDOW):
            window = order[start : start + WINDOW]
            lengths = self.store.lengths(window)
            window, lengths = window[np.argsort(lengths, kind="stable")], np.sort(lengths)
            pieces = np.split(window, np.flatnonzero(np.diff(np.cumsum(lengths) // self.stage.tokens)) + 1)
            batches += [pieces[place] for place in rng.permutation(len(pieces))]
        return batches

    def prefix(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """An instruction for a text of `length` tokens: the default, one of the template's wordings, or any task's."""
        is_long = length >= LONG
        kind = rng.random()
        if kind < 0.3:
            return self.general[is_long]
        pool = self.pool if kind < 0.55 else self.long if is_long else self.short
        return pool[rng.integers(len(pool))]

    def pairs(self, rng: np.random.Generator) -> tuple[str, np.ndarray, list[TokenizedText]]:
        """Pairs of one task with its instructions; for retrieval, half the time with the general ones."""
        sizes = np.array([len(pairs) for pairs in self.store.pairs], dtype=float) ** 0.5
        sizes *= [task["task"] in CONTRASTED for task in self.store.tasks]
        task = int(rng.choice(len(sizes), p=sizes / sizes.sum()))
        pairs = self.store.pairs[task]
        pairs = pairs[rng.permutation(len(pairs))]
        lengths = self.store.lengths(pairs[:, 0]) + self.store.lengths(pairs[:, 1])
        pairs = pairs[: max(16, np.searchsorted(np.cumsum(lengths), self.stage.contrastive_tokens))]
        general = not self.store.tasks[task]["symmetric"] and rng.random() < 0.5
        query, pos = self.general if general else self.instructions[task]
        texts = [self.store.text(index, query) for index in pairs[:, 0]]
        texts += [self.store.text(index, pos) for index in pairs[:, 1]]
        return self.store.tasks[task]["task"], pairs, texts
