"""The k largest features of each row (Gao et al. 2024, eq. 2), all features of a row at once, tile by tile over rows.

With bfloat16 products (see :mod:`~conceptatlas.saes.mixed`), let v be the k-th largest product of a row and m the most
that one of them may be off. Then every feature of the true top k has a product of at least v - 2m, and every feature
above v + 2m is in it. What lies between is computed again in float32, and the places left go to the largest of these.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.runtime.streams import Event, one_behind, to_host
from conceptatlas.runtime.threads import each_in_a_thread
from conceptatlas.saes import mixed
from conceptatlas.saes._device import paired_products
from conceptatlas.saes._kernels import pair_products
from conceptatlas.saes.encoder import Encoder, prepare_rows
from conceptatlas.saes.sparse import SparseColumns, from_entries

# Candidates beyond k that are looked at; a row that has more is computed in float32 altogether.
_MORE = 64
# Rounding of a bfloat16 result, relative to it, a little enlarged.
_RESULT = 2.0**-8 * 1.02

Top = tuple[torch.Tensor, torch.Tensor]


class Best(NamedTuple):
    """The best of a tile of rows, on their way to the host's memory."""

    first_row: int
    values: torch.Tensor
    """[R, k]."""
    features: torch.Tensor
    """[R, k]."""
    arrived: Event

    def entries(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Wait for them, and return rows, features and values of those that are not zero."""
        self.arrived.wait()
        values, features = self.values.numpy().reshape(-1), self.features.numpy().reshape(-1)
        active = np.flatnonzero(values)
        return active // self.values.shape[1] + self.first_row, features[active], values[active]


def encode_topk(x: torch.Tensor, encoder: Encoder, tile_rows: int) -> SparseColumns:
    """Return the sparse columns of a TopK or AbsTopK encoder over rows [T, D] as they come, T at least 1.

    Raises:
        InputError: The width of the rows is not the encoder's.
        WorkError: A row is not finite.
    """
    top_of = _top_mixed if encoder.W_low is not None else top_float32

    def best(first: int) -> Best:
        with torch.no_grad():  # is a thread's own
            top, where = top_of(prepare_rows(x[first : first + tile_rows], encoder, first), encoder)
        return Best(first, to_host(top), to_host(where), Event(encoder.device))

    tiles = range(0, len(x), tile_rows)
    if encoder.device.type == "cpu":
        found = each_in_a_thread(lambda first: best(first).entries(), tiles)
    else:
        found = [tile.entries() for tile in one_behind(map(best, tiles))]
    rows, features, values = (np.concatenate(part) for part in zip(*found, strict=True))
    return from_entries(rows, features, values, encoder.d_sae)


def top_float32(x_TD: torch.Tensor, encoder: Encoder) -> Top:
    """Return values [T, k] and features [T, k] of the k largest of each row, from float32 products."""
    assert encoder.k is not None
    pre_TF = torch.addmm(encoder.bias, x_TD, encoder.W_enc)
    if encoder.rank_scale is not None:
        pre_TF *= encoder.rank_scale
    where = torch.topk(_rank(pre_TF, encoder), encoder.k, dim=1, sorted=False).indices
    return _stored(pre_TF.gather(1, where), encoder), where


def _rank(pre: torch.Tensor, encoder: Encoder) -> torch.Tensor:
    """Return what features are ranked by: AbsTopK ranks by magnitude."""
    return pre.abs() if encoder.activation == "abstopk" else pre


def _stored(pre: torch.Tensor, encoder: Encoder) -> torch.Tensor:
    """Return the values that are stored: TopK drops what is negative, AbsTopK keeps signs."""
    return pre if encoder.activation == "abstopk" else pre.relu()


def _top_mixed(x_TD: torch.Tensor, encoder: Encoder) -> Top:
    """As :func:`top_float32`, from bfloat16 products."""
    assert encoder.k is not None
    assert encoder.W_low is not None
    assert encoder.w_norms is not None
    looked_at = min(encoder.d_sae, encoder.k + _MORE)
    x_low, x_norms = mixed.round_rows(x_TD)
    low_TF = mixed.low_product(x_TD.device)(x_low, encoder.W_low)
    rank, where = torch.topk(_rank(low_TF, encoder), looked_at, dim=1)
    rank, value = rank.float(), low_TF.gather(1, where).float()
    kth = rank[:, encoder.k - 1 : encoder.k]
    off = mixed.margin(encoder.w_norms.amax(dim=1, keepdim=True), x_norms).T + _RESULT * kth.abs()
    unsure = (rank - kth).abs() <= 2 * off
    row, place = unsure.nonzero(as_tuple=True)
    value[row, place] = _products(x_TD, encoder, row, where[row, place])
    order = torch.where(unsure, _rank(value, encoder), torch.where(rank > kth, torch.inf, -torch.inf))
    chosen = torch.topk(order, encoder.k, dim=1, sorted=False).indices
    value, where, last = value.gather(1, chosen), where.gather(1, chosen), unsure[:, -1]
    if looked_at < encoder.d_sae and bool(last.any()):  # there may be more candidates than were looked at
        value[last], where[last] = top_float32(x_TD[last], encoder)
    return _stored(value, encoder), where


def _products(x_TD: torch.Tensor, encoder: Encoder, rows: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Return the float32 pre-activations of (row, feature) pairs, [P]."""
    W_FD = encoder.W_enc.t()
    if x_TD.device.type == "cpu":
        found = torch.empty(len(rows))
        pair_products(x_TD.numpy(), W_FD.numpy(), rows.numpy(), features.numpy(), found.numpy())
    else:
        found = paired_products(x_TD, rows, W_FD, features)
    found += encoder.bias[features]
    return found if encoder.rank_scale is None else found * encoder.rank_scale[features]
