"""Feature sets: the few features that together carry the concept, chosen on discovery, judged on the hold-out.

Two ways to choose k of the candidates (the strongest few hundred of all SAEs): greedy forward selection, each time the
feature with the largest score statistic (Rao 1948) beside those chosen; and the path of an L1-penalised logistic
regression. On the chosen ones a logistic regression with an L2 penalty is fitted. Candidates and members are chosen anew
in every fold of discovery, so that the cross-validated AUROC knows nothing of the items that it is judged on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import expit

from conceptatlas.ranking.baselines import Baseline, Contest, rounded, standardised
from conceptatlas.ranking.comparisons import representatives, strongest_of
from conceptatlas.ranking.dense import DENSE
from conceptatlas.ranking.kernels import F64
from conceptatlas.ranking.search import Source
from conceptatlas.ranking.strongest import Ref, Strongest, overall
from conceptatlas.statistics import paired_difference
from conceptatlas.statistics.logistic import Logistic, fit_logistic

SIZES = (1, 2, 3, 5, 10, 20)
CANDIDATES = 300
PER_SITE = 10
# Penalties of the L1 path, as shares of the one at which nothing is chosen, and gradient steps at each.
_SHARES = np.geomspace(0.95, 0.02, 24)
_STEPS = 200

Bools = npt.NDArray[np.bool_]
# (standardised candidates [n, C], class [n], most members) → for each k of SIZES the places of the members
Choice = Callable[[F64, Bools, int], dict[int, list[int]]]


def greedy(x: F64, y: Bools, most: int) -> dict[int, list[int]]:
    """Choose members one by one: for each k of ``SIZES`` up to ``most``, the places chosen first, in order.

    The next is the candidate of largest score statistic in the logistic model of those chosen:
    (xᵀ(y − p))² / xᵀWx, W = p(1 − p), x made orthogonal (under W) to those chosen.
    """
    chosen: list[int] = []
    while len(chosen) < min(most, x.shape[1]):
        fitted = fit_logistic(x[:, chosen], y)
        p = expit(fitted.scores(x[:, chosen]))
        root = np.sqrt(np.maximum(p * (1 - p), 1e-6))
        basis = np.linalg.qr(root[:, None] * np.column_stack([np.ones(len(y)), x[:, chosen]]))[0]
        weighted = root[:, None] * x
        weighted = weighted - basis @ (basis.T @ weighted)
        left = np.einsum("nc,nc->c", weighted, weighted)
        gain = np.where(left > 1e-6 * len(y), (x.T @ (y - p)) ** 2 / np.maximum(left, 1e-12), -1.0)
        gain[chosen] = -1.0
        best = int(np.argmax(np.round(gain, 9)))
        if gain[best] <= 0:
            break
        chosen.append(best)
    return {k: chosen[:k] for k in SIZES if k <= len(chosen)}


def l1_path(x: F64, y: Bools, most: int) -> dict[int, list[int]]:
    """Choose members by the path of an L1-penalised logistic regression: for each k the largest support of at most k.

    Solved by accelerated proximal gradient (Beck & Teboulle 2009), each penalty from the solution of the one before.
    Members come by falling weight.
    """
    n = len(y)
    step = 4 * n / float(np.linalg.norm(np.column_stack([x, np.ones(n)]), 2) ** 2)
    w, b = np.zeros(x.shape[1]), float(np.log(y.mean() / (1 - y.mean())))
    largest = float(np.abs(x.T @ (y - y.mean())).max(initial=0.0)) / n
    out: dict[int, list[int]] = {}
    for share in _SHARES:
        w, b = _l1_fit(x, y, w, b, penalty=share * largest, step=step)
        support = np.flatnonzero(w)
        for k in SIZES:
            if 0 < len(support) <= min(k, most):
                out[k] = support[np.argsort(-np.abs(w[support]), kind="stable")].tolist()
        if len(support) > most:
            break
    return out


def _l1_fit(x: F64, y: Bools, w: F64, b: float, *, penalty: float, step: float) -> tuple[F64, float]:
    v, c, t = w, b, 1.0
    for _ in range(_STEPS):
        residual = (expit(x @ v + c) - y) / len(y)
        moved = v - step * (x.T @ residual)
        new = np.sign(moved) * np.maximum(np.abs(moved) - step * penalty, 0)
        new_b = c - step * float(residual.sum())
        later = (1 + np.sqrt(1 + 4 * t * t)) / 2
        v, c = new + (t - 1) / later * (new - w), new_b + (t - 1) / later * (new_b - b)
        change = float(np.abs(new - w).max(initial=0.0)) + abs(new_b - b)
        w, b, t = new, new_b, float(later)
        if change < 1e-6:
            break
    return w, b


CHOICES: dict[str, Choice] = {"greedy": greedy, "l1": l1_path}


@dataclass(frozen=True)
class Candidates:
    """The candidates of one fit: which features, their standardised scores [N, C], and the items fitted on."""

    refs: list[Ref]
    x: F64
    items: npt.NDArray[np.int64]

    def fit(self, members: Sequence[int], contest: Contest) -> Logistic:
        """Fit the logistic regression on some candidates."""
        return fit_logistic(self.x[self.items][:, members], contest.is_high[self.items])

    def scores(self, members: Sequence[int], contest: Contest) -> F64:
        """Return the log-odds that the fit on some candidates gives all items, float64 [N]."""
        return rounded(self.fit(members, contest).scores(self.x[:, members]))


def candidates_of(source: Source, contest: Contest, strongest: Sequence[Strongest]) -> list[Candidates]:
    """Return the candidates of each of the contest's ``fitted_sets``."""
    fitted = contest.fitted_sets()
    chosen = [overall(strongest, s, CANDIDATES, PER_SITE) for s in range(len(fitted))]
    every = sorted({ref for refs in chosen for ref in refs})
    place = {ref: i for i, ref in enumerate(every)}
    pairs = np.array(every, dtype=np.int64).reshape(-1, 2)
    dense = source.gather(pairs[:, 0], pairs[:, 1]).dense(contest.design.n_items).astype(np.float64)
    return [
        Candidates(refs, standardised(dense[:, [place[ref] for ref in refs]], items), items)
        for refs, items in zip(chosen, fitted, strict=True)
    ]


