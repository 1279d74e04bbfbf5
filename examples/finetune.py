"""Fine-tune on pairs of one's own, and see what it gains: questions that customers ask, and the notes that answer them.

    pip install "./core[train]"
    python examples/finetune.py

A repair shop's machines don't exist and their words are made up: each part has the name that the notes use and another
that customers use, and so has each fault. No model can know them before. The questions that it is measured on are
about machines' faults that are in no pair of the training, only their words are. It takes two minutes on two cores;
`finetune` is all that your own pairs need.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from anytask import Instructor
from anytask.training import InstructedText, Record, TrainingOptions, train

QUESTION = "Represent the customer's question for retrieving the repair note: "
NOTE = "Represent the repair note for retrieval: "


class Pair(NamedTuple):
    question: str
    note: str


def finetune(pairs: list[Pair], output: Path, epochs: float) -> Instructor:
    """A model trained on the pairs, from the bundled one. Stopped at any point, the same call goes on."""
    records = [
        Record(InstructedText(QUESTION, pair.question), InstructedText(NOTE, pair.note), (), "repairs")
        for pair in pairs
    ]
    options = TrainingOptions(epochs=epochs, batch_size=32, learning_rate=5e-4, temperature=0.05, held_out=0)
    return Instructor.from_pretrained(train(records, output, options=options))


def figures(model: Instructor, pairs: list[Pair], notes: list[str]) -> dict[str, float]:
    """How well the model finds each question's note among all notes."""
    questions = model.encode([pair.question for pair in pairs], instruction=QUESTION)
    cosines = questions @ model.encode(notes, instruction=NOTE).T
    right = cosines[np.arange(len(pairs)), [notes.index(pair.note) for pair in pairs]]
    ranks = (cosines > right[:, None]).sum(axis=1)  # 0 where the right note is first
    gains = np.where(ranks < 10, 1 / np.log2(ranks + 2), 0.0)
    return {"nDCG@10": float(gains.mean()), "accuracy@1": float((ranks == 0).mean())}


QUESTIONS = (
    "My {part} is {fault}, what can I do?",
    "How do I fix a {fault} {part}?",
    "the {part} went {fault} again this morning, help",
    "Is there a way to stop the {part} from being {fault}?",
)
NOTES = (
    "{fault} of the {part}. Open the lid, take out the {part}, clean the contacts and put it back the same way.",
    "If a {part} shows {fault}, replace the seal. Order number {number}; the job takes twenty minutes.",
    "{fault}, seen on the {part} only: load the firmware again and let the machine run warm before it is closed.",
    "Service note {number}. For {fault} turn the screw beside the {part} by half a turn, then measure again.",
)


def repair_shop(parts: int, faults: int, seed: int = 0) -> tuple[list[Pair], list[Pair], list[str]]:
    """Pairs to train on, pairs held out, and all notes."""
    rng = random.Random(seed)
    words = made_up_words(rng)
    part_names, fault_names = ([(next(words), next(words)) for _ in range(count)] for count in (parts, faults))
    trained, held_out, notes = [], [], []
    for (part, customers_part), (fault, customers_fault) in product(part_names, fault_names):
        note = rng.choice(NOTES).format(part=part, fault=fault, number=rng.randrange(1000, 10_000))
        notes.append(note)
        questions = [wording.format(part=customers_part, fault=customers_fault) for wording in QUESTIONS]
        if rng.random() < 0.2:
            held_out.append(Pair(rng.choice(questions), note))
        else:
            trained += [Pair(question, note) for question in rng.sample(questions, 2)]
    return trained, held_out, notes


def made_up_words(rng: random.Random) -> Iterator[str]:
    """Words of two or three syllables, no two alike."""
    known = set()
    while True:
        syllables = (
            rng.choice(["b", "d", "f", "gr", "k", "l", "m", "pl", "r", "st", "t", "v", "z"])
            + rng.choice("aeiou")
            + rng.choice(["", "l", "m", "n", "r", "s", "x"])
            for _ in range(rng.randint(2, 3))
        )
        word = "".join(syllables)
        if word not in known:
            known.add(word)
            yield word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/finetuned"), help="folder of the trained model")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--parts", type=int, default=30, help="machine parts; each has a note for each fault")
    parser.add_argument("--faults", type=int, default=20)
    arguments = parser.parse_args()
    pairs, held_out, notes = repair_shop(arguments.parts, arguments.faults)
    before = figures(Instructor.from_pretrained("mini"), held_out, notes)
    model = finetune(pairs, arguments.output, arguments.epochs)
    after = figures(model, held_out, notes)
    print(f"trained on {len(pairs)} pairs; {len(held_out)} other questions, each to find its note among {len(notes)}:")
    table = Table("", "before", "after")
    for name in before:
        table.add_row(name, f"{before[name]:.3f}", f"{after[name]:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
