"""What `anytask embed` costs beside `encode` on a list: the same texts and model, in turns within one process.

    python core/benchmarks/corpus.py [--model mini] [--texts 2000] [--rounds 3]

The corpus is a JSON-lines file of passages; the job reads, parses, embeds, writes and joins it. What reading and
writing reach without a model is measured too: it has to keep up with the device. Writes build/bench/corpus-MODEL.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import describe
from rich.console import Console
from rich.progress import Progress
from texts import INSTRUCTION, PASSAGES, workloads
from timing import best_seconds, in_turns, median_ratio

from anytask import Embedder
from anytask.corpus import Columns, CorpusJob, embed_corpus, read_vectors
from anytask.corpus.shards import Counts, VectorFile, output_schema

OUTPUT = Path("build/bench")
LIST, JOB = "encode", "embed"


def rates_without_a_model(folder: Path, texts: list[str], dimension: int = 768) -> dict[str, float]:
    """Rows a second that are read and checked, and vectors a second that are written, each on one core."""
    table = pa.table({"id": [str(place) for place in range(len(texts))], "text": texts})
    pq.write_table(table, folder / "rows.parquet")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()), "utf-8")
    rates = {}
    for name in ("rows.parquet", "rows.jsonl"):
        job = CorpusJob([str(folder / name)], Embedder(), Columns(id="id"), shard_rows=1 << 20)
        rates[f"read {name}"] = len(texts) / best_seconds(lambda job=job: list(job.windows_from(0)), 3)
    windows = list(job.windows_from(0))
    codes = np.random.default_rng(0).standard_normal((job.window_rows, dimension)).astype(np.float32)

    def write() -> None:
        schema = output_schema({}, "float32", dimension, [], keep_text=False)
        with VectorFile(folder / "written.parquet", schema) as file:
            for window in windows:
                file.write(window.rows, codes[: len(window.rows)])
            file.close(Counts())

    rates[f"write {dimension} dimensions"] = len(texts) / best_seconds(write, 3)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    embedder = Embedder(model=arguments.model, document_instruction=INSTRUCTION)
    model = embedder.load()
    rows = []
    with tempfile.TemporaryDirectory() as temporary, Progress() as progress:
        task = progress.add_task("measuring", total=4 * arguments.rounds)
        for workload, texts in workloads(arguments.texts).items():
            source, target = Path(temporary) / f"{workload}.jsonl", Path(temporary) / f"{workload}.parquet"
            source.write_text("".join(json.dumps({"text": text, "title": text[:40]}) + "\n" for text in texts), "utf-8")
            job = CorpusJob([str(source)], embedder, Columns(keep={"title": None}))
            vectors = model.encode(texts, INSTRUCTION)
            embed_corpus(job, target)
            times = in_turns(
                {
                    LIST: lambda texts=texts: model.encode(texts, INSTRUCTION),
                    JOB: lambda job=job, target=target: embed_corpus(job, target, overwrite=True),
                },
                arguments.rounds,
                lambda: progress.advance(task),
            )
            rows.append(
                {
                    "workload": workload,
                    "texts": len(texts),
                    "encode_texts_per_second": len(texts) / statistics.median(times[LIST]),
                    "embed_texts_per_second": len(texts) / statistics.median(times[JOB]),
                    "ratio": median_ratio(times[LIST], times[JOB]),
                    "furthest_apart": float(np.abs(read_vectors(target)[1] - vectors).max()),
                }
            )
        rates = rates_without_a_model(Path(temporary), 20 * workloads(500)[PASSAGES])
    for row in rows:
        Console().print(
            f"{row['workload']}: encode {row['encode_texts_per_second']:.1f}/s, embed "
            f"{row['embed_texts_per_second']:.1f}/s, {row['ratio']:.3f} of it; vectors at most "
            f"{row['furthest_apart']:.1e} apart"
        )
    Console().print(", ".join(f"{name} {rate:,.0f}/s" for name, rate in rates.items()))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / f"corpus-{Path(arguments.model).name}.json"
    path.write_text(
        json.dumps({"machine": describe(), "rows": rows, "without_a_model": rates}, indent=2) + "\n", "utf-8"
    )
    Console().print(f"Written: {path}")


if __name__ == "__main__":
    main()
