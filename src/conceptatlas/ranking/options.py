"""What may be asked of a ranking, checked once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from conceptatlas.base.errors import InputError, unknown_name
from conceptatlas.ranking.columns import POOLS

Direction = Literal["up", "down", "both"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
AUTO = "auto"
# The column of the strata unless another is named; data without it have no strata.
DEFAULT_STRATA = "kind"


@dataclass(frozen=True)
class RankOptions:
    """Options of one ranking; contradictions are refused when it is made."""

    pool: str = "final"
    """Score of an item: at its ``final`` row, the ``max`` or the ``mean`` over its rows, or ``auto``: chosen by
    cross-validation on discovery (and paid for in the null)."""
    direction: str = "up"
    """Features that rise with the concept (``up``), fall with it (``down``), or ``both``."""
    min_pearson: float = 0.4
    """Least Pearson correlation with the grade (its absolute value for a feature that falls)."""
    min_tpr: float = 0.5
    """Least share of top-grade items above the threshold."""
    max_fpr: float = 0.2
    """Greatest share of bottom-grade items above the threshold."""
    top_n: int = 50
    """Features shown and exemplified. The table holds every feature that passes, and at least so many rows."""
    examples_per_label: int = 5
    """Strongest items shown for each grade."""
    holdout: float = 0.3
    """Share of groups held out; 0 ranks on all items."""
    permutations: int = 1000
    """Permutations of the labels behind ``p_max``; 0 leaves it empty."""
    seed: int = 0
    """Seed of permutations, re-splits and random controls."""
    families: bool = True
    """Group features that say the same thing."""
    baselines: bool = True
    """Compute the baselines of every site."""
    resplits: int = 20
    """Random re-splits behind the stability figures; 0 leaves them empty."""
    without_sinks: bool = False
    """Leave attention sinks out where scores are pooled over rows (``max``, ``mean``)."""
    without_dense: bool = False
    """Leave dense features (active on more than half of the rows) out of the ranked table."""
    holdout_by: str | None = None
    """Hold out whole values of this column of the data (templates, sources, acts), and not single groups."""
    strata: str | None = DEFAULT_STRATA
    """Column of the data by whose values the hold-out AUROC is also given; skipped where the data lack ``kind``."""
    judge_on: str | None = None
    """Another recording of the same SAEs, on all items of which the chosen features and baselines are judged as well."""
    efficiency: bool = False
    """Compute the label-efficiency curve: the hold-out AUROC of each method with 10, 20, 40, … labelled items a grade."""

    def __post_init__(self) -> None:
        if self.pool not in (*POOLS, AUTO):
            raise unknown_name("pooling", self.pool, (*POOLS, AUTO))
        if self.without_sinks and self.pool == "final":
            raise InputError(
                "--without-sinks leaves rows out of what is pooled, and --pool final reads one row; "
                "give --pool max, mean or auto, or leave it out."
            )
        if self.direction not in DIRECTIONS:
            raise unknown_name("direction", self.direction, DIRECTIONS)
        for name, low, high in (("min_pearson", -1, 1), ("min_tpr", 0, 1), ("max_fpr", 0, 1)):
            _check_number(name, getattr(self, name), low, high)
        if not (math.isfinite(self.holdout) and 0 <= self.holdout < 1):
            raise InputError(f"--holdout is {self.holdout}; give a share from 0 to below 1, such as 0.3.")
        for name, least in (("top_n", 1), ("examples_per_label", 0), ("permutations", 0), ("seed", 0), ("resplits", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{_flag(name)} is {getattr(self, name)}; give a whole number from {least}.")

    def as_dict(self) -> dict[str, Any]:
        """Return the options as they stand in ``run.json``."""
        return asdict(self)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_number(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"{_flag(name)} is {value}; give a number from {low} to {high}.")
