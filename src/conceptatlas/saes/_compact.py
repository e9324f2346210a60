"""One tile of features over all rows: the products, and what of them is active. A class per device and precision.

Each is made once per call for its rows, and then called tile by tile, by several threads at a time where there are some; the
kernels release the interpreter's lock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch

from conceptatlas.saes import _kernels, mixed
from conceptatlas.saes.encoder import Encoder
from conceptatlas.saes.sparse import SparseColumns

# One entry in so many is expected to be a candidate; more only costs another call.
_EXPECTED_SPARSITY = 40
# So many entries have room however dense they are: memory that is not touched costs nothing.
_ALWAYS_ROOM_FOR = 1 << 20
# Dot products of one gather on a device.
_DOTS = 1 << 16


class Compact(ABC):
    """Takes the products of one tile and returns its active entries."""

    dtype = torch.float32

    def __init__(self, x_TD: torch.Tensor, encoder: Encoder) -> None:
        assert encoder.threshold is not None
        self.x_TD = x_TD
        self.encoder = encoder
        self.bias = encoder.bias
        self.threshold = encoder.threshold

    def products(self, part: slice, buffer: torch.Tensor) -> torch.Tensor:
        """Return the products of the features in ``part`` with all rows, [F_tile, T], in ``buffer``."""
        out = buffer[: part.stop - part.start]
        return torch.mm(self.encoder.W_enc[:, part].t(), self.x_TD.t(), out=out)

    @abstractmethod
    def __call__(self, products_FT: torch.Tensor, part: slice) -> SparseColumns:
        """Return the entries above the threshold, as columns."""


class Float32Cpu(Compact):
    """The plain path."""

    def __call__(self, products_FT: torch.Tensor, part: slice) -> SparseColumns:
        """Mark, then copy."""
        tile = products_FT.numpy()
        bias, threshold = self.bias.numpy()[part], self.threshold.numpy()[part]
        return _filled(partial(_kernels.take_above, tile, bias, threshold), *tile.shape)


class MixedCpu(Compact):
    """bfloat16 products; see :mod:`~conceptatlas.saes.mixed`."""

    dtype = torch.bfloat16

    def __init__(self, x_TD: torch.Tensor, encoder: Encoder) -> None:
        super().__init__(x_TD, encoder)
        assert encoder.W_low is not None
        assert encoder.w_norms is not None
        self.W_low, self.w_norms = encoder.W_low, encoder.w_norms
        self.x_low, self.blocks, self.x_norms = mixed.rounded(x_TD)
        self.x = x_TD.numpy()
        self.weights = encoder.W_enc.t().contiguous().numpy()

    def products(self, part: slice, buffer: torch.Tensor) -> torch.Tensor:
        """As the base class, in bfloat16."""
        return torch.mm(self.W_low[:, part].t(), self.x_low.t(), out=buffer[: part.stop - part.start])

    def __call__(self, products_FT: torch.Tensor, part: slice) -> SparseColumns:
        """Count candidates, then decide them."""
        reach = mixed.bits_of(mixed.margin(self.w_norms[:, part], self.blocks))
        w_norms = self.w_norms[:, part].t().contiguous().numpy()
        bits = products_FT.view(torch.int16).numpy()
        weights, bias, threshold = self.weights[part], self.bias.numpy()[part], self.threshold.numpy()[part]
        take = partial(
            _kernels.take_decided, bits, _bfloat16_numbers(), reach, mixed.BLOCK_ROWS, self.x_norms, w_norms,
            mixed.FACTORS, self.x, weights, bias, threshold,
        )  # fmt: skip
        return _filled(take, *bits.shape)


class Float32Device(Compact):
    """Compacts on the device, so that only what is active is copied to the host."""

    def __call__(self, products_FT: torch.Tensor, part: slice) -> SparseColumns:
        """Compare, and gather."""
        pre_FT = products_FT.add_(self.bias[part, None])
        return _gathered(pre_FT, pre_FT > self.threshold[part, None])


class MixedDevice(Compact):
    """bfloat16 products with a float32 result; the entries within the margin are computed again."""

    def __init__(self, x_TD: torch.Tensor, encoder: Encoder) -> None:
        super().__init__(x_TD, encoder)
        assert encoder.W_low is not None
        assert encoder.w_norms is not None
        self.W_low, self.w_norms = encoder.W_low, encoder.w_norms
        self.x_low, self.x_norms = mixed.round_rows(x_TD)

    def products(self, part: slice, buffer: torch.Tensor) -> torch.Tensor:
        """As the base class, from bfloat16 factors."""
        out = buffer[: part.stop - part.start]
        W_FD, x_DT = self.W_low[:, part].t(), self.x_low.t()
        if out.device.type == "cuda":
            return torch.mm(W_FD, x_DT, out_dtype=torch.float32)
        return out.copy_(torch.mm(W_FD, x_DT))

    def __call__(self, products_FT: torch.Tensor, part: slice) -> SparseColumns:
        """Decide again where the margin reaches the threshold, and gather."""
        near = products_FT.abs() <= mixed.margin(self.w_norms[:, part], self.x_norms)
        feature, row = near.nonzero(as_tuple=True)
        pre_FT = products_FT.neg_().add_(self.threshold[part, None])
        W_FD, bias = self.encoder.W_enc[:, part].t(), self.bias[part]
        for first in range(0, len(feature), _DOTS):
            f, t = feature[first : first + _DOTS], row[first : first + _DOTS]
            pre_FT[f, t] = torch.linalg.vecdot(W_FD[f], self.x_TD[t]) + bias[f]
        return _gathered(pre_FT, pre_FT > self.threshold[part, None])


def _gathered(pre_FT: torch.Tensor, active: torch.Tensor) -> SparseColumns:
    indptr = np.zeros(len(pre_FT) + 1, np.int64)
    np.cumsum(active.sum(dim=1).cpu().numpy(), out=indptr[1:])
    flat = active.view(-1).nonzero().squeeze(1)
    values = pre_FT.reshape(-1)[flat]
    rows = (flat % pre_FT.shape[1]).to(torch.int32)
    return SparseColumns(indptr, rows.cpu().numpy(), values.cpu().numpy())


def _filled(take: Callable[..., int], n_features: int, n_rows: int) -> SparseColumns:
    """Call a kernel until it has had room for everything."""
    words = np.zeros(-(-n_rows // _kernels.WORD), np.uint64)
    ends = np.zeros(n_features + 1, np.int64)
    size = min(n_features * n_rows, max(n_rows + n_features * n_rows // _EXPECTED_SPARSITY, _ALWAYS_ROOM_FOR))
    rows, values = np.empty(size, np.int32), np.empty(size, np.float32)
    done = 0
    while (done := take(words, words.view(np.uint8), done, ends, rows, values)) < n_features:
        size = max(2 * size, int(ends[done]) + n_rows)
        rows, values = np.resize(rows, size), np.resize(values, size)
    return SparseColumns(ends, rows[: ends[-1]].copy(), values[: ends[-1]].copy())


@cache
def _bfloat16_numbers() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return the float32 number of every bfloat16 bit pattern, [65536]."""
    return (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
