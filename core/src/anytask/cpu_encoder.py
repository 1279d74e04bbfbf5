"""The T5 encoder as it runs on a CPU: the numbers of `anytask.encoder`, for inference alone.

The layers are those of `T5Encoder`; what differs is how little memory they touch. Matrices are packed
(`anytask.linear`); the norms are one pass for the rows' lengths and one to scale; sums go into the residual stream in
place. Attention (`anytask.cpu_attention`) is computed in float32 in every precision, which is no slower than bfloat16
there.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor

from anytask.cpu_attention import StepAttention
from anytask.encoder import LengthGroup, T5Config, relative_position_bucket
from anytask.heap import keep_freed_memory
from anytask.linear import FloatLinear, Int8Linear, Linear, dequantised, quantised
from anytask.weights import SCALE, is_quantised

CPU_DTYPES = (torch.float32, torch.bfloat16, torch.int8)


class CpuEncoder:
    """T5's encoder over packed tokens, float32 in and out, with matrices of `dtype`.

    Called like `T5Encoder`, and its `state_dict` has the same names; an int8 one has a `weight_scale` beside each
    quantised `weight`.

    Args:
        config: the shape.
        state: as of `T5Encoder.state_dict()`, floats or int8 with scales. It is emptied on the way, so that the
            memory of a matrix that nobody else holds is free when the next is packed.
        dtype: one of `CPU_DTYPES`. int8 matrices stay so.
    """

    def __init__(self, config: T5Config, state: MutableMapping[str, Tensor], dtype: torch.dtype) -> None:
        self.config = config
        self.dtype = torch.int8 if is_quantised(state) else dtype
        table = torch.bfloat16 if self.dtype == torch.int8 else self.dtype
        self._embedding = state.pop("embed_tokens.weight").detach().to(table)  # first: it may be read from its file
        self._position_bias = state.pop("relative_attention_bias.weight").detach().float()
        self._final_gain = state.pop("final_norm.weight").detach().float()
        self._epsilon = torch.tensor(config.layer_norm_epsilon, dtype=torch.float32, device="cpu")
        self._bias_by_distance = self._bias_up_to(1)
        self._blocks = [_Block(config, state, f"blocks.{layer}", self.dtype) for layer in range(config.num_layers)]
        keep_freed_memory()

    @property
    def table_dtype(self) -> torch.dtype:
        """Precision of the token embeddings."""
        return self._embedding.dtype

    def state_dict(self) -> dict[str, Tensor]:
        """The weights, unpacked, in this precision."""
        state = {
            "embed_tokens.weight": self._embedding,
            "relative_attention_bias.weight": self._position_bias,
            "final_norm.weight": self._final_gain,
        }
        for layer, block in enumerate(self._blocks):
            state.update({f"blocks.{layer}.{name}": tensor for name, tensor in block.state().items()})
        return state

    def __getstate__(self) -> dict[str, Any]:
        # bytes, since tensors go to other processes by file descriptors, which would end with these copies
        return {"config": self.config, "dtype": self.dtype, "state": save(self.state_dict())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"], load(state["state"]), state["dtype"])  # type: ignore[misc]

    def __call__(self, token_ids: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        """Encode a packed batch.

        Args:
            token_ids: [T] integer, as for `T5Encoder.forward`.
            groups: likewise.

        Returns:
            [T, d_model] float32, the last layer's normed output.
        """
        with torch.inference_mode():
            attention = StepAttention(self.config, groups, self._bias_of(max(group.length for group in groups)))
            x = F.embedding(token_ids, self._embedding).float()
            for block in self._blocks:
                block(x, attention)
            return x.mul_(_inverse_rms(x, self._epsilon)).mul_(self._final_gain)

    def _bias_of(self, length: int) -> Tensor:
        """The relative position bias of all layers, [H, L, L]: a window on the bias of each distance slides along."""
        by_distance = self._bias_by_distance
        longest = by_distance.shape[1] // 2 + 1
        if longest < length:
            self._bias_by_distance = by_distance = self._bias_up_to(length)
            longest = length
        return by_distance[:, longest - length : longest + length - 1].unfold(1, length, 1).flip(1).contiguous()

    def _bias_up_to(self, length: int) -> Tensor:
        """The bias of each key-minus-query distance in a text, from 1 - length to length - 1, [H, 2 * length - 1]."""
        config = self.config
        bucket = relative_position_bucket(
            torch.arange(1 - length, length, device="cpu"),
            config.relative_attention_num_buckets,
            config.relative_attention_max_distance,
        )
        return F.embedding(bucket, self._position_bias).t().contiguous()


class _Block:
    """One layer: self-attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: T5Config, state: MutableMapping[str, Tensor], name: str, dtype: torch.dtype) -> None:
        self._config = config
        self._epsilon = torch.tensor(config.layer_norm_epsilon, dtype=torch.float32, device="cpu")

        def gain(norm: str) -> Tensor:
            return state.pop(f"{name}.{norm}.weight").detach().float()

        def matrix(part: str) -> dict[str, Tensor]:
            return _matrix(state, f"{name}.{part}", dtype)

        self._attention_gain, self._feed_forward_gain = gain("attention_norm"), gain("feed_forward_norm")
        self._qkv = _linear(matrix("attention.qkv"))
        self._o = _linear(matrix("attention.o"))
        wi = matrix("feed_forward.wi")
        halves = {key: tensor.chunk(2) for key, tensor in wi.items()} if config.is_gated else {}
        self._wi = _linear({key: half[0] for key, half in halves.items()} or wi, config.activation)
        self._gated = _linear({key: half[1] for key, half in halves.items()}) if config.is_gated else None
        self._wo = _linear(matrix("feed_forward.wo"), follows=None if config.is_gated else config.activation)

    def state(self) -> dict[str, Tensor]:
        state = {
            "attention_norm.weight": self._attention_gain,
            "feed_forward_norm.weight": self._feed_forward_gain,
        }
        wi = self._wi.state()
        if self._gated is not None:
            wi = {key: torch.cat([wi[key], tensor]) for key, tensor in self._gated.state().items()}
        matrices = {
            "attention.qkv": self._qkv.state(),
            "attention.o": self._o.state(),
            "feed_forward.wi": wi,
            "feed_forward.wo": self._wo.state(),
        }
        return state | {f"{name}.{key}": value for name, part in matrices.items() for key, value in part.items()}

    def __call__(self, x: Tensor, attention: StepAttention) -> None:
        """Add this layer's two parts to x [T, d_model] float32; `attention` is that of the step."""
        _write(attention.qkv, *self._qkv(x * self._attention_gain, _inverse_rms(x, self._epsilon)))
        _add(x, *self._o(attention()))
        normed, factor = x * self._feed_forward_gain, _inverse_rms(x, self._epsilon)
        _add(x, *self._wo(*self._hidden(normed, factor)))

    def _hidden(self, normed: Tensor, factor: Tensor) -> tuple[Tensor, Tensor | None]:
        if self._gated is None:
            return self._wi(normed, factor)
        gate = _scaled(*self._wi(normed.clone(), factor))
        return gate.mul_(_scaled(*self._gated(normed, factor))), None


