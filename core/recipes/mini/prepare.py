"""Turn the data folder into what `train.py` reads: vocabulary, packed token ids, the tasks, and the teacher as a T5
encoder.

    python core/recipes/mini/prepare.py --data ../shared/data --medi build/mini/medi.jsonl.zst --out build/mini

Each step is skipped when its file is there.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from conversion import Conversion, activations
from corpus import instruction_task_texts, labelled_texts, passage_spans, read_pairs, unique
from numpy.typing import NDArray
from store import EOS, MAX_TOKENS, NOTHING, TASK_ROWS, TASK_TEXTS, TASKS, TEXTS, TextStore, write_rows, write_texts
from tasks import Task, read_mini_tasks
from teacher import Teacher, load_bert, teacher_folder
from tokenizers import Tokenizer
from transformers import BertModel
from vocabulary import t5_tokenizer

from anytask.checkpoint import save_checkpoint
from anytask.files.whole import whole_file
from anytask.training.initialise import Sizes, new_checkpoint

SEED = 0
BLOCK = 16_384
ROTATED_TEXTS = 16_384
FITTED_TEXTS = 1000
TEACHER_TOKENS = 100
"""Longer texts are cut here."""


def token_ids(tokenizer: Tokenizer, texts: Sequence[str], most: int = MAX_TOKENS) -> list[NDArray[np.uint16]]:
    """Each text's token ids, cut so that with `</s>`, which is left out, they are `most`."""
    return [
        np.array(encoding.ids[: most - 1], dtype=np.uint16)
        for start in range(0, len(texts), BLOCK)
        for encoding in tokenizer.encode_batch_fast(texts[start : start + BLOCK], add_special_tokens=False)
    ]


def corpus_texts(data: Path) -> list[str]:
    """The texts that the teacher's vectors are learnt on, shuffled."""
    rng = random.Random(SEED)
    pairs = (pair for pair in read_pairs(data) if len(pair.query) < 1200)
    sources: list[Iterator[str]] = [
        (text for pair in pairs for text in (pair.query, pair.pos)),
        labelled_texts(data),
        instruction_task_texts(data, rng),
        passage_spans(data, rng),
    ]
    texts = unique(text for source in sources for text in source)
    rng.shuffle(texts)
    return texts


def teacher_vectors(teacher: Teacher, tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """The teacher's unit vectors [n, d] of n texts, which are cut as the taught ones."""
    ids = token_ids(tokenizer, texts, TEACHER_TOKENS)
    return teacher.vectors([np.append(piece.astype(np.int32), np.int32(EOS)) for piece in ids])


def write_tasks(tasks: Sequence[Task], tokenizer: Tokenizer, out: Path) -> None:
    """`tasks.json`, the tasks' texts, and their rows of four: query, positive, hard negative or -1, -1; or text, label,
    source, its part that has the label or -1.
    """
    places: dict[str, int] = {}

    def place(text: str | None) -> int:
        return -1 if text is None else places.setdefault(text, len(places))

    rows, numbers = [], []
    for number, task in enumerate(tasks):
        labels = codes([label for _, label in task.labelled])
        sources = codes(task.sources) or [0] * len(labels)
        parts = task.parts or [None] * len(labels)
        found = [
            (place(text), label, source, place(part))
            for (text, _), label, source, part in zip(task.labelled, labels, sources, parts, strict=True)
        ]
        found += [(place(query), place(pos), place(negative), -1) for query, pos, negative in task.pairs]
        rows.append(np.array(found, dtype=np.int32))
        numbers.append(np.full(len(found), number, dtype=np.int16))
    write_texts(out / TASK_TEXTS, token_ids(tokenizer, list(places)))
    write_rows(out / TASK_ROWS, np.concatenate(rows), np.concatenate(numbers))
    told = [
        {"name": task.name, "labelled": bool(task.labelled), "instructions": task.instructions, "weight": task.weight}
        for task in tasks
    ]
    with whole_file(out / TASKS) as path:
        path.write_text(json.dumps(told, indent=1), "utf-8")


def codes(names: Sequence[str]) -> list[int]:
    """Each name's number, in the order of their first coming."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names]


def rotate(teacher: Teacher, texts: TextStore, out: Path) -> np.ndarray:
    """The rotation [d, d] to the principal axes of the teacher's vectors, the largest first.

    It leaves cosines as they are, and gathers in any number of leading dimensions what those can hold.
    """
    file = out / "rotation.npy"
    if not file.exists():
        count = min(ROTATED_TEXTS, len(texts))
        vectors = teacher.vectors([texts.text(place, NOTHING).ids for place in range(count)]).astype(np.float64)
        axes = np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1]
        with whole_file(file) as path, path.open("wb") as target:
            np.save(target, np.ascontiguousarray(axes, dtype=np.float32))
    return np.load(file)


def convert(
    bert: BertModel,
    texts: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    kept: Sequence[int],
    rotation: np.ndarray,
    folder: Path,
) -> None:
    """Write the teacher as a T5 checkpoint, fitted to what it computes for some texts of its own ids."""
    encoder, dense = Conversion(bert, activations(bert, texts)).fit()
    shape = encoder.config
    sizes = Sizes(
        d_model=shape.d_model,
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        d_kv=shape.d_kv,
        d_ff=shape.d_ff,
        feed_forward_proj=shape.feed_forward_proj,
        dimension=shape.d_model,
    )
    new = new_checkpoint(sizes, tokenizer, seed=SEED)
    state = encoder.state_dict()
    state["embed_tokens.weight"] = state["embed_tokens.weight"][list(kept)]
    new.encoder.load_state_dict(state)
    assert new.head.dense is not None
    with torch.no_grad():
        new.head.dense.weight.copy_(torch.from_numpy(rotation.T) @ dense)
    save_checkpoint(new, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--medi", type=Path, default=Path("build/mini/medi.jsonl.zst"), help="records of pairs")
    parser.add_argument("--out", type=Path, default=Path("build/mini"))
    arguments = parser.parse_args()
    data, out = arguments.data, arguments.out
    out.mkdir(parents=True, exist_ok=True)

    tokenizer, kept = t5_tokenizer(teacher_folder() / "tokenizer.json")
    with whole_file(out / "tokenizer.json") as path:
        tokenizer.save(str(path))
    if not (out / TEXTS).exists():
        write_texts(out / TEXTS, token_ids(tokenizer, corpus_texts(data)))
    has_tasks = all((out / name).exists() for name in (TASK_TEXTS, TASK_ROWS, TASKS))
    if (out / "start").exists() and has_tasks:
        return
    teacher = Teacher.load(kept)
    if not (out / "start").exists():
        texts = TextStore(out / TEXTS, TEACHER_TOKENS)
        rotation = rotate(teacher, texts, out)
        fitted = [texts.text(len(texts) - 1 - place, NOTHING).ids for place in range(FITTED_TEXTS)]
        convert(load_bert(), [teacher.own_ids(ids) for ids in fitted], tokenizer, kept, rotation, out / "start")
    if not has_tasks:
        embed = partial(teacher_vectors, teacher, tokenizer)
        write_tasks(read_mini_tasks(data, arguments.medi, embed), tokenizer, out)


if __name__ == "__main__":
    main()
