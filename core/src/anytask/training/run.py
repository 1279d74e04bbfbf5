"""One training run, from records and a model to a model folder: what `anytask train` does."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from anytask.checkpoint import load_checkpoint, save_checkpoint
from anytask.configuration import lasting_prompts
from anytask.files.whole import whole_file, write_json
from anytask.files.work_folder import digest
from anytask.tokenization import InstructionTokenizer
from anytask.training.batches import Rows, TaskBatches, expected_batch_size
from anytask.training.collation import PairBatches
from anytask.training.gradient_cache import choose_attention
from anytask.training.medi.record_files import read_records
from anytask.training.medi.records import Record
from anytask.training.options import TrainingOptions
from anytask.training.pair_store import PairStore
from anytask.training.report.curves import draw_curves
from anytask.training.report.metrics_file import MetricsFile
from anytask.training.report.model_card import write_model_card
from anytask.training.report.run_log import EVALUATION
from anytask.training.run_folder import WORK, check_settings, remove_leftovers
from anytask.training.splits import SMALLEST_TASK, hold_out
from anytask.training.start import Start
from anytask.training.teacher import TeacherVectors
from anytask.training.trainer import Evaluation, Trainer
from anytask.training.validation import PairRetrieval

if TYPE_CHECKING:
    from accelerate import Accelerator

    from anytask.evaluation import Embedder
    from anytask.model import Instructor

logger = logging.getLogger(__name__)

RECORDS = "records.arrow"
ALONE = timedelta(days=1)
"""How long processes wait for the one that embeds for the teacher, learns a vocabulary or evaluates."""


def train(
    records: str | Path | Sequence[str | Path] | Iterable[Record],
    output: str | Path,
    *,
    start: Start | str | None = None,
    options: TrainingOptions | None = None,
    evaluate_on: Sequence[str | Path] = (),
    suite: str | Path | None = None,
    teacher: Embedder | None = None,
    prompts: Mapping[str, str] | None = None,
    licence: str | None = None,
    device: str | None = None,
) -> Path:
    """Train an INSTRUCTOR; the same call goes on with a run that was killed.

    Args:
        records: MEDI files (see `anytask.training.medi.record_files`), or records.
        output: becomes a model folder with a model card; `output`/training holds log, curves and checkpoints.
        start: the model to go on from, or a `Start`; by default the bundled one.
        options: the recipe; by default the paper's.
        evaluate_on: MEDI files of one's own to evaluate on during training.
        suite: an evaluation suite (see `anytask.evaluation`) to measure as well; its mean then says what is best.
        teacher: its vectors of the texts are learnt too, with `options.teacher_weight`.
        prompts: the saved model's, by name ("query", "document"); None takes the records' instructions where all have
            the same, else those of the model that it goes on from.
        licence: of the model, for its card.
        device: "cpu", or None for a GPU where there is one. Several processes are accelerate's or torchrun's to start.

    Returns:
        the output folder, with the best model of the evaluations, or the last where there are none.

    Raises:
        ImportError: a package of `anytask[train]` is missing.
        TypeError: something in `records` is neither a file nor a record.
        ValueError: options that don't go together, or the output of another run; a loss that isn't finite any more.
        RecordError: a record that can't be used.
        CheckpointError: a model that can't be loaded.
    """
    start = start if isinstance(start, Start) else Start(model=start)
    options = options or TrainingOptions()
    accelerator = make_accelerator(options, device)
    output = Path(output).expanduser()
    work = output / WORK
    with accelerator.main_process_first():
        if accelerator.is_main_process:
            remove_leftovers(output)
        with _stored(records, work) as path:
            check_settings(
                work,
                {
                    "records": digest(path),
                    **vars(start),
                    **options.to_json(),
                    "evaluate_on": [str(path) for path in evaluate_on] or None,
                    "suite": None if suite is None else str(suite),
                    "teacher": None if teacher is None else "given",
                    "prompts": None if prompts is None else dict(prompts),
                },
            )
        store = PairStore(work / RECORDS)
        checkpoint = start.checkpoint(store, work, max_length=options.max_length, seed=options.seed)
        taught = None if teacher is None else TeacherVectors.of_records(store, teacher, work / "teacher")
    own = _common_instructions(store) or checkpoint.prompts
    checkpoint.prompts = lasting_prompts(own if prompts is None else prompts)
    usable = _usable(store.tasks(), told=accelerator.is_main_process)
    tasks, held_out = hold_out(usable, options.held_out, options.seed)
    batches = PairBatches(
        store,
        TaskBatches(tasks, options.batch_size, _steps(options, tasks), mixing=options.mixing, seed=options.seed),
        InstructionTokenizer(checkpoint.tokenizer, checkpoint.max_length),
        options,
        teacher=taught,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    for instruction in store.instructions():
        batches.tokenizer.instruction_tokens(instruction)  # told now, not at the step that draws it
    evaluations = _evaluations([store[int(row)] for row in held_out], evaluate_on, suite)
    trainer = Trainer(checkpoint, options, batches, accelerator, work, evaluations)
    trainer.run()
    if accelerator.is_main_process:
        finish(trainer, output, start=start, data=_data(store, tasks, held_out), licence=licence)
    accelerator.wait_for_everyone()
    return output


def finish(
    trainer: Trainer,
    output: Path,
    *,
    start: Start,
    data: Mapping[str, Any],
    licence: str | None,
    unused: Container[str] = (),
) -> None:
    """Save the best model, else the last, as `output`, with its card, which tells the options but those `unused`, and
    curves.
    """
    used = {name: value for name, value in trainer.options.to_json().items() if name not in unused}
    best = load_checkpoint(trainer.best_folder) if trainer.evaluations else trainer.trained()
    save_checkpoint(best, output, workspace=trainer.folder)
    write_model_card(
        output,
        recipe={"new model": start.init, **used, "steps": trainer.steps},
        data=data,
        evaluation=MetricsFile(trainer.folder / EVALUATION).read(),
        step=trainer.progress.best_step if trainer.evaluations else None,
        base_model=start.base,
        licence=licence,
        curves=draw_curves(trainer.folder),
    )


def make_accelerator(options: TrainingOptions, device: str | None) -> Accelerator:
    """Device, processes and precision.

    Raises:
        ImportError: accelerate, or what draws the curves at the end, isn't installed.
        ValueError: a device other than the CPU or what accelerate finds, float16 on a CPU, or fewer pairs in a batch
            than processes.
    """
    try:
        import matplotlib  # noqa: F401, of which a run that is at its end shouldn't find that it is missing
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import InitProcessGroupKwargs
    except ImportError as error:
        raise ImportError(
            f'training needs accelerate and matplotlib ({error}); install them with: pip install "anytask[train]"'
        ) from error
    precision = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[options.precision]
    alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
    AcceleratorState._reset_state(alone)  # an earlier run of this process has fixed it to its precision and device
    patience = InitProcessGroupKwargs(timeout=ALONE)
    try:
        accelerator = Accelerator(mixed_precision=precision, cpu=device == "cpu", kwargs_handlers=[patience])
    except ValueError as error:
        raise ValueError(f"can't train in {options.precision} here: {error}") from error
    if device not in (None, accelerator.device.type):
        raise ValueError(
            f"training runs on {accelerator.device}, not on {device!r}: choose a GPU by CUDA_VISIBLE_DEVICES, several "
            "by accelerate launch or torchrun"
        )
    if options.precision == "float16" and accelerator.device.type == "cpu":
        raise ValueError("can't train in float16 on a CPU, which computes bfloat16 and float32")
    choose_attention(accelerator.device)
    if options.batch_size < accelerator.num_processes:
        raise ValueError(f"batch_size {options.batch_size} gives some of {accelerator.num_processes} processes nothing")
    return accelerator


@contextmanager
def _stored(records: str | Path | Sequence[str | Path] | Iterable[Record], work: Path) -> Iterator[Path]:
    """The file of a `PairStore` of the records: that of the run, where it is known to hold them, or a new one, which
    takes its place at the end of the block and is gone after an error.
    """
    given = [records] if isinstance(records, str | Path) else list(records)
    files = [Path(source) for source in given if isinstance(source, str | Path)]
    if files and len(files) < len(given):
        raise TypeError("records must be all files or all records, got both")
    sources = [
        {"path": str(path.resolve()), "size": path.stat().st_size, "time": path.stat().st_mtime_ns} for path in files
    ]
    kept, listing = work / RECORDS, work / "records.json"
    if files and kept.is_file() and listing.is_file() and json.loads(listing.read_text("utf-8")) == sources:
        yield kept
        return
    with whole_file(kept) as path:
        read = chain.from_iterable(map(read_records, files)) if files else map(_checked, count(), given)
        PairStore.write(read, path)
        yield path
        listing.unlink(missing_ok=True)
    if files:
        write_json(listing, sources)


def _checked(place: int, record: object) -> Record:
    if not isinstance(record, Record):
        raise TypeError(
            f"records[{place}] is of type {type(record).__name__}, expected a Record (see Record.from_json)"
        )
    return record


def _usable(tasks: Mapping[str, Rows], *, told: bool) -> dict[str, Rows]:
    """The tasks that give batches; what is left out is `told`."""
    usable = {name: rows for name, rows in tasks.items() if len(rows) >= SMALLEST_TASK}
    if not usable:
        raise ValueError(
            f"none of the {len(tasks)} tasks has at least {SMALLEST_TASK} records, and a batch is of one task; "
            "give records that belong together the same task_id"
        )
    left_out = [len(rows) for name, rows in tasks.items() if name not in usable]
    if told and left_out:
        logger.warning(
            "%d of %d tasks have fewer than %d records and are left out, %d of %d records: a batch is of one task; "
            "give records that belong together the same task_id",
            *(len(left_out), len(tasks), SMALLEST_TASK, sum(left_out), sum(map(len, tasks.values()))),
        )
    return usable


def _steps(options: TrainingOptions, tasks: Mapping[str, Rows]) -> int:
    if options.epochs is None:
        return options.steps
    rows = sum(map(len, tasks.values()))
    return max(1, math.ceil(options.epochs * rows / expected_batch_size(tasks, options.batch_size, options.mixing)))


def _common_instructions(store: PairStore) -> dict[str, str]:
    """The queries' and the positives' instruction, where all records have the same."""
    first = store[0].query.instruction, store[0].pos.instruction
    same = all((record.query.instruction, record.pos.instruction) == first for record in store)
    return dict(zip(("query", "document"), first, strict=True)) if same else {}


def _evaluations(
    held_out: Sequence[Record], files: Sequence[str | Path], suite: str | Path | None
) -> dict[str, Evaluation]:
    """By name; the first decides which model is the best."""
    evaluations: dict[str, Evaluation] = {}
    if suite is not None:
        evaluations["suite"] = _suite(suite)
    names = Counter(Path(path).name for path in files)
    for path in files:
        name = Path(path).name
        evaluations[str(path)] = PairRetrieval(name if names[name] == 1 else str(path), read_records(path))
    if len({record.pos for record in held_out}) > 1:
        evaluations["held out"] = PairRetrieval("held out", held_out)
    return evaluations


def _suite(folder: str | Path) -> Evaluation:
    from anytask.evaluation import evaluate, family_means, overall

    def measure(model: Instructor) -> dict[str, float]:
        results = evaluate(model, folder)
        return {"suite": overall(results), **{f"suite {name}": mean for name, mean in family_means(results).items()}}

    return measure


def _data(store: PairStore, tasks: Mapping[str, Rows], held_out: Rows) -> dict[str, Any]:
    """What the model card tells: sizes, and each task's instructions, those of its first record."""
    first = {name: store[int(rows[0])] for name, rows in tasks.items()}
    return {
        "tasks": {name: len(rows) for name, rows in tasks.items()},
        "held_out": len(held_out),
        "instructions": {name: (record.query.instruction, record.pos.instruction) for name, record in first.items()},
    }
