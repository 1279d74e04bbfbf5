"""What a training run can be told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

from anytask.training.contrastive import Variant

Schedule = Literal["linear", "cosine", "constant"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of `train`; the defaults are the paper's recipe (arXiv 2212.09741, section 2.2 and appendix A).

    Raises:
        ValueError: an option outside its range; the message names it.
    """

    steps: Annotated[int, "Optimiser steps."] = 20_000
    epochs: Annotated[float | None, "Passes over the records; instead of steps."] = None
    batch_size: Annotated[int, "Pairs of a step, over all processes together. A batch is of one task."] = 64
    learning_rate: Annotated[float, "Peak learning rate of AdamW."] = 2e-5
    warmup_ratio: Annotated[float, "Share of the steps in which the rate rises."] = 0.1
    schedule: Annotated[Schedule, "What the rate does afterwards."] = "linear"
    weight_decay: Annotated[float, "AdamW's, of the matrices."] = 0.0
    max_grad_norm: Annotated[float, "Longest gradient; 0 doesn't clip."] = 1.0
    temperature: Annotated[float, "Divides the cosines in the contrastive loss."] = 0.01
    variant: Annotated[Variant, "Candidates of a query: the batch's positives and negatives, or as released."] = "paper"
    max_negatives: Annotated[int, "Most hard negatives that are taken of a record."] = 4
    keep_false_negatives: Annotated[bool, "Don't leave identical texts out of the candidates."] = False
    mixing: Annotated[float, "Tasks are drawn with probability size^(1/mixing): 1 by size, larger more evenly."] = 1.0
    max_length: Annotated[int | None, "Most tokens of a text with its instruction; none takes the model's."] = None
    instruction_paraphrase: Annotated[float, "Probability that an instruction is reworded."] = 0.0
    instruction_dropout: Annotated[float, "Probability that a record loses its instructions."] = 0.0
    word_dropout: Annotated[float, "Probability with which each word of a text is left out."] = 0.0
    teacher_weight: Annotated[float, "Weight of the distillation term, where a teacher is given."] = 1.0
    contrastive_weight: Annotated[float, "Weight of the contrastive loss."] = 1.0
    freeze: Annotated[
        tuple[str, ...], "Parts that stay: embeddings, position_bias, layers:N (the first N), encoder."
    ] = ()
    lora_rank: Annotated[int, "Rank of low-rank adapters on the encoder's matrices; 0 trains the matrices."] = 0
    lora_alpha: Annotated[int | None, "Scale of the adapters; none is twice their rank."] = None
    dropout: Annotated[float | None, "Dropout in training; none is the checkpoint's."] = None
    precision: Annotated[Precision, "Of the matrix products; weights and optimiser are float32."] = "float32"
    chunk_tokens: Annotated[
        int | None,
        "Most tokens computed together; none is 4,096 on a CPU, on a GPU what its memory holds, 32,768 at most.",
    ] = None
    gradient_cache: Annotated[bool, "Compute chunks twice, so that memory holds one chunk and not the batch."] = False
    gradient_checkpointing: Annotated[bool, "Compute layers twice, so that memory holds their inputs only."] = False
    log_every: Annotated[int, "Steps between lines of the log."] = 10
    eval_every: Annotated[int, "Steps between evaluations; 0 evaluates ten times."] = 0
    save_every: Annotated[int, "Steps between checkpoints; 0 saves when it evaluates."] = 0
    keep: Annotated[int, "Checkpoints that are kept beside the best."] = 2
    held_out: Annotated[int, "Records held out to evaluate on, spread over the tasks, at most a tenth of each."] = 1000
    seed: Annotated[int, "Of the order of batches, dropout and new weights."] = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("log_every", 1), ("keep", 0), ("max_negatives", 0)):
            self._at_least(name, least)
        for name in ("eval_every", "save_every", "held_out", "lora_rank", "max_grad_norm", "weight_decay", "seed"):
            self._at_least(name, 0)
        for name, least in (("teacher_weight", 0), ("contrastive_weight", 0), ("max_length", 2)):
            self._at_least(name, least)
        for name in ("warmup_ratio", "instruction_paraphrase", "instruction_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        for name in ("word_dropout", "dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} must be from 0 to less than 1, got {value}")
        for name in ("learning_rate", "temperature", "mixing", "epochs", "chunk_tokens", "lora_alpha"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        for name, choices in (("schedule", Schedule), ("variant", Variant), ("precision", Precision)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {getattr(self, name)!r}")

        if self.lora_rank and "encoder" in self.freeze:
            raise ValueError(
                f"lora_rank {self.lora_rank} adapts the encoder, which freeze leaves as it is: give one of them"
            )

    def _at_least(self, name: str, least: float) -> None:
        value = getattr(self, name)
        if value is not None and not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}")

    def to_json(self) -> dict[str, Any]:
        """The options as a JSON object."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
