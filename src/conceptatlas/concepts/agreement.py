"""How far two graders agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conceptatlas.concepts.model import GRADES


@dataclass(frozen=True)
class Agreement:
    """Agreement of two graders on the same items.

    Attributes:
        n: Items that both graded.
        kappa: Cohen's kappa with quadratic weights; None where it is undefined (no item, or both always gave one grade).
        exact: Share of items of equal grade, None without items.
        within_one: Share of items whose grades differ by one at most, None without items.
    """

    n: int
    kappa: float | None
    exact: float | None
    within_one: float | None

    def sentence(self) -> str:
        """Return the agreement in words."""
        if not self.n:
            return "No item has two grades to compare."
        kappa = "undefined" if self.kappa is None else f"{self.kappa:.3f}"
        return (
            f"Agreement on {self.n} items: quadratic kappa {kappa}, equal {self.exact:.0%}, "
            f"within one grade {self.within_one:.0%}."
        )


def agreement(first: Sequence[int], second: Sequence[int]) -> Agreement:
    """Return the agreement of two graders.

    Kappa is 1 − Σ w·O / Σ w·E over pairs of grades, w = (i − j)², O the observed counts, E those expected from the two
    margins (Cohen 1968, Psychological Bulletin 70:213).

    Args:
        first: Grades 0–3, [N].
        second: Grades 0–3 of the same items, [N].
    """
    a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} grades cannot be compared with {len(b)}")
    n = len(a)
    if not n:
        return Agreement(0, None, None, None)
    observed = np.zeros((len(GRADES), len(GRADES)))
    np.add.at(observed, (a, b), 1)
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / n
    weights = np.subtract.outer(GRADES, GRADES) ** 2
    chance = float((weights * expected).sum())
    kappa = 1.0 - float((weights * observed).sum()) / chance if chance > 0 else None
    return Agreement(n, kappa, float((a == b).mean()), float((abs(a - b) <= 1).mean()))
