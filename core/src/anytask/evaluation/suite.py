"""A suite of evaluation tasks: a folder of JSON lines, one subfolder a family.

    sts/NAME.jsonl[.gz]                {a, b, score}
    classification/NAME.jsonl[.gz]     {text, label, split}
    retrieval/NAME/{corpus,queries,qrels}.jsonl[.gz]
    rerank/NAME.jsonl[.gz]             {query, pos, neg}
    clustering/NAME.jsonl[.gz]         {text, label}
    pairs/NAME.jsonl[.gz]              {a, b, label}
    textgen/NAME.jsonl[.gz]            {hyp, refs, human_score}
    prompt_retrieval/NAME.jsonl[.gz]   {input, output, split}

Any part of it may be missing and any file may be added. `RIGHT` holds the instructions of the tasks known by name;
other files get their family's default.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from anytask.evaluation.data import RETRIEVAL_PARTS, find_file, stems
from anytask.evaluation.embedder import Embedder
from anytask.evaluation.families import FAMILIES, Instructions

InstructionChoice = Literal["right", "none", "wrong"]

INTENT = Instructions.both("Represent the voice assistant utterance for classifying the user's intent: ")
ENTAILMENT = Instructions.both(
    "Represent the sentence pair for retrieving examples with the same entailment relation: "
)

RIGHT = {
    "sts/stsb.dev": Instructions.both("Represent the sentence for measuring semantic similarity: "),
    "classification/hwu64": INTENT,
    "classification/snips": INTENT,
    "classification/nlu_chatbot": Instructions.both(
        "Represent the public transport question for classifying the user's intent: "
    ),
    "classification/nlu_webapplications": Instructions.both(
        "Represent the web application question for classifying the user's intent: "
    ),
    "retrieval/cacm": Instructions(
        "Represent the computer science question for retrieving relevant abstracts: ",
        "Represent the computer science abstract for retrieval: ",
    ),
    "retrieval/covid_faq": Instructions(
        "Represent the COVID-19 question for retrieving answers: ", "Represent the COVID-19 answer for retrieval: "
    ),
    "retrieval/xquad_en": Instructions(
        "Represent the Wikipedia question for retrieving supporting documents: ",
        "Represent the Wikipedia document for retrieval: ",
    ),
    "rerank/trecqa_clean_dev": Instructions(
        "Represent the factoid question for retrieving sentences with the answer: ",
        "Represent the news sentence for retrieval: ",
    ),
    "clustering/tweet89": Instructions.both("Represent the tweet for clustering by topic: "),
    "clustering/20ng_subject": Instructions.both("Represent the newsgroup subject line for clustering by topic: "),
    "pairs/covid_question_similarity": Instructions.both(
        "Represent the COVID-19 question for retrieving duplicate questions: "
    ),
    "textgen/mscoco": Instructions.both("Represent the image caption for retrieving captions of the same image: "),
    "textgen/cnndm": Instructions.both("Represent the news summary for retrieving summaries of the same article: "),
    "prompt_retrieval/mnli": ENTAILMENT,
    "prompt_retrieval/rte": ENTAILMENT,
    "prompt_retrieval/cb": ENTAILMENT,
    "prompt_retrieval/copa": Instructions.both(
        "Represent the cause and effect question for retrieving examples with the same answer: "
    ),
    "prompt_retrieval/dbpedia14": Instructions.both(
        "Represent the encyclopedia article for retrieving examples of the same category: "
    ),
}

# A family's tasks under "wrong" get the default instructions of this one.
WRONG_FAMILY = {
    "sts": "classification",
    "classification": "retrieval",
    "retrieval": "clustering",
    "rerank": "textgen",
    "clustering": "sts",
    "pairs": "prompt_retrieval",
    "textgen": "rerank",
    "prompt_retrieval": "pairs",
}


@dataclass(frozen=True)
class Task:
    """A task of a suite: `name` is FAMILY/STEM, `path` its file or, for retrieval, its folder."""

    name: str
    family: str
    path: Path

    @property
    def measure(self) -> str:
        return FAMILIES[self.family].measure

    def instructions(self, choice: InstructionChoice) -> Instructions:
        """This task's own instructions, none, or another family's.

        Raises:
            ValueError: `choice` is none of the three.
        """
        if choice == "right":
            return RIGHT.get(self.name, FAMILIES[self.family].default)
        if choice == "none":
            return Instructions(None, None)
        if choice == "wrong":
            return FAMILIES[WRONG_FAMILY[self.family]].default
        raise ValueError(f"instructions must be 'right', 'none' or 'wrong', got {choice!r}")


@dataclass(frozen=True)
class Result:
    """What an embedder reached on a task.

    Args:
        task: FAMILY/STEM.
        family: the task's family.
        measure: the figure's name, such as "nDCG@10".
        scores: the figure of every seed; a single one where nothing is drawn.
        query_instruction: given with the first side's texts (queries, `a`, hypotheses, test inputs).
        document_instruction: given with the other side's.
        seconds: wall time, reading and embedding included.
    """

    task: str
    family: str
    measure: str
    scores: tuple[float, ...]
    query_instruction: str | None
    document_instruction: str | None
    seconds: float

    @property
    def score(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.scores))

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None where there is a single figure."""
        return float(np.std(self.scores)) if len(self.scores) > 1 else None


