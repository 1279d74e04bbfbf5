"""Learning another model's vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float = 0.05, geometry: float = 10.0) -> Tensor:
    """Three views of the same aim: the student's vectors are the teacher's.

    The cosine distance of each to its own; the softmax over the batch's teacher vectors, which must single out its
    own; and the squared error between the two matrices of cosines within the batch, which is what search sees. Where
    the teacher's vectors have another dimension, only the last can be asked for.

    Args:
        student: unit vectors [n, d].
        teacher: unit vectors [n, e].
        temperature: of the softmax.
        geometry: weight of the squared error, which is small beside the other two.

    Returns:
        scalar.
    """
    shape = geometry * F.mse_loss(student @ student.T, teacher @ teacher.T)
    if student.shape[1] != teacher.shape[1]:
        return shape
    cosine = student @ teacher.T
    own = torch.arange(len(student), device=student.device)
    return (1 - cosine.diagonal()).mean() + F.cross_entropy(cosine / temperature, own) + shape
