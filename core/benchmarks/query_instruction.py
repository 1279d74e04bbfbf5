"""Does a query retrieve better with its instruction? nDCG@10 of retrieval tasks, by what the query comes with.

    python core/benchmarks/query_instruction.py --suite FOLDER [--model mini]

The documents are embedded with their instruction in every column but the last, in which neither side has one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from anytask import Instructor
from anytask.evaluation.families import Instructions, retrieval
from anytask.evaluation.suite import RIGHT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--suite", type=Path, required=True)
    arguments = parser.parse_args()
    model = Instructor.from_pretrained(arguments.model)
    default = Instructions(model.query_instruction, model.document_instruction)
    columns = ("default instruction", "its task's instruction", "none", "none, documents too")
    table = Table("", *columns, title=f"{arguments.model}: nDCG@10 by the query's instruction")
    scores = []
    for task in track(["cacm", "covid_faq", "xquad_en"], description="tasks"):
        right = RIGHT[f"retrieval/{task}"]
        settings = (default, right, Instructions(None, default.document), Instructions(None, None))
        row = [retrieval(model, arguments.suite / "retrieval" / task, setting)[0] for setting in settings]
        scores.append(row)
        table.add_row(task, *(f"{score:.3f}" for score in row))
    table.add_section()
    table.add_row("mean", *(f"{sum(column) / len(column):.3f}" for column in zip(*scores, strict=True)))
    Console().print(table)


if __name__ == "__main__":
    main()
