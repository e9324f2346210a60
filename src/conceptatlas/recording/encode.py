"""The second phase of a shard: one SAE over all its rows, compacted to columns in the recording's row numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from conceptatlas.saes import ReadyRows
from conceptatlas.saes.encode import encode_rows, encode_sequences
from conceptatlas.saes.encoder import Encoder
from conceptatlas.saes.sparse import SparseColumns, spread_columns
from conceptatlas.subjects.sites import Site

if TYPE_CHECKING:
    from conceptatlas.saes import Decoder, SAESource


def encoder_bytes(encoder: Encoder) -> int:
    """Return what an encoder's tensors take."""
    return sum(t.numel() * t.element_size() for t in vars(encoder).values() if isinstance(t, torch.Tensor))


@dataclass(frozen=True)
class LoadedSAE:
    """An SAE ready to encode."""

    source: SAESource
    encoder: Encoder | None
    """None for the architectures that are not encoded row by row."""
    sae: Any = None
    """The ``sae_lens.SAE`` of these."""
    decoder: Decoder | None = None
    """The decoder half, where the self-check is to be made."""

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        if self.encoder is not None:
            return encoder_bytes(self.encoder)
        return sum(t.numel() * t.element_size() for t in self.sae.state_dict().values())


def with_decoder(loaded: LoadedSAE, device: str) -> LoadedSAE:
    """Load the decoder half, too, where the self-check can use one."""
    if loaded.encoder is None or not reconstructs(loaded.source):
        return loaded
    return replace(loaded, decoder=loaded.source.load_decoder(device))


def load_sae(source: SAESource, device: str, sae_dtype: str) -> LoadedSAE:
    """Load what is needed to encode."""
    if not source.is_row_wise:
        return LoadedSAE(source, None, source.load(device))
    return LoadedSAE(source, source.load_encoder(device, sae_dtype))


def output_site(source: SAESource) -> Site | None:
    """Return where a transcoder writes; None for an SAE, which writes where it reads."""
    name = getattr(source, "site_out", None)
    if not name or Site.parse(name) == Site.parse(source.site):
        return None
    return Site.parse(name)


def reconstructs(source: SAESource) -> bool:
    """Whether the decoder gives back a known site, so that FVU can be judged."""
    return getattr(source, "reconstructs", True)


def is_centred(source: SAESource) -> bool:
    """Whether the SAE takes rows without their own mean (its model had centred writing weights)."""
    return bool(getattr(source, "centred", False))


def as_trained(x: torch.Tensor, *, centred: bool) -> torch.Tensor:
    """Return rows [T, D], without their own mean over D where the SAE was trained so."""
    return x - x.float().mean(dim=-1, keepdim=True).to(x.dtype) if centred else x


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
