"""The baselines of a ranking as the views show them, and how the best feature compares with each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conceptatlas.ranking.legends import CROSS_VALIDATED, is_cross_validated
from conceptatlas.ranking.summary import SAME_FEATURE, is_first

if TYPE_CHECKING:
    from conceptatlas.ranking import Ranking
    from conceptatlas.views.study_folder import Study


@dataclass(frozen=True)
class Rival:
    """A baseline at one site (or of the text alone).

    Attributes:
        kind: What ``baselines.json`` calls it, such as ``difference_of_means`` or ``random_directions``.
        name: What the tables call it.
        site: Its site; empty for a baseline of the text alone.
        layer: Its layer; None for a baseline of the text alone.
        auroc: AUROC of the highest grade against the lowest on discovery, by cross-validation where it was fitted
            (None: not computed).
        auroc_holdout: The same on hold-out, with ``low`` and ``high``, its 95% interval.
        concordance: Concordance over all grades on hold-out, with ``concordance_low`` and ``concordance_high``.
        comparable: Whether it was computed on the rows that the features were computed on.
        why_not: Where it is not comparable: why.
        k: Features used, for k-sparse probes.
        draws: For a random control: of how many draws this is the middle one, and their range; empty for others.
        mark: What stands behind ``auroc`` where it is cross-validated.
        same: Where it is the first feature of the table under another name: that it is.
    """

    kind: str
    name: str
    site: str
    layer: int | None
    auroc: float | None
    auroc_holdout: float | None
    low: float | None
    high: float | None
    k: int | None = None
    concordance: float | None = None
    concordance_low: float | None = None
    concordance_high: float | None = None
    comparable: bool = True
    why_not: str = ""
    draws: str = ""
    mark: str = ""
    same: str = ""


def _number(value: Any) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return float(value)


def best_of_each(rivals: list[Rival]) -> list[Rival]:
    """Return one rival of each kind (and k): the site that was best on discovery, never on hold-out.

    A site that is comparable comes before one that is not.
    """
    chosen: dict[tuple[str, int | None], Rival] = {}
    for rival in rivals:
        key = (rival.kind, rival.k)
        have = chosen.get(key)
        if have is None or (rival.comparable, rival.auroc or 0.0) > (have.comparable, have.auroc or 0.0):
            chosen[key] = rival
    return list(chosen.values())


def _rival(entry: Mapping[str, Any], ranking: Ranking) -> Rival:
    kind, layer, k = str(entry["baseline"]), entry.get("layer"), entry.get("k")
    return Rival(
        kind=kind,
        name=str(entry.get("name") or kind),
        site=str(entry.get("site") or ""),
        layer=None if layer is None else int(layer),
        auroc=_number(entry.get("auroc_discovery")),
        auroc_holdout=_number(entry.get("auroc_holdout")),
        low=_number(entry.get("low")),
        high=_number(entry.get("high")),
        k=None if k is None else int(k),
        concordance=_number(entry.get("concordance_holdout")),
        concordance_low=_number(entry.get("concordance_low")),
        concordance_high=_number(entry.get("concordance_high")),
        comparable=bool(entry.get("comparable", True)),
        why_not=str(entry.get("why_not") or ""),
        draws=_draws(entry),
        mark=CROSS_VALIDATED if is_cross_validated(entry) else "",
        same=SAME_FEATURE if is_first(ranking, entry) else "",
    )


def _draws(entry: Mapping[str, Any]) -> str:
    if not entry.get("draws"):
        return ""
    least, most = _number(entry.get("draws_min")), _number(entry.get("draws_max"))
    between = "" if least is None or most is None else f", {least:.2f}–{most:.2f}"
    return f"median of {entry['draws']} draws{between}"


def rivals_of(study: Study) -> list[Rival]:
    """Return every baseline of the study's ranking (none where none was computed)."""
    ranking = study.ranking
    return [] if ranking is None else [_rival(entry, ranking) for entry in ranking.baselines]
