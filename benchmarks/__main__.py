"""Every benchmark, one after the other: ``python -m benchmarks [--work DIR] [NAME …]``.

Each is a script of its own that prints its figures; they need a quiet machine, and the full-size ones minutes and gigabytes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Name -> module of this folder and its arguments; {work} is the work folder.
BENCHMARKS: dict[str, list[str]] = {
    "record": ["record", "--work", "{work}/record"],
    "record-scaling": ["record", "--work", "{work}/record", "--scaling", "--saes", "8"],
    "record-top": ["record_top", "--work", "{work}/record"],
    "record-full": ["record_full", "--work", "{work}/full", "--dtype", "bfloat16", "--limit"],
    "record-full-float32": ["record_full", "--work", "{work}/full", "--dtype", "float32", "--limit"],
    "effect": ["effect"],
    "label": ["label"],
    "rank": ["rank", "--out", "{work}/rank"],
    "rank-kernels": ["rank_numba"],
    "explorer": ["explorer", "{work}/rank"],
    "prompts": ["prompts"],
    "train": ["train"],
    "train-made": ["train", "--model", "made", "--width", "4096", "--k", "32", "--tokens", "16384"],
    "calibration": ["calibration"],
    "probe-sweep": ["probe_sweep"],
    "probe-organism": ["probe_organism"],
}


def main() -> int:
    """Run the benchmarks that were asked for (all of them where none is named); 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--work", type=Path, default=None, help="a folder with room for about 20 GB")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    with tempfile.TemporaryDirectory() as temporary:
        work = str((options.work or Path(temporary)).resolve())
        failed = []
        for name in options.names or BENCHMARKS:
            module, *arguments = BENCHMARKS[name]
            print(f"== {name}", flush=True)
            command = [sys.executable, "-m", f"benchmarks.{module}", *(part.format(work=work) for part in arguments)]
            if subprocess.run(command, check=False, cwd=ROOT).returncode:
                failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
