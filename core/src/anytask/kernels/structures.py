"""What the kernels read, as C sees it (`kernels.h`, `layers.c`). Pointers only: who makes one keeps its tensors."""

from __future__ import annotations

from ctypes import POINTER, Structure, c_float, c_int, c_long, c_void_p

from torch import Tensor

PANEL = 32
"""Columns of a matrix that products take at once; their number must be a multiple."""


class Codes(Structure):
    """How rows become bytes: the byte that stands for zero, and the least step between two bytes' values."""

    _fields_ = (("zero", c_float), ("smallest_step", c_float))


class Matrix(Structure):
    """A matrix [out, in] for products.

    In floats, its panels are [out / PANEL, in, PANEL]: float32, or bfloat16 or int8, which become float32 on the way.
    In bytes, they are [out / PANEL, in / 4, PANEL] int32, each four of its bytes beside each other.
    """

    _fields_ = (
        *(("panels", c_void_p), ("size", c_long), ("depth", c_long), ("width", c_long)),
        *(("start", c_void_p), ("scale", c_void_p)),
    )

    @classmethod
    def of(cls, panels: Tensor, *, scale: Tensor | None = None, start: Tensor | None = None) -> Matrix:
        """The matrix in `panels`.

        Args:
            scale: of its rows, [out] float32.
            start: for one in bytes, what the sums of products start from, [out] int32.
        """
        depth = panels.shape[1] * (1 if start is None else 4)
        starts, scales = (None if tensor is None else tensor.data_ptr() for tensor in (start, scale))
        return cls(panels.data_ptr(), panels.element_size(), depth, len(panels) * PANEL, starts, scales)


class Layer(Structure):
    """The gains of a layer's two norms, and its four matrices."""

    _fields_ = (
        *(("attention_gain", c_void_p), ("feed_forward_gain", c_void_p)),
        *(("qkv", Matrix), ("o", Matrix), ("wi", Matrix), ("wo", Matrix)),
    )


class Layers(Structure):
    """An encoder's layers, and what they have in common; `activated` are the bytes of what the activation gives."""

    _fields_ = (
        *(("layers", POINTER(Layer)), ("count", c_long), ("heads", c_long), ("rows_at_once", c_long)),
        *(("epsilon", c_float), ("activation", c_int), ("plain", Codes), ("activated", Codes)),
    )
