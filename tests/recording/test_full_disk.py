"""A disk that is really full, at every stage of a recording: said plainly, nothing lost, the same bytes in the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tiny_saes import write_saelens
from tests.recording import full_disk

ROOT = Path(__file__).parents[2]
NAMESPACE = ["unshare", "--map-root-user", "--mount"]


def why_not(folder: Path) -> str:
    """Say why no file system can be mounted here, or nothing."""
    if shutil.which(NAMESPACE[0]) is None:
        return "there is no unshare"
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    tried = subprocess.run([*NAMESPACE, *mount], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


@pytest.fixture(scope="module")
def report(gemma_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    reason = why_not(folder)
    if reason:
        pytest.skip(f"no small disk can be mounted here: {reason}")
    for layer in (0, 2):
        write_saelens(folder / "saes" / f"layer_{layer}", d_in=32, hook=f"blocks.{layer}.hook_resid_post", seed=layer)
    lines = [f"She told him that the bag was new when it was old number {i},{i % 4}" for i in range(24)]
    (folder / "bags.csv").write_text("sentence,concept_strength_label\n" + "\n".join(lines) + "\n")
    given = [str(path) for path in (folder, gemma_path, folder / "saes", folder / "bags.csv")]
    found = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.recording.full_disk", *given],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([path for path in sys.path if path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return json.loads((folder / "report.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("stage", full_disk.STAGES)
def test_a_full_disk(report, stage):
    found = report[stage]
    assert found["full"]["code"] == 1
    assert "No space left on device" in found["full"]["stderr"]
    assert "free some space" in found["full"]["stderr"]
    assert "Traceback" not in found["full"]["stderr"]
    assert "manifest.json" not in found["begun"]
    assert found["again"]["code"] == 0, found["again"]["stderr"]
    assert found["same"]
    assert found["verify"] == 0
