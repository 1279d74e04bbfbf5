"""Embed a corpus on a Ray cluster of this machine, and see that the bytes are those of one process.

    pip install "./core[ray]"
    python examples/ray_embed.py [--workers 2] [--passages 2000] [--model mini]

The corpus is the manual that comes with Python, as Parquet. On a real cluster the same is one command, started on any
machine of it, with inputs and output where all of them see the files:

    anytask embed /data/passages --output /data/vectors --ray auto --workers 16 --worker-gpus 1
"""

from __future__ import annotations

import argparse
import os
import pydoc_data.topics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from anytask import Embedder
from anytask.corpus import Columns, CorpusJob, embed_corpus
from anytask.corpus.on_ray import Workers, embed_corpus_on_ray


def passages(count: int) -> list[dict[str, str]]:
    """Paragraphs of Python's manual, each with its topic; again from the first one when they don't suffice."""
    found = [
        {"id": f"{topic}-{number}", "topic": topic, "text": " ".join(paragraph.split())}
        for topic, text in pydoc_data.topics.topics.items()
        for number, paragraph in enumerate(text.split("\n\n"))
        if len(paragraph.split()) > 5
    ]
    return [{**found[place % len(found)], "id": f"{place}"} for place in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--passages", type=int, default=2000)
    parser.add_argument("--shard-rows", type=int, default=250)
    parser.add_argument("--model", default="mini")
    arguments = parser.parse_args()
    if arguments.passages <= arguments.shard_rows:
        parser.error("the rate is that between the first shard and the last: give more --passages than --shard-rows")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pq.write_table(pa.Table.from_pylist(passages(arguments.passages)), folder / "passages.parquet")
        job = CorpusJob(
            [str(folder / "passages.parquet")],
            Embedder(model=arguments.model, device="cpu", document_instruction="Represent the manual for retrieval: "),
            Columns(id="id", keep={"topic": None}),
            shard_rows=arguments.shard_rows,
        )
        started = time.perf_counter()
        embed_corpus(job, folder / "local.parquet")
        print(f"one process: {arguments.passages / (time.perf_counter() - started):.0f} passages a second")
        ray.init(num_cpus=arguments.workers, include_dashboard=False, log_to_driver=False)
        for workers in sorted({1, arguments.workers}):
            finished: list[tuple[float, int]] = []
            embed_corpus_on_ray(
                job,
                folder / f"{workers}.parquet",
                Workers(workers),
                on_progress=lambda progress, finished=finished: finished.append((time.perf_counter(), progress.rows)),
            )
            (first, before), (last, after) = finished[0], finished[-1]
            same = (folder / f"{workers}.parquet").read_bytes() == (folder / "local.parquet").read_bytes()
            print(
                f"{workers} workers: {(after - before) / (last - first):.0f} passages a second from the first shard to "
                f"the last, {'the same' if same else 'other'} bytes"
            )
        ray.shutdown()


if __name__ == "__main__":
    main()
