"""Record onto a disk of a few megabytes that fills up at a chosen stage. Run in a mount namespace of its own.

``python -m tests.recording.full_disk FOLDER MODEL SAES DATA`` mounts a tmpfs in FOLDER and writes what it saw, stage by
stage, to FOLDER/report.json.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = 8 << 20
PAGE = 4096

# Stage -> (module, function that writes it, which of its calls finds the disk full, pages that are left then).
STAGES = {
    "plan": ("recording.recorder", "write_json", 0, 0),
    "a later piece": ("recording.work", "_write_piece_file", 9, 1),
    "what says that a piece is whole": ("recording.work", "write_json", 3, 0),
    "join of an SAE": ("recording.finish", "join_columns", 1, 1),
    "join of hidden states": ("recording.finish", "join_arrays", 0, 1),
    "tables": ("recording.finish", "write_table", 1, 0),
    "run.json": ("recording.recorder", "write_run", 0, 0),
    "seal": ("base.artefact", "write_text", 1, 0),
    "manifest": ("recording.manifest", "write_text", 0, 0),
}


def fill(path: Path, pages_left: int) -> None:
    """Take the whole disk for ``path``, and give back some pages."""
    with path.open("wb", buffering=0) as handle:
        try:
            while True:
                handle.write(bytes(PAGE))
        except OSError:
            handle.truncate(max(0, handle.tell() // PAGE - pages_left) * PAGE)


def full_from(function: Callable[..., Any], ballast: Path, call: int, pages_left: int) -> Callable[..., Any]:
    """Return ``function``, which at its so-manieth call finds the disk full."""
    calls = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        if calls == call:
            fill(ballast, pages_left)
        calls += 1
        return function(*arguments, **options)

    return wrapped


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a recording but the one that says when it was made."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "run.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def main(folder: Path, model: str, saes: str, data: str) -> None:
    """Fill the disk at every stage, make space, and go on."""
    from tests.helpers.cli import invoke

    def record(out: Path) -> Any:
        return invoke("record", data, "--model", model, "--saes", saes, "--out", out, "--device", "cpu",
                      "--shard-rows", 120)  # fmt: skip

    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)], check=True)
    whole = record(folder / "whole")
    assert whole.code == 0, whole.stderr
    expected = contents(folder / "whole")
    report = {}
    for stage, (module_name, name, call, pages_left) in STAGES.items():
        module, ballast, out = importlib.import_module(f"conceptatlas.{module_name}"), disk / "ballast", disk / "rec"
        plain = getattr(module, name)
        setattr(module, name, full_from(plain, ballast, call, pages_left))
        full = record(out)
        setattr(module, name, plain)
        begun = sorted(path.name for path in out.rglob("*") if path.is_file())
        ballast.unlink()
        again = record(out)
        same = again.code == 0 and contents(out) == expected
        verified = invoke("verify", out)
        report[stage] = {
            "full": vars(full),
            "begun": begun,
            "again": vars(again),
            "same": same,
            "verify": verified.code,
        }
        subprocess.run(["rm", "-r", str(out)], check=True)
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
