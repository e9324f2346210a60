"""Reading a recording needs neither torch nor SAELens nor transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parent.parent / "data" / "recording_v1"


def test_reading_imports_nothing_heavy():
    code = (
        "import sys; from conceptatlas.recording import Recording; "
        f"rec = Recording.open({str(DATA)!r}); rec.columns('low'); rec.hidden('embed'); rec.items; rec.rows; "
        "print([name for name in ('torch', 'sae_lens', 'transformers', 'sklearn') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_freed_memory_goes_back_to_the_system() -> None:
    """Pieces that are too small to be given back one by one, with one behind them that is still in use."""
    code = """
from pathlib import Path
from conceptatlas.base.memory import give_back_memory
def anonymous():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line)
pieces = [bytes([1]) * 100_000 for _ in range(2_000)]
last = bytes([1]) * 100_000
del pieces
before = anonymous()
give_back_memory()
print(before - anonymous())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 150_000  # kB of 200 MB
