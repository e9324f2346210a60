"""Sparse feature activations, column by column. Imports NumPy only, so that reading a recording stays quick."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class SparseColumns(NamedTuple):
    """Activations [T, F] as compressed sparse columns (feature → rows): what is stored is what is not zero.

    Attributes:
        indptr: int64 [F + 1]; feature ``f`` owns the entries ``indptr[f]:indptr[f + 1]``.
        rows: int32 [nnz]; ascending within a feature.
        values: float32 [nnz]; can be negative.
    """

    indptr: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]

    @property
    def n_features(self) -> int:
        """F, the number of features."""
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        """The number of stored entries."""
        return len(self.rows)

    def feature(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return (rows, values) of one feature: views, not copies."""
        start, stop = int(self.indptr[index]), int(self.indptr[index + 1])
        return self.rows[start:stop], self.values[start:stop]

    def counts(self) -> npt.NDArray[np.int64]:
        """Return the number of entries of each feature, int64 [F]."""
        return np.diff(self.indptr)
