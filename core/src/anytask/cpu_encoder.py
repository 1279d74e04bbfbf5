"""The T5 encoder as it runs on a CPU: the numbers of `anytask.encoder`, for inference alone.

The layers are those of `T5Encoder`; what differs is how little memory they touch. Matrices are laid out once
(`anytask.linear`), norms and activations go into the rows that these read, and sums into the residual stream in place.
Attention (`anytask.cpu_attention`) is computed in float32 in every precision, which is no slower than bfloat16 there.

Where the compiled kernels do all that is in a layer, one call of theirs computes all layers (`kernels/layers.c`). Else
each `_Block` makes its calls: where oneDNN or AMX multiplies, for gated layers, and for activations that aren't theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor

from anytask import kernels
from anytask.cpu_attention import DistanceBias, StepAttention, sizes_of, step_attention
from anytask.encoder import LengthGroup, T5Config
from anytask.heap import give_back_freed_memory, keep_freed_memory
from anytask.kernels.structures import Layer, Layers
from anytask.linear import FloatLinear, Int8Linear, Linear, dequantised, quantised
from anytask.rms import inverse_rms
from anytask.row_codes import RowCodes
from anytask.weights import SCALE, is_quantised

CPU_DTYPES = (torch.float32, torch.bfloat16, torch.int8)
ROWS_AT_ONCE = 352
"""Rows that go through a feed-forward layer together: the values between its matrices stay in the cache."""
COMPILED_ROWS_AT_ONCE = 128
"""Rows that the compiled kernels take together through either half of a layer, without a price for each call."""


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
        self._bias: DistanceBias | None = None
        self._blocks = []
        for layer in range(config.num_layers):
            self._blocks.append(_Block(config, state, f"blocks.{layer}", self.dtype))
            give_back_freed_memory()  # of matrices as they were given: laid out, they take other memory
        self._compiled = _compiled(config, self._blocks)
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
            bias = self._bias_up_to(max(group.length for group in groups))
            x = F.embedding(token_ids, self._embedding).float()
            if self._compiled is not None:
                kernels.encode(self._compiled, x, bias.table, bias.longest - 1, sizes_of(groups))
            else:
                attention = step_attention(self.config, groups, bias)
                for block in self._blocks:
                    block(x, attention)
            return x.mul_(inverse_rms(x, self.config.layer_norm_epsilon)).mul_(self._final_gain)

    def _bias_up_to(self, length: int) -> DistanceBias:
        """The relative position bias of texts of up to `length` tokens, the same in all layers."""
        bias = self._bias
        if bias is None or bias.longest < length:
            self._bias = bias = DistanceBias(self.config, self._position_bias, length)
        return bias  # not what another thread may have put there meanwhile


class _Block:
    """One layer: self-attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: T5Config, state: MutableMapping[str, Tensor], name: str, dtype: torch.dtype) -> None:
        self._epsilon = config.layer_norm_epsilon

        def gain(norm: str) -> Tensor:
            return state.pop(f"{name}.{norm}.weight").detach().float()

        def matrix(part: str) -> dict[str, Tensor]:
            return _matrix(state, f"{name}.{part}", dtype)

        self._attention_gain, self._feed_forward_gain = gain("attention_norm"), gain("feed_forward_norm")
        self._qkv = _linear(matrix("attention.qkv"))
        self._o = _linear(matrix("attention.o"))
        self._wi, self._gated, self._wo = _feed_forward(config, matrix("feed_forward.wi"), matrix("feed_forward.wo"))

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

    def compiled(self) -> Layer | None:
        """This layer for the compiled kernels, if they do all that is in it."""
        matrices = [linear.matrix for linear in (self._qkv, self._o, self._wi, self._wo)]
        if self._gated is not None or None in matrices:
            return None
        return Layer(self._attention_gain.data_ptr(), self._feed_forward_gain.data_ptr(), *matrices)

    def __call__(self, x: Tensor, attention: StepAttention) -> None:
        """Add this layer's two parts to x [T, d_model] float32; `attention` is that of the step."""
        contexts = attention(*self._qkv.normed(x, self._attention_gain, self._epsilon))
        self._o.add(contexts, None, x)
        for rows in torch.split(x, ROWS_AT_ONCE):
            self._wo.add(*self._hidden(rows), rows)

    def _hidden(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        hidden = self._wi.normed(x, self._feed_forward_gain, self._epsilon)
        if self._gated is None:
            return hidden
        return _scaled(*hidden).mul_(_scaled(*self._gated.normed(x, self._feed_forward_gain, self._epsilon))), None


def _compiled(config: T5Config, blocks: Sequence[_Block]) -> Layers | None:
    """All layers for the compiled kernels, if they do all that is in them."""
    layers = [layer for block in blocks if (layer := block.compiled()) is not None]
    if len(layers) < len(blocks) or config.activation not in kernels.ACTIVATIONS:
        return None
    codes = RowCodes().codes, RowCodes(config.activation).codes
    activation = kernels.ACTIVATIONS[config.activation]
    sizes = len(layers), config.num_heads, COMPILED_ROWS_AT_ONCE
    return Layers((Layer * len(layers))(*layers), *sizes, config.layer_norm_epsilon, activation, *codes)


def _scaled(values: Tensor, factor: Tensor | None) -> Tensor:
    return values if factor is None else values.mul_(factor)


def _matrix(state: MutableMapping[str, Tensor], name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The matrix taken out of `state`, in `dtype`."""
    weight, scale = state.pop(f"{name}.weight").detach(), state.pop(f"{name}.weight_scale", None)
    if scale is None and dtype == torch.int8:
        weight, scale = quantised(weight)
    return {"weight": weight.to(dtype)} if scale is None else {"weight": weight, "weight_scale": scale}


def _linear(matrix: Mapping[str, Tensor], activation: str | None = None) -> Linear:
    if "weight_scale" in matrix:
        return Int8Linear(matrix["weight"], matrix["weight_scale"], activation)
    return FloatLinear(matrix["weight"], activation)


def _feed_forward(
    config: T5Config, wi: Mapping[str, Tensor], wo: Mapping[str, Tensor]
) -> tuple[Linear, Linear | None, Linear]:
    """The matrix before the activation, the one beside it in a gated layer, and the one behind."""
    activation = config.activation
    if config.is_gated:
        gate, other = ({key: tensor.chunk(2)[half] for key, tensor in wi.items()} for half in (0, 1))
        return _linear(gate, activation), _linear(other), _linear(wo)
    if "weight_scale" not in wi:
        return _linear(wi, activation), None, _linear(wo)
    # the next product's rows are read for their bytes anyway; ReLU costs nothing in the product before
    first = _linear(wi, "relu" if activation == "relu" else None)
    return first, None, Int8Linear(wo["weight"], wo["weight_scale"], follows=activation)


def float_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights, all in float32, without scales."""
    return {
        name: dequantised(tensor, state[f"{name}_scale"]) if f"{name}_scale" in state else tensor.float()
        for name, tensor in state.items()
        if not name.endswith(SCALE)
    }
