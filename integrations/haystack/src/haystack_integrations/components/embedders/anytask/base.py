"""What the two embedders share: settings, the model behind them, and serialisation."""

# Annotations are evaluated here, not postponed: they end up in the generated constructors of other modules.

import os
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self

from haystack import default_from_dict, default_to_dict
from haystack.utils import ComponentDevice, Secret

from anytask import Embedder, Instruction
from anytask.background import in_background

HUB_TOKEN = Secret.from_env_var("HF_API_TOKEN", strict=False)


@dataclass(eq=False, repr=False)
class InstructorEmbedder:
    """Settings of an embedder; the model is loaded by `warm_up` or the first `run`.

    It is one in memory for all components and copies in the process that are configured for the same.

    Args:
        model: "mini" (bundled, no network), a local folder, or a hub id such as "hkunlp/instructor-large".
        device: None takes a GPU where there is one, else the CPU.
        token: for private models on the hub. None, or an unset variable, takes `HF_TOKEN` or the stored login.
        instruction: Haystack's former name of the component's own instruction, `query_instruction` or
            `document_instruction`; give one of the two. None takes the checkpoint's prompt, else anytask's default,
            and "" embeds without an instruction.
        batch_size: accepted for existing code, without effect: batches are formed by `batch_tokens`.
        progress_bar: draw a bar over the documents on standard error; a single text and `run_async` have none.
        normalize_embeddings: accepted for existing code, without effect, as it was with the released checkpoints: they
            end in a Normalize module, so that their vectors were of unit length either way.
        normalize: give unit vectors; False gives raw ones.
        truncate_dim: keep this many leading dimensions (then normalise).
        dtype: "float32", "bfloat16", "float16" or "int8": precision of the matrix products; None takes the
            checkpoint's.
        max_length: most tokens of a text with its instruction; None takes the checkpoint's.
        batch_tokens: most tokens computed in one step; None suits the device.
        revision: branch, tag or commit on the hub.
        cache_dir: instead of the hub's cache folder.
        local_files_only: never go to the network.

    Raises:
        TypeError: `device` is no `ComponentDevice`, or `token` no `Secret`.
        ValueError: `device` is a map of several devices, or two settings contradict each other.
    """

    model: str | os.PathLike[str] = "mini"
    device: ComponentDevice | None = None
    token: Secret | None = HUB_TOKEN
    instruction: str | Instruction | None = None
    batch_size: int = 32
    progress_bar: bool = True
    normalize_embeddings: bool | None = None
    _: KW_ONLY
    normalize: bool = True
    truncate_dim: int | None = None
    dtype: str | None = None
    max_length: int | None = None
    batch_tokens: int | None = None
    revision: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False

    side_instruction: ClassVar[Literal["query_instruction", "document_instruction"]]
    """Which of the project's two instructions is the component's own."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, (Instruction, os.PathLike)):
                setattr(self, setting.name, str(value))
        self._check_settings()

    def _check_settings(self) -> None:
        if not isinstance(self.device, ComponentDevice | None):
            raise TypeError(
                "device must be a ComponentDevice, such as ComponentDevice.from_str('cuda'), "
                f"got {type(self.device).__name__}"
            )
        if self.device is not None and self.device.has_multiple_devices:
            raise ValueError("device must be a single device, got a map of several")
        if not isinstance(self.token, Secret | None):
            raise TypeError(
                f"token must be a Secret, such as Secret.from_env_var('HF_TOKEN'), got {type(self.token).__name__}"
            )
        own = getattr(self, self.side_instruction)
        if None not in (own, self.instruction) and own != self.instruction:
            raise ValueError(
                f"instruction={self.instruction!r} and {self.side_instruction}={own!r} are two names of one setting; "
                "give one of them"
            )
        if self.normalize_embeddings and not self.normalize:
            raise ValueError("normalize_embeddings=True and normalize=False contradict each other; leave one out")

    @property
    def embedder(self) -> Embedder:
        """The settings as `anytask` takes them, the token resolved."""
        own = getattr(self, self.side_instruction)
        instruction: dict[str, Any] = {self.side_instruction: self.instruction if own is None else own}
        return Embedder(
            model=os.fspath(self.model),
            device=None if self.device is None else self.device.to_torch_str(),
            dtype=self.dtype,
            max_length=self.max_length,
            batch_tokens=self.batch_tokens,
            normalize=self.normalize,
            truncate_dim=self.truncate_dim,
            revision=self.revision,
            cache_dir=None if self.cache_dir is None else os.fspath(self.cache_dir),
            local_files_only=self.local_files_only,
            token=None if self.token is None else self.token.resolve_value(),
            **instruction,
        )

    def warm_up(self) -> None:
        """Load the model, unless the process has it already.

        Raises:
            anytask.CheckpointError: no such model, or its files can't be used.
        """
        self.embedder.load()

    async def warm_up_async(self) -> None:
        """`warm_up` without blocking the event loop."""
        await in_background(self.warm_up)

    def to_dict(self) -> dict[str, Any]:
        """The component as plain data.

        Raises:
            ValueError: the token is given in clear; take it from an environment variable.
        """
        return default_to_dict(self, **{setting.name: getattr(self, setting.name) for setting in fields(self)})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The component that `to_dict` described."""
        return default_from_dict(cls, data)

    def __copy__(self) -> Self:
        """A component with the same settings, and in no pipeline."""
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return replace(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles carry what `to_dict` gives, so that a token in clear is refused there as well."""
        return type(self).from_dict, (self.to_dict(),)
