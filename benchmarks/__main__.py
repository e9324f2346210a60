"""Every benchmark, one after the other: ``python -m benchmarks [--work DIR] [NAME …]``.

Each is a script of its own that prints its figures; they need a quiet machine, and the full-size ones minutes and gigabytes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

# Name -> script and arguments; {work} is the work folder.
BENCHMARKS: dict[str, list[str]] = {
    "record": ["record.py", "--work", "{work}/record"],
    "record-scaling": ["record.py", "--work", "{work}/record", "--scaling"],
    "record-full": ["record_full.py", "--work", "{work}/full"],
    "label": ["label.py"],
    "rank": ["rank.py", "--out", "{work}/rank"],
    "rank-kernels": ["rank_numba.py"],
    "explorer": ["explorer.py", "{work}/rank"],
    "prompts": ["prompts.py"],
    "probe-sweep": ["probe_sweep.py"],
    "probe-organism": ["probe_organism.py"],
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
        work = str(options.work or temporary)
        failed = []
        for name in options.names or BENCHMARKS:
            script, *arguments = BENCHMARKS[name]
            print(f"== {name}", flush=True)
            command = [sys.executable, str(HERE / script), *(part.format(work=work) for part in arguments)]
            if subprocess.run(command, check=False).returncode:
                failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
