"""What compact vectors keep: of float32's ten nearest documents, how many does each form find, and at what size.

    python core/benchmarks/compact_vectors.py --data FOLDER [--model mini] [--write docs/compact-vectors.md]

FOLDER holds retrieval sets, a folder each of corpus, queries and qrels as `anytask evaluate` reads them. Calibrations
are made from a sample of the documents. `--write` puts the table into a page, between its marks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from machine import describe
from rich.console import Console
from rich.progress import track

from anytask import Instructor
from anytask.evaluation.families import read_retrieval
from anytask.files.whole import whole_file
from anytask.precision import Calibration, Matrix, quantize
from anytask.search import nearest, rescore

K, CANDIDATES, SAMPLE = 10, 100, 1000
OUTPUT = Path("build/bench")
BEGIN, END = "<!-- begin: compact_vectors.py -->", "<!-- end -->"
Found = npt.NDArray[np.int64]
Search = Callable[[Matrix, Matrix, Calibration], Found]


@dataclass(frozen=True)
class RetrievalSet:
    """Vectors of a set, and for each query the gains of its judged documents by row."""

    name: str
    queries: Matrix
    documents: Matrix
    gains: Sequence[dict[int, float]]


@dataclass(frozen=True)
class Row:
    """One form at one dimension; figures by set."""

    form: str
    dimension: int
    bytes: float
    recall: dict[str, float]
    ndcg: dict[str, float]


def by_bits(queries: Matrix, documents: Matrix, count: int) -> Found:
    return nearest(quantize(queries, "binary"), quantize(documents, "binary"), count)[0]


FORMS: dict[str, tuple[Callable[[int], float], Search]] = {
    "float32": (lambda d: 4 * d, lambda q, d, _: nearest(q, d, K)[0]),
    "float16": (lambda d: 2 * d, lambda q, d, _: nearest(q, quantize(d, "float16"), K)[0]),
    "int8, each vector's scale": (lambda d: d, lambda q, d, _: nearest(q, quantize(d, "int8"), K)[0]),
    "int8, calibrated": (lambda d: d, lambda q, d, c: nearest(q, quantize(d, "int8", c), K, calibration=c)[0]),
    "binary, Hamming distance": (lambda d: d / 8, lambda q, d, _: by_bits(q, d, K)),
    "binary, float32 queries": (lambda d: d / 8, lambda q, d, _: nearest(q, quantize(d, "binary"), K)[0]),
    "binary, calibrated, float32 queries": (
        lambda d: d / 8,
        lambda q, d, c: nearest(q, quantize(d, "binary", c), K, calibration=c)[0],
    ),
    f"binary, {CANDIDATES} rescored by int8": (
        lambda d: d / 8 + d,
        lambda q, d, c: rescore(q, by_bits(q, d, CANDIDATES), quantize(d, "int8", c), K, calibration=c)[0],
    ),
    f"binary, {CANDIDATES} rescored by float32": (
        lambda d: d / 8 + 4 * d,
        lambda q, d, _: rescore(q, by_bits(q, d, CANDIDATES), d, K)[0],
    ),
}
"""For each form the bytes of a vector, all its parts, and the search."""


def read_set(folder: Path, model: Instructor) -> RetrievalSet:
    texts = read_retrieval(folder)
    return RetrievalSet(
        folder.name, model.encode_query(texts.queries), model.encode_document(texts.documents), texts.gains
    )


def shortened(vectors: Matrix, dimension: int) -> Matrix:
    """As `truncate_dim` gives them."""
    kept = vectors[:, :dimension]
    unit: Matrix = kept / np.linalg.norm(kept, axis=1, keepdims=True)
    return unit


def ndcg(found: Found, gains: Sequence[dict[int, float]]) -> float:
    """nDCG@10 with linear gains."""
    discounts = 1 / np.log2(np.arange(2, K + 2))
    figures = []
    for rows, judged in zip(found, gains, strict=True):
        best = np.sort(list(judged.values()))[::-1][:K]
        figures.append(
            sum(judged.get(int(row), 0.0) * by for row, by in zip(rows, discounts, strict=True))
            / float(best @ discounts[: len(best)])
        )
    return float(np.mean(figures))


def measure(sets: Sequence[RetrievalSet], dimensions: Sequence[int]) -> list[Row]:
    exact = {one.name: nearest(one.queries, one.documents, K)[0] for one in sets}
    rows = []
    for dimension in dimensions:
        for form, (size, search) in FORMS.items():
            recall, gained = {}, {}
            for one in sets:
                queries, documents = shortened(one.queries, dimension), shortened(one.documents, dimension)
                chosen = np.random.default_rng(0).permutation(len(documents))[:SAMPLE]
                found = search(queries, documents, Calibration.of(documents[chosen]))
                kept = [np.isin(mine, theirs).mean() for mine, theirs in zip(found, exact[one.name], strict=True)]
                recall[one.name], gained[one.name] = float(np.mean(kept)), ndcg(found, one.gains)
            rows.append(Row(form, dimension, size(dimension), recall, gained))
    return rows


def table(rows: Sequence[Row]) -> str:
    names = list(rows[0].recall)
    lines = [
        f"| dimensions | form | bytes | {' | '.join(f'{name}' for name in names)} | mean | nDCG@10, mean |",
        f"|---|---|---|{'---|' * (len(names) + 2)}",
    ]
    for row in rows:
        figures = [*row.recall.values(), float(np.mean(list(row.recall.values()))), np.mean(list(row.ndcg.values()))]
        cells = " | ".join(f"{figure:.3f}" for figure in figures)
        lines.append(f"| {row.dimension} | {row.form} | {row.bytes:.0f} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--dimensions", type=int, nargs="*", help="the model's and its halves down to 48")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    model = Instructor.from_pretrained(arguments.model)
    folders = sorted(path for path in arguments.data.iterdir() if path.is_dir())
    sets = [read_set(folder, model) for folder in track(folders, "embedding", console=Console(stderr=True))]
    halves = [model.dimension >> shift for shift in range(8) if model.dimension >> shift >= 48]
    rows = measure(sets, arguments.dimensions or halves)
    sizes = ", ".join(f"{one.name} {len(one.queries)} queries, {len(one.documents):,} documents" for one in sets)
    page = f"{table(rows)}\n\nModel `{arguments.model}`; {sizes}."
    print(page)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    content = {"machine": describe(), "model": arguments.model, "rows": [asdict(row) for row in rows]}
    (OUTPUT / "compact-vectors.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    if arguments.write is not None:
        before, _, rest = arguments.write.read_text("utf-8").partition(BEGIN)
        with whole_file(arguments.write) as partial:
            partial.write_text(f"{before}{BEGIN}\n{page}\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main()
