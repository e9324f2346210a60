"""Attention sinks in a ranking: which rows ``--without-sinks`` leaves out, and what is said of those that count."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError
from conceptatlas.recording import Recording


def rows_to_leave_out(recording: Recording) -> npt.NDArray[np.bool_]:
    """Return which rows are not to be pooled over, bool [T]: the attention sinks.

    An item all of whose rows are sinks keeps them: it must have a score, and zero would say that nothing is active.

    Raises:
        InputError: The recording does not say which rows are sinks.
    """
    if "sink" not in recording.rows.columns:
        raise InputError(
            f"{recording.path} does not say which rows are attention sinks, and --without-sinks leaves them out; "
            "record again, or rank without it."
        )
    has_others = np.zeros(recording.n_items, dtype=bool)
    has_others[recording.item_of_row[~recording.sinks]] = True
    return recording.sinks & has_others[recording.item_of_row]


def sink_notes(recording: Recording, pool: str, left_out: npt.NDArray[np.bool_] | None) -> list[str]:
    """Say how many attention sinks count in the scores, and what to do about it."""
    sinks = recording.sinks
    if pool == "final":
        n_ends = int(sinks[recording.final_rows].sum())
        if not n_ends:
            return []
        return [
            f"{n_ends} of {recording.n_items} items end at an attention sink (norm above ten times the median) and are "
            "scored there; see whether the best features fire there."
        ]
    n_counted = int((sinks if left_out is None else sinks & ~left_out).sum())
    if not n_counted:
        return []
    if left_out is not None:
        return [f"{n_counted} attention sinks count all the same: their items have no other rows."]
    return [
        f"{n_counted} of {recording.n_rows} rows are attention sinks (norm above ten times the median), and pooling by "
        f"{pool} counts them; --without-sinks leaves them out."
    ]
