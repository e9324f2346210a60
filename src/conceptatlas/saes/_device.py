"""Threshold encoders on a GPU: tiles of features over blocks of rows, compacted there, so that only what is active is copied.

A tile is [features, rows]: its entries come out in the order of compressed sparse columns. For each block of rows:

1. The rows are made ready, and the first tile's products queued.
2. The next tile's products are queued; meanwhile, in a stream of its own, what is active is picked out of the tile before.
3. Copies of that to the host are queued. Nobody waits for them before the last tile has been queued.

Memory follows from block and tile alone: two tiles of products, what compaction makes of one, and one block of rows in
float32 and bfloat16.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch

from conceptatlas.runtime.streams import Event, one_behind, stream_for, to_host
from conceptatlas.saes import mixed
from conceptatlas.saes.encoder import Encoder, prepare_rows
from conceptatlas.saes.sparse import SparseColumns, below, beside

# Rows of a block: large enough for products at full speed, and 300 MB of float32 at a width of 2,304.
BLOCK_ROWS = 1 << 15
# Numbers that are gathered at a time for dot products: 256 MiB, from rows and weights each.
GATHERED = 64 << 20


def encode_on_device(x: torch.Tensor, encoder: Encoder, tile_features: int) -> SparseColumns:
    """Return the sparse columns of a threshold encoder over rows, before what a gated one does to its values.

    Args:
        x: [T, D] rows as they come, T at least 1, on any device.
        encoder: Its device does the work.
        tile_features: Features of a tile.

    Raises:
        InputError: The width of the rows is not the encoder's.
        WorkError: A row is not finite.
    """
    width = max(1, min(tile_features, encoder.d_sae))
    tiles = [slice(first, min(first + width, encoder.d_sae)) for first in range(0, encoder.d_sae, width)]
    starts = range(0, len(x), BLOCK_ROWS)
    return below([_encode_block(x[first : first + BLOCK_ROWS], first, encoder, tiles) for first in starts], starts)


def _encode_block(x: torch.Tensor, first_row: int, encoder: Encoder, tiles: list[slice]) -> SparseColumns:
    x_TD = prepare_rows(x, encoder, first_row)
    way = MixedDevice(x_TD, encoder) if encoder.W_low is not None else Float32Device(x_TD, encoder)
    # By map, which keeps no tile of products longer than the call that takes it.
    found = list(map(way.entries, one_behind(map(way.queued, tiles))))
    return beside([entries.columns() for entries in found])


class Queued(NamedTuple):
    """The products of one tile, on their way."""

    part: slice
    products_FT: torch.Tensor
    made: Event


class Entries(NamedTuple):
    """What is active in one tile, on its way to the host's memory."""

    counts: torch.Tensor
    """[F_tile], entries of each feature."""
    rows: torch.Tensor
    values: torch.Tensor
    arrived: Event

    def columns(self) -> SparseColumns:
        """Wait for it, and return it as columns."""
        self.arrived.wait()
        indptr = np.zeros(len(self.counts) + 1, np.int64)
        np.cumsum(self.counts.numpy(), out=indptr[1:])
        return SparseColumns(indptr, self.rows.numpy(), self.values.numpy())


class OnDevice(ABC):
    """Takes one tile at a time; made once for its rows."""

    def __init__(self, x_TD: torch.Tensor, encoder: Encoder) -> None:
        assert encoder.threshold is not None
        self.x_TD = x_TD
        self.encoder = encoder
        self.bias = encoder.bias
        self.threshold = encoder.threshold
        self._compaction = stream_for("compaction", x_TD.device)

    def queued(self, part: slice) -> Queued:
        """Queue the products of the features in ``part``."""
        products_FT = self.products(part)
        return Queued(part, products_FT, Event(self.x_TD.device))

    def entries(self, tile: Queued) -> Entries:
        """Pick out what is active, beside the products that are queued already, and queue its copy to the host."""
        with self._compaction.work():
            tile.made.hold()
            entries = self._copied(*self.active(tile.products_FT, tile.part))
        entries.arrived.hold()  # the memory of these products is used again only then
        return entries

    @abstractmethod
    def products(self, part: slice) -> torch.Tensor:
        """Return the products of the features in ``part`` with all rows, float32 [F_tile, T]."""

    @abstractmethod
    def active(self, products_FT: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pre-activations, in place of the products, and which of them are above the threshold."""

    def _copied(self, pre_FT: torch.Tensor, active: torch.Tensor) -> Entries:
        flat = active.view(-1).nonzero().squeeze(1)
        rows = (flat % pre_FT.shape[1]).to(torch.int32)
        copies = to_host(active.sum(dim=1)), to_host(rows), to_host(pre_FT.view(-1)[flat])
        return Entries(*copies, Event(pre_FT.device))


class Float32Device(OnDevice):
    """The plain way."""

    def products(self, part: slice) -> torch.Tensor:
        """As the base class."""
        return torch.mm(self.encoder.W_enc[:, part].t(), self.x_TD.t())

    def active(self, products_FT: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Compare."""
        pre_FT = products_FT.add_(self.bias[part, None])
        return pre_FT, pre_FT > self.threshold[part, None]


class MixedDevice(OnDevice):
    """bfloat16 products; the entries within the margin are computed again."""

    def __init__(self, x_TD: torch.Tensor, encoder: Encoder) -> None:
        super().__init__(x_TD, encoder)
        assert encoder.W_low is not None
        assert encoder.w_norms is not None
        self.W_low, self.w_norms = encoder.W_low, encoder.w_norms
        self.x_low, self.x_norms = mixed.round_rows(x_TD)
        self._product = mixed.low_product(x_TD.device)

    def products(self, part: slice) -> torch.Tensor:
        """As the base class, from bfloat16 factors."""
        return self._product(self.W_low[:, part].t(), self.x_low.t()).float()

    def active(self, products_FT: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Decide again where the margin reaches the threshold, and compare."""
        near = products_FT.abs() <= mixed.margin(self.w_norms[:, part], self.x_norms)
        feature, row = near.nonzero(as_tuple=True)
        pre_FT = products_FT.neg_().add_(self.threshold[part, None])
        dots = paired_products(self.encoder.W_enc[:, part].t(), feature, self.x_TD, row)
        pre_FT[feature, row] = dots.add_(self.bias[part][feature])
        return pre_FT, pre_FT > self.threshold[part, None]


def paired_products(
    left_ND: torch.Tensor, left: torch.Tensor, right_MD: torch.Tensor, right: torch.Tensor
) -> torch.Tensor:
    """Return the dot products of the rows ``left`` [P] of one matrix with the rows ``right`` [P] of another, [P].

    By sums, not by a library's products: they come out the same whatever else the device does.
    """
    size = max(1, GATHERED // left_ND.shape[1])
    pairs = zip(torch.split(left, size), torch.split(right, size), strict=True)
    return torch.cat([left_ND[i].mul_(right_MD[j]).sum(dim=1) for i, j in pairs])