@dataclass(frozen=True)
class _Path:
    """What one way of choosing found: by k the members (of the fit on all of discovery), scores and AUROC by fold."""

    members: dict[int, list[int]]
    scores: dict[int, F64]
    folds: dict[int, list[float]]

    def mean(self, k: int) -> float:
        return float(np.mean(self.folds[k]))

    def best_k(self) -> int:
        """Return the smallest k within one standard error of the best (Breiman et al. 1984, §3.4.3)."""
        best = max(self.folds, key=lambda k: (round(self.mean(k), 9), -k))
        found = self.folds[best]
        error = float(np.std(found, ddof=1) / np.sqrt(len(found))) if len(found) > 1 else 0.0
        return min(k for k in self.folds if self.mean(k) >= self.mean(best) - error - 1e-12)


def _path(contest: Contest, candidates: Sequence[Candidates], choose: Choice) -> _Path:
    most = SIZES[-1]
    by_fit = [choose(c.x[c.items], contest.is_high[c.items], most) for c in candidates]
    members, scores, folds = {}, {}, {}
    for k in by_fit[0]:
        # A fold that found no set of this size takes its largest smaller one.
        sizes = [max((size for size in found if size <= k), default=None) for found in by_fit]
        columns = [
            np.zeros(contest.design.n_items) if size is None else c.scores(found[size], contest)
            for c, found, size in zip(candidates, by_fit, sizes, strict=True)
        ]
        by_fold = contest.out_of_fold(np.column_stack(columns))[1]
        if by_fold:
            members[k], scores[k], folds[k] = by_fit[0][k], columns[0], by_fold
    return _Path(members, scores, folds)


