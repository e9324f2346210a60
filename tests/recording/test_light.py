"""Reading a recording needs neither torch nor SAELens nor transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DATA = Path(__file__).parent.parent / "data" / "recording_v1"


def test_reading_imports_nothing_heavy():
    code = (
        "import sys; from conceptatlas.recording import Recording; "
        f"rec = Recording.open({str(DATA)!r}); rec.columns('low'); rec.hidden('embed'); rec.items; rec.rows; "
        "print([name for name in ('torch', 'sae_lens', 'transformers', 'sklearn') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
