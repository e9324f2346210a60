"""The baselines of a ranking as the views show them, and the plain sentence that compares a feature with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conceptatlas.views.study_folder import Study

LEVEL = 0.005


@dataclass(frozen=True)
class Rival:
    """A baseline at one site (or of the text alone).

    Attributes:
        kind: ``difference_of_means``, ``logistic``, ``bag_of_words``, ``length``, ``random_sae`` or ``k_sparse``.
        name: What the tables call it.
        site: Its site; empty for a baseline of the text alone.
        layer: Its layer; None for a baseline of the text alone.
        auroc: AUROC of label 3 against 0 on discovery, by cross-validation where it was fitted (None: not computed).
        auroc_holdout: The same on hold-out.
        low: Lower end of the hold-out interval.
        high: Upper end.
        k: Features used, for ``k_sparse``.
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


def _number(value: Any) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return float(value)


def compare_words(feature: float | None, rival: float | None) -> str:
    """Say how a feature's hold-out AUROC stands to a rival's: beats, falls short of, or is level with."""
    if feature is None or rival is None:
        return "cannot be compared with"
    if abs(feature - rival) < LEVEL:
        return "is level with"
    return "beats" if feature > rival else "falls short of"


def best_of_each(rivals: list[Rival]) -> list[Rival]:
    """Return one rival of each kind (and k): the site that was best on discovery, never on hold-out."""
    chosen: dict[tuple[str, int | None], Rival] = {}
    for rival in rivals:
        key = (rival.kind, rival.k)
        have = chosen.get(key)
        if have is None or (rival.auroc or 0.0) > (have.auroc or 0.0):
            chosen[key] = rival
    return list(chosen.values())


def rivals_of(study: Study) -> list[Rival]:
    """Return every baseline of the study's ranking (none where none was computed)."""
    if study.ranking is None:
        return []
    found = []
    for entry in study.ranking.baselines:
        kind = str(entry["baseline"])
        k = entry.get("k")
        layer = entry.get("layer")
        found.append(
            Rival(
                kind=kind,
                name=str(entry.get("name") or kind),
                site=str(entry.get("site") or ""),
                layer=None if layer is None else int(layer),
                auroc=_number(entry.get("auroc_discovery")),
                auroc_holdout=_number(entry.get("auroc_holdout")),
                low=_number(entry.get("low")),
                high=_number(entry.get("high")),
                k=None if k is None else int(k),
            )
        )
    return found
