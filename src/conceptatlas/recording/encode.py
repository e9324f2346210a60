"""The second phase of a shard: one SAE over all its rows, compacted to columns in the recording's row numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.saes.encode import encode_rows
from conceptatlas.saes.encoder import Encoder
from conceptatlas.saes.sparse import SparseColumns, spread_columns

if TYPE_CHECKING:
    from conceptatlas.saes import SAESource

# On a CPU, encoders stay loaded between shards up to this; on a GPU, up to what is free less a reserve.
_RESIDENT_CPU = 1 << 30
_RESERVE_CUDA = 8 << 30


def resident_bytes(device: str) -> int:
    """Return how many bytes of encoders may stay loaded between shards (this changes no result)."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(torch.device(device))
        return max(0, free - _RESERVE_CUDA)
    return _RESIDENT_CPU


def encoder_bytes(encoder: Encoder) -> int:
    """Return what an encoder's tensors take."""
    return sum(t.numel() * t.element_size() for t in vars(encoder).values() if isinstance(t, torch.Tensor))


@dataclass(frozen=True)
class LoadedSAE:
    """An SAE ready to encode."""

    source: SAESource
    encoder: Encoder

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return encoder_bytes(self.encoder)


def load_sae(source: SAESource, device: str, sae_dtype: str) -> LoadedSAE:
    """Load what is needed to encode."""
    return LoadedSAE(source, source.load_encoder(device, sae_dtype))


def encode_states(
    x_TD: torch.Tensor,
    loaded: LoadedSAE,
    *,
    first_row: int,
    only: npt.NDArray[np.int64] | None,
    features: list[int] | None,
) -> SparseColumns:
    """Encode a shard's rows at one site.

    Args:
        x_TD: The shard's rows [T_shard, D].
        loaded: The SAE.
        first_row: The recording's number of the first of them.
        only: Encode these rows only (ascending), int64; None for all.
        features: Encode and keep these columns only; None for all.

    Returns:
        Columns over all F features whose ``rows`` are the recording's row numbers.
    """
    x = x_TD if only is None else x_TD[torch.from_numpy(only).to(x_TD.device)]
    columns = encode_rows(x, loaded.encoder, columns=features)
    if features is not None:
        columns = spread_columns(columns, features, loaded.encoder.d_sae)
    rows = columns.rows if only is None else only[columns.rows].astype(np.int32)
    return columns._replace(rows=rows + np.int32(first_row))