def find_tasks(folder: str | Path, names: Sequence[str] | None = None) -> list[Task]:
    """The tasks of a suite folder, by family.

    Args:
        folder: see the module's layout.
        names: only these; each a task ("sts/stsb.dev"), the last part of one ("stsb.dev") or a family ("sts").

    Raises:
        FileNotFoundError: no such folder, or nothing of a suite in it.
        ValueError: a name that fits no task of the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no suite folder at {folder}")
    tasks = [task for family in FAMILIES for task in family_tasks(folder / family, family)]
    if not tasks:
        raise FileNotFoundError(
            f"{folder} holds no evaluation task; expected JSON-lines files in one or more of the subfolders "
            f"{', '.join(FAMILIES)}"
        )
    if names is None:
        return tasks
    for name in names:
        if not any(fits(task, name) for task in tasks):
            raise ValueError(f"no task {name!r} in {folder}; it has {', '.join(task.name for task in tasks)}")
    return [task for task in tasks if any(fits(task, name) for name in names)]


def family_tasks(folder: Path, family: str) -> list[Task]:
    if family == "retrieval":
        inner = sorted(path for path in folder.glob("*/") if any(find_file(path, part) for part in RETRIEVAL_PARTS))
        return [Task(f"{family}/{path.name}", family, path) for path in inner]
    found = [(stem, find_file(folder, stem)) for stem in stems(folder)]
    return [Task(f"{family}/{stem}", family, path) for stem, path in found if path is not None]


def fits(task: Task, name: str) -> bool:
    return name in (task.name, task.family, task.name.partition("/")[2])


def evaluate_task(embedder: Embedder, task: Task, instructions: InstructionChoice | Instructions = "right") -> Result:
    """One task's figure; what is drawn and measured is told by the family's function in `families`.

    Args:
        embedder: see `evaluate`.
        task: from `find_tasks`.
        instructions: "right", "none" or "wrong" (see `evaluate`), or the instructions themselves.

    Raises:
        ValueError: the task's data is unusable (the message names file and line), or the embedder's vectors are.
    """
    started = time.perf_counter()
    chosen = instructions if isinstance(instructions, Instructions) else task.instructions(instructions)
    scores = FAMILIES[task.family].run(embedder, task.path, chosen)
    if not np.isfinite(scores).all():
        raise ValueError(f"{task.path}: {task.measure} is not defined there; are all its scores or labels the same?")
    return Result(
        task=task.name,
        family=task.family,
        measure=task.measure,
        scores=tuple(scores),
        query_instruction=chosen.query,
        document_instruction=chosen.document,
        seconds=time.perf_counter() - started,
    )


def evaluate(
    embedder: Embedder,
    folder: str | Path,
    tasks: Sequence[str] | None = None,
    instructions: InstructionChoice = "right",
) -> list[Result]:
    """Every task of a suite folder, or those named in `tasks` (see `find_tasks`).

    Larger sets are sampled by a fixed seed, see `families` for the caps: an embedder of 7M parameters needs two to
    three minutes on one core for the whole development suite.

    Args:
        embedder: an `Instructor`, or anything with `encode(texts, instruction=...)`.
        folder: the suite.
        tasks: task or family names; None means all.
        instructions: "right" (each task's own), "none", or "wrong" (another family's).
    """
    return [evaluate_task(embedder, task, instructions) for task in find_tasks(folder, tasks)]
