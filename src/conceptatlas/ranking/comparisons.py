"""The best feature against each baseline, on the same hold-out items: is the difference more than chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from conceptatlas.ranking.baselines import Baseline, Contest
from conceptatlas.ranking.kernels import F64
from conceptatlas.statistics import auroc, holm, paired_difference

LEVEL = 0.05
# Each is the best of a search, so that its AUROC on discovery flatters it.
CONTROLS = ("random_directions", "frozen_decoder")
FeatureKey = tuple[str, int]
"""The slug of a feature's SAE, and its index."""
BEATS, FALLS_SHORT, SAME = "beats", "falls short of", "cannot be told apart from"


@dataclass(frozen=True)
class Comparison:
    """The best feature against one baseline."""

    baseline: str
    name: str
    site: str
    k: int | None
    auroc_best: float
    """AUROC of the best feature on the hold-out items of the two grades."""
    auroc_baseline: float
    """That of the baseline on the same items."""
    difference: float
    """The first minus the second."""
    low: float
    """Lower bound of the difference's 95% interval (by group)."""
    high: float
    p_value: float
    p_holm: float
    """The p-value after Holm's correction over all baselines compared."""
    relation: str
    """``beats``, ``falls short of``, or ``cannot be told apart from`` (p_holm above 0.05)."""
    strongest: bool
    """Whether this baseline has the highest AUROC on discovery (never chosen on the hold-out; not a control)."""
    control: bool
    """Whether this is a control: random directions, or that with a frozen decoder."""
    tied: bool
    """Whether the strongest baseline cannot be told apart from this one, by the same test (Holm over the others)."""

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as it stands in ``comparisons.json``."""
        return asdict(self)


def representatives(baselines: Sequence[Baseline], *, but: FeatureKey | None = None) -> list[Baseline]:
    """Return one comparable baseline of each kind: its best on discovery (site and k), in the order of the kinds.

    What reads the feature ``but`` alone is left out: it is that feature under another name.
    """
    best: dict[str, Baseline] = {}
    for entry in baselines:
        same = but is not None and (entry.slug, entry.feature_id) == but
        if same or not entry.comparable or entry.scores is None:
            continue
        have = best.get(entry.baseline)
        if have is None or _discovery(entry) > _discovery(have):
            best[entry.baseline] = entry
    return list(best.values())


def strongest_of(baselines: Sequence[Baseline]) -> Baseline | None:
    """Return the baseline of highest AUROC on discovery; a control is none of them (it is the best of a search)."""
    rivals = [entry for entry in baselines if entry.baseline not in CONTROLS]
    return max(rivals, key=_discovery, default=None)


def _discovery(entry: Baseline) -> float:
    return -1.0 if entry.auroc_discovery is None else entry.auroc_discovery


def compare(
    best_scores: F64, baselines: Sequence[Baseline], contest: Contest, *, best: FeatureKey | None = None
) -> list[Comparison]:
    """Compare the best feature with each kind of baseline, paired on the hold-out items of the two grades, by group.

    Args:
        best_scores: The feature's score of every item in the direction in which it is judged (a falling feature's
            with its sign turned), float64 [N].
        baselines: All baselines; those that are not comparable are left out.
        contest: The items.
        best: Which feature it is; a baseline that reads it alone (k-sparse, k = 1) is compared with nothing.

    Returns:
        One entry for each kind, the strongest first, then by AUROC on discovery; nothing where the hold-out lacks a grade.
    """
    test = contest.test
    is_high, groups = contest.is_high[test], contest.design.groups[test]
    if not is_high.any() or is_high.all():
        return []
    rivals = sorted(
        representatives(baselines, but=best), key=lambda entry: (entry.baseline in CONTROLS, -_discovery(entry))
    )
    strongest = strongest_of(rivals)
    own = best_scores[test]
    scores = [entry.scores[test] for entry in rivals if entry.scores is not None]
    found = [paired_difference(own, theirs, is_high, groups) for theirs in scores]
    adjusted = holm([difference.p_value for difference in found])
    tied = _tied_with(strongest, rivals, contest)
    return [
        Comparison(
            entry.baseline,
            entry.name,
            entry.site,
            entry.k,
            auroc(own, is_high),
            auroc(theirs, is_high),
            *difference,
            float(p_holm),
            relation(difference.difference, float(p_holm)),
            entry is strongest,
            entry.baseline in CONTROLS,
            id(entry) in tied,
        )
        for entry, theirs, difference, p_holm in zip(rivals, scores, found, adjusted, strict=True)
    ]


def _tied_with(strongest: Baseline | None, rivals: Sequence[Baseline], contest: Contest) -> set[int]:
    """Return which rivals (by ``id``) the strongest cannot be told apart from, on the same items; not the control."""
    others = [entry for entry in rivals if entry is not strongest and entry.baseline not in CONTROLS]
    if strongest is None or strongest.scores is None or not others:
        return set()
    test = contest.test
    is_high, groups = contest.is_high[test], contest.design.groups[test]
    own = strongest.scores[test]
    scores = [entry.scores[test] for entry in others if entry.scores is not None]
    found = [paired_difference(own, theirs, is_high, groups) for theirs in scores]
    adjusted = holm([difference.p_value for difference in found])
    return {
        id(entry)
        for entry, difference, p_holm in zip(others, found, adjusted, strict=True)
        if relation(difference.difference, float(p_holm)) == SAME
    }


def relation(difference: float, p_holm: float) -> str:
    """Return the words for a difference: it counts only where the corrected p-value is 0.05 or less."""
    if np.isnan(p_holm) or p_holm > LEVEL:
        return SAME
    return BEATS if difference > 0 else FALLS_SHORT
