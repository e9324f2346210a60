"""The hidden states that a dense baseline reads: pooled as the features are, or not at all."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from conceptatlas.ranking.kernels import F64
from conceptatlas.recording import Recording


@dataclass(frozen=True)
class Pooled:
    """Hidden states of one site, one line per item.

    Attributes:
        vectors: What directions are fitted on, float64 [N, D].
        rows: Where an item's score is the maximum over its rows of the direction's: all rows pooled over, [T, D].
        starts: Where each item's rows begin in ``rows``, int64 [N].
        detail: How they were pooled, where that needs saying.
    """

    vectors: F64
    rows: npt.NDArray[np.float32] | None = None
    starts: npt.NDArray[np.int64] | None = None
    detail: str = ""

    def scores(self, directions: F64) -> F64:
        """Return each item's score along each direction: directions [D, K] → float64 [N, K]."""
        if self.rows is None or self.starts is None:
            return self.vectors @ directions
        return np.maximum.reduceat(np.asarray(self.rows, np.float64) @ directions, self.starts, axis=0)

    def only(self, items: npt.NDArray[np.int64]) -> Pooled:
        """Return the same of some items, in the order given."""
        if self.rows is None or self.starts is None:
            return replace(self, vectors=self.vectors[items])
        stops = np.append(self.starts[1:], len(self.rows))
        parts = [np.arange(self.starts[i], stops[i]) for i in items]
        starts = np.cumsum([0, *(len(part) for part in parts)])[:-1]
        return replace(self, vectors=self.vectors[items], rows=self.rows[np.concatenate(parts)], starts=starts)

    def followed_by(self, other: Pooled) -> Pooled:
        """Return these items and after them those of ``other``, which was pooled alike."""
        vectors = np.concatenate([self.vectors, other.vectors])
        if self.rows is None or self.starts is None or other.rows is None or other.starts is None:
            return replace(self, vectors=vectors, rows=None, starts=None)
        rows = np.concatenate([self.rows, other.rows])
        return replace(self, vectors=vectors, rows=rows, starts=np.append(self.starts, other.starts + len(self.rows)))


def pooled_states(recording: Recording, site: str, pool: str, left_out: npt.NDArray[np.bool_] | None) -> Pooled | str:
    """Return the hidden states of a site pooled by ``pool`` as features are, without the rows ``left_out``, or why not.

    ``max`` is the maximum over rows of a direction's score where all rows were kept (the direction is fitted on the
    items' means); else the maximum of each coordinate on its own, and ``detail`` says so.
    """
    if site not in recording.hidden_sites:
        return "the recording kept no hidden states there; record again with --hidden final or all"
    if pool == "final":
        return Pooled(np.asarray(recording.hidden_final(site), dtype=np.float64))
    if recording.manifest.options.hidden == "all":
        return _of_rows(recording, site, pool, left_out)
    if not recording.keeps_pooled(site, pool):
        return (
            f"features are pooled by {pool}, and the recording has the hidden states of final rows only; record again "
            "(with --hidden final or all)"
        )
    if left_out is not None and left_out.any():
        return (
            "features are pooled without attention sinks, and the recording has the hidden states pooled with them; "
            "record again with --hidden all"
        )
    vectors = np.asarray(recording.hidden_pooled(site, pool), dtype=np.float64)
    return Pooled(vectors, detail="maximum of each coordinate over the rows" if pool == "max" else "")


def _of_rows(recording: Recording, site: str, pool: str, left_out: npt.NDArray[np.bool_] | None) -> Pooled:
    used = np.ones(recording.n_rows, dtype=bool) if left_out is None else ~left_out
    rows, items = np.asarray(recording.hidden(site))[used], recording.item_of_row[used]
    starts = np.searchsorted(items, np.arange(recording.n_items))
    counts = np.diff(np.append(starts, len(items)))
    mean = np.add.reduceat(rows.astype(np.float64), starts, axis=0) / counts[:, None]
    if pool == "mean":
        return Pooled(mean)
    return Pooled(mean, rows, starts, "maximum over the rows of the direction's score, fitted on their mean")
