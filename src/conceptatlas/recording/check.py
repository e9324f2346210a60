"""The self-check of an SAE on a recording's first rows, and what the manifest keeps of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel

from conceptatlas.base.errors import WorkError
from conceptatlas.recording.encode import LoadedSAE, as_trained, is_centred, output_site
from conceptatlas.saes.encode import encode_rows, encode_sequences
from conceptatlas.saes.selfcheck import CheckRows, check_sae
from conceptatlas.saes.sparse import SparseColumns
from conceptatlas.subjects.sites import Site

if TYPE_CHECKING:
    from conceptatlas.saes import SAESource

# Enough to judge by, attention sinks left out, and little beside the encoding of a shard.
CHECK_ROWS = 1088
SUSPECT = "suspect"

# Every token of an item [L, D], and which of them are rows.
Sequence = tuple[torch.Tensor, npt.NDArray[np.bool_]]


class CheckRecord(BaseModel):
    """What the first shard's piece says of the check."""

    l0: float | None = None
    fvu: float | None = None
    status: str = "not judged"
    message: str = ""
    rows: int = 0


def check_rows(source: SAESource, states: dict[str, torch.Tensor]) -> CheckRows:
    """Pick the first rows that the check of one SAE needs, at the site that it reads and the one it writes."""
    site, out = Site.parse(source.site), output_site(source)
    centred = is_centred(source)
    x = as_trained(states[str(site)][:CHECK_ROWS], centred=centred and site.is_written)
    if out is None:
        return CheckRows(x)
    return CheckRows(x, as_trained(states[str(out)][:CHECK_ROWS], centred=centred and out.is_written))


def self_check(
    loaded: LoadedSAE,
    rows: CheckRows,
    columns: SparseColumns | None,
    *,
    first_row: int,
    strict: bool,
    sequences: Iterable[Sequence] = (),
) -> CheckRecord:
    """Check an SAE.

    Args:
        loaded: The SAE.
        rows: The first rows.
        columns: All features on at least these rows, where they have been encoded; else they are encoded here.
        first_row: The number that ``columns`` give to the first of the rows.
        strict: An SAE that does not fit is an error.
        sequences: The items of these rows, for an SAE that is encoded in whole sequences.

    Raises:
        WorkError: It does not fit and ``strict``, or a TopK SAE has more than k active features.
    """
    source = loaded.source
    if columns is None:
        columns = (
            _encoded_in_sequences(loaded, sequences, len(rows.rows))
            if loaded.encoder is None
            else encode_rows(rows.x, loaded.encoder)
        )
    elif first_row:
        columns = columns._replace(rows=columns.rows - first_row)
    name = f"{source.release}/{source.sae_id}" if source.release else source.sae_id
    found = check_sae(
        columns,
        loaded.decoder,
        rows,
        name=name,
        stated_l0=source.average_l0,
        k=None if loaded.encoder is None else loaded.encoder.k,
    )
    if found.status == SUSPECT and getattr(source, "control_of", None):
        said = f"{name}: not judged, a control with a frozen decoder need not reconstruct well."
        found = replace(found, status="not judged", message=said)
    if found.status == SUSPECT and strict:
        raise WorkError(found.message)
    return CheckRecord(l0=found.l0, fvu=found.fvu, status=found.status, message=found.message, rows=found.n_rows)


def _encoded_in_sequences(loaded: LoadedSAE, sequences: Iterable[Sequence], n_rows: int) -> SparseColumns:
    """Encode as many items as make up the rows checked, all features."""
    tokens: list[torch.Tensor] = []
    masks: list[npt.NDArray[np.bool_]] = []
    for states, mask in sequences:
        if sum(np.count_nonzero(kept) for kept in masks) >= n_rows:
            break
        tokens.append(as_trained(states, centred=is_centred(loaded.source)))
        masks.append(mask)
    return encode_sequences(tokens, loaded.sae, keep=masks)
