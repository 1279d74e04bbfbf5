"""A model between two: the weighted mean of their weights."""

from __future__ import annotations

from copy import deepcopy

import torch

from anytask.checkpoint import Checkpoint


def between(first: Checkpoint, second: Checkpoint, share: float) -> Checkpoint:
    """A copy of `first`, all weights of which are moved by `share` of the way to those of `second`.

    Between a model and what was trained from it lie models that keep most of what the first could and of what the
    second learnt (Wortsman et al., 2022, arXiv 2109.01903).
    """
    mean = deepcopy(first)
    with torch.no_grad():
        for ours, theirs in ((mean.encoder, second.encoder), (mean.head, second.head)):
            other = theirs.state_dict()
            for name, weight in ours.state_dict().items():
                weight.lerp_(other[name].to(weight.dtype), share)
    return mean
