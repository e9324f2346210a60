"""Compiled loops against NumPy for ranking: why the kernels are NumPy.

Times, on one SAE of 16,384 features × 1,000 items at L0 80, the two heavy steps both ways: the product with 1,000
permutations, and the sort that ranks, ties and percentiles are read from; and what compiling costs.

    python benchmarks/rank_numba.py
"""

from __future__ import annotations

import time

import numpy as np
import scipy.sparse as sp


def timed(what: str, run, repeat: int = 5) -> None:
    seconds = []
    for _ in range(repeat):
        begun = time.process_time()
        run()
        seconds.append(time.process_time() - begun)
    print(f"{what:60s} first {seconds[0] * 1e3:8.1f} ms   then {min(seconds) * 1e3:7.1f} ms CPU", flush=True)


def main() -> None:
    rng = np.random.default_rng(0)
    n, features, permutations = 1000, 16384, 1000
    x = sp.random(features, n, density=80 / features, format="csr", dtype=np.float32, rng=rng)
    y = rng.standard_normal((n, permutations)).astype(np.float32)
    labels = rng.integers(0, 4, n)
    blocks = [np.ascontiguousarray(y[:, p : p + 256]) for p in range(0, permutations, 256)]
    feature = np.repeat(np.arange(features), np.diff(x.indptr)).astype(np.uint64)

    def blocked() -> None:
        for start in range(0, features, 2048):
            rows = x[start : start + 2048]
            for block in blocks:
                (rows @ block).max(axis=0)

    def one_sort() -> None:
        keys = feature << np.uint64(35) | x.data.view(np.uint32).astype(np.uint64) << np.uint64(3)
        keys |= labels[x.indices].astype(np.uint64)
        keys.sort()

    timed("permutations: SciPy product in blocks", blocked)
    timed("ranks: one NumPy sort of packed keys", one_sort)
    begun = time.perf_counter()
    import numba

    print(f"importing numba takes {time.perf_counter() - begun:.2f} s")

    @numba.njit(fastmath=True)
    def loop_max(indptr, items, values, y, out):
        acc = np.empty(y.shape[1], np.float32)
        for f in range(len(indptr) - 1):
            acc[:] = 0
            for e in range(indptr[f], indptr[f + 1]):
                for p in range(y.shape[1]):
                    acc[p] += values[e] * y[items[e], p]
            for p in range(y.shape[1]):
                out[p] = max(out[p], acc[p])

    @numba.njit
    def loop_sort(indptr, values, out):
        for f in range(len(indptr) - 1):
            out[indptr[f] : indptr[f + 1]] = np.argsort(values[indptr[f] : indptr[f + 1]])

    out, order = np.full(permutations, -np.inf, np.float32), np.empty(x.nnz, np.int64)
    timed("permutations: compiled loop", lambda: loop_max(x.indptr, x.indices, x.data, y, out))
    timed("ranks: compiled sort column by column", lambda: loop_sort(x.indptr, x.data, order))


if __name__ == "__main__":
    main()
