"""Threshold encoders on a GPU: large tiles of features over all rows, compacted there, so that only what is active is copied.

A tile is [features, rows]: its entries come out in the order of compressed sparse columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch

from conceptatlas.saes import mixed
from conceptatlas.saes.encoder import Encoder
from conceptatlas.saes.sparse import SparseColumns, beside

# Dot products of one gather.
_DOTS = 1 << 16


def encode_on_device(x_TD: torch.Tensor, encoder: Encoder, tile_features: int) -> SparseColumns:
    """Return the sparse columns of a threshold encoder over prepared rows, before what a gated one does to its values."""
    tile = max(1, min(tile_features, encoder.d_sae))
    tiles = [slice(first, min(first + tile, encoder.d_sae)) for first in range(0, encoder.d_sae, tile)]
    way = MixedDevice(x_TD, encoder) if encoder.W_low is not None else Float32Device(x_TD, encoder, tile)
    return beside([way.active(way.products(part), part) for part in tiles])


class OnDevice(ABC):
    """Takes one tile at a time; made once for its rows."""

    def __init__(self, x_TD: torch.Tensor, encoder: Encoder) -> None:
        assert encoder.threshold is not None
        self.x_TD = x_TD
        self.encoder = encoder
        self.bias = encoder.bias
        self.threshold = encoder.threshold

    @abstractmethod
    def products(self, part: slice) -> torch.Tensor:
        """Return the products of the features in ``part`` with all rows, float32 [F_tile, T]."""

    @abstractmethod
    def active(self, products_FT: torch.Tensor, part: slice) -> SparseColumns:
        """Return the entries above the threshold, as columns."""


class Float32Device(OnDevice):
    """The plain way."""

    def __init__(self, x_TD: torch.Tensor, encoder: Encoder, tile: int) -> None:
        super().__init__(x_TD, encoder)
        self._buffer = torch.empty(tile, len(x_TD), device=x_TD.device)

    def products(self, part: slice) -> torch.Tensor:
        """As the base class; they are overwritten by the next."""
        return torch.mm(self.encoder.W_enc[:, part].t(), self.x_TD.t(), out=self._buffer[: part.stop - part.start])

    def active(self, products_FT: torch.Tensor, part: slice) -> SparseColumns:
        """Compare, and gather."""
        pre_FT = products_FT.add_(self.bias[part, None])
        return _gathered(pre_FT, pre_FT > self.threshold[part, None])


class MixedDevice(OnDevice):
    """bfloat16 products with a float32 result; the entries within the margin are computed again."""

    def __init__(self, x_TD: torch.Tensor, encoder: Encoder) -> None:
        super().__init__(x_TD, encoder)
        assert encoder.W_low is not None
        assert encoder.w_norms is not None
        self.W_low, self.w_norms = encoder.W_low, encoder.w_norms
        self.x_low, self.x_norms = mixed.round_rows(x_TD)

    def products(self, part: slice) -> torch.Tensor:
        """As the base class, from bfloat16 factors."""
        W_FD, x_DT = self.W_low[:, part].t(), self.x_low.t()
        if x_DT.device.type == "cuda":
            return torch.mm(W_FD, x_DT, out_dtype=torch.float32)
        return torch.mm(W_FD, x_DT).float()

    def active(self, products_FT: torch.Tensor, part: slice) -> SparseColumns:
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