def _inverse_rms(x: Tensor, epsilon: Tensor) -> Tensor:
    """One over the root mean square of each row of x [T, d], [T, 1]."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(epsilon, norm, norm, value=1 / x.shape[-1]).rsqrt_()


def _scaled(values: Tensor, factor: Tensor | None) -> Tensor:
    return values if factor is None else values.mul_(factor)


def _write(x: Tensor, values: Tensor, factor: Tensor | None) -> None:
    if factor is None:
        x.copy_(values)
    else:
        torch.mul(values, factor, out=x)


def _add(x: Tensor, values: Tensor, factor: Tensor | None) -> None:
    if factor is None:
        x.add_(values)
    else:
        x.addcmul_(values, factor)


def _matrix(state: MutableMapping[str, Tensor], name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The matrix taken out of `state`, in `dtype`."""
    weight, scale = state.pop(f"{name}.weight").detach(), state.pop(f"{name}.weight_scale", None)
    if scale is None and dtype == torch.int8:
        weight, scale = quantised(weight)
    return {"weight": weight.to(dtype)} if scale is None else {"weight": weight, "weight_scale": scale}


def _linear(matrix: Mapping[str, Tensor], activation: str | None = None, follows: str | None = None) -> Linear:
    if "weight_scale" in matrix:
        return Int8Linear(matrix["weight"], matrix["weight_scale"], activation, follows)
    return FloatLinear(matrix["weight"], activation)


def float_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights, all in float32, without scales."""
    return {
        name: dequantised(tensor, state[f"{name}_scale"]) if f"{name}_scale" in state else tensor.float()
        for name, tensor in state.items()
        if not name.endswith(SCALE)
    }
