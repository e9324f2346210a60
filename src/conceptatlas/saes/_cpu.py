"""Threshold encoders on a CPU: rows in blocks, features in tiles; products and what is active of them, thread by thread.

A tile of products is small enough to stay near the core that made it, and each is made from few weights and many rows, so that
the library packs little for each product. Block and tile are the same for any number of rows and threads; where there is one
block and one tile only, all of torch's threads share it.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.runtime.threads import each_in_a_thread, scratch
from conceptatlas.saes import _kernels, mixed
from conceptatlas.saes._masks import LANES
from conceptatlas.saes.encoder import Encoder, check_finite, prepare_rows, shape_rows
from conceptatlas.saes.sparse import SparseColumns

TILE_FEATURES = 1024
# So many features are few: what they cost is reading the rows.
FEW_FEATURES = 64


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
    """A block of rows ready for products."""

    first: int
    """The number of the first of them."""
    x: torch.Tensor
    low: torch.Tensor | None = None
    """In bfloat16, for ``mixed``."""
    norms: npt.NDArray[np.float32] | None = None
    """[R, 4], of the rounding."""
    maxima: npt.NDArray[np.float32] | None = None
    """[B, 4], of the norms, over blocks of ``mixed.BLOCK_ROWS`` rows."""


class Tiles(ABC):
    """Makes the entries of a tile: the products, and a kernel over them."""

    dtype = torch.float32
    block_rows = 2048

    def __init__(self, encoder: Encoder) -> None:
        assert encoder.threshold is not None
        self.encoder = encoder
        self.bias, self.threshold = (np.pad(part.numpy(), (0, LANES)) for part in (encoder.bias, encoder.threshold))

    def ready(self, x: torch.Tensor, first: int) -> Rows:
        """Return rows, the first of which is number ``first``, ready for products."""
        return Rows(first, prepare_rows(x, self.encoder, first))

    def entries(self, rows: Rows, tile: slice) -> Entries:
        """Return what is active of the features in ``tile``."""
        n_rows, n_features = len(rows.x), tile.stop - tile.start
        size = n_rows * n_features
        buffer = scratch("products", (size + LANES,), self.dtype)[:size]
        products = self._products(rows, tile, buffer.view(n_rows, n_features))
        features = scratch("features", (size,), torch.uint16).numpy()
        values = scratch("values", (size,), torch.float32).numpy()
        counts, ends = np.zeros(n_features, np.int64), np.empty(n_rows, np.int32)
        n = self._take(products, rows, tile, (counts, ends, features, values))
        return Entries(rows.first, ends, features[:n].copy(), values[:n].copy(), counts)

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
        del rows
        return _kernels.take_above(products.numpy(), self.bias[tile.start :], self.threshold[tile.start :], *out)


class MixedTiles(Tiles):
    """bfloat16 products; see :mod:`~conceptatlas.saes.mixed`."""

    dtype = torch.bfloat16
    block_rows = 4096  # the tile takes as much room as one of float32

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        assert encoder.W_low is not None
        assert encoder.w_norms is not None
        self.W_low = encoder.W_low
        self.weights = encoder.W_enc.t().contiguous().numpy()
        self.w_norms = encoder.w_norms.numpy()
        self.norms_of_w = np.ascontiguousarray(self.w_norms.T)

    def ready(self, x: torch.Tensor, first: int) -> Rows:
        """As the base class, and in bfloat16."""
        x_TD = shape_rows(x, self.encoder)
        low, norms = mixed.round_rows(x_TD)
        if not bool(torch.isfinite(norms).all()):  # what is not finite shows in them, and so do very large numbers
            check_finite(x_TD, first)
        return Rows(
            first, x_TD, low, *(np.ascontiguousarray(part.numpy().T) for part in (norms, mixed.block_maxima(norms)))
        )

    def _products(self, rows: Rows, tile: slice, out: torch.Tensor) -> torch.Tensor:
        assert rows.low is not None
        return torch.mm(rows.low, self.W_low[:, tile], out=out)

    def _take(self, products: torch.Tensor, rows: Rows, tile: slice, out: tuple[Any, ...]) -> int:
        return _kernels.take_decided(
            products.view(torch.int16).numpy(),
            mixed.BLOCK_ROWS,
            rows.maxima,
            rows.norms,
            self.w_norms,
            self.norms_of_w[tile],
            tile.start,
            mixed.FACTORS,
            rows.x.numpy(),
            self.weights[tile],
            self.bias[tile.start :],
            self.threshold[tile.start :],
            scratch("bounds", (products.shape[1] + LANES,), torch.int16).numpy(),
            scratch("unsure", (products.numel(), 2), torch.int32).numpy(),
            *out,
        )


def encode_on_cpu(
    x: torch.Tensor, encoder: Encoder, tile_features: int, ready_rows: ReadyRows | None = None
) -> SparseColumns:
    """Return the sparse columns of a threshold encoder over rows [T, D], before what a gated one does to its values.

    Raises:
        InputError: The width of the rows is not the encoder's.
        WorkError: A row is not finite.
    """
    if encoder.W_low is None and encoder.d_sae <= FEW_FEATURES:
        return _few(x, encoder)
    make = MixedTiles(encoder) if encoder.W_low is not None else Float32Tiles(encoder)
    width = min(tile_features, np.iinfo(np.uint16).max)
    tiles = [slice(f, min(f + width, encoder.d_sae)) for f in range(0, encoder.d_sae, width)]
    blocks = [slice(first, min(first + make.block_rows, len(x))) for first in range(0, len(x), make.block_rows)]
    if len(tiles) == 1:  # each block is made ready when its turn has come, and is in the cache for what follows
        found = each_in_a_thread(lambda block: make.entries(make.ready(x[block], block.start), tiles[0]), blocks)
    else:
        ready = _ready(make, x, blocks) if ready_rows is None else ready_rows.of(make, x, blocks)
        found = each_in_a_thread(lambda place: make.entries(*place), [(rows, tile) for tile in tiles for rows in ready])
    return _columns([found[i : i + len(blocks)] for i in range(0, len(found), len(blocks))], tiles)


def _few(x: torch.Tensor, encoder: Encoder) -> SparseColumns:
    """Encode few features: one product, whose rows torch's own threads share, and no other pass over the rows."""
    assert encoder.threshold is not None
    x_TD, size = shape_rows(x, encoder), len(x) * encoder.d_sae
    products = scratch("products", (size + LANES,), torch.float32)[:size].view(encoder.d_sae, len(x))
    torch.mm(encoder.W_enc.t(), x_TD.t(), out=products)
    rows, values = (scratch(name, (size,), dtype).numpy() for name, dtype in _ENTRIES.items())
    indptr = np.zeros(encoder.d_sae + 1, np.int64)
    columns = products.numpy(), encoder.bias.numpy(), encoder.threshold.numpy()
    if not _kernels.take_few(*columns, indptr[1:], rows, values):
        check_finite(x_TD, 0)
    return SparseColumns(indptr, rows[: indptr[-1]].copy(), values[: indptr[-1]].copy())


_ENTRIES = {"rows": torch.int32, "values": torch.float32}


class ReadyRows:
    """Keeps the rows of the last site ready for products: its SAEs come one after the other, with the very same rows.

    For rows that nobody changes meanwhile. May be used by several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[torch.Tensor, type[Tiles], list[Rows]] | None = None

    def of(self, make: Tiles, x: torch.Tensor, blocks: list[slice]) -> list[Rows]:
        """Return every block of ``x`` ready for the products of an encoder."""
        if not make.encoder.takes_rows_as_they_are:
            return _ready(make, x, blocks)
        with self._lock:
            if self._last is None or self._last[0] is not x or self._last[1] is not type(make):
                self._last = x, type(make), _ready(make, x, blocks)
            return self._last[2]


def _ready(make: Tiles, x: torch.Tensor, blocks: list[slice]) -> list[Rows]:
    if len(blocks) == 1:
        return [make.ready(x, 0)]
    return each_in_a_thread(lambda block: make.ready(x[block], block.start), blocks)


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
