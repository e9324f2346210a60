"""Whether p-values, intervals and comparisons keep their promises: simulations through the ranking's own functions.

    python -m benchmarks.calibration                 # 400 runs each, some minutes; writes results and the docs page
    python -m benchmarks.calibration --runs 10 --out /tmp/calibration.json    # a short try that writes no page

Searches over noise: how often the best ``p_max``, or any q-value, is 0.05 or less (5% is right). Intervals: how often they
hold the true AUROC (95% aimed at). Comparisons with rivals that are as good in truth: how often one is said to be beaten.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import norm

from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.null import best_of, extreme_correlations, p_of_max, permute
from conceptatlas.ranking.rank_null import RankNull
from conceptatlas.ranking.scoring import score_columns
from conceptatlas.statistics import auroc_interval, benjamini_hochberg, holm, paired_difference

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "calibration.json"
PAGE = ROOT / "docs" / "explanation" / "calibration.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
N_FEATURES, N_PERMUTATIONS = 200, 199
LEVEL = 0.05

Noise = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _shared(rng: np.random.Generator, groups: np.ndarray, sparse: float = 1.0) -> np.ndarray:
    """Return scores that the items of a group have half in common, [N, F]."""
    x = rng.gamma(1, 1, (groups.max() + 1, N_FEATURES))[groups] + rng.gamma(1, 1, (len(groups), N_FEATURES))
    return np.where(rng.random(x.shape) < sparse, x, 0).astype(np.float32)


def items(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    groups = np.arange(80)
    return _shared(rng, groups), rng.permutation(groups % 4), groups


def constant_groups(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    groups = np.repeat(np.arange(32), np.repeat([3, 5], 16))
    return _shared(rng, groups), rng.permutation(np.arange(32) % 4)[groups], groups


def mixed_groups(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    dense, labels, groups = constant_groups(rng)
    some = rng.random(len(labels)) < 0.1
    return dense, np.where(some, rng.integers(0, 4, len(labels)), labels), groups


def pairs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    groups = np.arange(80) // 2
    first = np.repeat(rng.integers(0, 2, 40), 2)
    return _shared(rng, groups), 3 * ((np.arange(80) + first) % 2), groups


def unbalanced(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    groups = np.arange(200)
    return _shared(rng, groups, 0.1), 3 * rng.permutation(groups < 20), groups


def sparse(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    groups = np.arange(160)
    return _shared(rng, groups, 0.05), rng.permutation(groups % 4), groups


SEARCHES: dict[str, Noise] = {
    "items": items,
    "constant groups": constant_groups,
    "mixed groups": mixed_groups,
    "pairs": pairs,
    "unbalanced grades, sparse": unbalanced,
    "sparse features": sparse,
}
SIZES, TRUTHS = (20, 50, 100, 400), (0.5, 0.7, 0.9, 0.98, 1.0)
RIVALS = 3


def columns_of(dense: np.ndarray) -> ItemColumns:
    """Return a dense float32 [N, F] as sparse columns."""
    feature, item = np.nonzero(dense.T)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(feature, minlength=dense.shape[1]))])
    return ItemColumns(indptr.astype(np.int64), item.astype(np.int32), dense.T[feature, item])


def search(name: str, run: int) -> tuple[bool, bool]:
    """Search one data set of noise and return (best p_max ≤ 0.05, any q ≤ 0.05)."""
    rng = np.random.default_rng([run, *name.encode()])
    dense, labels, groups = SEARCHES[name](rng)
    design = Design.build(labels, np.zeros(len(labels), dtype=bool), groups=groups)
    columns = columns_of(dense)
    best = best_of(*extreme_correlations(columns, permute(design, N_PERMUTATIONS, rng), design), "up")
    observed = score_columns(columns, design)["pearson_corr"]
    null = RankNull(design, N_FEATURES, rng, N_PERMUTATIONS)
    q_values = benjamini_hochberg(null.p_values(*null.observe(columns)))
    return bool(np.nanmin(p_of_max(observed, best)) <= LEVEL), bool((q_values <= LEVEL).any())


def _scores(rng: np.random.Generator, n: int, truth: float, per_group: int, methods: int) -> tuple[np.ndarray, ...]:
    """Return scores of several methods with this AUROC in truth [methods, n], the class and the group of each item.

    Half of a score's variance is common to the methods; with groups, half is common to the items of a group.
    """
    groups = np.arange(n) // per_group
    y = groups % 2 == 0
    common = rng.normal(0, 1, n)
    noise = [np.sqrt(0.5) * common + np.sqrt(0.5) * rng.normal(0, 1, n) for _ in range(methods)]
    shared = rng.normal(0, 1, n)[groups] if per_group > 1 else 0
    weight = 0.5 if per_group > 1 else 0
    shift = np.sqrt(2) * norm.ppf(min(truth, 1 - 1e-12))
    return np.array([np.sqrt(weight) * shared + np.sqrt(1 - weight) * x + shift * y for x in noise]), y, groups


def covered(n: int, truth: float, per_group: int, runs: int) -> float:
    """Return the share of 95% intervals that hold the truth."""
    rng = np.random.default_rng([n, round(100 * truth), per_group])
    hits = 0
    for _ in range(runs):
        scores, y, groups = _scores(rng, n, truth, per_group, 1)
        found = auroc_interval(scores[0], y, groups)
        hits += found.low <= truth + 1e-9 and truth <= found.high + 1e-9
    return hits / runs


def beaten(n: int, truth: float, per_group: int, runs: int) -> float:
    """Return the share of runs in which a score is said to beat any of ``RIVALS`` rivals as good in truth."""
    rng = np.random.default_rng([n, round(100 * truth), per_group, 1])
    hits = 0
    for _ in range(runs):
        scores, y, groups = _scores(rng, n, truth, per_group, 1 + RIVALS)
        found = [paired_difference(scores[0], rival, y, groups) for rival in scores[1:]]
        adjusted = holm([f.p_value for f in found])
        hits += any(p <= LEVEL and f.difference > 0 for p, f in zip(adjusted, found, strict=True))
    return hits / runs


def monotone() -> bool:
    """Return whether more inversions always give a smaller lower bound, at 20 to 400 items."""
    for n in SIZES:
        y = np.arange(n) >= n // 2
        lows = []
        for inversions in range(n // 2):
            x = np.arange(float(n))
            x[n // 2] -= inversions + 0.5 * (inversions > 0)
            lows.append(auroc_interval(x, y).low)
        if not (np.diff(lows) < 0).all():
            return False
    return True


def simulate(runs: int, workers: int = 2) -> dict[str, object]:
    """Run everything and return the figures as they stand in the JSON file."""
    settings = [(n, truth, per_group) for per_group in (1, 5) for n in SIZES for truth in TRUTHS]
    contests = [(40, 0.7, 1), (40, 0.9, 1), (40, 0.98, 1), (100, 0.9, 1), (200, 0.9, 5), (400, 0.98, 5)]
    with ProcessPoolExecutor(workers) as pool:
        searches = []
        for name in SEARCHES:
            found = np.array(list(pool.map(partial(search, name), range(runs), chunksize=5)))
            searches.append({"data": name, "p_max": float(found[:, 0].mean()), "any_q": float(found[:, 1].mean())})
        coverage = pool.map(covered, *zip(*settings, strict=True), [5 * runs // 2] * len(settings))
        beats = pool.map(beaten, *zip(*contests, strict=True), [runs] * len(contests))
        names = ("items", "auroc", "per_group")
        return {
            "runs": runs,
            "level": LEVEL,
            "searches": searches,
            "interval_runs": 5 * runs // 2,
            "intervals": [
                {**dict(zip(names, s, strict=True)), "coverage": c} for s, c in zip(settings, coverage, strict=True)
            ],
            "monotone": monotone(),
            "rivals": RIVALS,
            "beats": [{**dict(zip(names, s, strict=True)), "beaten": b} for s, b in zip(contests, beats, strict=True)],
        }


def tables(figures: dict) -> str:
    """Return the figures as the tables of the docs page."""
    lines = [
        f"Searches over noise, {figures['runs']} runs each:",
        "",
        "| data | best `p_max` ≤ .05 | any q ≤ .05 |",
        "|---|---|---|",
    ]
    lines += [f"| {row['data']} | {row['p_max']:.3f} | {row['any_q']:.3f} |" for row in figures["searches"]]
    truths = sorted({row["auroc"] for row in figures["intervals"]})
    lines += ["", f"Coverage of the 95% interval, {figures['interval_runs']} runs each, by true AUROC:", ""]
    lines += ["| items, per group | " + " | ".join(f"{t:g}" for t in truths) + " |", "|---" * (len(truths) + 1) + "|"]
    by_row: dict[tuple[int, int], dict[float, float]] = {}
    for row in figures["intervals"]:
        by_row.setdefault((row["items"], row["per_group"]), {})[row["auroc"]] = row["coverage"]
    lines += [f"| {n}, {g} | " + " | ".join(f"{row[t]:.3f}" for t in truths) + " |" for (n, g), row in by_row.items()]
    lines += ["", f"A score against {figures['rivals']} rivals as good in truth, {figures['runs']} runs each:", ""]
    lines += ["| items, per group | true AUROC | one is said to be beaten |", "|---|---|---|"]
    lines += [f"| {r['items']}, {r['per_group']} | {r['auroc']:g} | {r['beaten']:.3f} |" for r in figures["beats"]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    figures = simulate(args.runs, args.workers)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(tables(figures))
    if args.out == RESULTS:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{tables(figures)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
