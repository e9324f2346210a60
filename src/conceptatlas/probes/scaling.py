"""Scalers that are fitted in one pass over chunks of rows and can be undone.

The data set on disk holds scaled columns together with the figures that scaled them, so that ``train`` can go back to
raw columns and fit the scaler anew inside each fold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import unknown_name

Normalization = Literal["standardize", "minmax", "none"]
NORMALIZATIONS: tuple[str, ...] = get_args(Normalization)

# The keys that hold ``first`` and ``second`` in a data set file.
NORM_KEYS: dict[Normalization, tuple[str, ...]] = {
    "standardize": ("norm_mean", "norm_std"),
    "minmax": ("norm_min", "norm_max"),
    "none": (),
}

Floats = npt.NDArray[np.floating]
F64 = npt.NDArray[np.float64]


def find_normalization(name: str) -> Normalization:
    """Return ``name`` as a normalisation.

    Raises:
        InputError: It is none; the valid names are listed.
    """
    for known in get_args(Normalization):
        if name == known:
            return known
    raise unknown_name("normalization", name, NORMALIZATIONS)


@dataclass
class ColumnStats:
    """Mean, variance, minimum and maximum of columns, merged chunk by chunk in float64.

    Merging: Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance", eq. 2.1.

    Attributes:
        count: Rows seen.
        mean: Column means, [D].
        m2: Sums of squared deviations from the mean, [D].
        low: Column minima, [D].
        high: Column maxima, [D].
    """

    width: int
    count: int = 0
    mean: F64 = field(init=False)
    m2: F64 = field(init=False)
    low: F64 = field(init=False)
    high: F64 = field(init=False)

    def __post_init__(self) -> None:
        self.mean = np.zeros(self.width)
        self.m2 = np.zeros(self.width)
        self.low = np.full(self.width, np.inf)
        self.high = np.full(self.width, -np.inf)

    def add(self, rows_ND: Floats) -> None:
        """Take in a chunk of rows, [n, D] (it may be empty)."""
        n = len(rows_ND)
        if n == 0:
            return
        rows = np.asarray(rows_ND, dtype=np.float64)
        mean = rows.mean(axis=0)
        delta = mean - self.mean
        total = self.count + n
        self.m2 += ((rows - mean) ** 2).sum(axis=0) + delta**2 * (self.count * n / total)
        self.mean += delta * (n / total)
        self.low = np.minimum(self.low, rows.min(axis=0))
        self.high = np.maximum(self.high, rows.max(axis=0))
        self.count = total

    @property
    def std(self) -> F64:
        """Population standard deviations, [D]."""
        return np.sqrt(self.m2 / max(self.count, 1))


@dataclass(frozen=True)
class Scaler:
    """An affine map of columns: ``scaled = (raw - shift) / scale``, with scale 1 where a column is constant.

    Attributes:
        method: ``standardize``, ``minmax`` or ``none``.
        first: Column means, column minima, or zeros, [D].
        second: Population standard deviations (1 where constant), column maxima, or ones, [D].
    """

    method: Normalization
    first: F64
    second: F64

    @staticmethod
    def fitted(method: Normalization, stats: ColumnStats) -> Scaler:
        """Return the scaler that ``stats`` of the training rows give."""
        if method == "none":
            return Scaler(method, np.zeros(stats.width), np.ones(stats.width))
        if method == "minmax":
            return Scaler(method, stats.low, stats.high)
        # A constant column's deviation is rounding noise; dividing by it would blow that noise up.
        constant = (stats.low == stats.high) | (stats.std == 0)
        return Scaler(method, stats.mean, np.where(constant, 1.0, stats.std))

    @property
    def shift(self) -> F64:
        """What is taken off each column, [D]."""
        return self.first

    @property
    def scale(self) -> F64:
        """What each column is then divided by, [D], never 0."""
        if self.method != "minmax":
            return self.second
        span = self.second - self.first
        return np.where(span == 0, 1.0, span)

    def apply(self, raw_ND: Floats) -> Floats:
        """Return scaled columns, float32 [n, D] (the computation is in float64)."""
        if self.method == "none":
            return np.asarray(raw_ND, dtype=np.float32)
        return ((np.asarray(raw_ND, dtype=np.float64) - self.shift) / self.scale).astype(np.float32)

    def undo(self, scaled_ND: Floats) -> Floats:
        """Return raw columns, [n, D] in the type of ``scaled_ND``."""
        if self.method == "none":
            return scaled_ND
        return (scaled_ND * self.scale + self.shift).astype(scaled_ND.dtype)

    def keys(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the scaler as the keys that stand in a data set file."""
        keys: dict[str, npt.NDArray[np.generic]] = {"norm_method": np.array(self.method)}
        return keys | dict(zip(NORM_KEYS[self.method], (self.first, self.second), strict=False))
