"""Memory in large pages is a tensor like any other, and what was freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conceptatlas.runtime.memory import _PAGE, roomy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint16, torch.int32])
@pytest.mark.parametrize("shape", [(0,), (3, 5), (2 * _PAGE,), (1025, 2049)])
def test_roomy(shape, dtype):
    found = roomy(shape, dtype)
    assert (tuple(found.shape), found.dtype, found.is_contiguous()) == (shape, dtype, True)
    if found.numel() * dtype.itemsize >= 2 * _PAGE:
        assert found.data_ptr() % _PAGE == 0
    found.fill_(1)
    assert bool((found.to(torch.float32) == 1).all())


def test_two_do_not_overlap():
    one, other = (roomy((2 * _PAGE,), torch.float32).fill_(number) for number in (1, 2))
    assert (float(one.sum()), float(other.sum())) == (2 * _PAGE, 4 * _PAGE)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_freed_memory_goes_back_to_the_system() -> None:
    """Pieces that are too small to be given back one by one, with one behind them that is still in use."""
    code = """
from pathlib import Path
from conceptatlas.runtime.memory import give_back_memory
def anonymous():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line)
pieces = [bytes([1]) * 100_000 for _ in range(2_000)]
last = bytes([1]) * 100_000
del pieces
before = anonymous()
give_back_memory()
print(before - anonymous())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 150_000  # kB of 200 MB
