"""What the packed encoder computes once for all steps: one table of the position bias."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from anytask.checkpoint import load_checkpoint
from anytask.cpu_encoder import CpuEncoder
from anytask.encoder import LengthGroup


def test_position_bias_does_not_depend_on_the_lengths_before(make_checkpoint: Callable[..., Path]) -> None:
    plain = load_checkpoint(make_checkpoint(shape={"initializer_factor": 1.0})).encoder.float().eval()
    packed = CpuEncoder(plain.config, plain.state_dict(), torch.float32)
    for length in (9, 40, 1, 200, 40, 150):
        ids = torch.arange(3, 3 + length)
        groups = [LengthGroup(0, 1, length)]
        with torch.inference_mode():
            torch.testing.assert_close(packed(ids, groups), plain(ids, groups), atol=1e-5, rtol=1e-5)
