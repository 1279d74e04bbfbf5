"""Train `mini` from what `prepare.py` wrote: first the teacher's vectors, then the same from behind
instructions together with INSTRUCTOR's contrastive task, last the mean of two checkpoints.

    python core/recipes/mini/train.py --prepared build/mini --out build/mini/model

Interrupted at any point, the same command goes on from the last checkpoint. The data order depends on the seed and
the step alone, so that a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from instructions import FOR_LONG_TEXTS, FOR_SHORT_TEXTS
from store import TextStore
from torch import Tensor, nn

from anytask.batching import PackedBatch
from anytask.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from anytask.encoder import T5Config, T5Encoder
from anytask.instruction import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION
from anytask.pooling import SentenceHead
from anytask.training import bidirectional_contrastive_loss, distillation_loss

SEED = 0
DIMENSION = 384
MAX_TOKENS = 128
WINDOW = 8192
"""Texts drawn at random that are sorted by length before they are cut into batches."""
EXPORT_EVERY = 250
"""Steps between checkpoints."""
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
    """One stage's budget and step size."""

    steps: int
    tokens: int
    learning_rate: float
    warmup: int
    instructed: float
    """Share of the distilled texts that stand behind an instruction."""
    contrastive_tokens: int = 0
    contrastive_weight: float = 0.0


def build(store: TextStore, vocabulary_vectors: np.ndarray) -> tuple[T5Encoder, SentenceHead]:
    """A new model: token vectors from the teacher's outputs, residual branches near zero, dense undoing the PCA."""
    config = T5Config(
        vocab_size=store.tokenizer.get_vocab_size(), d_model=256, d_kv=64, d_ff=1024, num_layers=4, num_heads=4
    )
    torch.manual_seed(SEED)
    encoder = T5Encoder(config)
    vectors = F.normalize(torch.from_numpy(vocabulary_vectors), dim=-1)
    _, _, components = torch.pca_lowrank(vectors, q=config.d_model, center=True, niter=8)
    projected = (vectors - vectors.mean(0)) @ components
    scale = projected.square().mean().sqrt()
    with torch.no_grad():
        encoder.embed_tokens.weight.copy_(projected / scale)
        encoder.relative_attention_bias.weight.zero_()
        for block in encoder.blocks:
            nn.init.normal_(block.attention.qkv.weight, std=config.d_model**-0.5)
            block.attention.qkv.weight[: config.num_heads * config.d_kv] *= config.d_kv**-0.5
            nn.init.normal_(block.attention.o.weight, std=0.1 * config.d_model**-0.5)
            nn.init.normal_(block.feed_forward.wi.weight, std=config.d_model**-0.5)
            nn.init.normal_(block.feed_forward.wo.weight, std=0.1 * config.d_ff**-0.5)
    dense = nn.Linear(config.d_model, DIMENSION, bias=False)
    with torch.no_grad():
        dense.weight.copy_(components * scale)
    return encoder, SentenceHead(dense)


