"""Do the statistics keep their word? Simulations where the truth is known, through the product's own functions.

``python -m benchmarks.calibration`` writes ``benchmarks/results/calibration.json`` and the tables of
``docs/explanation/calibration.md``; ``--runs 20`` is a quick look.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.null import benjamini_hochberg, best_of, extreme_correlations, p_of_max, permute
from conceptatlas.ranking.significance import RankTest, pooled_p, rank_statistics
from conceptatlas.statistics import auroc_interval, holm, paired_difference

HERE = Path(__file__).parent
RESULT = HERE / "results" / "calibration.json"
PAGE = HERE.parent / "docs" / "explanation" / "calibration.md"
LEVEL, N_FEATURES, PERMUTATIONS = 0.05, 200, 199
BEGIN, END = "<!-- tables: made by benchmarks.calibration -->", "<!-- end of tables -->"


def labels_and_groups(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Grades that mean nothing, and groups that items share, of 120 items."""
    n = 120
    each = np.arange(n)
    match kind:
        case "constant groups":
            groups = each // 6
            return rng.permutation(np.arange(20) % 4)[groups], groups
        case "mixed groups":
            groups = each // 6
            labels = rng.permutation(np.arange(20) % 4)[groups]
            labels[:6] = rng.permutation([0, 0, 1, 2, 3, 3])
            return labels, groups
        case "groups of many sizes":
            groups = np.repeat(np.arange(40), np.tile([1, 2, 3, 6], 10))[:n]
            return rng.integers(0, 4, 40)[groups], groups
        case "pairs":
            return np.tile([0, 3], n // 2), each // 2
        case "unbalanced grades":
            return rng.permutation(np.repeat([0, 1, 2, 3], [90, 12, 10, 8])), each
        case _:
            return rng.permutation(each % 4), each


KINDS = (
    "items",
    "constant groups",
    "mixed groups",
    "groups of many sizes",
    "pairs",
    "unbalanced grades",
    "sparse features",
)


def noise_features(kind: str, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Features that know nothing of the grades; the items of a group share most of their values. float32 [N, F]."""
    n = len(groups)
    shared = rng.normal(0, 1, (int(groups.max()) + 1, N_FEATURES))[groups]
    x = np.sqrt(0.8) * shared + np.sqrt(0.2) * rng.normal(0, 1, (n, N_FEATURES))
    share = np.full(N_FEATURES, 0.06) if kind == "sparse features" else rng.choice([0.06, 0.2, 0.5, 1.0], N_FEATURES)
    return np.where(x > ndtri(1 - np.minimum(share, 1 - 1e-9)), x + 3, 0).astype(np.float32)


def columns_of(dense: np.ndarray) -> ItemColumns:
    """Dense scores [N, F] as sparse columns."""
    feature, item = np.nonzero(dense.T)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(feature, minlength=dense.shape[1]))])
    return ItemColumns(indptr, item.astype(np.int32), dense[item, feature])


def one_search(job: tuple[str, int]) -> tuple[float, float]:
    """(p of the best feature for the whole search, least q) of one search over noise."""
    kind, run = job
    rng = np.random.default_rng([KINDS.index(kind), run])
    labels, groups = labels_and_groups(kind, rng)
    design = Design.build(labels, np.zeros(len(labels), bool), groups=groups)
    columns = columns_of(noise_features(kind, groups, rng))
    highest, lowest = extreme_correlations(columns, permute(design, PERMUTATIONS, rng), design)
    r = np.nan_to_num(np.corrcoef(columns.dense(len(labels)).T.astype(np.float64), labels)[-1, :-1])
    p_max = float(p_of_max(np.array([r.max()]), best_of(highest, lowest, "up"))[0])
    test = RankTest.of(design, N_FEATURES, rng)
    q = benjamini_hochberg(pooled_p(*rank_statistics(columns, columns.counts(), test)))
    return p_max, float(np.nanmin(q))


def coverage(n: int, truth: float, per_group: int, runs: int) -> float:
    """Share of intervals that hold the truth, of ``n`` items, half of either class, in groups that share 80% of a score."""
    rng = np.random.default_rng([n, round(1000 * truth), per_group])
    groups = np.arange(n) // per_group
    is_high = groups % 2 == 1
    shift = np.sqrt(2) * ndtri(truth)
    held = 0
    for _ in range(runs):
        noise = rng.normal(0, 1, n)
        if per_group > 1:
            noise = np.sqrt(0.8) * rng.normal(0, 1, int(groups.max()) + 1)[groups] + np.sqrt(0.2) * noise
        found = auroc_interval(noise + shift * is_high, is_high, groups if per_group > 1 else None)
        held += found.low <= truth <= found.high
    return held / runs


def false_beats(job: tuple[int, float, int]) -> bool:
    """Whether, of five scores that are equally good, the first "beats" another, after Holm over the four others."""
    n, truth, run = job
    rng = np.random.default_rng([n, round(1000 * truth), run])
    is_high = np.arange(2 * n) >= n
    shift, common = np.sqrt(2) * ndtri(truth), rng.normal(0, 1, 2 * n)
    scores = [np.sqrt(0.5) * common + np.sqrt(0.5) * rng.normal(0, 1, 2 * n) + shift * is_high for _ in range(5)]
    found = [paired_difference(scores[0], other, is_high) for other in scores[1:]]
    adjusted = holm([difference.p_value for difference in found])
    return any(p <= LEVEL and d.difference > 0 for p, d in zip(adjusted, found, strict=True))


def measure(runs: int, workers: int = 2) -> dict[str, object]:
    """All simulations."""
    with get_context("spawn").Pool(workers) as pool:
        searches = {}
        for kind in KINDS:
            found = pool.map(one_search, [(kind, run) for run in range(runs)], chunksize=10)
            searches[kind] = {
                "p_max": float(np.mean([p <= LEVEL for p, _ in found])),
                "any_q": float(np.mean([q <= LEVEL for _, q in found])),
            }
        covered = [
            {"n": n, "auroc": truth, "items_of_a_group": per, "coverage": coverage(n, truth, per, runs)}
            for n in (20, 40, 100, 400)
            for truth in (0.5, 0.7, 0.9, 0.97, 0.999)
            for per in (1, 5)
        ]
        beats = [
            {
                "n_of_a_grade": n,
                "auroc": truth,
                "false_beats": float(np.mean(pool.map(false_beats, [(n, truth, run) for run in range(runs)]))),
            }
            for n in (20, 50)
            for truth in (0.6, 0.8, 0.95)
        ]
    return {
        "runs": runs,
        "level": LEVEL,
        "features": N_FEATURES,
        "searches": searches,
        "coverage": covered,
        "beats": beats,
    }


def tables(result: dict) -> str:
    """The tables of the page."""
    runs = result["runs"]
    error = 1.96 * math.sqrt(LEVEL * (1 - LEVEL) / runs)
    lines = [
        f"{runs} runs of each; by chance a share of 0.050 comes out as {LEVEL - error:.3f} to {LEVEL + error:.3f}.",
        "",
        "| labels mean nothing | p of the whole search ≤ 0.05 | some q ≤ 0.05 |",
        "| --- | --- | --- |",
        *(f"| {kind} | {s['p_max']:.3f} | {s['any_q']:.3f} |" for kind, s in result["searches"].items()),
        "",
        "| items (half of either grade) | true AUROC | items of a group | intervals that hold it |",
        "| --- | --- | --- | --- |",
        *(f"| {c['n']} | {c['auroc']:g} | {c['items_of_a_group']} | {c['coverage']:.3f} |" for c in result["coverage"]),
        "",
        "| items of a grade | true AUROC of all five scores | the first “beats” one of the four others |",
        "| --- | --- | --- |",
        *(f"| {b['n_of_a_grade']} | {b['auroc']:g} | {b['false_beats']:.3f} |" for b in result["beats"]),
    ]
    return "\n".join(lines)


def page_with(text: str, result: dict) -> str:
    """The page with its tables made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables(result)}\n\n{END}{rest.split(END)[1]}"


def main(arguments: list[str] | None = None, measured: Callable[[int], dict] = measure) -> None:
    """Run, write the result and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args(arguments)
    result = measured(given.runs)
    given.result.parent.mkdir(parents=True, exist_ok=True)
    given.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    given.page.write_text(page_with(given.page.read_text(encoding="utf-8"), result), encoding="utf-8")
    print(tables(result))


if __name__ == "__main__":
    main()