def feature_sets(
    source: Source, contest: Contest, strongest: Sequence[Strongest], baselines: Sequence[Baseline]
) -> dict[str, Any]:
    """Return the feature sets of a ranking, as they stand in ``sets.json``; empty where there is nothing to choose.

    Args:
        source: The recording's scores.
        contest: The items.
        strongest: The strongest features of each site (from ``all_baselines``).
        baselines: The baselines, of which the strongest dense one is compared with the set.

    Returns:
        ``method`` (``greedy`` or ``l1``, the better on discovery) and ``k`` (smallest within one standard error of its
        best), ``members`` with their parts, ``figures`` of the set on hold-out, ``against`` (the strongest dense
        baseline, paired on hold-out), ``paths`` (for each method by k: AUROC on discovery by cross-validation with its
        standard error, hold-out figures, members), and ``scores`` (float64 [N], not for files: take it out).
    """
    candidates = candidates_of(source, contest, strongest)
    if not candidates[0].refs:
        return {}
    paths = {name: _path(contest, candidates, choose) for name, choose in CHOICES.items()}
    paths = {name: path for name, path in paths.items() if path.folds}
    if not paths:
        return {}
    method = max(paths, key=lambda name: round(paths[name].mean(paths[name].best_k()), 9))  # greedy at a tie
    path, k = paths[method], paths[method].best_k()
    name = partial(_name, source)
    return {
        "method": method,
        "k": k,
        "n_candidates": len(candidates[0].refs),
        "members": _members(contest, candidates, path.members[k], name),
        "figures": contest.held_out(path.scores[k]),
        "against": _against(contest, path.scores[k], baselines),
        "paths": {way: _steps(contest, found, candidates[0].refs, name) for way, found in paths.items()},
        "scores": path.scores[k],
    }


def _name(source: Source, ref: Ref) -> dict[str, Any]:
    sae = source.recording.saes[ref[0]]
    return {"slug": sae.slug, "sae_id": sae.sae_id, "layer": sae.layer, "site": sae.site, "feature_id": ref[1]}


def _steps(
    contest: Contest, path: _Path, refs: Sequence[Ref], name: Callable[[Ref], dict[str, Any]]
) -> list[dict[str, Any]]:
    return [
        {
            "k": k,
            "auroc_discovery": path.mean(k),
            "standard_error": float(np.std(f, ddof=1) / np.sqrt(len(f))) if len(f) > 1 else None,
            **contest.held_out(path.scores[k]),
            "members": [name(refs[place]) for place in path.members[k]],
        }
        for k, f in path.folds.items()
    ]


def _members(
    contest: Contest, candidates: Sequence[Candidates], members: Sequence[int], name: Callable[[Ref], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return each member with its weight and the drop of the AUROC on discovery (same folds) when it is left out.

    For the drop the members stay what they are in every fold: it says what each adds, not how well the set does.
    """
    final = candidates[0]
    fitted = contest.fitted_sets()

    def judged(kept: Sequence[int]) -> float:
        fits = [
            fit_logistic(final.x[items][:, kept], contest.is_high[items]).scores(final.x[:, kept]) for items in fitted
        ]
        return contest.out_of_fold(np.column_stack([rounded(column) for column in fits]))[0]

    whole, weights = judged(members), final.fit(members, contest).weights
    return [
        name(final.refs[member])
        | {
            "weight": float(weights[i]),
            "drop": whole - judged([other for other in members if other != member]),
            "auroc_holdout": contest.held_out(np.sign(weights[i]) * final.x[:, member])["auroc_holdout"],
        }
        for i, member in enumerate(members)
    ]


def _against(contest: Contest, scores: F64, baselines: Sequence[Baseline]) -> dict[str, Any] | None:
    dense = strongest_of([entry for entry in representatives(baselines) if entry.baseline in DENSE])
    test = contest.test
    if dense is None or dense.scores is None or len(np.unique(contest.is_high[test])) < 2:
        return None
    found = paired_difference(scores[test], dense.scores[test], contest.is_high[test], contest.design.groups[test])
    return {
        "baseline": dense.baseline,
        "name": dense.name,
        "site": dense.site,
        "auroc_baseline": dense.auroc_holdout,
    } | {key: float(value) for key, value in zip(("difference", "low", "high", "p_value"), found, strict=True)}


def set_table(found: dict[str, Any]) -> pl.DataFrame:
    """Return the members of the chosen set as the table ``feature_set.csv``."""
    return pl.DataFrame(
        found.get("members", []),
        schema={
            "slug": pl.String, "sae_id": pl.String, "layer": pl.Int32, "site": pl.String, "feature_id": pl.Int32,
            "weight": pl.Float64, "drop": pl.Float64, "auroc_holdout": pl.Float64,
        },
    )  # fmt: skip
