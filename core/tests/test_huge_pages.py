"""Memory for weights."""

from __future__ import annotations

import mmap
import re
import sys
from pathlib import Path

import pytest
import torch

from anytask.products import huge_pages
from anytask.products.huge_pages import BLOCK, LINE, HugePages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernels, which read such memory, are for Linux")


def resident() -> int:
    status = Path("/proc/self/status").read_text("utf-8")
    return 1024 * int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0])


def test_copies_lie_beside_each_other() -> None:
    memory = HugePages()
    given = [
        torch.randn(3, 5),
        torch.arange(7, dtype=torch.int32),
        torch.randn(64, 40).bfloat16().t(),
        torch.randint(-128, 127, (2, 33), dtype=torch.int8),
    ]
    copies = [memory.copied(tensor) for tensor in given]
    for copy, tensor in zip(copies, given, strict=True):
        assert torch.equal(copy, tensor)
        assert copy.dtype == tensor.dtype
        assert copy.is_contiguous()
        assert copy.data_ptr() % LINE == 0
    assert len({copy.untyped_storage().data_ptr() for copy in copies}) == 1
    assert copies[-1].data_ptr() - copies[0].data_ptr() < 8192


def test_those_larger_than_a_block_get_their_own_and_give_it_back() -> None:
    memory, size = HugePages(), BLOCK + (16 << 20)
    before = resident()
    copy = memory.copied(torch.ones((), dtype=torch.int8).expand(size))
    assert int(copy[::4096].sum()) == len(copy[::4096])
    assert size <= resident() - before < size + (8 << 20)
    del copy
    assert resident() - before < 16 << 20


def test_pages_of_the_usual_size_do_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without(mmap.mmap):
        def madvise(self, *_: int) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(huge_pages.mmap, "mmap", Without)
    tensor = torch.randn(100)
    assert torch.equal(HugePages().copied(tensor), tensor)
