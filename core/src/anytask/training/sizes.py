"""Sizes of a new model, as values and as they are written on a command line."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from anytask.encoder import ACTIVATIONS, T5Config


@dataclass(frozen=True)
class Sizes:
    """Sizes of a new model, under the names of T5's `config.json`; the defaults are those of T5 small.

    Args:
        feed_forward_proj: an activation ("relu", "gelu", "gelu_new", "silu"), with "gated-" before it as in T5 v1.1.
        dimension: length of the model's vectors, which the dense layer gives; 0 for no dense layer, vectors of
            `d_model`.
        vocab_size: rows of the embedding table; None for as many as the tokenizer needs.

    Raises:
        ValueError: a size that none can be; the message names it.
    """

    d_model: int = 512
    num_layers: int = 6
    num_heads: int = 8
    d_kv: int = 64
    d_ff: int = 2048
    feed_forward_proj: str = "relu"
    dimension: int = 512
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        for name in NUMBERS:
            value, least = getattr(self, name), 0 if name == "dimension" else 1
            if (type(value) is not int or value < least) and not (name == "vocab_size" and value is None):
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        projection = self.feed_forward_proj
        if projection.removeprefix("gated-") not in ACTIVATIONS:
            raise ValueError(
                f"feed_forward_proj must be one of {', '.join(ACTIVATIONS)}, each also with gated- before it, "
                f"got {projection!r}"
            )

    def shape(self, vocab_size: int) -> T5Config:
        """The encoder's shape with that many embeddings."""
        return T5Config(
            vocab_size=vocab_size,
            d_model=self.d_model,
            d_kv=self.d_kv,
            d_ff=self.d_ff,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            feed_forward_proj=self.feed_forward_proj,
        )


NUMBERS = tuple(field.name for field in fields(Sizes) if field.name != "feed_forward_proj")


def parse_sizes(text: str) -> Sizes:
    """Sizes as one writes them on a command line: `d_model=256,num_layers=4`, in any order.

    What isn't named follows from `d_model` as in T5's own models (`num_heads` of `d_kv` 64 each side by side fill it,
    `d_ff` is four times, `dimension` as long), else is T5 small's.

    Raises:
        ValueError: a name that is none of `Sizes`, one named twice, or a value that isn't of its kind.
    """
    given: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(f"sizes are written name=value, with commas between, got {part!r}")
        if name not in NUMBERS and name != "feed_forward_proj":
            raise ValueError(f"there is no size {name!r}; there are {', '.join(field.name for field in fields(Sizes))}")
        if name in given:
            raise ValueError(f"{name} is given twice")
        given[name] = _integer(name, value) if name in NUMBERS else value
    d_model, d_kv = given.get("d_model", Sizes.d_model), given.get("d_kv", Sizes.d_kv)
    named = Sizes(**given)  # refuses wrong values before they are counted with
    if "num_heads" not in given and d_model % d_kv:
        raise ValueError(f"num_heads must be given: d_model {d_model} is no multiple of d_kv {d_kv}")
    derived = {"num_heads": d_model // d_kv, "d_ff": 4 * d_model, "dimension": d_model}
    return replace(named, **{name: value for name, value in derived.items() if name not in given})


def _integer(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{name} must be an integer, got {value!r}") from None
