"""Rows in, sparse activations out: one large product per tile of features, compacted at once.

The dense [T, F] matrix never exists: a tile of it is made, what is active is copied out, and the next tile overwrites
it. Tile sizes follow from the number of rows and the kind of device alone, so that the same rows give the same bytes.

``encode_dense`` is the slow and obvious version of the same formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.saes._cpu import TILE_FEATURES, ReadyRows, encode_on_cpu
from conceptatlas.saes._device import BLOCK_ROWS, encode_on_device
from conceptatlas.saes._topk import encode_topk
from conceptatlas.saes.encoder import Encoder, prepare_rows
from conceptatlas.saes.sparse import SparseColumns, empty_columns, from_entries

# Entries of one tile: 256 MiB of float32 on a GPU; for the TopK kinds 16 MiB on a CPU, which should stay near the cache.
_TILE_ENTRIES_GPU = 64 << 20
_TILE_ENTRIES_TOPK_CPU = 4 << 20
_MIN_TILE = 64


def encode_rows(
    x: torch.Tensor,
    encoder: Encoder,
    *,
    columns: Sequence[int] | None = None,
    tile_features: int | None = None,
    ready_rows: ReadyRows | None = None,
) -> SparseColumns:
    """Encode rows and return what is not zero, by feature.

    Args:
        x: [T, D] rows in the units of the site (or [T, heads, d_head] for ``hook_z``), any float type, any device.
        encoder: The encoder half of one SAE; its device does the work.
        columns: Features to return, in this order (``indptr`` then has ``len(columns) + 1`` entries; give them their
            places with :func:`~conceptatlas.saes.sparse.spread_columns`). Threshold encoders compute only these;
            TopK kinds must encode all (``encoder.needs_all_columns``).
        tile_features: Features per tile (threshold kinds only); by default as :func:`tile_size` says.
        ready_rows: Given for SAEs that take the very same rows, these are checked and rounded once.

    Returns:
        Sparse columns over T rows; float32 values in the SAE's own units.

    Raises:
        InputError: The width of the rows is not the encoder's, or a column does not exist.
        WorkError: A row is not finite.
    """
    chosen = _checked_columns(columns, encoder.d_sae)
    if len(x) == 0:
        return empty_columns(encoder.d_sae if chosen is None else len(chosen))
    x = x.detach() if x.requires_grad else x  # the very same rows are known again
    with torch.no_grad():
        if encoder.needs_all_columns:
            return _select(encode_topk(x, encoder, _topk_rows(encoder)), chosen)
        some = encoder if chosen is None else encoder.of(chosen)
        if some.W_low is None:  # for bfloat16, centred rows are better: they are smaller
            some = some.folded()
        tile = tile_features or tile_size(len(x), encoder.device)
        on_cpu = encoder.device.type == "cpu"
        entries = encode_on_cpu(x, some, tile, ready_rows) if on_cpu else encode_on_device(x, some, tile)
    if some.scale is None or some.shift is None:
        return entries
    return _rescaled(entries, some.scale, some.shift)


def encode_sequences(
    sequences: Sequence[torch.Tensor],
    sae: Any,
    *,
    keep: Sequence[npt.NDArray[np.bool_]] | None = None,
    columns: Sequence[int] | None = None,
) -> SparseColumns:
    """Encode whole sequences through SAELens, for architectures in which a row depends on others (temporal, ...).

    Args:
        sequences: Each [L, D], every position of one sequence in order, special tokens included.
        sae: The ``sae_lens.SAE``.
        keep: For each sequence, bool [L]: the positions that are rows (all by default).
        columns: Features to return, in this order; all are computed.

    Returns:
        Sparse columns over the kept rows, sequence after sequence.

    Raises:
        InputError: The SAE's normalisation lacks its factor, or a column does not exist.
        WorkError: A result is not finite.
    """
    chosen = _checked_columns(columns, int(sae.cfg.d_sae))
    if sae.cfg.normalize_activations in ("expected_average_only_in", "covariance_whitening"):
        raise InputError(
            f"The SAE was trained with normalize_activations = {sae.cfg.normalize_activations!r}, which is not folded "
            "into its weights, so its features would be wrong; fold it and save the SAE."
        )
    sae.turn_off_forward_pass_hook_z_reshaping()  # our rows are flat already
    rows, features, values, first = [], [], [], 0
    with torch.no_grad():
        for number, x in enumerate(sequences):
            acts = sae.encode(x.reshape(1, len(x), -1).to(device=sae.device, dtype=sae.dtype))[0].float().cpu()
            if not bool(torch.isfinite(acts).all()):
                raise WorkError(f"The features of sequence {number} are not finite; run the model in float32.")
            acts = acts if keep is None else acts[torch.from_numpy(keep[number])]
            where = acts.nonzero()
            rows.append(where[:, 0].numpy() + first)
            features.append(where[:, 1].numpy())
            values.append(acts[where[:, 0], where[:, 1]].numpy())
            first += len(acts)
    if not rows:
        return _select(empty_columns(int(sae.cfg.d_sae)), chosen)
    found = from_entries(np.concatenate(rows), np.concatenate(features), np.concatenate(values), int(sae.cfg.d_sae))
    return _select(found, chosen)


def tile_size(n_rows: int, device: torch.device) -> int:
    """Return how many features of a threshold encoder are taken at a time over ``n_rows`` rows."""
    if device.type == "cpu":
        return TILE_FEATURES
    return _fitting(_TILE_ENTRIES_GPU, min(n_rows, BLOCK_ROWS))


def _topk_rows(encoder: Encoder) -> int:
    """Return how many rows are taken at a time where all features of a row are needed at once."""
    on_cpu = encoder.device.type == "cpu"
    return _fitting(_TILE_ENTRIES_TOPK_CPU if on_cpu else _TILE_ENTRIES_GPU, encoder.d_sae)


def _fitting(entries: int, width: int) -> int:
    return max(_MIN_TILE, entries // max(width, 1) // _MIN_TILE * _MIN_TILE)


def encode_dense(x: torch.Tensor, encoder: Encoder) -> torch.Tensor:
    """Return float32 [T, F] activations by the plain formulas (for tests, small cases, and to read)."""
    with torch.no_grad():
        pre = prepare_rows(x, encoder) @ encoder.W_enc + encoder.bias
        if encoder.activation == "threshold":
            assert encoder.threshold is not None
            acts = pre
            if encoder.scale is not None and encoder.shift is not None:
                acts = (encoder.scale * pre + encoder.shift).clamp(min=0.0)
            return torch.where(pre > encoder.threshold, acts, 0.0)
        if encoder.rank_scale is not None:
            pre = pre * encoder.rank_scale
        rank = pre.abs() if encoder.activation == "abstopk" else pre
        where = torch.topk(rank, encoder.k or 0, dim=1).indices
        kept = torch.zeros_like(pre).scatter_(1, where, pre.gather(1, where))
        return kept if encoder.activation == "abstopk" else kept.relu()


def _checked_columns(columns: Sequence[int] | None, d_sae: int) -> npt.NDArray[np.int64] | None:
    if columns is None:
        return None
    chosen = np.asarray(columns, dtype=np.int64).reshape(-1)
    bad = chosen[(chosen < 0) | (chosen >= d_sae)]
    if len(bad):
        raise InputError(f"Feature {bad[0]} does not exist: the SAE has {d_sae} features, 0 to {d_sae - 1}.")
    return chosen


def _select(columns: SparseColumns, chosen: npt.NDArray[np.int64] | None) -> SparseColumns:
    if chosen is None:
        return columns
    picked = [columns.column(int(f)) for f in chosen]
    indptr = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum([len(rows) for rows, _ in picked], out=indptr[1:])
    if not picked:
        return empty_columns(0)
    return SparseColumns(indptr, np.concatenate([r for r, _ in picked]), np.concatenate([v for _, v in picked]))


def _rescaled(entries: SparseColumns, scale: torch.Tensor, shift: torch.Tensor) -> SparseColumns:
    """Turn the pre-activations of a gated SAE into magnitudes, dropping what rounding made zero or less."""
    counts = np.diff(entries.indptr)
    values = np.repeat(scale.cpu().numpy(), counts) * entries.values + np.repeat(shift.cpu().numpy(), counts)
    keep = values > 0
    if keep.all():
        return entries._replace(values=values)
    kept = np.concatenate([[0], np.cumsum(keep)])
    return SparseColumns(kept[entries.indptr].astype(np.int64), entries.rows[keep], values[keep])
