"""`anytask train`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from rich.markup import escape

from anytask.cli.common import DtypeOption, err, load_embedder, plain_errors
from anytask.training.options import TrainingOptions


def with_training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the command's `**options` by one option for each field of `TrainingOptions`, with its help."""
    hints = get_type_hints(TrainingOptions, include_extras=True)
    own = inspect.signature(command, eval_str=True)
    parameters = [parameter for parameter in own.parameters.values() if parameter.kind != parameter.VAR_KEYWORD]
    for field in fields(TrainingOptions):
        kind, description = get_args(hints[field.name])
        many = kind == tuple[str, ...]
        parameters.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None if many else field.default,
                annotation=Annotated[
                    list[str] | None if many else kind,
                    typer.Option(help=description + (" May be repeated." if many else ""), rich_help_panel="Recipe"),
                ],
            )
        )

    def run(**arguments: Any) -> None:
        command(**arguments)

    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    return run


@with_training_options
def train(
    context: typer.Context,
    records: Annotated[list[Path], typer.Argument(help="MEDI records (.json, .jsonl, also .gz or .zst).")],
    output: Annotated[Path, typer.Option(help="Folder of the trained model; training/ in it keeps the run.")],
    model: Annotated[
        str | None, typer.Option(help="Where to start: a bundled model, a checkpoint folder, or a hub id.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help='Instead, sizes of a new model: "d_model=256,num_layers=4,num_heads=4,d_ff=1024".'),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Of a new model: a tokenizer.json or a folder; else learnt from the records.")
    ] = None,
    evaluate_on: Annotated[
        list[Path] | None, typer.Option("--eval", help="Records to evaluate on during training; may be repeated.")
    ] = None,
    suite: Annotated[
        Path | None, typer.Option(help="Folder of an evaluation suite; its mean decides which model is the best.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="A model whose vectors of the texts are learnt too (distillation).")
    ] = None,
    teacher_sentence_transformers: Annotated[
        bool, typer.Option("--teacher-sentence-transformers", help="The teacher is a sentence-transformers model.")
    ] = False,
    few_shot: Annotated[
        bool,
        typer.Option(
            "--few-shot",
            help="RECORDS and --eval are labelled examples {text, label}, a handful of each label: adapt the model to "
            "tell them apart, by low-rank adapters, or with --freeze encoder by the dense layer.",
        ),
    ] = False,
    instruction: Annotated[
        str | None, typer.Option(help="With --few-shot: the instruction that the model is adapted for.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="The model's licence, for its card.")] = None,
    device: Annotated[str | None, typer.Option(help='"cpu"; else a GPU where there is one.')] = None,
    **options: Any,
) -> None:
    """Train or fine-tune an INSTRUCTOR. Killed at any point, the same command goes on.

    Several GPUs or machines: [bold]accelerate launch -m anytask train ...[/bold] or
    [bold]torchrun --nproc-per-node 2 -m anytask train ...[/bold]
    """
    with plain_errors():
        from anytask.training.run import train as run_training
        from anytask.training.start import Start

        recipe = {**options, "freeze": tuple(options["freeze"] or ())}
        for name in ("init", "tokenizer", "suite", "teacher") if few_shot else ("instruction",):
            if was_given(context, name):
                raise ValueError(f"--{name} goes {'without' if few_shot else 'with'} --few-shot")
        if few_shot:
            given = {name for name in recipe if was_given(context, name)}
            folder = adapt_to_examples(
                records,
                output,
                model=model,
                instruction=instruction,
                evaluate_on=evaluate_on or (),
                licence=licence,
                device=device,
                options={name: recipe[name] for name in given},
            )
            err.print(f"adapted: {escape(str(folder))}", soft_wrap=True, highlight=False)
            return
        embedder = None
        if teacher is not None:
            embedder = load_embedder(teacher, device, DtypeOption.FLOAT32, teacher_sentence_transformers)
        folder = run_training(
            records,
            output,
            start=Start(model=model, init=init, tokenizer=tokenizer),
            options=TrainingOptions(**recipe),
            evaluate_on=evaluate_on or (),
            suite=suite,
            teacher=embedder,
            licence=licence,
            device=device,
        )
    err.print(f"trained: {escape(str(folder))}", soft_wrap=True, highlight=False)


def was_given(context: typer.Context, name: str) -> bool:
    """Whether the user gave the option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def adapt_to_examples(
    files: Sequence[Path],
    output: Path,
    *,
    instruction: str | None,
    evaluate_on: Sequence[Path],
    options: Mapping[str, Any],
    **rest: Any,
) -> Path:
    """Few-shot adaptation to labelled files; `options` are those that the user gave."""
    from anytask.training.building.labelled import read_labelled
    from anytask.training.few_shot import DEFAULT_INSTRUCTION, Example, adapt

    def examples(paths: Sequence[Path]) -> list[Example]:
        labelled = [read_labelled(path) for path in paths]
        return [Example(*pair) for side in labelled for pair in zip(side.texts, side.labels, strict=True)]

    return adapt(
        examples(files),
        output,
        instruction=DEFAULT_INSTRUCTION if instruction is None else instruction,
        evaluate_on=examples(evaluate_on),
        **rest,
        **options,
    )
