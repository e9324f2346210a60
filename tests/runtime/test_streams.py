"""Streams of a GPU, as far as they need none: the order of the work and copies in pieces."""

from __future__ import annotations

import pytest
import torch

from conceptatlas.runtime import streams
from conceptatlas.runtime.streams import one_behind


def test_one_behind() -> None:
    made: list[int] = []
    seen = [(item, len(made)) for item in one_behind(made.append(i) or i for i in range(4))]
    assert seen == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(one_behind(iter([]))) == []


def test_weights_are_copied_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []
    monkeypatch.setattr(streams, "_PIECE", 40 * 4)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda part: pinned.append(part.numel()) or part.clone())
    host = torch.device("cpu")
    in_pieces = streams._in_pieces
    x = torch.randn(10, 9, generator=torch.Generator().manual_seed(1))
    assert torch.equal(in_pieces(x, host), x)
    assert pinned == [40, 40, 10]
    monkeypatch.setattr(streams, "_in_pieces", lambda tensor, device: in_pieces(tensor, host))
    for tensor in (x, x.t(), x[:, 0], x[0, 0], x[:0], torch.tensor([3])):  # as for a GPU: only the place differs
        there = streams.to_device(tensor, torch.device("cuda"))
        assert torch.equal(there, tensor)
        if tensor.dim() == 2:
            assert there.stride() == tensor.stride()
