"""Is this SAE what it says, and does it belong here? L0 and FVU on the first rows.

FVU = Σ‖x − x̂‖² / Σ‖x − mean x‖², over rows that are neither BOS (which is never a row) nor attention sinks, whose norms
would drown all others. For a transcoder x is the row at its output site. A wrong base model, a wrong site or a wrong
activation function (TopK read as ReLU) shows in one of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from conceptatlas.base.errors import WorkError
from conceptatlas.saes.architectures import Decoder
from conceptatlas.saes.encoder import row_statistics
from conceptatlas.saes.sparse import SparseColumns

CheckStatus = Literal["ok", "not judged", "suspect"]

MAX_FVU = 0.6
L0_FACTOR = 3.0
MIN_ROWS = 1000
MAX_ROWS = 2048
SINK_FACTOR = 10.0


@dataclass(frozen=True)
class SAECheck:
    """What the self-check found."""

    l0: float | None
    """Mean number of active features per row; None without rows."""
    fvu: float | None
    """Fraction of variance unexplained; None without rows, variance, or the output site of a transcoder."""
    status: CheckStatus
    """``suspect`` is to be reported loudly; ``not judged`` means too few rows."""
    message: str
    """One sentence, empty if all is well."""
    n_rows: int
    """Rows that were judged."""
    n_sinks: int
    """Rows that were left out as attention sinks."""


def check_sae(
    columns: SparseColumns,
    decoder: Decoder | None,
    x: torch.Tensor,
    *,
    name: str,
    stated_l0: float | None = None,
    k: int | None = None,
    target: torch.Tensor | None = None,
    transcodes: bool = False,
) -> SAECheck:
    """Check an SAE on the first rows that it encoded.

    Args:
        columns: What :func:`~conceptatlas.saes.encode_rows` gave for ``x``; all features, all rows of ``x``.
        decoder: The decoder half; None leaves FVU out.
        x: [T, D] (or [T, heads, d_head]) rows at the site where the encoder reads. At most ``MAX_ROWS`` are used.
        name: How messages call the SAE.
        stated_l0: The L0 that the registry or the configuration states.
        k: For TopK kinds, the number of features that may be active in a row.
        target: [T, D_out] rows at the output site of a transcoder.
        transcodes: Whether the SAE writes elsewhere than it reads (FVU then needs ``target``).

    Raises:
        WorkError: A TopK SAE has more than k active features in some row.
    """
    rows = x[:MAX_ROWS].flatten(1).float().cpu()
    sinks = sink_rows(rows)
    acts = _rows_of(columns, len(rows))
    active = np.diff(acts.indptr)
    if k is not None and len(active) and active.max() > k:
        raise WorkError(
            f"{name} is a TopK SAE with k = {k} and has {active.max()} active features in row {active.argmax()}; it was "
            "read with the wrong activation function."
        )
    kept = ~sinks
    n_rows = int(kept.sum())
    if n_rows == 0:
        return SAECheck(None, None, "not judged", f"{name}: not judged, there are no rows.", 0, int(sinks.sum()))
    l0 = float(active[kept].mean())
    fvu = None
    wanted = target if transcodes else x
    if decoder is not None and wanted is not None:
        goal, found = wanted[:MAX_ROWS].flatten(1).float().cpu(), torch.from_numpy(decode_rows(acts, decoder, rows))
        if sinks.any():
            some = torch.from_numpy(kept)
            goal, found = goal[some], found[some]
        fvu = _fvu(goal, found)
    status, message = _judge(name, l0, fvu, stated_l0, n_rows)
    return SAECheck(l0, fvu, status, message, n_rows, int(sinks.sum()))


def sink_rows(x_TD: torch.Tensor) -> npt.NDArray[np.bool_]:
    """Return which rows are attention sinks: a norm above ten times the median."""
    if len(x_TD) == 0:
        return np.zeros(0, np.bool_)
    norms = x_TD.norm(dim=1).numpy()
    return np.asarray(norms > SINK_FACTOR * np.median(norms), np.bool_)


def decode_rows(acts: sparse.csr_matrix, decoder: Decoder, x_TD: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return the float32 [T, D_out] reconstruction from sparse [T, F] activations; ``x_TD`` as it was before encoding."""
    # A bag sums few rows of W_dec for each row: in parallel, where a sparse product of SciPy has one thread.
    W_dec = decoder.W_dec.contiguous()
    out = (
        torch.nn.functional.embedding_bag(
            torch.from_numpy(acts.indices.astype(np.int64)).to(W_dec.device),
            W_dec,
            torch.from_numpy(acts.indptr.astype(np.int64)).to(W_dec.device),
            mode="sum",
            per_sample_weights=torch.from_numpy(acts.data).to(W_dec),
            include_last_offset=True,
        )
        .float()
        .cpu()
        + decoder.b_dec.float().cpu()
    )
    shift, scale = row_statistics(x_TD, decoder.normalisation)
    if scale is not None:
        out = out * scale
    if shift is not None:
        out = out + shift
    if decoder.W_skip is not None:
        out = out + x_TD @ decoder.W_skip.cpu().T
    return out.numpy()


def _rows_of(columns: SparseColumns, n_rows: int) -> sparse.csr_matrix:
    """Return the first rows as a SciPy matrix (several rows of one feature stay sorted)."""
    keep = columns.rows < n_rows
    before = np.concatenate([[0], np.cumsum(keep)])
    matrix = sparse.csc_matrix(
        (columns.values[keep], columns.rows[keep], before[columns.indptr]), shape=(n_rows, columns.n_features)
    )
    return matrix.tocsr()


def _fvu(x: torch.Tensor, reconstruction: torch.Tensor) -> float | None:
    """Return the fraction of variance unexplained; float32 differences, summed in float64."""
    total = (x - x.double().mean(0).float()).square().sum(dtype=torch.float64)
    if total == 0:
        return None
    return float((x - reconstruction).square().sum(dtype=torch.float64) / total)


def _judge(name: str, l0: float, fvu: float | None, stated: float | None, n_rows: int) -> tuple[CheckStatus, str]:
    if n_rows < MIN_ROWS:
        return "not judged", f"{name}: not judged, {n_rows} rows are fewer than {MIN_ROWS:,}."
    complaints = []
    if fvu is not None and fvu > MAX_FVU:
        complaints.append(f"it leaves {fvu:.2f} of the variance unexplained (more than {MAX_FVU})")
    if stated is not None and not stated / L0_FACTOR <= l0 <= stated * L0_FACTOR:
        complaints.append(f"{l0:.1f} features are active per row where its own figure is {stated:g}")
    if not complaints:
        return "ok", ""
    return "suspect", (
        f"{name} does not fit: {' and '.join(complaints)}; check that it was made for this model, this site and this "
        "activation function."
    )
