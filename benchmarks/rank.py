"""Time and memory of ranking at the size of 135 Gemma Scope SAEs, with a SciPy loop beside it.

Makes a recording of 135 SAEs × 16,384 features × 1,000 items with about 80 active features a row (heavy-tailed
densities, as real SAEs have), ranks it, and prints wall time and peak anonymous memory of each part:

    python benchmarks/rank.py --out /tmp/bench                   # final rows only
    python benchmarks/rank.py --out /tmp/bench-all --rows 20     # every row, pooled by max (216 million entries)
    python benchmarks/rank.py --out /tmp/bench --scaling         # time against features and entries
    python benchmarks/rank.py --out /tmp/bench --slow            # a per-feature SciPy loop on a sample
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.recordings import write_recording
from conceptatlas.concepts import build_concept
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.null import permute
from conceptatlas.ranking.options import RankOptions
from conceptatlas.ranking.search import Source, search
from conceptatlas.recording import Recording, SparseColumns
from conceptatlas.recording.manifest import MANIFEST_FILE

STRONG = 8


def make_columns(n_rows: int, n_features: int, l0: float, lift: np.ndarray, rng: np.random.Generator) -> SparseColumns:
    """Return random columns of heavy-tailed density; the first ``STRONG`` features rise with ``lift`` [T]."""
    density = rng.pareto(1.1, n_features) + 0.05
    density *= l0 / density.sum()
    for _ in range(8):  # a density is at most 0.9; what is cut goes to the others
        density = np.minimum(density, 0.9)
        density *= l0 / density.sum()
    counts = rng.binomial(n_rows, np.minimum(density, 0.9))
    counts[:STRONG] = 0
    parts_rows, parts_values = [], []
    for f in range(n_features):
        if f < STRONG:
            value = np.maximum(lift * (1 - f / (2 * STRONG)) + rng.normal(0, 1, n_rows), 0).astype(np.float32)
            rows = np.flatnonzero(value).astype(np.int32)
            parts_rows.append(rows)
            parts_values.append(value[rows])
            counts[f] = len(rows)
        elif counts[f]:
            rows = rng.choice(n_rows, counts[f], replace=False, shuffle=False).astype(np.int32)
            rows.sort()
            parts_rows.append(rows)
            parts_values.append(rng.gamma(2, 2, counts[f]).astype(np.float32))
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return SparseColumns(indptr, np.concatenate(parts_rows), np.concatenate(parts_values))


def make(path: Path, *, saes: int, features: int, items: int, rows: int, l0: float) -> Recording:
    """Write the recording (or open it, where it stands already). ``rows`` = 1 keeps final rows only."""
    if (path / MANIFEST_FILE).exists():
        return Recording.open(path)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, items)
    texts = [f"item {i} " + "word " * int(rng.integers(3, 30)) for i in range(items)]
    lift = np.repeat(labels, rows) * 0.8
    columns = (
        (n // 5, l0 + n % 5, make_columns(items * rows, features, l0, lift if n % 10 == 0 else lift * 0, rng))
        for n in range(saes)
    )
    return write_recording(path, build_concept("benchmark", texts, labels.tolist()), columns, rows=rows)


class Measured:
    """Wall time and the peak of anonymous memory (RssAnon: memory-mapped files are not in it) of a block."""

    def __enter__(self) -> Measured:
        self._stop = threading.Event()
        self.peak = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._begun, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begun
        self.cpu = time.process_time() - self._cpu
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.peak = max(self.peak, int(line.split()[1]) * 1024)
            self._stop.wait(0.02)

    def report(self, what: str, **more: object) -> None:
        """Print what was measured as one line of JSON."""
        figures = {
            "what": what,
            "seconds": round(self.seconds, 2),
            "cpu_seconds": round(self.cpu, 2),
            "peak_anonymous_gb": round(self.peak / 1e9, 2),
            **more,
        }
        print(json.dumps(figures), flush=True)


def whole(path: Path, rec: Recording, pool: str) -> None:
    """Measure the ranking as a user runs it: without permutations, with 1,000, and with everything."""
    from conceptatlas.ranking import rank

    nnz = sum(sae.nnz for sae in rec.saes)
    plain = {"families": False, "baselines": False, "resplits": 0}
    for what, options in (
        ("every metric, hold-out, all_features.parquet, kept features' intervals", {"permutations": 0, **plain}),
        ("the same with 1,000 permutations", {"permutations": 1000, **plain}),
        ("the same with families, stability and baselines", {"permutations": 1000}),
    ):
        with Measured() as measured:
            ranking = rank(rec, path / "rank", pool=pool, **options)
        measured.report(what, pool=pool, nnz=nnz, fired=ranking.all.height, parts=ranking.facts["seconds"])


def scaling(rec: Recording, pool: str) -> None:
    """Measure the search over growing parts of the recording: seconds against features and entries."""
    full = rec.manifest
    for share in (8, 4, 2, 1):
        part = full.model_copy(update={"saes": full.saes[: len(full.saes) // share]})
        some = Recording(rec.path, part)
        design = Design.of_items(some.items, share=0.3)
        permutations = permute(design, 1000, np.random.default_rng(0))
        for what, given in (("metrics", None), ("metrics and 1,000 permutations", permutations)):
            with Measured() as measured:
                search(Source(some, pool), design, RankOptions(), given)
            features = sum(sae.d_sae for sae in part.saes)
            nnz = sum(sae.nnz for sae in part.saes)
            measured.report(
                what, features=features, nnz=nnz, cpu_us_per_feature=round(measured.cpu / features * 1e6, 2)
            )


def slow(rec: Recording, sample: int = 2000) -> None:
    """Measure a per-feature SciPy loop on some features, and say what a million would take."""
    from scipy import stats
    from sklearn.metrics import roc_auc_score

    design = Design.of_items(rec.items, share=0.0)
    source = Source(rec, "final")
    dense = source.load(source.chunks()[0]).dense(design.n_items)[:, :sample].astype(np.float64)
    y = design.labels
    pair = (y == 0) | (y == 3)
    with Measured() as measured:
        for f in range(dense.shape[1]):
            x = dense[:, f]
            if not x.any():
                continue
            (
                stats.pearsonr(x, y),
                stats.spearmanr(x, y),
                np.percentile(x[y == 0], 95),
                roc_auc_score(y[pair] == 3, x[pair]),
            )
    measured.report("SciPy loop", features=dense.shape[1], s_per_million=round(measured.seconds / dense.shape[1] * 1e6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--saes", type=int, default=135)
    parser.add_argument("--features", type=int, default=16384)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1, help="rows per item; 1 keeps final rows only")
    parser.add_argument("--l0", type=float, default=80)
    parser.add_argument("--pool", default=None)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--slow", action="store_true")
    args = parser.parse_args()
    rec = make(args.out / "rec", saes=args.saes, features=args.features, items=args.items, rows=args.rows, l0=args.l0)
    print(json.dumps({"cores": len(os.sched_getaffinity(0)), "nnz": sum(sae.nnz for sae in rec.saes)}), flush=True)
    pool = args.pool or ("max" if args.rows > 1 else "final")
    if args.scaling:
        scaling(rec, pool)
    elif args.slow:
        slow(rec)
    else:
        whole(args.out, rec, pool)


if __name__ == "__main__":
    main()
