"""Time of ``probe sweep`` at full size: 1,000 items x 26 layers x 2,304, logistic probes, on the cores there are.

The states are made up but shaped like a language model's: a steep spectrum, a few huge columns, a grade that emerges
from layer 8 on. Run: ``python benchmarks/probe_sweep.py [--items 1000] [--layers 26] [--width 2304]``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.helpers.recordings import write_synthetic_recording


def states(rng: np.random.Generator, grades: np.ndarray, width: int, layer: int, n_layers: int) -> np.ndarray:
    spectrum = np.arange(1, width + 1) ** -0.7
    basis, _ = np.linalg.qr(rng.normal(size=(width, 64)))
    noise = rng.normal(size=(len(grades), width)) * rng.permutation(spectrum)
    mixed = noise + (rng.normal(size=(len(grades), 64)) * 0.5) @ basis.T
    emergence = max(0.0, (layer - 0.3 * n_layers) / n_layers)
    mixed += emergence * grades[:, None] * basis[:, 0]
    mixed[:, :3] *= 300
    return mixed.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--width", type=int, default=2304)
    parser.add_argument("--workers", type=int, default=None)
    options = parser.parse_args()

    from conceptatlas.probes.sweep import sweep_probes

    rng = np.random.default_rng(0)
    grades = rng.permutation(np.arange(options.items) % 4)
    with tempfile.TemporaryDirectory() as folder:
        hidden = {
            f"blocks.{layer}.hook_resid_post": states(rng, grades, options.width, layer, options.layers)
            for layer in range(options.layers)
        }
        write_synthetic_recording(Path(folder) / "rec", {}, grades.tolist(), [1] * options.items, hidden=hidden)
        del hidden
        started, busy = time.perf_counter(), time.process_time()
        sweep = sweep_probes(Path(folder) / "rec", Path(folder) / "sweep", workers=options.workers)
        seconds = time.perf_counter() - started
        busy = time.process_time() - busy
    print(sweep.table.select("layer", "cv_mean", "test", "test_low", "test_high", "shuffled_mean"))
    print(
        json.dumps(
            {
                "items": options.items,
                "layers": options.layers,
                "width": options.width,
                "fits": options.layers * 9,
                "seconds": round(seconds, 1),
                "cpu_seconds_of_parent": round(busy, 1),
                "peak_mb_of_parent": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "cores": os.cpu_count(),
                "machine": platform.machine(),
                "notes": sweep.facts["notes"],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
