"""Is this SAE what it says, and does it belong here? L0 and FVU on the first rows.

FVU = Σ‖x − x̂‖² / Σ‖x − mean x‖², over rows that are neither BOS (which is never a row) nor attention sinks, whose norms
would drown all others. For a transcoder x is the row at its output site. A wrong base model, a wrong site or a wrong
activation function (TopK read as ReLU) shows in one of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.saes._kernels import add_decoded, count_rows, squared_distance
from conceptatlas.saes.architectures import Decoder
from conceptatlas.saes.encoder import row_statistics
from conceptatlas.saes.sparse import SparseColumns
from conceptatlas.subjects.norms import attention_sinks, row_norms

CheckStatus = Literal["ok", "not judged", "suspect"]

MAX_FVU = 0.6
L0_FACTOR = 3.0
MIN_ROWS = 1000
MAX_ROWS = 2048
# Columns of the reconstruction that are made at a time: those of all rows stay in the cache.
_COLUMNS = 512


@dataclass(frozen=True)
class CheckRows:
    """The rows that SAEs of one site are checked on; what does not depend on the SAE is computed once.

    Attributes:
        x: [T, D] (or [T, heads, d_head]) rows at the site where the encoder reads. At most ``MAX_ROWS`` are used.
        target: [T, D_out] rows at the site that a transcoder writes to; None for an SAE, which writes where it reads.
    """

    x: torch.Tensor
    target: torch.Tensor | None = None

    @cached_property
    def rows(self) -> torch.Tensor:
        """The rows, float32 [N, D] in the host's memory."""
        return self.x[:MAX_ROWS].flatten(1).float().cpu().contiguous()

    @cached_property
    def sinks(self) -> npt.NDArray[np.bool_]:
        """Which of them are attention sinks, [N]."""
        return attention_sinks(row_norms(self.rows))

    @cached_property
    def goal(self) -> npt.NDArray[np.float32]:
        """What is to be reconstructed, [N, D_out], attention sinks left out."""
        goal = self.rows if self.target is None else self.target[:MAX_ROWS].flatten(1).float().cpu().contiguous()
        return self.kept(goal.numpy())

    @cached_property
    def variance(self) -> float:
        """The squared distances of the goal's rows from their mean, summed."""
        if not len(self.goal):
            return 0.0
        mean = self.goal.mean(axis=0, dtype=np.float64).astype(np.float32)
        return squared_distance(self.goal, np.broadcast_to(mean, self.goal.shape))

    def kept(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return rows [N, D] without the attention sinks."""
        return rows[~self.sinks] if self.sinks.any() else rows


@dataclass(frozen=True)
class SAECheck:
    """What the self-check found."""

    l0: float | None
    """Mean number of active features per row; None without rows."""
    fvu: float | None
    """Fraction of variance unexplained; None without rows, variance, or a decoder to be judged."""
    status: CheckStatus
    """``suspect`` is to be reported loudly; ``not judged`` means too few rows, or nothing to compare with."""
    message: str
    """One sentence: what does not fit, or what could not be compared; empty if all was compared and is well."""
    n_rows: int
    """Rows that were judged."""
    n_sinks: int
    """Rows that were left out as attention sinks."""


def check_sae(
    columns: SparseColumns,
    decoder: Decoder | None,
    rows: CheckRows,
    *,
    name: str,
    stated_l0: float | None = None,
    k: int | None = None,
) -> SAECheck:
    """Check an SAE on the first rows that it encoded.

    Args:
        columns: What :func:`~conceptatlas.saes.encode_rows` gave for at least ``rows.x``, all features.
        decoder: The decoder half; None leaves FVU out, where it gives back nothing that ``rows`` holds.
        rows: The rows.
        name: How messages call the SAE.
        stated_l0: The L0 that the registry or the configuration states.
        k: For TopK kinds, the number of features that may be active in a row.

    Raises:
        InputError: The decoder's shape is not that of the features and the site.
        WorkError: A TopK SAE has more than k active features in some row.
    """
    active = np.zeros(len(rows.rows), np.int64)
    count_rows(columns.rows, active)
    if k is not None and len(active) and active.max() > k:
        raise WorkError(
            f"{name} is a TopK SAE with k = {k} and has {active.max()} active features in row {active.argmax()}; it was "
            "read with the wrong activation function."
        )
    n_sinks = int(rows.sinks.sum())
    n_rows = len(active) - n_sinks
    if n_rows == 0:
        return SAECheck(None, None, "not judged", f"{name}: not judged, there are no rows.", 0, n_sinks)
    l0 = float(active[~rows.sinks].mean())
    fvu = None
    if decoder is not None:
        _check_shape(name, decoder, columns.n_features, rows.goal.shape[1])
    if decoder is not None and rows.variance > 0:
        found = rows.kept(decode_rows(columns, decoder, rows.rows))
        fvu = squared_distance(rows.goal, found) / rows.variance
    status, message = _judge(name, l0, fvu, stated_l0, n_rows)
    return SAECheck(l0, fvu, status, message, n_rows, n_sinks)


def _check_shape(name: str, decoder: Decoder, n_features: int, width: int) -> None:
    if tuple(decoder.W_dec.shape) != (n_features, width):
        raise InputError(
            f"The decoder of {name} has shape {list(decoder.W_dec.shape)} where {n_features} features and a site of width "
            f"{width} make [{n_features}, {width}]; it belongs to another model or site."
        )


def decode_rows(columns: SparseColumns, decoder: Decoder, x_TD: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return the float32 [T, D_out] reconstruction of the first rows; ``x_TD`` [T, D] as they were before encoding."""
    on_cpu = decoder.W_dec.device.type == "cpu"
    out = (_decoded if on_cpu else _decoded_on_device)(columns, decoder, len(x_TD))
    shift, scale = row_statistics(x_TD, decoder.normalisation)
    if scale is not None:
        out *= scale.numpy()
    if shift is not None:
        out += shift.numpy()
    if decoder.W_skip is not None:
        out += (x_TD @ decoder.W_skip.cpu().T).numpy()
    return out


def _decoded(columns: SparseColumns, decoder: Decoder, n_rows: int) -> npt.NDArray[np.float32]:
    """Return acts W_dec + b_dec, a writable [T, D_out]."""
    W_dec, b_dec = decoder.W_dec.contiguous().numpy(), decoder.b_dec.numpy()
    parts = []
    for first in range(0, W_dec.shape[1], _COLUMNS):
        sums = np.tile(b_dec[first : first + _COLUMNS], (n_rows, 1))
        add_decoded(*columns, W_dec, first, sums)
        parts.append(sums)
    return np.concatenate(parts, axis=1)


def _decoded_on_device(columns: SparseColumns, decoder: Decoder, n_rows: int) -> npt.NDArray[np.float32]:
    """As :func:`_decoded`: a bag sums few rows of W_dec for each row, always in the same order."""
    indptr, rows, values = columns.first_rows(n_rows)
    acts = sparse.csc_matrix((values, rows, indptr), shape=(n_rows, columns.n_features)).tocsr()
    device = decoder.W_dec.device
    out = torch.nn.functional.embedding_bag(
        torch.from_numpy(acts.indices.astype(np.int64)).to(device),
        decoder.W_dec,
        torch.from_numpy(acts.indptr.astype(np.int64)).to(device),
        mode="sum",
        per_sample_weights=torch.from_numpy(acts.data).to(decoder.W_dec),
        include_last_offset=True,
    )
    return (out + decoder.b_dec).float().cpu().numpy()


def _judge(name: str, l0: float, fvu: float | None, stated: float | None, n_rows: int) -> tuple[CheckStatus, str]:
    if n_rows < MIN_ROWS:
        return "not judged", f"{name}: not judged, {n_rows} rows are fewer than {MIN_ROWS:,}."
    if fvu is None and stated is None:
        return "not judged", f"{name}: not judged, there is neither a reconstruction nor a stated L0 to compare with."
    complaints = []
    if fvu is not None and not fvu <= MAX_FVU:
        complaints.append(f"it leaves {fvu:.2f} of the variance unexplained (more than {MAX_FVU})")
    if stated is not None and not stated / L0_FACTOR <= l0 <= stated * L0_FACTOR:
        complaints.append(f"{l0:.1f} features are active per row where its own figure is {stated:g}")
    if complaints:
        return "suspect", (
            f"{name} does not fit: {' and '.join(complaints)}; check that it was made for this model, this site and this "
            "activation function."
        )
    if fvu is None:
        return "ok", f"{name}: only its L0 was compared, there is no reconstruction to judge."
    if stated is None:
        return "ok", f"{name}: only its reconstruction was judged, no L0 is stated to compare with."
    return "ok", ""
