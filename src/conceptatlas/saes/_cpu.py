"""Threshold encoders on a CPU: rows in blocks, features in tiles; products and what is active of them, thread by thread.

A tile of products is small enough to stay near the core that made it, and each is made from few weights and many rows, so that
the library packs little for each product. Block and tile are the same for any number of rows and threads, and so are the
results.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.saes import _kernels, mixed
from conceptatlas.saes._threads import each_in_a_thread, scratch
from conceptatlas.saes.encoder import Encoder, prepare_rows
from conceptatlas.saes.sparse import SparseColumns

TILE_ROWS = 2048
TILE_FEATURES = 1024


class Entries(NamedTuple):
    """What is active in one tile, row by row."""

    first_row: int
    ends: npt.NDArray[np.int32]
    """[R], where each row's entries end."""
    features: npt.NDArray[np.uint16]
    """Counted from the tile's first."""
    values: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]
    """[F_tile], the entries of each feature."""


@dataclass(frozen=True)
class Rows:
    """Rows ready for products."""

    x: torch.Tensor
    low: torch.Tensor | None = None
    """In bfloat16, for ``mixed``."""
    norms: npt.NDArray[np.float32] | None = None
    """[T, 4], of the rounding."""
    reach: npt.NDArray[np.int16] | None = None
    """[ceil(T / mixed.BLOCK_ROWS), F], how far products of a block of rows may be wrong, as bits."""

    def part(self, block: slice) -> Rows:
        """Return some of them; ``block`` begins with a block of ``reach``."""
        if self.low is None or self.norms is None or self.reach is None:
            return Rows(self.x[block])
        return Rows(self.x[block], self.low[block], self.norms[block], self.reach[block.start // mixed.BLOCK_ROWS :])


class Tiles(ABC):
    """Makes the entries of a tile: the products, and a kernel over them."""

    dtype = torch.float32

    def __init__(self, encoder: Encoder) -> None:
        assert encoder.threshold is not None
        self.encoder = encoder
        self.bias, self.threshold = encoder.bias.numpy(), encoder.threshold.numpy()

    def ready(self, x: torch.Tensor, first_row: int = 0) -> Rows:
        """Return rows ready for products (see :func:`~conceptatlas.saes.encoder.prepare_rows`)."""
        return Rows(prepare_rows(x, self.encoder, first_row))

    def entries(self, rows: Rows, tile: slice, first_row: int) -> Entries:
        """Return what is active of the features in ``tile``, the first of the rows being number ``first_row``."""
        n_rows, n_features = len(rows.x), tile.stop - tile.start
        products = self._products(rows, tile, scratch("products", (n_rows, n_features), self.dtype))
        features = scratch("features", (n_rows * n_features,), torch.uint16).numpy()
        values = scratch("values", (n_rows * n_features,), torch.float32).numpy()
        counts, ends = np.zeros(n_features, np.int64), np.empty(n_rows, np.int32)
        n = self._take(products, rows, tile, (counts, ends, features, values))
        return Entries(first_row, ends, features[:n].copy(), values[:n].copy(), counts)

    @abstractmethod
    def _products(self, rows: Rows, tile: slice, out: torch.Tensor) -> torch.Tensor:
        """Return the products [R, F_tile], in ``out``."""

    @abstractmethod
    def _take(self, products: torch.Tensor, rows: Rows, tile: slice, out: tuple[Any, ...]) -> int:
        """Call the kernel that fills ``out`` and return the number of entries."""


class Float32Tiles(Tiles):
    """The plain way."""

    def _products(self, rows: Rows, tile: slice, out: torch.Tensor) -> torch.Tensor:
        return torch.mm(rows.x, self.encoder.W_enc[:, tile], out=out)

    def _take(self, products: torch.Tensor, rows: Rows, tile: slice, out: tuple[Any, ...]) -> int:
        return _kernels.take_above(products.numpy(), self.bias[tile], self.threshold[tile], *out)


class MixedTiles(Tiles):
    """bfloat16 products; see :mod:`~conceptatlas.saes.mixed`."""

    dtype = torch.bfloat16

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        assert encoder.W_low is not None
        assert encoder.w_norms is not None
        self.W_low, self.w_norms = encoder.W_low, encoder.w_norms
        self.weights = encoder.W_enc.t().contiguous().numpy()
        self.norms = encoder.w_norms.t().contiguous().numpy()

    def ready(self, x: torch.Tensor, first_row: int = 0) -> Rows:
        """As the base class, and in bfloat16."""
        x_TD = prepare_rows(x, self.encoder, first_row)
        low, maxima, norms = mixed.rounded(x_TD)
        return Rows(x_TD, low, norms, mixed.bits_of(mixed.margin(maxima, self.w_norms)))

    def _products(self, rows: Rows, tile: slice, out: torch.Tensor) -> torch.Tensor:
        assert rows.low is not None
        return torch.mm(rows.low, self.W_low[:, tile], out=out)

    def _take(self, products: torch.Tensor, rows: Rows, tile: slice, out: tuple[Any, ...]) -> int:
        assert rows.reach is not None
        return _kernels.take_decided(
            products.view(torch.int16).numpy(),
            rows.reach[:, tile],
            mixed.BLOCK_ROWS,
            rows.norms,
            self.norms[tile],
            mixed.FACTORS,
            rows.x.numpy(),
            self.weights[tile],
            self.bias[tile],
            self.threshold[tile],
            *out,
        )


def encode_on_cpu(x: torch.Tensor, encoder: Encoder, tile_features: int) -> SparseColumns:
    """Return the sparse columns of a threshold encoder over rows [T, D], before what a gated one does to its values.

    Raises:
        InputError: The width of the rows is not the encoder's.
        WorkError: A row is not finite.
    """
    make = MixedTiles(encoder) if encoder.W_low is not None else Float32Tiles(encoder)
    blocks = [slice(first, min(first + TILE_ROWS, len(x))) for first in range(0, len(x), TILE_ROWS)]
    tiles = [slice(f, min(f + tile_features, encoder.d_sae)) for f in range(0, encoder.d_sae, tile_features)]
    # Where many tiles read the rows, they are made ready once; where one does, block by block, while they are in the cache.
    ready = make.ready(x) if len(tiles) > 1 else None

    def entries_of(place: tuple[slice, slice]) -> Entries:
        tile, block = place
        rows = make.ready(x[block], block.start) if ready is None else ready.part(block)
        return make.entries(rows, tile, block.start)

    found = each_in_a_thread(entries_of, [(tile, block) for tile in tiles for block in blocks])
    return _columns([found[i : i + len(blocks)] for i in range(0, len(found), len(blocks))], tiles)


def _columns(found: list[list[Entries]], tiles: list[slice]) -> SparseColumns:
    """Deal the entries of every tile (one for each block, in order) out to columns."""
    counts = [np.sum([part.counts for part in parts], axis=0) for parts in found]
    indptr = np.concatenate([[0], *counts]).cumsum(dtype=np.int64)
    rows, values = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)

    def deal(parts: list[Entries], tile: slice) -> None:
        at = indptr[tile].copy()
        for part in parts:
            _kernels.into_columns(*part[:-1], at, rows, values)

    each_in_a_thread(lambda place: deal(*place), list(zip(found, tiles, strict=True)))
    return SparseColumns(indptr, rows, values)
