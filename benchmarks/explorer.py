"""How long the explorer's server takes: the first page, a sort, a filter, a search, and fifty readers at once.

Over any study; for the figures in the docs, over the one of 2.2 million features that benchmarks/rank.py makes:

    python benchmarks/rank.py --out /tmp/bench
    python benchmarks/explorer.py /tmp/bench
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

from conceptatlas.views import explore

SORTS = ("auroc_holdout", "pearson_corr", "p_max", "n_active")


def seconds(url: str) -> float:
    begun = time.perf_counter()
    with urlopen(url, timeout=120) as reply:
        reply.read()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    begun = time.perf_counter()
    explorer = explore(options.study)
    print(f"start of the server                 {1e3 * (time.perf_counter() - begun):8.0f} ms")
    root = f"{explorer.url}s/{quote(options.study.resolve().name)}/"
    try:
        print(f"first page of the table             {1e3 * seconds(root + 'features'):8.0f} ms")
        print(f"first page of the study             {1e3 * seconds(root):8.0f} ms")
        asked = {
            "the table again": "features",
            "page 1,000": "features?page=1000",
            **{f"sort by {name}": f"features?sort={name}" for name in SORTS},
            "filter: AUROC at least 0.8": "features?min_auroc_holdout=0.8",
            "filter: layer, range, kept": "features?layer=12&min_pearson_corr=0.1&kept=1",
            "search: an SAE's name": "features?q=layer_12",
            "search: a feature's number": "features?q=313",
        }
        for name, address in asked.items():
            first = seconds(root + address)
            times = [seconds(root + address) for _ in range(options.repeats)]
            print(f"{name:<34} {1e3 * statistics.median(times):9.0f} ms   (the first time {1e3 * first:.0f} ms)")
        begun = time.perf_counter()
        with ThreadPoolExecutor(50) as pool:
            times = list(pool.map(seconds, [root + "features?sort=auroc_holdout"] * 100))
        took = time.perf_counter() - begun
        print(f"50 readers, 100 pages               {1e3 * took:8.0f} ms   (the slowest {1e3 * max(times):.0f} ms)")
    finally:
        explorer.stop()


if __name__ == "__main__":
    main()
