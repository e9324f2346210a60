"""Room in large pages: what it gives is a tensor like any other."""

from __future__ import annotations

import pytest
import torch

from conceptatlas.saes._memory import _PAGE, roomy


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