class Trainer:
    """The loop that both stages share: schedule, mixed precision, log, checkpoints."""

    def __init__(
        self, store: TextStore, encoder: T5Encoder, head: SentenceHead, out: Path, device: torch.device
    ) -> None:
        self.store, self.encoder, self.head, self.out, self.device = store, encoder, head, out, device
        self.model = nn.ModuleList([encoder, head]).to(device)
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

    def embed(self, packed: PackedBatch, restore: Tensor) -> Tensor:
        """Unit vectors in the caller's order."""
        packed = packed.to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            hidden = self.encoder(packed.token_ids, packed.groups)
        vectors: Tensor = self.head(hidden.float(), packed.pool_mask, packed.groups)
        return F.normalize(vectors, dim=-1)[restore]

    def run(self, name: str, stage: Stage) -> None:
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=stage.learning_rate, weight_decay=0.01, fused=True)

        def rate(step: int) -> float:
            if step < stage.warmup:
                return (step + 1) / stage.warmup
            return max(0.02, 0.5 * (1 + math.cos(math.pi * (step - stage.warmup) / (stage.steps - stage.warmup))))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        saved = self.out / f"{name}.pt"
        first = 0
        if saved.exists():
            state = torch.load(saved, weights_only=True, map_location=self.device)
            self.model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            scheduler.load_state_dict(state["scheduler"])
            first = state["step"]
        self.model.train()
        batches = self.distillation_plan(stage, first)
        log = self.out / f"{name}.csv"
        started, tokens, losses = time.monotonic(), 0, []
        for step in range(first, stage.steps):
            rng = np.random.default_rng([SEED, step, len(name)])
            packed, loss = self.distillation_step(next(batches), stage.instructed, rng)
            if stage.contrastive_tokens:
                contrasted, contrastive = self.contrastive_step(stage, rng)
                packed, loss = packed + contrasted, loss + stage.contrastive_weight * contrastive
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            tokens += packed
            losses.append(loss.item())
            if (step + 1) % 50 == 0 or step + 1 == stage.steps:
                speed = tokens / (time.monotonic() - started)
                row = [step + 1, tokens, f"{np.mean(losses):.4f}", f"{speed:.0f}"]
                with log.open("a", newline="") as file:
                    csv.writer(file).writerow(row)
                left = (stage.steps - step - 1) * (time.monotonic() - started) / (step + 1 - first) / 60
                print(
                    f"{name} {step + 1}/{stage.steps} loss {row[2]} {row[3]} tokens/s, {left:.0f} min left", flush=True
                )
                losses = []
            if (step + 1) % EXPORT_EVERY == 0 or step + 1 == stage.steps:
                state = {
                    "model": self.model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "step": step + 1,
                }
                torch.save(state, saved.with_suffix(".part"))
                saved.with_suffix(".part").replace(saved)
                self.export(self.out / f"{name}-{step + 1}")

    def distillation_plan(self, stage: Stage, first: int):
        """Batches of taught texts of similar length, from windows of a new shuffle in each epoch."""
        taught = len(self.store.teacher)
        step = 0
        for epoch in range(10**6):
            rng = np.random.default_rng([SEED, epoch])
            order = rng.permutation(taught)
            for start in range(0, taught, WINDOW):
                window = order[start : start + WINDOW]
                lengths = self.store.lengths(window)
                window, lengths = window[np.argsort(lengths, kind="stable")], np.sort(lengths)
                pieces = np.split(window, np.flatnonzero(np.diff(np.cumsum(lengths) // stage.tokens)) + 1)
                for place in rng.permutation(len(pieces)):
                    if step >= first:
                        yield pieces[place]
                    step += 1

    def prefix(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """An instruction for a text of `length` tokens: the default, one of the template's wordings, or any task's."""
        is_long = bool(length >= LONG)
        kind = rng.random()
        if kind < 0.3:
            return self.general[is_long]
        pool = self.pool if kind < 0.55 else self.long if is_long else self.short
        return pool[rng.integers(len(pool))]

    def distillation_step(self, indices: np.ndarray, instructed: float, rng: np.random.Generator) -> tuple[int, Tensor]:
        """The teacher's vectors, for a share of the texts from behind an instruction."""
        lengths = self.store.lengths(indices)
        prefixes = [self.prefix(length, rng) if rng.random() < instructed else self.none for length in lengths]
        packed, restore = self.store.batch(indices, prefixes)
        teacher = torch.from_numpy(self.store.teacher[indices]).float().to(self.device)
        return len(packed.token_ids), distillation_loss(self.embed(packed, restore), teacher)

    def contrastive_step(self, stage: Stage, rng: np.random.Generator) -> tuple[int, Tensor]:
        """Pairs of one task with its instructions; for retrieval, half the time with the general ones."""
        sizes = np.array([len(pairs) for pairs in self.store.pairs], dtype=float) ** 0.5
        sizes *= [task["task"] in CONTRASTED for task in self.store.tasks]
        task = rng.choice(len(sizes), p=sizes / sizes.sum())
        pairs = self.store.pairs[task]
        pairs = pairs[rng.permutation(len(pairs))]
        lengths = self.store.lengths(pairs[:, 0]) + self.store.lengths(pairs[:, 1])
        pairs = pairs[: max(16, np.searchsorted(np.cumsum(lengths), stage.contrastive_tokens))]
        general = not self.store.tasks[task]["symmetric"] and rng.random() < 0.5
        query, pos = self.general if general else self.instructions[task]
        packed, restore = self.store.batch(pairs.T.reshape(-1), [query] * len(pairs) + [pos] * len(pairs))
        queries, positives = self.embed(packed, restore).chunk(2)
        ids = torch.from_numpy(pairs.astype(np.int64)).to(self.device)
        loss = bidirectional_contrastive_loss(
            queries, positives, temperature=0.05, query_ids=ids[:, 0], positive_ids=ids[:, 1]
        )
        return len(packed.token_ids), loss

    def export(self, folder: Path) -> None:
        """Write the model in float16 as a checkpoint folder."""
        shape = self.encoder.config
        half = T5Encoder(shape)
        half.load_state_dict(self.encoder.state_dict())
        dense = nn.Linear(shape.d_model, DIMENSION, bias=False)
        dense.load_state_dict(self.head.dense.state_dict())
        config = {
            "architectures": ["T5EncoderModel"],
            "model_type": "t5",
            **{name: getattr(shape, name) for name in shape.__dataclass_fields__},
            "dropout_rate": 0.0,
            "is_encoder_decoder": True,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "decoder_start_token_id": 0,
        }
        tokens = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
        save_checkpoint(
            Checkpoint(
                encoder=half.half(),
                head=SentenceHead(dense.half()),
                tokenizer=self.store.tokenizer,
                prompts={"query": DEFAULT_QUERY_INSTRUCTION, "document": DEFAULT_DOCUMENT_INSTRUCTION},
                config=config,
                tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **tokens},
            ),
            folder,
        )


def average(folders: Sequence[Path], out: Path) -> None:
    """Write the checkpoint whose weights are the mean of several of one run: it is steadier than any of them."""
    mean = load_checkpoint(folders[0])
    others = [load_checkpoint(folder) for folder in folders[1:]]
    for part in ("encoder", "head"):
        states = [getattr(checkpoint, part).state_dict() for checkpoint in (mean, *others)]
        getattr(mean, part).load_state_dict(
            {name: sum(state[name].float() for state in states) / len(states) for name in states[0]}
        )
    save_checkpoint(mean, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("build/mini"))
    parser.add_argument("--out", type=Path, default=Path("build/mini/model"))
    parser.add_argument("--distil-steps", type=int, default=2700)
    parser.add_argument("--instruct-steps", type=int, default=700)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    store = TextStore(arguments.prepared, MAX_TOKENS)
    print(f"{len(store.teacher):,} taught texts, {len(store.ends) - 1:,} in all", flush=True)
    encoder, head = build(store, np.load(arguments.prepared / "vocabulary_vectors.npy"))
    trainer = Trainer(store, encoder, head, arguments.out, device)
    trainer.run("distil", Stage(arguments.distil_steps, tokens=4096, learning_rate=1e-3, warmup=300, instructed=0.3))
    trainer.run(
        "instruct",
        Stage(
            arguments.instruct_steps,
            tokens=4096,
            learning_rate=4e-4,
            warmup=30,
            instructed=0.85,
            contrastive_tokens=2048,
            contrastive_weight=0.2,
        ),
    )
    steps = (EXPORT_EVERY, arguments.instruct_steps)
    average([arguments.out / f"instruct-{step}" for step in steps], arguments.out / "mini")


if __name__ == "__main__":
    main()
