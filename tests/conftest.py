"""What every test shares: in CI a skipped test is a failure, unless it needs what CI cannot have."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Generator

import pytest

# Tests never reach for a hub; set before any library reads it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "disabled")
# Nor for the user's own cache of checksums and answers.
if "CONCEPTATLAS_CACHE" not in os.environ:
    os.environ["CONCEPTATLAS_CACHE"] = tempfile.mkdtemp(prefix="conceptatlas-tests-")
    atexit.register(shutil.rmtree, os.environ["CONCEPTATLAS_CACHE"], ignore_errors=True)

MAY_SKIP = ("gpu", "realdata")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure under CI, so that nothing goes untested unseen."""
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if skipped and os.environ.get("CI") == "true" and not any(item.get_closest_marker(name) for name in MAY_SKIP):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be: {report.longrepr}"
    return report
