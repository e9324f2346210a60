"""Where in the model the concept emerges: held-out AUROC by layer of the best feature and of the baselines."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.evidence import FeatureRef
from conceptatlas.ranking import auroc_interval
from conceptatlas.statistics import exchange, mid_ranks
from conceptatlas.views.rivals import Rival, rivals_of
from conceptatlas.views.study_folder import Study
from conceptatlas.views.svg.lines import Point, Series

if TYPE_CHECKING:
    from collections.abc import Iterable

# Exchanges of the labels behind the line of chance.
DRAWS = 2000

# Colours of the baselines' curves, in the order in which kinds first occur; 0 is the best feature's.
_LOOKS = 6
# A name of ``baselines.json`` without what differs within its kind (the k of a k-sparse probe).
_KIND_NAME = re.compile(r",? *\(?k *= *\d+\)?$")


@dataclass(frozen=True)
class Emergence:
    """The curves of ``emergence.png`` and of the report, the null line, and the grades that are compared."""

    series: tuple[Series, ...]
    null: float | None
    null_name: str
    grades: tuple[int, int]


def chance_auroc(
    scores: npt.NDArray[np.floating], is_high: npt.NDArray[np.bool_], groups: npt.NDArray[np.integer]
) -> float | None:
    """Return the AUROC that scores reach by chance once in twenty times, or None where a class is missing.

    For each score the 95th percentile of its own AUROC under ``DRAWS`` exchanges of the labels: among groups of equal size,
    then within groups, matched pairs within pairs (``conceptatlas.statistics.exchange``, as in the ranking's null). The
    highest is returned, a score without ties and without a memory of groups among them. No maximum over features is
    taken: on hold-out the feature has been chosen already.

    Args:
        scores: One column per score, [N, C].
        is_high: The class of each item, [N].
        groups: Number of each item's group, int [N].
    """
    n_high = int(is_high.sum())
    n_low = len(is_high) - n_high
    if n_high == 0 or n_low == 0:
        return None
    rng = np.random.default_rng(0)
    ranks = [mid_ranks(column) for column in (*scores.T, rng.permutation(len(is_high)))]
    drawn = is_high[exchange(is_high, groups).orders(DRAWS, rng)].astype(np.float64)
    aurocs = (drawn @ np.column_stack(ranks) - n_high * (n_high + 1) / 2) / (n_high * n_low)
    return float(np.quantile(aurocs, 0.95, axis=0, method="higher").max())


def best_by_layer(table: pl.LazyFrame) -> pl.DataFrame:
    """Return the feature of each layer that scores highest on discovery, by layer (the first of equals).

    Args:
        table: ``all_features.parquet``: every feature that fires on some recorded row.
    """
    names = ("slug", "sae_id", "average_l0", "feature_id", "direction", "interpretability_score")
    best = pl.col("interpretability_score").arg_max()
    return (
        table.filter(pl.col("interpretability_score").is_not_null())
        .group_by("layer")
        .agg(pl.col(name).get(best) for name in names)
        .sort("layer")
        .collect()
    )


def _features_curve(study: Study, high: int, low: int) -> tuple[Series, float | None]:
    """Return the curve of the best features, and the line of chance."""
    assert study.all_features is not None
    points, scores = [], []
    held = study.holdout & np.isin(study.labels, (high, low))
    is_high = study.labels[held] == high
    groups = np.unique(study.items["split_hash"].to_numpy()[held], return_inverse=True)[1].astype(np.int64)
    for row in best_by_layer(study.all_features).iter_rows(named=True):
        ref = FeatureRef(row["slug"], row["sae_id"], row["layer"], row["average_l0"], row["feature_id"])
        sign = -1.0 if row.get("direction") == "down" else 1.0
        scores.append(sign * study.scores(ref)[held])
        y, bottom, top = (float(figure) for figure in auroc_interval(scores[-1], is_high, groups))
        if math.isfinite(y):
            points.append(Point(float(row["layer"]), y, *(b if math.isfinite(b) else None for b in (bottom, top))))
    chance = chance_auroc(np.array(scores).reshape(-1, len(is_high)).T, is_high, groups)
    return Series("best feature", 0, tuple(points)), chance


def _layers(rivals: Iterable[Rival], name: str, look: int) -> Series:
    """Return one baseline's curve; where a layer has several (sites, k), the one that was best on discovery."""
    best: dict[int, Rival] = {}
    for rival in rivals:
        if rival.layer is None or rival.auroc_holdout is None:
            continue
        have = best.get(rival.layer)
        if have is None or (rival.auroc or 0.0) > (have.auroc or 0.0):
            best[rival.layer] = rival
    points = (
        Point(float(layer), r.auroc_holdout, r.low, r.high)
        for layer, r in sorted(best.items())
        if r.auroc_holdout is not None
    )
    return Series(name, look, tuple(points))


def emergence_of(study: Study) -> Emergence | None:
    """Return the curves of a study; None where there is no ranking, no recording or no hold-out."""
    if study.all_features is None or study.recording is None or not study.holdout.any():
        return None
    low, high = study.grades
    kinds: dict[str, list[Rival]] = {}
    for rival in rivals_of(study):
        if rival.layer is not None and rival.comparable:
            kinds.setdefault(rival.kind, []).append(rival)
    best, chance = _features_curve(study, high, low)
    curves = [best]
    curves += [
        _layers(rivals, _KIND_NAME.sub("", rivals[0].name), 1 + number % _LOOKS)
        for number, rivals in enumerate(kinds.values())
    ]
    series = tuple(curve for curve in curves if curve.points)
    if not series:
        return None
    return Emergence(series, chance, "knows nothing (95%)", (low, high))
