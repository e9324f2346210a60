"""``--keep top`` in constant memory: peak anonymous memory, time and bytes written over 250 … 4,000 sentences in small shards.

The model and SAEs of ``record.py`` (16 of 8,192 features, L0 60), 2,048 rows a shard, twenty examples a feature:

    python -m benchmarks.record_top --work /tmp/bench

Memory is counted above the loaded weights. Bytes written count everything that the process wrote, also what it removed
again, so that they tell what a summary and its folding cost.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import one_record, prepare
from benchmarks.record_parts import machine, show

SHARD_ROWS = 2048


def bytes_written() -> int:
    """Return what this process has written so far."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("wchar"):
            return int(line.split()[1])
    raise RuntimeError("no wchar in /proc/self/io")


def scaling(subject: Any, sources: list[Any], work: Path, sizes: list[int]) -> None:
    options = {"keep": "top", "hidden": "none", "shard_rows": SHARD_ROWS}
    one_record(subject, sources, sizes[0], work / "top", **options)
    walls, peaks = [], []
    for size in sizes:
        before = bytes_written()
        found = one_record(subject, sources, size, work / "top", watch=True, **options)
        written, shards = bytes_written() - before, -(-found["rows"] // SHARD_ROWS)
        walls.append(found["wall"])
        peaks.append(found["above_mb"])
        show(
            "keep top",
            sentences=size,
            rows=found["rows"],
            shards=shards,
            wall_s=round(found["wall"], 2),
            above_weights_mb=round(found["above_mb"], 1),
            written_mb_a_shard=round(written / shards / 1e6, 1),
            on_disk_mb=round(found["bytes_per_nonzero"] * found["nnz"] / 1e6, 1),
        )
    slope = np.polyfit(np.log(sizes), np.log(walls), 1)[0] if len(sizes) > 1 else float("nan")
    show("keep top, growth", slope=round(float(slope), 3), peaks_mb=[round(peak) for peak in peaks])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for model and recordings")
    parser.add_argument("--sentences", type=int, nargs="+", default=[250, 500, 1000, 2000, 4000])
    parser.add_argument("--saes", type=int, default=16, help="how many SAEs")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    show("machine", **machine())
    subject, sources = prepare(arguments.work, "cpu")
    scaling(subject, sources[: arguments.saes], arguments.work, arguments.sentences)


if __name__ == "__main__":
    main()
