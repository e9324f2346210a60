"""The second phase of a shard: one SAE over all its rows, compacted to columns in the recording's row numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.recording.job import Job
from conceptatlas.recording.loaded import LoadedSAE, as_trained, is_centred
from conceptatlas.saes import ReadyRows
from conceptatlas.saes.encode import encode_rows, encode_sequences
from conceptatlas.saes.sparse import SparseColumns, spread_columns

# On a CPU, encoders stay loaded between shards up to this; on a GPU, up to what is free less what a shard needs.
_RESIDENT_CPU = 1 << 30
# A batch's forward pass, and rows and tiles at work, whose sizes do not depend on the shard's.
_WORK_CUDA = 8 << 30
# The SAE at work and the one that comes in, each with its decoder and bfloat16 weights; and copies while these are made.
_SAES_AT_WORK = 7


def resident_bytes(device: str, job: Job) -> int:
    """Return how many bytes of encoders may stay loaded between shards (this changes no result); the model is loaded."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(torch.device(device))
        return max(0, free - reserve_bytes(job))
    return _RESIDENT_CPU


def reserve_bytes(job: Job) -> int:
    """Return what must stay free on a GPU beside the model: the largest shard's states, the SAEs at work, the work itself."""
    weights = max((4 * (source.d_in or 0) * (source.d_sae or 0) for source in job.sources), default=0)
    return job.states_bytes() + _SAES_AT_WORK * weights + _WORK_CUDA


def encode_states(
    x_TD: torch.Tensor,
    loaded: LoadedSAE,
    *,
    first_row: int,
    only: npt.NDArray[np.int64] | None,
    features: list[int] | None,
    ready_rows: ReadyRows | None = None,
) -> SparseColumns:
    """Encode a shard's rows at one site.

    Args:
        x_TD: The shard's rows [T_shard, D].
        loaded: The SAE.
        first_row: The recording's number of the first of them.
        only: Encode these rows only (ascending), int64; None for all.
        features: Encode and keep these columns only; None for all.
        ready_rows: Of the shard, for the SAEs that share a site.

    Returns:
        Columns over all F features whose ``rows`` are the recording's row numbers.
    """
    if loaded.encoder is None:
        raise TypeError("an SAE without an encoder takes whole sequences")
    x = x_TD if only is None else x_TD[torch.from_numpy(only).to(x_TD.device)]
    columns = encode_rows(x, loaded.encoder, columns=features, ready_rows=ready_rows)
    if features is not None:
        columns = spread_columns(columns, features, loaded.encoder.d_sae)
    return _renumbered(columns, only, first_row)


def encode_sequences_of(
    tokens: list[torch.Tensor],
    masks: list[npt.NDArray[np.bool_]],
    loaded: LoadedSAE,
    *,
    first_row: int,
    only: npt.NDArray[np.int64] | None,
    features: list[int] | None,
) -> SparseColumns:
    """Encode a shard's items, each as a whole sequence; as :func:`encode_states` otherwise.

    Args:
        tokens: Every token of each item [L, D].
        masks: Which of them are rows.
        loaded: The SAE.
        first_row: The recording's number of the first row.
        only: Keep these rows only; None for all.
        features: Keep these columns only; None for all.
    """
    kept = masks
    if only is not None:
        kept = [np.arange(len(mask)) == np.flatnonzero(mask)[-1] for mask in masks]
    tokens = [as_trained(states, centred=is_centred(loaded.source)) for states in tokens]
    columns = encode_sequences(tokens, loaded.sae, keep=kept, columns=features)
    if features is not None:
        columns = spread_columns(columns, features, int(loaded.sae.cfg.d_sae))
    return _renumbered(columns, only, first_row)


def _renumbered(columns: SparseColumns, only: npt.NDArray[np.int64] | None, first_row: int) -> SparseColumns:
    """Give rows the recording's numbers."""
    rows = columns.rows if only is None else only[columns.rows].astype(np.int32)
    return columns._replace(rows=rows + np.int32(first_row) if first_row else rows)
