"""p-values of very many tests from one pool of permutations.

A thousand permutations give no p-value below 0.001, and a correction over a million tests needs 1e-8. Tests of the same kind
share one null distribution once their statistic is standardised, so the permuted statistics of all tests of a stratum
are pooled (Storey & Tibshirani 2003): p = (1 + pooled statistics ≥ observed) / (1 + pooled statistics). A stratum holds
tests of like number of active units, since the distribution of a sparse score depends on that. Neighbouring strata are
joined until each has draws enough for the smallest p-value that Benjamini–Hochberg asks for.

Counts are kept, not statistics: memory does not grow, and sums of counts are the same whatever the threads do.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from conceptatlas.statistics.auroc import F64

# The first number of active units of each stratum.
STRATA = np.array([0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 21, 31, 51, 101, 201, 501])
# Statistics are counted in steps of 1/256, up to 64; the slack keeps equal ones in one step whatever their last bit.
_STEPS, _GREATEST, _SLACK = 256, 64, 1e-4
_LEVEL = 0.05
# Above this statistic every permutation is counted; below it only the first ones, which are enough for common values.
TAIL = 2.5

F32 = npt.NDArray[np.float32]


class PooledNull:
    """Counts of permuted statistics by stratum."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        shape = (len(STRATA), _STEPS * _GREATEST)
        self._body = np.zeros(shape, dtype=np.int64)
        self._tail = np.zeros(shape, dtype=np.int64)
        self._draws = np.zeros((2, len(STRATA)), dtype=np.int64)
        self._lock = threading.Lock()

    def add(self, stratum: npt.NDArray[np.integer], body: F32, tail: F32) -> None:
        """Count the permuted statistics of some tests.

        Args:
            stratum: Stratum of each test, int [F]; see ``stratum_of``.
            body: All statistics of the first permutations, not negative, [F, B].
            tail: Those of the other permutations, [F, T]; only values of ``TAIL`` or more are counted.
        """
        width = self._body.shape[1]
        in_full = (stratum[:, None] * width + _step(body)).ravel()
        where, column = np.nonzero(tail >= TAIL)
        in_tail = stratum[where] * width + _step(tail[where, column])
        number = np.bincount(stratum, minlength=len(STRATA))
        with self._lock:
            np.add.at(self._body.reshape(-1), in_full, 1)
            np.add.at(self._tail.reshape(-1), in_tail, 1)
            self._draws[0] += number * body.shape[1]
            self._draws[1] += number * tail.shape[1]

    def p_values(self, observed: npt.NDArray[np.floating], stratum: npt.NDArray[np.integer]) -> F64:
        """Return the p-value of each observed statistic, float64 [F]; NaN stays NaN."""
        out = np.full(len(observed), np.nan)
        tested = ~np.isnan(observed)
        joined = self._joined(int(tested.sum()))
        step = _step(np.maximum(np.nan_to_num(observed) - _SLACK, 0))
        for number in range(int(joined.max(initial=-1)) + 1):
            parts = joined == number
            body, tail = self._body[parts].sum(axis=0), self._tail[parts].sum(axis=0)
            draws = self._draws[:, parts].sum(axis=1)
            at_least = np.cumsum(body[::-1])[::-1]
            p_body = (1 + at_least) / (1 + draws[0])
            p_tail = (1 + at_least + np.cumsum(tail[::-1])[::-1]) / (1 + draws.sum())
            p = np.where(np.arange(len(body)) >= TAIL * _STEPS, p_tail, p_body)
            own = tested & parts[stratum]
            out[own] = p[step[own]]
        return out

    def _joined(self, n_tests: int) -> npt.NDArray[np.int64]:
        """Return the number of the joined stratum of each stratum, int64 [S]: from sparse to dense, until draws suffice."""
        needed, number, have = n_tests / _LEVEL, 0, 0
        out = np.zeros(len(STRATA), dtype=np.int64)
        for s, draws in enumerate(self._draws.sum(axis=0)):
            out[s] = number
            have += int(draws)
            if have >= needed:
                number, have = number + 1, 0
        # What is left over at the dense end belongs to the last full one.
        out[out == number] = max(number - 1, 0) if number else 0
        return out


def stratum_of(n_active: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return the stratum of tests whose score is active on so many units, int64 [F]."""
    return np.searchsorted(STRATA, n_active, side="right") - 1


def _step(values: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    return np.minimum(values * np.float32(_STEPS), _STEPS * _GREATEST - 1).astype(np.int64)
